"""Addresses as they may be shown: a user name, a password or a query may be a secret."""

from __future__ import annotations

import re

_SCHEME = r"[A-Za-z][\w+.-]*://"
_NEXT = rf"(?:,\s*{_SCHEME})"
"""Where the next address of a list begins; a comma alone may stand in a path or a query."""
_ADDRESS = re.compile(rf"({_SCHEME})(?:[^/?#]*@)?([^?#]*)(?:[?#].*)?", re.DOTALL)
_IN_TEXT = re.compile(
    rf"({_SCHEME})(?:[^/?#\s\"<>]*@)?((?:(?!{_NEXT})[^?#\s\"<>])*)"
    rf"(?:[?#](?:(?!{_NEXT})[^\s\"<>])*?(?=[\]'),;:.]*(?:[\s\"<>]|$|{_NEXT})))?"
)


def shown(address: str) -> str:
    """An address without user, password, query and fragment; a path as it is.

    >>> shown("https://me:secret@host/a,b?k=1, 2&token=secret")
    'https://host/a,b'
    """
    found = _ADDRESS.fullmatch(address)
    return found[1] + found[2] if found else address


def shown_in(text: str) -> str:
    """A sentence whose addresses are :func:`shown`, as far as one can tell where they end: at a space or a quote.

    >>> shown_in("https://me:secret@host/out?token=1,secret is not there, nor ['s3://b/x?k=1,http://h/y?sig=2'].")
    "https://host/out is not there, nor ['s3://b/x,http://h/y']."
    """
    return _IN_TEXT.sub(r"\1\2", text) if "://" in text else text
