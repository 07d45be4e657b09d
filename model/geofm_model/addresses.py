"""Addresses as they may be shown: a user name, a password or a query may be a secret."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"([A-Za-z][\w+.-]*://)(?:[^/?#\s'\"<>]*@)?([^?#\s'\"<>,\]]*)[?#]?[^\s'\"<>,\]]*")


def shown_in(text: str) -> str:
    """A sentence, or an address, whose addresses have lost user, password, query and fragment.

    >>> shown_in("https://me:secret@host/out?token=secret is not there, nor [s3://b/x?k=1,/data/a?b]")
    'https://host/out is not there, nor [s3://b/x,/data/a?b]'
    """
    return _ADDRESS.sub(r"\1\2", text) if "://" in text else text
