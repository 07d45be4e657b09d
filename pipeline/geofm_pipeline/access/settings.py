"""How a run reaches archives: small, picklable, without any secret, so that it may travel to workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from geofm_pipeline.access.services import Services

Route = Literal["auto", "https", "s3"]


@dataclass(frozen=True, kw_only=True)
class Access:
    """Patience, pace and route of reads; every worker finds its own credentials."""

    services: Services = field(default_factory=Services)
    route: Route = "auto"
    """Of NASA's protected files: s3 by temporary keys, https by the token; auto is s3 in their region, else https."""
    in_flight: int = 64
    """Requests at once per worker process, for archives behind a network."""
    requests_per_second: float = 200.0
    """Of the whole cluster together, to each host."""
    attempts: int = 10
    """Tries per request; the default waits between them sum to about four minutes."""
    first_wait_s: float = 0.5
    """Mean of the first wait; each further one doubles it, jittered by half either way."""
    longest_wait_s: float = 60.0
    """Of one wait, also where a server asks for more: then the run stops and says so after the last attempt."""
    timeout_s: float = 120.0
    """Of one request, body included."""
    stall_s: float = 20.0
    """A range of a file that brings less than 1 kB/s for so long is given up."""
    connect_timeout_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the workers of a run will read with."""

    access: Access
    login: bool
    """Its files need a NASA Earthdata account."""
