"""Promises of the NASA Earthdata login: found where it may be, renewed once for all, never shown, never asked for."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servers.earthdata import NAMES, Nasa
from servers.loopback import Reply, json_reply

from geofm_pipeline.access.credentials import find_credentials, token_expiry
from geofm_pipeline.access.earthdata import EARLY_S, Earthdata, TemporaryKeys
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import HttpClient, Response
from geofm_pipeline.access.services import Services
from geofm_pipeline.access.settings import Access

PASSWORD = "pass word/1815"


def refused(fault: Fault, call: object) -> str:
    """The words of the FetchError of this kind that a call ends in."""
    assert callable(call)
    with pytest.raises(FetchError) as caught:
        call()
    assert caught.value.fault == fault, caught.value
    return str(caught.value)


def write_netrc(path: Path, password: str = PASSWORD, *, user: str = "ada", host: str = NAMES["login"]) -> None:
    path.write_text(f'machine {host}\nlogin {user}\npassword "{password}"\n')
    path.chmod(0o600)


# --- credentials


def test_a_token_of_the_environment_wins_and_costs_no_request(
    earth_by_name: Nasa, logged_out: pytest.MonkeyPatch
) -> None:
    """EARTHDATA_TOKEN goes before user and password, its blanks are cut off, and nobody is asked about it."""
    token = earth_by_name.new_token()
    logged_out.setenv("EARTHDATA_TOKEN", f"{token}\n")
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", PASSWORD)
    login = Earthdata(earth_by_name.services())
    assert login.token() == token
    assert earth_by_name.servers["login"].log == []


def test_user_and_password_get_a_token_by_one_login(earth_by_name: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """The login service's token is taken; many threads that need it at once log in once."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", PASSWORD)
    login = Earthdata(earth_by_name.services())
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: login.token(), range(64)))
    assert tokens == earth_by_name.tokens
    assert earth_by_name.counts["logins"] == 1


def test_the_netrc_file_is_looked_at_last(earth_by_name: Nasa, tmp_path: Path) -> None:
    """NETRC names the file; its entry of the login service's host is used, by one login in two requests, since
    earthaccess and requests below it both send what they find there."""
    write_netrc(tmp_path / "netrc")
    found = find_credentials(earth_by_name.login_url)
    assert (found.kind, found.user) == ("netrc", "ada")
    assert Earthdata(earth_by_name.services()).token() in earth_by_name.tokens
    assert len(earth_by_name.servers["login"].log) == 2


def test_without_credentials_every_place_is_named(earth: Nasa, tmp_path: Path) -> None:
    """Who has none is told where they were looked for and where accounts are to be had; no request is sent."""
    words = refused(Fault.LOGIN, Earthdata(earth.services()).token)
    for part in ("EARTHDATA_TOKEN", "EARTHDATA_USERNAME", f"no netrc file {tmp_path / 'netrc'}", "/users/new"):
        assert part in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("machine other.test\nlogin ada\npassword secret1\n", "has no machine urs.earthdata.test"),
        ("machine urs.earthdata.test\npassword secret1\n", "lacks its login or password"),
        ("machine urs.earthdata.test\nlogin ada\n", "lacks its login or password"),
        ("machine urs.earthdata.test\nlogin ada\npasword secret1\n", "cannot be understood near line"),
        ("\udcff\udcfe", "is no text"),
    ],
)
def test_what_is_wrong_with_a_netrc_file_is_said(earth: Nasa, tmp_path: Path, text: str, words: str) -> None:
    """The file, what it lacks, and not a word of what stands in it."""
    (tmp_path / "netrc").write_bytes(text.encode(errors="surrogateescape"))
    said = refused(Fault.LOGIN, Earthdata(earth.services()).token)
    assert words in said
    assert "secret1" not in said


