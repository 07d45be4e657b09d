"""From an href to what is really asked for: which URL, with which credentials, signed by what.

One decision per scheme and host; nothing is sent here but what the keepers of credentials send for themselves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import SplitResult, quote, urlsplit

from geofm_pipeline.access.earthdata import Earthdata, S3Keys, TemporaryKeys
from geofm_pipeline.access.environment_keys import environment_endpoint, environment_region, environment_signature
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import Response, Signature
from geofm_pipeline.access.passwords import basic_header
from geofm_pipeline.access.redirects import Redirects
from geofm_pipeline.access.region import in_region
from geofm_pipeline.access.sas import Signatures
from geofm_pipeline.access.services import Bucket, Services
from geofm_pipeline.access.settings import Access

Fetch = Callable[[str, Mapping[str, str]], Response]
"""(URL, headers) → answer; one request without credentials of its own."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One request that is ready to be sent."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signature: Signature | None = None
    bearer: str = field(default="", repr=False)
    """The Earthdata token that `headers` carry, '' without one."""
    keys: S3Keys | None = None
    """The temporary keys behind `signature`."""
    signed_for: str = field(default="", repr=False)
    """Href whose redirect gave this signed address, '' for a first request."""
    blob: str = field(default="", repr=False)
    """Unsigned address of a blob whose signature `url` carries."""

    @property
    def host(self) -> str:
        """Host and port, which the pace is kept for."""
        return host_key(self.url)


class Routes:
    """Targets of hrefs for one process; holds the keepers of credentials. Thread-safe."""

    def __init__(self, access: Access, fetch: Fetch) -> None:
        services = access.services
        self._access, self._services, self._lock = access, services, threading.Lock()
        self.redirects = Redirects()
        self.earthdata = Earthdata(services)
        self.keys = TemporaryKeys(services, self.earthdata, fetch)
        self.signatures = Signatures(services, lambda url: fetch(url, {}))
        self._s3: bool | None = {"https": False, "s3": True, "auto": None}[access.route]

    def target(self, href: str) -> Target:
        """The request that an href stands for now.

        Raises
        ------
        FetchError
            When credentials are needed and cannot be had, or the scheme is unknown.
        """
        scheme = href.partition("://")[0].lower()
        if scheme in ("http", "https"):
            twin = self._s3_twin(href)
            return self._web(href) if twin is None else self._bucket(twin)
        if scheme == "s3":
            return self._bucket(href)
        if scheme == "gs":
            return Target(url=google_address(self._services, href))
        raise FetchError(
            Fault.SCHEME, f"{scheme}:// locations are not supported: give https://, s3://, gs:// or local paths"
        )

    def leave_s3(self) -> bool:
        """Go on over https after S3 refused temporary keys; False where the user asked for S3 and nothing else."""
        if self._access.route == "s3":
            return False
        with self._lock:
            self._s3 = False
        return True

    def is_login(self, url: str) -> bool:
        """Whether a redirect leads to the login service, that is, asks for a password."""
        return host_key(url) == host_key(self._services.earthdata_login)

    def _web(self, href: str) -> Target:
        if host_key(href) in self._services.earthdata_hosts:
            refuse_plain(href)
            signed = self.redirects.get(href)
            if signed is not None:
                return Target(url=signed, signed_for=href)
            token = self.earthdata.token()
            return Target(url=href, headers={"Authorization": f"Bearer {token}"}, bearer=token)
        signed, headers = self.signatures.sign(href), basic_header(self._services, href)
        if signed != href or headers:
            refuse_plain(href)
        return Target(url=signed, headers=headers, blob=href if signed != href else "")

    def _s3_twin(self, href: str) -> str | None:
        """The S3 address of a protected file where this process reads by S3, else None."""
        if self._s3 is False:
            return None
        for prefix, twin in self._services.earthdata_s3.items():
            if href.startswith(prefix):
                return twin + href.removeprefix(prefix) if self._reads_s3(twin) else None
        return None

    def _reads_s3(self, twin: str) -> bool:
        if self._s3 is None:
            region = next((b.region for n, b in self._services.buckets.items() if f"s3://{n}/".startswith(twin)), "")
            found = in_region(self._services, os.environ, region)
            with self._lock:
                self._s3 = found if self._s3 is None else self._s3
        return bool(self._s3)

    def _bucket(self, href: str) -> Target:
        name, _, key = href.partition("://")[2].partition("/")
        bucket = bucket_of(self._services, name)
        url = bucket_address(name, key, bucket)
        if bucket.keys == "none":
            return Target(url=url)
        if bucket.keys == "environment":
            return Target(url=url, signature=environment_signature(bucket.region))
        refuse_plain(url)
        keys = self.keys.get()
        signature = Signature(
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            session_token=keys.session_token,
            region=bucket.region,
        )
        return Target(url=url, signature=signature, keys=keys)


def host_key(url: str) -> str:
    """Host of a URL as it is compared: lower case, without a user and without the scheme's own port.

    >>> host_key("https://me:pw@Data.Example:443/x"), host_key("http://127.0.0.1:8080/x")
    ('data.example', '127.0.0.1:8080')
    """
    parts = urlsplit(url)
    return _host_key(parts.scheme, parts.netloc)


@lru_cache(maxsize=1024)  # asked three times per request
def _host_key(scheme: str, netloc: str) -> str:
    parts = SplitResult(scheme, netloc, "", "", "")
    usual = {"https": 443, "http": 80}.get(scheme)
    host = (parts.hostname or "").lower()
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"


def refuse_plain(href: str) -> None:
    """Raise FetchError for an address to which no secret may go: plain http beyond this machine."""
    parts = urlsplit(href)
    host = parts.hostname or ""
    here = host in ("127.0.0.1", "::1", "localhost") or host.endswith(".localhost")
    if parts.scheme.lower() != "https" and not here:
        raise FetchError(Fault.REFUSED, "a token is never sent over plain http: the href must begin with https://")


def bucket_of(services: Services, name: str) -> Bucket:
    """How a bucket is reached: as the services say, else as this machine's own configuration does."""
    return services.buckets.get(name) or Bucket(
        region=environment_region(), keys="environment", endpoint=environment_endpoint()
    )


def bucket_address(name: str, key: str, bucket: Bucket) -> str:
    """URL of an object: path-style at an endpoint of its own, else at Amazon's by the bucket's host.

    >>> bucket_address("b", "a/x.tif", Bucket(region="us-west-2"))
    'https://b.s3.us-west-2.amazonaws.com/a/x.tif'
    """
    if bucket.endpoint:
        return f"{bucket.endpoint.rstrip('/')}/{name}/{quote(key)}"
    if "." in name:  # such a name does not fit Amazon's certificate
        return f"https://s3.{bucket.region}.amazonaws.com/{name}/{quote(key)}"
    return f"https://{name}.s3.{bucket.region}.amazonaws.com/{quote(key)}"


def google_address(services: Services, href: str) -> str:
    """URL of a gs://bucket/key that everybody may read."""
    return f"{services.google_storage}/{quote(href.partition('://')[2])}"


def place_behind(href: str, services: Services) -> str:
    """Where an address is really read: the https address that s3:// and gs:// stand for with these services.

    >>> place_behind("gs://bucket/a.zarr", Services())
    'https://storage.googleapis.com/bucket/a.zarr'
    """
    scheme, _, rest = href.partition("://")
    if scheme == "gs":
        return google_address(services, href)
    if scheme != "s3":
        return href
    name, _, key = rest.partition("/")
    return bucket_address(name, key, bucket_of(services, name))
