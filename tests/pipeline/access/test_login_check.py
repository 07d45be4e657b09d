"""Promises of `geofm-sample login-check`: each step in a line, and of each failure what is wrong and what to do."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import yaml
from nasa_fixtures import CONTENT, PROTECTED
from servers.earthdata import Nasa
from servers.loopback import Reply, Request

from geofm_pipeline import cli
from geofm_pipeline.access import region
from geofm_pipeline.access.login_check import check_login, shown
from geofm_pipeline.access.services import Services
from geofm_pipeline.access.settings import Access, Route
from geofm_pipeline.errors import ArchiveError, GeofmError, InputError, LoginError

_serial = count()
Check = Callable[..., list[str]]


@pytest.fixture
def check(hasty: Access) -> Check:
    """Runs the check on servers of a test; returns its lines."""

    def run(earth: Nasa, route: Route = "https", href: str | None = None, **clock: Callable[[], float]) -> list[str]:
        region._known.clear()
        patience = dataclasses.replace(
            hasty, services=earth.services(), route=route, stall_s=90.0 + next(_serial), timeout_s=5.0
        )
        said: list[str] = []
        check_login(patience, href=href, say=said.append, **clock)
        return said

    return run


def failure(run: Callable[[], object], kind: type[GeofmError] = LoginError) -> str:
    """The message of the error that the check ends in."""
    with pytest.raises(kind) as caught:
        run()
    return str(caught.value)


@pytest.fixture
def logged_in(earth: Nasa, logged_out: pytest.MonkeyPatch) -> Nasa:
    """A good token in the environment."""
    logged_out.setenv("EARTHDATA_TOKEN", earth.new_token())
    return earth


def test_a_good_token(logged_in: Nasa, check: Check) -> None:
    """Four lines and a conclusion; sixteen kilobytes by two requests."""
    said = check(logged_in)
    assert said[0] == "credentials: a token in EARTHDATA_TOKEN"
    assert said[1].startswith("login: the token is valid until 20")
    assert said[2] == "https: 16,384 bytes of a TIFF arrived by 2 requests, redirects included"
    assert said[3] == "s3: not tried, --access https was asked for"
    assert said[4] == "ready: protected files can be read"
    assert not any(secret in line for line in said for secret in logged_in.given)


def test_user_and_password(earth_by_name: Nasa, logged_out: pytest.MonkeyPatch, check: Check) -> None:
    """The user is named, the password is not; the login service is said to have accepted them."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", earth_by_name.users["ada"])
    said = check(earth_by_name)
    assert said[0] == "credentials: user 'ada' in EARTHDATA_USERNAME and EARTHDATA_PASSWORD"
    assert said[1].startswith("login: https://urs.earthdata.test accepted user and password and gave a token, valid")
    assert said[2].startswith("https: 16,384 bytes")
    assert earth_by_name.counts["logins"] == 1


def test_in_the_archives_region_s3_is_tried_too(logged_in: Nasa, check: Check) -> None:
    """Temporary keys and the same bytes; elsewhere S3 is not tried, and it is said why."""
    assert check(logged_in, "auto")[3] == "s3: 16,384 bytes of a TIFF arrived by 1 request, redirects included"
    logged_in.machine_region = "eu-central-1"
    assert "not in Amazon's region us-west-2" in check(logged_in, "auto")[3]