def test_half_a_pair_and_an_empty_token_are_named(earth: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """A user without a password, and an empty token that hides a user, are mistakes that are told."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    assert "(EARTHDATA_PASSWORD is missing)" in refused(Fault.LOGIN, Earthdata(earth.services()).token)
    logged_out.setenv("EARTHDATA_PASSWORD", PASSWORD)
    logged_out.setenv("EARTHDATA_TOKEN", "")
    assert "EARTHDATA_TOKEN is set but empty" in refused(Fault.LOGIN, Earthdata(earth.services()).token)


# --- logins that fail


@pytest.fixture
def wrong(logged_out: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A wrong password in the environment."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", "wr0ng-Secret")
    return logged_out


def test_a_wrong_password_is_said_and_not_sent_again(earth_by_name: Nasa, wrong: pytest.MonkeyPatch) -> None:
    """The account would be locked: the same password is tried once, another one at once."""
    login = Earthdata(earth_by_name.services())
    for _ in range(3):
        words = refused(Fault.LOGIN, login.token)
        assert "wrong user name or password" in words
        assert "'ada'" in words
        assert "wr0ng-Secret" not in words
    assert earth_by_name.counts["wrong passwords"] == 1
    wrong.setenv("EARTHDATA_PASSWORD", PASSWORD)
    assert login.token() in earth_by_name.tokens


def test_a_locked_account_is_said(earth_by_name: Nasa, wrong: pytest.MonkeyPatch) -> None:
    """A lock is another thing than a wrong password."""
    earth_by_name.locked = True
    assert "has locked user 'ada'" in refused(Fault.LOGIN, Earthdata(earth_by_name.services()).token)


@pytest.mark.parametrize(
    ("reply", "fault", "words"),
    [
        (Reply(status=503, body=b"<html>down</html>"), Fault.SERVER, "at the moment"),
        (json_reply({"error": "rate limit exceeded"}, 429), Fault.THROTTLED, "fewer logins"),
        (json_reply({"error": "invalid_request"}, 400), Fault.LOGIN, "invalid_request"),
        (Reply(body=b"<html>Hotel network</html>"), Fault.HTML, "proxy or of a network"),
        (json_reply({"expiration_date": "01/01/2030"}), Fault.HTML, "something else than a token"),
        (json_reply(["no"]), Fault.HTML, "something else than a token"),
        (Reply(reset=True), Fault.CONNECTION, "cannot be reached"),
    ],
)
def test_a_login_service_in_trouble(
    earth_by_name: Nasa, wrong: pytest.MonkeyPatch, reply: Reply, fault: Fault, words: str
) -> None:
    """An outage, a limit, a strange answer, a dead connection: each is its own fault, and none says `password`."""
    earth_by_name.before = lambda role, request: reply if role == "login" else None
    said = refused(fault, Earthdata(earth_by_name.services()).token)
    assert words in said
    assert "wrong user name" not in said


def test_a_login_service_that_cannot_be_reached(earth_by_name: Nasa, wrong: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No host behind the proxy: a lost connection that names the proxy; a strange certificate: refused, with what to
    set; when the service is back the login goes on, as a transient fault is not remembered."""
    services = earth_by_name.services()
    wrong.setenv("EARTHDATA_PASSWORD", PASSWORD)
    lost = Services(earthdata_login="https://nowhere.test")
    assert "through the proxy" in refused(Fault.CONNECTION, Earthdata(lost).token)
    login = Earthdata(services)
    trusted = tmp_path / "objects" / "authority.pem"
    wrong.delenv("REQUESTS_CA_BUNDLE")
    assert "REQUESTS_CA_BUNDLE" in refused(Fault.REFUSED, login.token)
    wrong.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    assert Earthdata(services).token() in earth_by_name.tokens


def test_an_address_that_earthaccess_cannot_log_in_at_is_said(earth: Nasa, wrong: pytest.MonkeyPatch) -> None:
    """User and password go to https://HOST only."""
    words = refused(Fault.LOGIN, Earthdata(Services(earthdata_login="http://localhost:8080")).token)
    assert "must be https://HOST" in words


def test_nothing_is_logged_or_printed(
    earth_by_name: Nasa, wrong: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """earthaccess keeps silent, also about what the service answered."""
    caplog.set_level(logging.DEBUG)
    refused(Fault.LOGIN, Earthdata(earth_by_name.services()).token)
    wrong.setenv("EARTHDATA_PASSWORD", PASSWORD)
    Earthdata(earth_by_name.services()).token()
    assert [record for record in caplog.records if record.name.startswith("earthaccess")] == []
    assert "credentials" not in caplog.text
    assert capfd.readouterr() == ("", "")


# --- renewal


def test_a_refused_token_is_renewed_once_for_all_threads(earth_by_name: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """Thirty-two threads that were refused at once log in once and get the same new token."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", PASSWORD)
    login = Earthdata(earth_by_name.services())
    old = login.token()
    earth_by_name.expire_tokens()
    with ThreadPoolExecutor(32) as pool:
        renewed = set(pool.map(lambda _: login.renew(old), range(32)))
    assert renewed == earth_by_name.tokens
    assert login.token() in renewed
    assert earth_by_name.counts["logins"] == 2


def test_a_token_that_cannot_be_replaced_is_said_once(earth_by_name: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """The service gives the refused token again: None, and it is not asked a second time by any thread."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", PASSWORD)
    login = Earthdata(earth_by_name.services())
    old = login.token()
    earth_by_name.expire_tokens()
    earth_by_name.same_token = True
    assert [login.renew(old) for _ in range(5)] == [None] * 5
    assert earth_by_name.counts["logins"] == 2
    assert "revoke" in login.explain_refusal()


def test_credentials_that_were_replaced_are_read_again(earth_by_name: Nasa, tmp_path: Path) -> None:
    """A mounted netrc file with a new password, and a new token in the environment, are used after a refusal."""
    write_netrc(tmp_path / "netrc")
    login = Earthdata(earth_by_name.services())
    old = login.token()
    earth_by_name.expire_tokens()
    earth_by_name.users["ada"] = "rotated"
    assert "wrong user name or password" in refused(Fault.LOGIN, lambda: login.renew(old))
    write_netrc(tmp_path / "netrc", "rotated")
    assert login.renew(old) in earth_by_name.tokens


def test_a_token_of_the_environment_is_replaced_by_another_one_only(
    earth: Nasa, logged_out: pytest.MonkeyPatch
) -> None:
    """There is nobody to ask for another one, but a new value is found."""
    logged_out.setenv("EARTHDATA_TOKEN", first := earth.new_token())
    login = Earthdata(earth.services())
    login.token()
    assert login.renew(first) is None
    logged_out.setenv("EARTHDATA_TOKEN", second := earth.new_token())
    assert login.renew(first) == second
    logged_out.delenv("EARTHDATA_TOKEN")
    assert login.renew(second) is None


def test_why_a_token_was_refused(earth: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """Expired with its date; revoked; or no token at all; and never the token."""
    expired = earth.new_token(lasts_s=-86_400)
    for token, words in [(expired, "expired on 20"), (earth.new_token(), "revoked"), ("s3cret", "is no token of NASA")]:
        logged_out.setenv("EARTHDATA_TOKEN", token)
        login = Earthdata(earth.services())
        login.token()
        said = login.explain_refusal()
        assert words in said
        assert "Generate Token" in said
        assert token not in said


def test_the_date_in_a_token(earth: Nasa) -> None:
    """`exp` of a JWT, in UTC; None for what is none."""
    token = earth.new_token(lasts_s=3600)
    until = token_expiry(token)
    assert until is not None
    assert abs((until - datetime.now(UTC)).total_seconds() - 3600) < 60
    assert [token_expiry(text) for text in ("", "a.b.c", "a.e30.c", "x" * 50, token[:40])] == [None] * 5


# --- temporary keys


class Clock:
    """Seconds since 1970 that a test moves."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.ahead_s = ahead_s

    def __call__(self) -> float:
        return datetime.now(UTC).timestamp() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    """The present, for now."""
    return Clock()


@pytest.fixture
def keeper(earth: Nasa, logged_out: pytest.MonkeyPatch, clock: Clock) -> TemporaryKeys:
    """Keys for a good token, on the test's clock."""
    logged_out.setenv("EARTHDATA_TOKEN", earth.new_token())
    services, client = earth.services(), HttpClient(Access())

    def fetch(url: str, headers: Mapping[str, str]) -> Response:
        return client.get(url, headers={"User-Agent": "geofm", **headers}, span=None)

    return TemporaryKeys(services, Earthdata(services), fetch, clock=clock)


def test_keys_are_fetched_once_and_again_before_they_expire(earth: Nasa, keeper: TemporaryKeys, clock: Clock) -> None:
    """One request for many threads; another one five minutes before the hour is over."""
    with ThreadPoolExecutor(16) as pool:
        assert len({keys.access_key for keys in pool.map(lambda _: keeper.get(), range(64))}) == 1
    clock.ahead_s = 3600 - EARLY_S - 30
    first = keeper.get()
    assert earth.counts["keys"] == 1
    clock.ahead_s = earth.ahead_s = 3600 - EARLY_S + 30
    second = keeper.get()
    assert second != first
    assert second.expires > first.expires
    assert earth.counts["keys"] == 2


def test_keys_that_are_still_valid_outlive_an_outage(earth: Nasa, keeper: TemporaryKeys, clock: Clock) -> None:
    """A service that fails while it is early yet does no harm; once the keys are over it does."""
    first = keeper.get()
    earth.before = lambda role, request: Reply(status=503) if role == "distribution" else None
    clock.ahead_s = 3600 - EARLY_S + 30
    assert keeper.get() == first
    assert keeper.get() == first
    assert len(earth.servers["distribution"].log) == 2  # the second attempt waits
    clock.ahead_s = 3601
    assert "503" in refused(Fault.SERVER, keeper.get)


def test_a_clock_that_is_ahead_does_not_fetch_keys_for_every_read(
    earth: Nasa, keeper: TemporaryKeys, clock: Clock
) -> None:
    """Keys that seem to have expired on arrival are used nevertheless: S3 says whether they are good."""
    clock.ahead_s = 10_000
    for _ in range(20):
        keeper.get()
    assert earth.counts["keys"] == 1


def test_refused_keys_are_replaced_once_for_all_threads(earth: Nasa, keeper: TemporaryKeys) -> None:
    """Many threads whose keys S3 refused get the same other ones by one request."""
    old = keeper.get()
    with ThreadPoolExecutor(16) as pool:
        renewed = {keys.access_key for keys in pool.map(lambda _: keeper.renew(old), range(32)) if keys is not None}
    assert len(renewed) == 1
    assert old.access_key not in renewed
    assert earth.counts["keys"] == 2


def test_the_same_keys_again_are_none(earth: Nasa, keeper: TemporaryKeys) -> None:
    """A service that remembers the refused keys has no other ones."""
    found = {"accessKeyId": "A", "secretAccessKey": "B", "sessionToken": "C", "expiration": "2100-01-27 00:50:09+00:00"}
    earth.before = lambda role, request: json_reply(found)
    keys = keeper.get()
    assert keys.expires == datetime(2100, 1, 27, 0, 50, 9, tzinfo=UTC)
    assert keeper.renew(keys) is None


def test_an_expired_token_is_renewed_for_keys(earth_by_name: Nasa, logged_out: pytest.MonkeyPatch) -> None:
    """401 for the token: a login, and the keys are there."""
    logged_out.setenv("EARTHDATA_USERNAME", "ada")
    logged_out.setenv("EARTHDATA_PASSWORD", PASSWORD)
    services, client = earth_by_name.services(), HttpClient(Access())
    login = Earthdata(services)
    keeper = TemporaryKeys(services, login, lambda url, headers: client.get(url, headers=headers, span=None))
    login.token()
    earth_by_name.expire_tokens()
    assert keeper.get().access_key
    assert earth_by_name.counts["logins"] == 2


@pytest.mark.parametrize(
    ("trouble", "fault", "words"),
    [
        ("expired", Fault.EXPIRED, "revoked"),
        ("no token", Fault.EXPIRED, "is no token of NASA"),
        ("licence", Fault.EULA, "https://urs.earthdata.test/approve_app?client_id=lpdaac"),
        ("html", Fault.HTML, "HTML page instead of temporary S3 keys"),
        ("missing", Fault.REFUSED, "404"),
        ("group", Fault.LOGIN, "403"),
        ("half", Fault.LOGIN, "no complete keys"),
        ("undated", Fault.LOGIN, "no complete keys"),
        ("429", Fault.THROTTLED, "429"),
    ],
)
def test_what_may_go_wrong_with_keys(
    earth: Nasa, keeper: TemporaryKeys, logged_out: pytest.MonkeyPatch, trouble: str, fault: Fault, words: str
) -> None:
    """Each trouble has its words, and none is ever taken for a missing file."""
    answers = {
        "missing": Reply(status=404),
        "group": Reply(status=403, body=b"<html>You do not have permission</html>"),
        "half": json_reply({"accessKeyId": "A", "expiration": "2100-01-27 00:50:09+00:00"}),
        "undated": json_reply({"accessKeyId": "A", "secretAccessKey": "B", "sessionToken": "C", "expiration": "soon"}),
        "429": Reply(status=429, headers={"Retry-After": "7"}),
    }
    earth.before = lambda role, request: answers.get(trouble)
    earth.html, earth.licence_accepted = trouble == "html", trouble != "licence"
    if trouble == "expired":
        earth.expire_tokens()
    if trouble == "no token":
        logged_out.setenv("EARTHDATA_TOKEN", "abc")
    assert words in refused(fault, keeper.get)


def test_keys_are_neither_shown_nor_pickled(keeper: TemporaryKeys) -> None:
    """Their repr has the time of expiry only, and they refuse to travel."""
    keys = keeper.get()
    assert keys.secret_key not in repr(keys)
    assert keys.session_token not in repr(keys)
    assert keys.access_key not in repr(keys)
    with pytest.raises(TypeError, match="stay in their process"):
        pickle.dumps(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keeper)
