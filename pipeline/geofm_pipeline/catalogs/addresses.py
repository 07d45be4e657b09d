"""Addresses of catalogues as they may be shown and stored: a query or a user name may be a secret."""

from __future__ import annotations

import re

_SECRETS = re.compile(r"([A-Za-z][\w+.-]*://)(?:[^/?#\s]*@)?([^?#]*)(?:[?#].*)?", re.DOTALL)
_IN_TEXT = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")


def shown(address: str) -> str:
    """An address without user, password, query and fragment; a path as it is.

    >>> shown("https://me:secret@host/items.json?token=secret#part")
    'https://host/items.json'
    """
    found = _SECRETS.fullmatch(address)
    return found[1] + found[2] if found else address


def shown_in(text: str) -> str:
    """A sentence whose addresses are :func:`shown`."""
    return _IN_TEXT.sub(lambda found: shown(found[0]), text)
