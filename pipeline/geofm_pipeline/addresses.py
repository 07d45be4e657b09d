"""Addresses as they may be shown and stored: a user name, a password or a query may be a secret.

Whatever is said, logged, kept or raised goes through here, so that nobody has to remember it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_SECRETS = re.compile(r"([A-Za-z][\w+.-]*://)(?:[^/?#\s]*@)?([^?#]*)(\?client_id=[\w-]+$)?(?:[?#].*)?", re.DOTALL)
"""The id of an application, which NASA's licence pages are asked for by, is no secret."""
_IN_TEXT = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")


def shown(address: str) -> str:
    """An address without user, password, query and fragment; a path as it is.

    >>> shown("https://me:secret@host/items.json?token=secret#part")
    'https://host/items.json'
    """
    found = _SECRETS.fullmatch(address)
    return found[1] + found[2] + (found[3] or "") if found else address


def shown_in(text: str) -> str:
    """A sentence whose addresses are :func:`shown`."""
    return _IN_TEXT.sub(lambda found: shown(found[0]), text) if "://" in text else text


def scrubbed(value: object) -> object:
    """A JSON value whose texts are :func:`shown_in`."""
    if isinstance(value, str):
        return shown_in(value)
    if isinstance(value, Mapping):
        return {key: scrubbed(part) for key, part in value.items()}
    return [scrubbed(part) for part in value] if isinstance(value, list | tuple) else value


def well_formed(address: str) -> bool:
    """Whether a text is a path, or an address whose host and port can be.

    >>> well_formed("s3://bucket/key"), well_formed("http://[x/y"), well_formed("https://host:99999/")
    (True, False, False)
    """
    try:
        parts = urlsplit(address)
        return "://" not in address or (parts.port is None or parts.port > 0)
    except ValueError:
        return False
