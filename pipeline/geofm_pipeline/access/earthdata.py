"""NASA Earthdata login: the bearer token of this process and its temporary S3 keys. The only earthaccess user.

Every process finds its own credentials, so none of them travels; nobody is ever asked and nothing is written. A token
from the environment costs no request, user and password two, once per process. Credentials that were refused are not
tried again while they are the same: the service locks accounts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import urlsplit

from geofm_pipeline.access.answers import come_again, document, licence_refusal, said
from geofm_pipeline.access.credentials import Credentials, find_credentials, fingerprint, token_expiry
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import Response
from geofm_pipeline.access.services import Services

EARLY_S = 300.0
"""Temporary keys are renewed so long before they expire."""
_AGAIN_S = 30.0
"""Between two attempts to renew keys that are still valid."""
_LOCKED_S = 600.0
"""So long the service locks an account after several wrong passwords, and so long the same ones are not sent again."""


class Earthdata:
    """The bearer token of one process; thread-safe, and no request before the first use.

    Parameters
    ----------
    services : the login service
    clock : seconds since 1970
    """

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.time) -> None:
        self._login, self._clock, self._lock = services.earthdata_login.rstrip("/"), clock, threading.Lock()
        self._token, self._found = "", _NOTHING
        self._failed: tuple[str, float, FetchError] | None = None
        self._same = ("", "")
        """Fingerprints of a refused token and of the credentials that gave no other one."""

    def token(self) -> str:
        """A bearer token; logs in on the first call.

        Raises
        ------
        FetchError
            LOGIN with what was looked for and what is wrong; a transient fault where the service cannot be reached.
        """
        if not self._token:
            with self._lock:
                self._token = self._token or self._log_in(find_credentials(self._login))
        return self._token

    def renew(self, refused: str) -> str | None:
        """Another token after a server refused this one, None where none can be had; many threads at once log in once.

        The environment and the netrc file are read again: a mounted secret may have been replaced.

        Raises
        ------
        FetchError
            When there are other credentials than before and the login fails, or the service cannot be reached.
        """
        with self._lock:
            if self._token not in ("", refused):
                return self._token
            try:
                found = find_credentials(self._login)
            except FetchError:
                return None
            attempt = (fingerprint(refused), found.fingerprint)
            if attempt == self._same:
                return None
            token = self._log_in(found)
            if token == refused:  # one of the environment, or the service holds it for good
                self._same = attempt
                return None
            self._token = token
            return token

    def explain_refusal(self) -> str:
        """Why the present token may have been refused and what to do, in words; never the token."""
        found, until = self._found, token_expiry(self._token)
        whose = f"the token in {found.where}" if found.kind == "token" else f"the token of user {found.user!r}"
        another = f"make another one at {self._login} (Generate Token)"
        if until is None:
            return f"{whose} is no token of NASA Earthdata Login, or only a part of one; {another}"
        day = f"{until:%Y-%m-%d %H:%M} UTC"
        if until.timestamp() <= self._clock():
            return f"{whose} expired on {day}; {another}"
        return (
            f"{whose} says that it is valid until {day}, so it was revoked or is one of another login service; "
            f"revoke what is left there and {another}"
        )

    def _log_in(self, found: Credentials) -> str:
        now = self._clock()
        if self._failed and self._failed[0] == found.fingerprint and now - self._failed[1] < _LOCKED_S:
            raise FetchError(self._failed[2].fault, self._failed[2].cause)
        try:
            token = _log_in_by_earthaccess(found, self._login)
        except FetchError as error:
            if not error.transient:
                self._failed = (found.fingerprint, now, error)
            raise
        self._found = found
        return token


_NOTHING = Credentials(kind="token", user="", where="this process", fingerprint="")


def _log_in_by_earthaccess(found: Credentials, login: str) -> str:
    """The token that earthaccess finds in the environment or gets from the login service.

    earthaccess sends user and password to https://HOST only, HOST being a bare name.
    """
    import earthaccess  # not at the top: takes a quarter of a second, and most runs need no login
    import requests
    from earthaccess import exceptions, system

    parts = urlsplit(login)
    if found.kind != "token" and (parts.scheme != "https" or parts.port not in (None, 443)):
        raise FetchError(Fault.LOGIN, f"earthdata_login of the services must be https://HOST, got {login!r}")
    service = dataclasses.replace(system.PROD, edl_hostname=system.EDLHostname(parts.hostname or ""))
    # Its log repeats what the service answered; whatever matters of that is in the errors below.
    logging.getLogger("earthaccess").setLevel(logging.CRITICAL + 1)
    auth = earthaccess.Auth()
    try:
        auth.login(strategy="netrc" if found.kind == "netrc" else "environment", persist=False, system=service)
    except exceptions.LoginAttemptFailure as error:
        raise _login_refused(str(error).partition("\n")[2], found, login) from None
    except exceptions.LoginStrategyUnavailable:  # what was found is gone again, e.g. a file that is being replaced
        raise FetchError(Fault.CONNECTION, f"the credentials in {found.where} vanished during the login") from None
    except (KeyError, TypeError, ValueError):  # before RequestException: requests' JSON error is both
        raise _strange_answer(login) from None
    except requests.RequestException as error:
        raise _unreachable(error, login) from None
    token = (auth.token or {}).get("access_token", "").strip()
    if not token:
        raise _strange_answer(login)
    return token


def _login_refused(text: str, found: Credentials, login: str) -> FetchError:
    """What the login service's answer means: earthaccess tells its text, not its status."""
    who = f"user {found.user!r} with the password in {found.where}"
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):  # an error page of what stands before the service
        return FetchError(Fault.SERVER, f"{login} cannot log anybody in at the moment")
    words = " ".join(str(answer.get("error_description") or answer.get("error") or "").split())[:160]
    lower = words.lower()
    if "locked" in lower and "before being locked" not in lower:
        return FetchError(Fault.LOGIN, f"{login} has locked {who} for some minutes after wrong passwords: {words}")
    if "rate" in lower.split() or "too many requests" in lower:
        return FetchError(Fault.THROTTLED, f"{login} wants fewer logins: {words}")
    if answer.get("error") == "invalid_credentials" or "invalid user" in lower:
        advice = "it is not tried again, since the account would be locked"
        return FetchError(Fault.LOGIN, f"{login} refused {who}: wrong user name or password ({words}); {advice}")
    return FetchError(Fault.LOGIN, f"{login} refused {who}: {words or 'without a reason'}")


