"""Short names for whatever a cached file depends on."""

from __future__ import annotations

import hashlib
import json

DIGITS = 20
"""Hexadecimal digits: 80 bits, so that no two inputs of a run share one by chance."""


def short_digest(value: object) -> str:
    """The first digits of the sha256 of a value's canonical JSON; what JSON does not know goes by `str`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]
