"""What a reader of stores may raise."""

from __future__ import annotations


class StoreError(ValueError):
    """A store, or a file of it, is not what the contract says; the message gives place, finding and remedy."""


class TombstoneError(StoreError):
    """A sample whose pixels could never be read from the archive; `Store.readable` leaves these out."""


class ForbiddenError(StoreError):
    """An object store or web server refuses to show something; some do so where there is nothing."""