def test_s3_that_refuses_is_no_failure_where_https_serves(logged_in: Nasa, check: Check) -> None:
    """With auto the runs use https; who asked for S3 alone is told that it is the wrong region."""
    logged_in.near = False
    line = check(logged_in, "auto")[3]
    assert "region" in line
    assert line.endswith("runs use https instead")
    assert "region" in failure(lambda: check(logged_in, "s3"))


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("no credentials", "accounts are free at https://urs.earthdata.test/users/new"),
        ("expired", "expired on 20"),
        ("revoked", "revoked"),
        ("nonsense", "does not look like an Earthdata token (it should be a long text with two dots)"),
        ("cut", "is no token of NASA"),
        ("empty", "EARTHDATA_TOKEN is set but empty"),
        ("licence", "open https://urs.earthdata.test/approve_app?client_id=lpdaac in a browser"),
        ("html", "an HTML page instead of data"),
        ("outage", "try again later"),
        ("missing", "the login is good, but the file is gone"),
        ("no tiff", "not the beginning of a TIFF"),
        ("text", "a text instead of a TIFF: 'Service temporarily unavailable'"),
        ("xhtml", "an HTML page instead of data"),
        ("curly", "EARTHDATA_TOKEN holds characters that no token has"),
        ("unreachable", "compute nodes of many clusters have no way out"),
    ],
)
def test_what_is_wrong_is_said(
    logged_in: Nasa, logged_out: pytest.MonkeyPatch, check: Check, trouble: str, words: str
) -> None:
    """One sentence with the remedy, of the account or of the way to the archive; no secret in it."""
    expired = logged_in.new_token(lasts_s=-60, accepted=False)
    token = {
        "expired": expired,
        "nonsense": "nonsense",
        "cut": "cut.to.pieces",
        "empty": " ",
        "curly": "“eyJ0.eyJ1.c2ln”",
    }.get(trouble)
    href = logged_in.href(PROTECTED)
    if token is not None:
        logged_out.setenv("EARTHDATA_TOKEN", token)
    match trouble:
        case "no credentials":
            logged_out.delenv("EARTHDATA_TOKEN")
        case "revoked":
            logged_in.expire_tokens()
        case "licence":
            logged_in.licence_accepted = False
        case "html":
            logged_in.html = True
        case "outage":
            logged_in.before = lambda role, request: Reply(status=503)
        case "missing":
            href = logged_in.href("gone.tif")
        case "no tiff":
            (logged_in.folder / "lp-prod-protected" / PROTECTED).write_bytes(b"PK\x03\x04" * 9000)
        case "text":
            logged_in.before = _instead(Reply(body=b"Service temporarily unavailable\n"))
        case "xhtml":
            page = b"\xef\xbb\xbf<!-- gateway -->\n<html>please wait</html>"
            logged_in.before = _instead(Reply(body=page, headers={"Content-Type": "Text/HTML"}))
        case "unreachable":
            logged_in.before = lambda role, request: Reply(reset=True)
    kind = ArchiveError if trouble in ("outage", "missing", "no tiff", "unreachable", "text") else LoginError
    said = failure(lambda: check(logged_in, href=f"{href}?secret=hidden"), kind)
    assert words in said
    assert "HTTPS_PROXY names" not in said
    if trouble == "nonsense":
        assert not any(server.log for server in logged_in.servers.values())
    assert "clock" not in said
    assert not any(secret in said for secret in [*logged_in.given, "hidden"])


def _instead(reply: Reply) -> Callable[[str, Request], Reply | None]:
    """What the CDN answers in place of a file."""
    return lambda role, request: reply if role == "cdn" else None


@pytest.mark.parametrize("href", ["https://host:99999/x", "http://[x/y", "nonsense", "ftp://host/x"])
def test_what_is_no_address_is_refused(earth: Nasa, check: Check, href: str) -> None:
    """An option that cannot be right, whatever is wrong with it."""
    assert "is neither an address nor a file" in failure(lambda: check(earth, href=href), InputError)


