"""An S3 bucket that anybody may read and nobody may list, as the HLS STAC GeoParquet archive's (nasa-maap-data-store).

Quirks: an object that is not there is answered 403 AccessDenied, since saying 404 takes the right to list (Amazon S3,
GetObject); `missing=404` imitates a bucket that may be listed. Ranges are served. Any credential is an error here:
anonymous readers must send none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servers.loopback import Reply, Request, ranged
from servers.s3 import xml_error


@dataclass
class PublicBucket:
    """Serves `files` by key, path-style (/{name}/{key}) and by the key alone (as under a host of its own)."""

    files: Mapping[str, bytes]
    name: str = "nasa-maap-data-store"
    missing: int = 403
    log: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        self.log.append(request)
        if "authorization" in request.headers:
            return xml_error("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        key = request.path.lstrip("/").removeprefix(f"{self.name}/")
        if request.query or not key:
            return xml_error("AccessDenied", "Access Denied")  # a listing
        if key not in self.files:
            return self._absent()
        return ranged(request, Reply(body=self.files[key]))

    def _absent(self) -> Reply:
        if self.missing == 403:
            return xml_error("AccessDenied", "Access Denied")
        return xml_error("NoSuchKey", "The specified key does not exist.", 404)
