"""Promises of the Planetary Computer's signatures: one request per container and lifetime, and none for other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from servers.loopback import Loopback, Reply, Request, json_reply, serving

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import HttpClient
from geofm_pipeline.access.sas import EARLY_S, Signatures
from geofm_pipeline.access.services import Services
from geofm_pipeline.access.settings import Access

BLOB = "https://hls2euwest.blob.core.windows.net/hls2/L30/05/a.tif"


@dataclass
class Signer:
    """The signing service, whose answers are those of planetary-computer 1.0.0's sas.py, on a clock of its own."""

    now: float = datetime(2026, 9, 30, tzinfo=UTC).timestamp()
    lifetime_s: float = 2700.0
    reply: Reply | None = None
    given: int = 0
    server: Loopback | None = field(default=None, repr=False)

    def __call__(self, request: Request) -> Reply:
        if self.reply is not None:
            return self.reply
        self.given += 1
        until = datetime.fromtimestamp(self.now + self.lifetime_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = f"se={until}&sp=rl&sr=c&sig={request.path.count('/')}x{self.given}%3D"
        return json_reply({"msft:expiry": until, "token": query})

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        assert self.server is not None
        return [request.path for request in self.server.log]


@pytest.fixture
def signer() -> Iterator[Signer]:
    """A signing service on loopback."""
    found = Signer()
    with serving(found) as server:
        found.server = server
        yield found


@pytest.fixture
def signatures(signer: Signer) -> Signatures:
    """Signatures by the service, on its clock."""
    assert signer.server is not None
    client = HttpClient(Access())
    return Signatures(
        Services(sas=f"{signer.server.url}/token"),
        lambda url: client.get(url, headers={}, span=None),
        clock=lambda: signer.now,
    )


def test_one_signature_serves_a_container(signer: Signer, signatures: Signatures) -> None:
    """Many threads and files, one request; another container has another signature; a query is kept."""
    with ThreadPoolExecutor(16) as pool:
        signed = set(pool.map(lambda _: signatures.sign(BLOB), range(64)))
    assert len(signed) == 1
    assert signed.pop().startswith(f"{BLOB}?se=2026-09-30T00:45:00Z&sp=rl&sr=c&sig=")
    assert "tif?snapshot=1&se=" in signatures.sign(f"{BLOB}?snapshot=1")
    signatures.sign("https://cpdataeuwest.blob.core.windows.net/cpdata/terraclimate.zarr/.zmetadata")
    assert signer.paths == ["/token/hls2euwest/hls2", "/token/cpdataeuwest/cpdata"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hls2/a.tif",
        "https://other.blob.core.windows.net/hls2/a.tif",
        "https://hls2euwest.blob.core.windows.net.example.org/hls2/a.tif",
        f"{BLOB}?se=2026-09-30&sig=abc%3D",
    ],
)
def test_other_hosts_and_signed_addresses_stay_as_they_are(signer: Signer, signatures: Signatures, url: str) -> None:
    """No signature leaves for a host that is not the Planetary Computer's."""
    assert signatures.sign(url) == url
    assert signer.paths == []


def test_signatures_are_renewed_before_they_expire(signer: Signer, signatures: Signatures) -> None:
    """Two minutes early, and only then."""
    first = signatures.sign(BLOB)
    signer.now += 2700 - EARLY_S - 1
    assert signatures.sign(BLOB) == first
    signer.now += 1
    assert signatures.sign(BLOB) != first
    assert signer.given == 2


def test_a_refused_signature_is_replaced_once(signer: Signer, signatures: Signatures) -> None:
    """Many reads that were refused with the same signature cause one request."""
    first = signatures.sign(BLOB)
    signer.now += 60
    second = set()
    for _ in range(5):
        signatures.forget(BLOB)
        second.add(signatures.sign(BLOB))
    assert len(second) == 1
    assert first not in second
    signatures.forget("https://example.org/a.tif")


def test_a_wrong_clock_does_not_ask_for_every_read(signer: Signer, signatures: Signatures) -> None:
    """A signature that seems over on arrival is used for a while: the blob's server says whether it is good."""
    signer.lifetime_s = -5000
    assert len({signatures.sign(BLOB) for _ in range(10)}) == 1


@pytest.mark.parametrize(
    ("reply", "fault", "words", "wait"),
    [
        (json_reply({"statusCode": 429, "message": "Rate limit is exceeded. Try again in 23 seconds."}, 429),
         Fault.THROTTLED, "429", 23.0),
        (Reply(status=429, headers={"Retry-After": "5"}), Fault.THROTTLED, "429", 5.0),
        (Reply(status=504), Fault.SERVER, "504", None),
        (Reply(status=404), Fault.REFUSED, "gave no signature (404)", None),
        (Reply(body=b"<html>portal</html>"), Fault.HTML, "HTML page", None),
        (json_reply({"token": "sig=a"}), Fault.LOGIN, "no signature with a time", None),
        (json_reply({"msft:expiry": "2026-09-30T00:45:00Z"}), Fault.LOGIN, "no signature with a time", None),
    ],
)  # fmt: skip
def test_what_may_go_wrong(
    signer: Signer, signatures: Signatures, reply: Reply, fault: Fault, words: str, wait: float | None
) -> None:
    """Each trouble has its words and its wait, and none is taken for a missing file."""
    signer.reply = reply
    with pytest.raises(FetchError) as caught:
        signatures.sign(BLOB)
    assert caught.value.fault == fault
    assert words in str(caught.value)
    assert caught.value.retry_after_s == wait
    signer.reply = None
    assert "sig=" in signatures.sign(BLOB)
