"""NASA's side of a protected read: login service (EDL), LP DAAC's distribution, its CDN, S3, and an Amazon machine.

What it imitates, and where that is known from (TEA: asfadmin/thin-egress-app 519d87d with rain-api-core aa9ec66;
earthaccess: 0.17.0, its tests and issues; seen: reports of users of LP DAAC; AWS: Amazon's documentation):

- EDL `find_or_create_token` answers Basic only, with `access_token` and `expiration_date` MM/DD/YYYY; a wrong password
  is 401 `invalid_credentials`, several lock the account; earthaccess asks without a login first (earthaccess
  #453, #1121)
- a file asked for with a good token: 303 without body to a signed address of the CDN, good for most of an hour, with
  Cache-Control max-age (TEA); CloudFront's form of signature (seen) or S3's (TEA)
- no Authorization, Basic, or a bearer that is no JWT with a `uid`: 302 to EDL's authorize page, with `app_type=401`
  for user agents other than Mozilla; that page is HTML with 200, with `app_type=401` it is 401 (TEA)
- one word in Authorization: 400 JSON; an expired or revoked JWT: 401 and EDL's JSON (TEA); licence not accepted: 403
  JSON with `error_description` and `resolution_url` (TEA, seen); a missing object: 404 as an HTML page (TEA)
- the CDN refuses a request that still carries Authorization with 400, and an expired address with 403 XML (AWS, seen)
- /s3credentials: JSON with `expiration` as `2021-01-27 00:50:09+00:00` (TEA)
- S3: SigV4 checked by botocore's signer; expired keys 400 ExpiredToken, from outside the region 403 AccessDenied even
  with good keys, a missing key 404 NoSuchKey (AWS, LP DAAC's staff in EMIT-Data-Resources #50)
- IMDSv2: PUT for a session token, 401 without it (AWS)

Not imitated: HEAD, cookies, the minute for which TEA remembers an answer about a token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Literal

from geofm_pipeline.access.services import Bucket, Services
from servers.loopback import App, Loopback, Reply, Request, json_reply, ranged, serving
from servers.s3 import signed_by, xml_error

REGION = "us-west-2"
BUCKET = "lp-prod-protected"
_SECRET = b"known to the servers only"
LOGIN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Earthdata Login</title></head><body><form>Username</form></body></html>"
)


@dataclass(eq=False)
class Nasa:
    """The servers' state, and the knobs of a test."""

    folder: Path
    """{folder}/{bucket}/{key} are the objects."""
    users: dict[str, str] = field(default_factory=lambda: {"ada": "pass word/1815"})
    licence_accepted: bool = True
    near: bool = True
    """Callers of S3 stand in its region."""
    machine_region: str | None = REGION
    """What the metadata service says; None: it is not there."""
    html: bool = False
    """The distribution answers everything with a login page and 200."""
    signature: Literal["cloudfront", "s3"] = "cloudfront"
    token_s: float = 60 * 86_400.0
    address_s: float = 3600.0
    keys_s: float = 3600.0
    """Lifetimes of what is given out from now on."""
    ahead_s: float = 0.0
    """How far the servers' clock is ahead."""
    same_token: bool = False
    """EDL finds a token that the distribution no longer takes, instead of creating one."""
    locked: bool = False
    before: Callable[[str, Request], Reply | None] = lambda role, request: None
    """Answers instead of a server where it returns something: faults, outages."""
    counts: Counter[str] = field(default_factory=Counter)
    """`logins`, `wrong passwords`, `redirects`, `reads` of the CDN, `keys`, `s3 reads`, `questions` to the machine."""
    tokens: set[str] = field(default_factory=set)
    """Tokens that are accepted."""
    given: list[str] = field(default_factory=list)
    """Every secret that was given out: tokens, keys, signatures."""
    _keys: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    _latest: str = ""
    _era: int = 0
    login_url: str = "https://urs.earthdata.test"
    urls: dict[str, str] = field(default_factory=dict)
    """Role → address."""
    servers: dict[str, Loopback] = field(default_factory=dict)

    # --- knobs

    def now(self) -> float:
        """The servers' clock, seconds since 1970."""
        return time.time() + self.ahead_s

    def new_token(self, user: str = "ada", *, lasts_s: float | None = None, accepted: bool = True) -> str:
        """A token as EDL makes them; one that has expired where `lasts_s` is negative."""
        expires = int(self.now() + (self.token_s if lasts_s is None else lasts_s))
        claims = {"type": "User", "uid": user, "exp": expires, "iat": int(self.now()), "number": len(self.given)}
        head = _base64(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
        body = f"{head}.{_base64(json.dumps(claims).encode())}"
        token = f"{body}.{_base64(hmac.digest(_SECRET, body.encode(), 'sha256'))}"
        self.given.append(token)
        if accepted:
            self.tokens.add(token)
            self._latest = token
        return token

    def expire_tokens(self) -> None:
        """No token given out so far is accepted any more."""
        self.tokens.clear()

    def expire_addresses(self) -> None:
        """No signed address given out so far is served any more."""
        self._era += 1

    def expire_keys(self) -> None:
        """No temporary keys given out so far are accepted any more."""
        self._keys = {name: (secret, token, 0.0) for name, (secret, token, _) in self._keys.items()}

    def href(self, key: str) -> str:
        """Protected address of an object."""
        return f"{self.urls['distribution']}/{BUCKET}/{key}"

    def services(self) -> Services:
        """Where these servers are."""
        distribution = self.urls["distribution"]
        found = sorted((self.folder / BUCKET).rglob("*.tif")) if (self.folder / BUCKET).is_dir() else []
        probe = found[0].relative_to(self.folder / BUCKET).as_posix() if found else "none.tif"
        return Services(
            earthdata_login=self.login_url,
            earthdata_hosts=(distribution.partition("://")[2],),
            s3_credentials=f"{distribution}/s3credentials",
            earthdata_s3={f"{distribution}/lp-prod-": "s3://lp-prod-"},
            instance_metadata=self.urls["machine"],
            buckets={BUCKET: Bucket(region=REGION, keys="earthdata", endpoint=self.urls["s3"])},
            probe=self.href(probe),
        )

    # --- servers

    def role(self, name: str) -> App:
        """The app of one server."""
        answer = {
            "login": self._login,
            "distribution": self._distribution,
            "cdn": self._cdn,
            "s3": self._s3,
            "machine": self._machine,
        }[name]

        def app(request: Request) -> Reply:
            reply = self.before(name, request) or answer(request)
            dated = {"Date": formatdate(self.now(), usegmt=True), **reply.headers}
            return Reply(**{**vars(reply), "headers": dated})

        return app

    def _login(self, request: Request) -> Reply:
        if request.path == "/oauth/authorize":
            return _page(LOGIN_PAGE, 401 if request.query.get("app_type") == "401" else 200)
        if (request.method, request.path) != ("POST", "/api/users/find_or_create_token"):
            return _page(LOGIN_PAGE, 200 if request.path == "/" else 404)
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(pair).decode().partition(":") if kind == "Basic" else ("", "", "")
        if self.locked and user:
            self.counts["wrong passwords"] += 1
            return _refused("account_locked", "Your account is locked for 10 minutes after too many attempts")
        if not user or self.users.get(user) != password:
            self.counts["wrong passwords"] += bool(user)
            return _refused("invalid_credentials", "Invalid user credentials")
        self.counts["logins"] += 1
        token = (
            self._latest if self._latest and (self._latest in self.tokens or self.same_token) else self.new_token(user)
        )
        day = datetime.fromtimestamp(self.now() + self.token_s, UTC)
        return json_reply({"access_token": token, "token_type": "Bearer", "expiration_date": f"{day:%m/%d/%Y}"})

    def _distribution(self, request: Request) -> Reply:
        if self.html:
            return _page(LOGIN_PAGE)
        refusal = self._unauthorized(request)
        if refusal is not None:
            return refusal
        if request.path == "/s3credentials":
            return self._new_keys()
        if not (self.folder / request.path.lstrip("/")).is_file():
            return _page(b"<html><title>Data Not Available</title>Could not find requested data.</html>", 404)
        self.counts["redirects"] += 1
        age = {"Cache-Control": f"private, max-age={max(0, int(self.address_s) - 60)}"}
        return Reply(status=303, headers={"Location": self._signed(request.path.lstrip("/")), **age})

    def _unauthorized(self, request: Request) -> Reply | None:
        """TEA's authorizer: None where the request may go on."""
        header = request.headers.get("authorization", "")
        kind, _, token = header.partition(" ")
        if header and not token:
            return json_reply({"status_code": 400, "error_description": "Malformed Authorization header"}, 400)
        if kind.lower() != "bearer" or not _uid(token):
            return self._to_login(request)
        if token not in self.tokens:
            return _refused("invalid_token", "The token is either not valid or has expired")
        if not self.licence_accepted:
            where = f"{self.login_url}/approve_app?client_id=lpdaac"
            words = {"error": "invalid_token", "error_description": "EULA Acceptance Failure", "resolution_url": where}
            return json_reply({"status_code": 403, **words}, 403)
        return None

    def _to_login(self, request: Request) -> Reply:
        mozilla = request.headers.get("user-agent", "").startswith("Mozilla")
        query = f"client_id=lpdaac&response_type=code{'' if mozilla else '&app_type=401'}"
        return Reply(status=302, headers={"Location": f"{self.login_url}/oauth/authorize?{query}"})

    def _signed(self, path: str) -> str:
        bucket, _, key = path.partition("/")
        where = (
            f"{self.urls['cdn']}/s3-{hashlib.md5(bucket.encode()).hexdigest()}/{bucket}.s3.{REGION}.amazonaws.com/{key}"
        )
        now = int(self.now())
        until = now + int(self.address_s)
        seal = self._seal(path, until)
        self.given.append(seal)
        if self.signature == "cloudfront":
            return f"{where}?A-userid=ada&Expires={until}&Signature={seal}&Key-Pair-Id=K2XLP"
        day = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        return (
            f"{where}?A-userid=ada&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIA%2F{REGION}%2Fs3%2Faws4_request"
            f"&X-Amz-Date={day}&X-Amz-Expires={until - now}&X-Amz-SignedHeaders=host&X-Amz-Signature={seal}"
        )

    def _seal(self, path: str, until: int) -> str:
        return hmac.new(_SECRET, f"{path} {until} {self._era}".encode(), "sha256").hexdigest()

    def _cdn(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return xml_error("InvalidArgument", "Only one auth mechanism allowed", 400)
        _, host, key = request.path.lstrip("/").split("/", 2)
        path = f"{host.partition('.')[0]}/{key}"
        query = request.query
        if "X-Amz-Date" in query:
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            until = int(signed.timestamp()) + int(query["X-Amz-Expires"])
        else:
            until = int(query.get("Expires", "0"))
        seal = query.get("X-Amz-Signature") or query.get("Signature", "")
        if request.method != "GET" or seal != self._seal(path, until) or self.now() > until:
            return xml_error("AccessDenied", "Request has expired")
        self.counts["reads"] += 1
        return self._object(request, path)

    def _object(self, request: Request, path: str) -> Reply:
        file = self.folder / path
        if not file.is_file():
            return xml_error("NoSuchKey", "The specified key does not exist.", 404)
        return ranged(request, Reply(body=file.read_bytes(), headers={"Content-Type": "image/tiff"}))

    def _new_keys(self) -> Reply:
        self.counts["keys"] += 1
        number = len(self._keys)
        access, secret, token = (
            f"ASIAKEY{number:04d}TEST",
            f"s3cret/{number}+{'k' * 20}",
            f"session/{number}+{'t' * 30}==",
        )
        until = int(self.now() + self.keys_s)
        self._keys[access] = (secret, token, float(until))
        self.given += [secret, token]
        keys = {"accessKeyId": access, "secretAccessKey": secret, "sessionToken": token}
        return json_reply({**keys, "expiration": str(datetime.fromtimestamp(until, UTC))})

    def _s3(self, request: Request) -> Reply:
        try:
            scope = request.headers["authorization"].partition("Credential=")[2].partition(",")[0].split("/")
            secret, token, until = self._keys[scope[0]]
        except KeyError:
            return xml_error("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        if request.headers.get("x-amz-security-token") != token:
            return xml_error("InvalidToken", "The provided token is malformed or otherwise invalid.", 400)
        if self.now() > until:
            return xml_error("ExpiredToken", "The provided token has expired.", 400)
        if not signed_by(request, secret, token, scope[2]):
            return xml_error("SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if not self.near or scope[2] != REGION:
            return xml_error("AccessDenied", "Access Denied")
        self.counts["s3 reads"] += 1
        return self._object(request, request.path.lstrip("/"))

    def _machine(self, request: Request) -> Reply:
        self.counts["questions"] += 1
        if self.machine_region is None:
            return Reply(status=404)
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            return Reply(body=b"machine-session")
        if request.headers.get("x-aws-ec2-metadata-token") != "machine-session":
            return Reply(status=401)
        return Reply(body=self.machine_region.encode())


def _uid(token: str) -> str:
    try:
        body = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["uid"])
    except (IndexError, KeyError, ValueError):
        return ""


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _page(body: bytes, status: int = 200) -> Reply:
    return Reply(body=body, status=status, headers={"Content-Type": "text/html; charset=utf-8"})


def _refused(error: str, words: str) -> Reply:
    return json_reply({"error": error, "error_description": words}, 401)


ROLES = ("login", "distribution", "cdn", "s3", "machine")


@contextmanager
def nasa(folder: Path, *, latency_s: float = 0.0, bytes_per_s: float | None = None) -> Iterator[Nasa]:
    """All servers over plain http on loopback, for tokens: earthaccess reaches no login service without TLS."""
    state = Nasa(folder)
    with ExitStack() as stack:
        for role in ROLES:
            server = serving(state.role(role), latency_s=latency_s, bytes_per_s=bytes_per_s)
            state.servers[role] = stack.enter_context(server)
            state.urls[role] = state.servers[role].url
        yield state


NAMES = {
    "login": "urs.earthdata.test",
    "distribution": "data.lpdaac.test",
    "cdn": "d1nklfio7vscoe.cloudfront.test",
    "s3": "s3.us-west-2.amazonaws.test",
}


@contextmanager
def nasa_by_name(folder: Path, set_variable: Callable[[str, str], None]) -> Iterator[Nasa]:
    """All servers over TLS and under names, reached through a proxy: also logins by user and password.

    `set_variable(name, value)` sets an environment variable for as long as the block runs: HTTPS_PROXY, and the
    certificate authority's file in SSL_CERT_FILE and REQUESTS_CA_BUNDLE.
    """
    import trustme

    from servers.proxy import proxying

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES.values()).configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    state = Nasa(folder)
    with ExitStack() as stack:
        for role in ROLES:
            tls = context if role in NAMES else None
            state.servers[role] = stack.enter_context(serving(state.role(role), tls=tls))
            state.urls[role] = f"https://{NAMES[role]}" if role in NAMES else state.servers[role].url
        table = {name: state.servers[role].port for role, name in NAMES.items()}
        proxy = stack.enter_context(proxying(table))
        for name, value in {
            "HTTPS_PROXY": proxy.url,
            "https_proxy": proxy.url,
            "NO_PROXY": "",
            "no_proxy": "",
            "SSL_CERT_FILE": str(folder / "authority.pem"),
            "REQUESTS_CA_BUNDLE": str(folder / "authority.pem"),
        }.items():
            set_variable(name, value)
        yield state
