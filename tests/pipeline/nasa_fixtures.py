"""NASA's servers with one small file, and an environment that holds no credentials but a test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.earthdata import BUCKET, Nasa, nasa, nasa_by_name

PROTECTED = "HLSS30.020/G/G.B04.tif"
CONTENT = b"II*\0" + os.urandom(40_000)
_VARIABLES = (
    *(f"EARTHDATA_{name}" for name in ("TOKEN", "USERNAME", "PASSWORD")),
    *(f"AWS_{name}" for name in ("REGION", "DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")),
    "EARTHDATAHUB_TOKEN",
)


@pytest.fixture
def logged_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No credentials anywhere; the returned monkeypatch sets a test's own."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    """A folder with one object."""
    file = tmp_path / "objects" / BUCKET / PROTECTED
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    return tmp_path / "objects"


@pytest.fixture
def earth(logged_out: pytest.MonkeyPatch, protected: Path) -> Iterator[Nasa]:
    """NASA's servers over plain http, for tokens; nobody is logged in yet."""
    with nasa(protected) as state:
        yield state


@pytest.fixture
def earth_by_name(logged_out: pytest.MonkeyPatch, protected: Path) -> Iterator[Nasa]:
    """NASA's servers over TLS by name through a proxy, for user and password; nobody is logged in yet."""
    with nasa_by_name(protected, logged_out.setenv) as state:
        yield state