def test_a_wrong_password(earth_by_name: Nasa, logged_out: pytest.MonkeyPatch, check: Check) -> None:
    """Said as such, after one try."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", "wr0ng-Secret")
    said = failure(lambda: check(earth_by_name))
    assert "wrong user name or password" in said
    assert "wr0ng-Secret" not in said
    assert earth_by_name.counts["wrong passwords"] == 1


def test_a_wrong_clock_is_noticed(logged_in: Nasa, check: Check) -> None:
    """Where a refusal may come from this machine's clock, the clock is compared with the server's."""
    logged_in.expire_tokens()
    said = failure(lambda: check(logged_in, clock=lambda: time.time() + 7200))
    assert said.endswith("this machine's clock is 2 h 00 min fast: set it first")
    logged_in.ahead_s = 86_430
    assert "24 h 00 min slow" in failure(lambda: check(logged_in))


def test_a_file_that_needs_no_login(tmp_path: Path, check: Check, logged_in: Nasa) -> None:
    """Nobody is asked for credentials, and nothing is said of a login but that none is needed."""
    (tmp_path / "a.tif").write_bytes(CONTENT)
    said = check(logged_in, href=str(tmp_path / "a.tif"))
    assert said[0].endswith("a.tif needs no NASA Earthdata login, so only its read is checked")
    assert said[1].startswith("read: 16,384 bytes of a TIFF")
    assert said[-1] == "ready: this file can be read"
    gone = failure(lambda: check(logged_in, href=f"{logged_in.urls['cdn']}/gone.tif"), GeofmError)
    assert "the login is good" not in gone


@pytest.mark.parametrize("href", ["nonsense", "", "https://", "ftp://host/a.tif", "absent/a.tif"])
def test_what_is_neither_address_nor_file_is_refused(check: Check, logged_in: Nasa, href: str) -> None:
    """Before anything is asked, with what is expected."""
    said = failure(lambda: check(logged_in, href=href), InputError)
    assert f"--href {href} is neither an address nor a file that is there" in said
    assert "https://HOST/" in said
    assert not any(server.log for server in logged_in.servers.values())


def test_a_proxy_that_does_not_answer_is_suspected(
    check: Check, logged_in: Nasa, logged_out: pytest.MonkeyPatch
) -> None:
    """By the name of its variable, whose value may hold a password."""
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        logged_out.delenv(name, raising=False)
    logged_out.setenv("HTTPS_PROXY", "http://ada:planted@127.0.0.1:9")
    said = failure(lambda: check(logged_in, href="https://files.test/a.tif"), ArchiveError)
    assert "the proxy that HTTPS_PROXY names may be what does not answer" in said
    assert "planted" not in said
    logged_out.setenv("NO_PROXY", "files.test")
    assert "HTTPS_PROXY names" not in failure(lambda: check(logged_in, href="https://files.test/a.tif"), ArchiveError)


def test_the_command(
    logged_in: Nasa, logged_out: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`login-check` ends with 0 when all is well, with 9 and the reason when not; its lines go to stderr."""
    fields = dataclasses.asdict(logged_in.services())
    kept = ("earthdata_login", "earthdata_hosts", "s3_credentials", "earthdata_s3", "instance_metadata", "probe")
    found = {name: list(v) if isinstance(v := fields[name], tuple) else v for name in kept}
    file = tmp_path / "services.yaml"
    file.write_text(yaml.safe_dump(found))
    words = ["login-check", "--services", str(file), "--access", "https"]
    assert cli.run(words) == 0
    assert "ready: protected files can be read" in capsys.readouterr().err
    logged_in.expire_tokens()
    logged_in.expire_addresses()  # this process has kept one
    assert cli.run(words) == 9
    out, err = capsys.readouterr()
    assert "geofm-sample: " in err
    assert "revoked" in err
    assert out == ""
    assert cli.run([*words, "--href", "nonsense"]) == 2
    assert cli.run([*words, "--href", "http://127.0.0.1:9/a.tif"]) == 4
    assert os.environ["EARTHDATA_TOKEN"] not in err


def test_addresses_are_shown_without_what_may_be_secret() -> None:
    """No user, password, query or fragment."""
    assert shown("https://ada:pw@host:8/a/b.tif?sig=x#y") == "https://host:8/a/b.tif"
    assert shown("s3://bucket/key.tif") == "s3://bucket/key.tif"
    assert shown("/data/a.tif") == "/data/a.tif"


def test_the_default_file_is_a_protected_one() -> None:
    """The probe needs the login that it is to check."""
    services = Services()
    assert any(services.probe.startswith(f"https://{host}/") for host in services.earthdata_hosts)
