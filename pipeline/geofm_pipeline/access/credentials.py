"""Which NASA Earthdata credentials this process has, and until when a token is good; nothing is sent.

Looked for in this order: EARTHDATA_TOKEN, EARTHDATA_USERNAME with EARTHDATA_PASSWORD, the netrc file (NETRC, or
~/.netrc). They are the process's own, so they are read where it runs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import netrc
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from geofm_pipeline.access.faults import Fault, FetchError

Kind = Literal["token", "user", "netrc"]


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What was found to log in with; the secret itself is not in it."""

    kind: Kind
    user: str
    """'' for a token."""
    where: str
    """The variables or the file, in words."""
    fingerprint: str = field(repr=False)
    """Another one means that the secret has been replaced."""


def find_credentials(login: str) -> Credentials:
    """The credentials that this process logs in with at a login service.

    Raises
    ------
    FetchError
        LOGIN, with every place that was looked at.
    """
    token, user, password = (os.environ.get(f"EARTHDATA_{name}", "") for name in ("TOKEN", "USERNAME", "PASSWORD"))
    if token.strip():
        if not token.isascii() or not token.strip().isprintable():  # it goes into a line of the request
            raise FetchError(
                Fault.LOGIN,
                "EARTHDATA_TOKEN holds characters that no token has (a line break, a curly quote): copy it anew, in "
                "one line and without quotes",
            )
        return Credentials(kind="token", user="", where="EARTHDATA_TOKEN", fingerprint=fingerprint(token))
    if user and password:
        if "EARTHDATA_TOKEN" in os.environ:  # earthaccess would take the empty one for a token
            raise FetchError(Fault.LOGIN, "EARTHDATA_TOKEN is set but empty, which hides EARTHDATA_USERNAME: unset it")
        where = "EARTHDATA_USERNAME and EARTHDATA_PASSWORD"
        return Credentials(kind="user", user=user, where=where, fingerprint=fingerprint(user, password))
    found = _netrc_credentials(netrc_path(), urlsplit(login).hostname or "")
    if isinstance(found, Credentials):
        return found
    lacking = "EARTHDATA_PASSWORD" if user else "EARTHDATA_USERNAME" if password else ""
    half = f" ({lacking} is missing)" if lacking else ""
    empty = " (EARTHDATA_TOKEN is set but empty)" if "EARTHDATA_TOKEN" in os.environ else ""
    raise FetchError(
        Fault.LOGIN,
        "no NASA Earthdata credentials: neither EARTHDATA_TOKEN nor EARTHDATA_USERNAME with EARTHDATA_PASSWORD is set"
        f"{empty}{half}, and {found}; accounts are free at {login}/users/new, and "
        "docs/access.md says how to give one to a run",
    )


def netrc_path() -> Path:
    """The netrc file that is looked at, whether it exists or not."""
    named = os.environ.get("NETRC")
    if named:
        return Path(named)
    try:
        return Path.home() / ".netrc"
    except RuntimeError:  # containers may run as a user that has no home
        return Path("~/.netrc")


def netrc_entry(path: Path, host: str) -> tuple[str, str, str] | str:
    """(login, account, password) of a host, or in words why there is none; the words quote nothing of the file."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return f"the netrc file {path} is no file"
    try:
        entry = netrc.netrc(str(path)).hosts.get(host)
    except FileNotFoundError:
        return f"there is no netrc file {path}"
    except OSError as error:
        return f"the netrc file {path} cannot be read ({error.strerror})"
    except netrc.NetrcParseError as error:  # its message may quote a word of the file, and so the password
        return f"the netrc file {path} cannot be understood near line {error.lineno}"
    except UnicodeDecodeError:
        return f"the netrc file {path} is no text"
    if entry is None:
        return f"the netrc file {path} has no machine {host}"
    login, account, password = entry
    return login or "", account or "", password or ""


def _netrc_credentials(path: Path, host: str) -> Credentials | str:
    entry = netrc_entry(path, host)
    if isinstance(entry, str):
        return entry
    if not entry[0] or not entry[2]:
        return f"machine {host} in the netrc file {path} lacks its login or password"
    secret = fingerprint(entry[0], entry[2])
    return Credentials(kind="netrc", user=entry[0], where=f"the netrc file {path}", fingerprint=secret)


def fingerprint(*secrets: str) -> str:
    """A hash that tells whether secrets have changed, so that they need not be kept."""
    return hashlib.sha256("\0".join(secrets).encode()).hexdigest()


def looks_like_token(text: str) -> bool:
    """Whether a text has the form of an Earthdata token (a JWT): three parts by two dots, without blanks.

    >>> looks_like_token("eyJ0.eyJ1.c2ln"), looks_like_token("Bearer eyJ0.eyJ1.c2ln"), looks_like_token("secret")
    (True, False, False)
    """
    parts = text.strip().split(".")
    return len(parts) == 3 and all(parts) and len(text.split()) == 1


def token_expiry(token: str) -> datetime | None:
    """When a token says that it expires (the claim `exp` of a JWT); None where it is none."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, binascii.Error):
        return None