def _strange_answer(login: str) -> FetchError:
    return FetchError(
        Fault.HTML,
        f"{login} answered a login with something else than a token: nearly always the page of a proxy or of a network "
        "that wants a login of its own",
    )


def _unreachable(error: Exception, login: str) -> FetchError:
    from requests.exceptions import ProxyError, SSLError, Timeout

    if isinstance(error, SSLError):
        remedy = "where a proxy has an authority of its own, name its file in REQUESTS_CA_BUNDLE"
        return FetchError(Fault.REFUSED, f"the certificate of {login} cannot be trusted; {remedy}")
    if isinstance(error, Timeout):
        return FetchError(Fault.TIMEOUT, f"{login} was silent or too slow")
    proxy = " through the proxy that HTTPS_PROXY names" if isinstance(error, ProxyError) else ""
    return FetchError(Fault.CONNECTION, f"{login} cannot be reached{proxy}")


@dataclass(frozen=True, kw_only=True)
class S3Keys:
    """Temporary keys; neither printed nor pickled."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires: datetime
    """UTC."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("temporary keys stay in their process; every worker fetches its own")


class TemporaryKeys:
    """The temporary S3 keys of one process; thread-safe, one request per 55 minutes.

    Parameters
    ----------
    services : where keys are given out
    earthdata : the login that they are given for
    fetch : sends one GET with these headers and returns the answer whatever its status, following no redirect
    clock : seconds since 1970
    """

    def __init__(
        self,
        services: Services,
        earthdata: Earthdata,
        fetch: Callable[[str, Mapping[str, str]], Response],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._services, self._earthdata, self._fetch, self._clock = services, earthdata, fetch, clock
        self._lock = threading.Lock()
        self._keys: S3Keys | None = None
        self._due = 0.0

    def get(self) -> S3Keys:
        """Keys that are valid for some minutes more.

        Raises
        ------
        FetchError
            LOGIN, EXPIRED, EULA or HTML with what is wrong; transient faults of the service.
        """
        keys = self._keys
        if keys is not None and self._clock() < self._due:
            return keys
        with self._lock:
            if self._keys is None or self._clock() >= self._due:
                self._keys = self._renewed(self._keys)
            return self._keys

    def renew(self, refused: S3Keys) -> S3Keys | None:
        """Other keys after S3 refused these, None where the service gives the same again.

        Raises
        ------
        FetchError
            As :meth:`get`.
        """
        with self._lock:
            if self._keys is not None and self._keys != refused:
                return self._keys
            keys = self._asked()
            if keys == refused:
                return None
            self._keep(keys)
            return keys

    def _renewed(self, old: S3Keys | None) -> S3Keys:
        try:
            keys = self._asked()
        except FetchError as error:
            if old is None or not error.transient or self._clock() >= old.expires.timestamp():
                raise
            self._due = self._clock() + _AGAIN_S
            return old
        self._keep(keys)
        return keys

    def _keep(self, keys: S3Keys) -> None:
        # A clock that is far ahead must not make each read fetch keys of its own.
        self._keys, self._due = keys, max(keys.expires.timestamp() - EARLY_S, self._clock() + _AGAIN_S)

    def _asked(self) -> S3Keys:
        token = self._earthdata.token()
        response = self._ask(token)
        if _wants_login(response):
            other = self._earthdata.renew(token)
            response = self._ask(other) if other else response
        if _wants_login(response):
            raise FetchError(Fault.EXPIRED, f"NASA Earthdata refused the login: {self._earthdata.explain_refusal()}")
        return self._keys_of(response)

    def _ask(self, token: str) -> Response:
        return self._fetch(self._services.s3_credentials, {"Authorization": f"Bearer {token}"})

    def _keys_of(self, response: Response) -> S3Keys:
        fault = licence_refusal(response, self._services.earthdata_login) or come_again(response)
        if fault is not None:
            raise fault
        if response.status != 200:  # never MISSING, which would be said of the file
            words = f"the service that gives temporary S3 keys refused ({response.status}{said(response)})"
            raise FetchError(Fault.LOGIN if response.status in (401, 403) else Fault.REFUSED, words)
        if response.is_html:
            raise FetchError(Fault.HTML, "an HTML page instead of temporary S3 keys: nearly always a failed login")
        return _parsed_keys(document(response))


def _parsed_keys(found: Mapping[str, object]) -> S3Keys:
    access_key, secret_key, session_token = (
        str(found.get(name) or "") for name in ("accessKeyId", "secretAccessKey", "sessionToken")
    )
    try:
        until = datetime.fromisoformat(str(found.get("expiration")))
    except ValueError:
        until = None
    if until is None or not (access_key and secret_key and session_token):
        raise FetchError(Fault.LOGIN, "the answer of the service that gives temporary S3 keys holds no complete keys")
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return S3Keys(access_key=access_key, secret_key=secret_key, session_token=session_token, expires=until)


def _wants_login(response: Response) -> bool:
    """401 for an expired token; a redirect to the login page for what is no token at all."""
    return 300 <= response.status < 400 or (response.status == 401 and licence_refusal(response, "") is None)
