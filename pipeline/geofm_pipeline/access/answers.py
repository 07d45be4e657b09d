"""What a service says in an answer that is no data: its own word for it, how long to wait, what must be accepted."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import Response

WAIT_CODES = (408, 425, 429)
"""4xx codes that ask to come again later."""
_CODE = re.compile(rb"<Code>(\w+)</Code>")


def document(response: Response) -> dict[str, object]:
    """The JSON object of an answer's body; empty where the body is none."""
    try:
        found = json.loads(response.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def code(response: Response) -> str:
    """S3's or Azure's error code, '' where the body has none."""
    found = _CODE.search(response.body)
    return found[1].decode() if found else ""


def said(response: Response) -> str:
    """`: ` and the service's own word for it, from JSON or XML, shortened; '' without one.

    Never a whole body, which may repeat the request.
    """
    found = document(response)
    errors = found.get("errors")
    words = code(response) or (errors[0] if isinstance(errors, list) and errors else "") or found.get("error", "")
    plain = " ".join(str(words).split())[:120]
    return f": {plain}" if plain and "://" not in plain else ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date; None without one."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(text).timestamp()
        now = email.utils.parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
    except ValueError:
        return None
    return max(0.0, until - now)


def come_again(response: Response) -> FetchError | None:
    """The transient fault that an answer tells of, None where it tells of none."""
    status = response.status
    if status not in WAIT_CODES and status < 500:
        return None
    fault = Fault.THROTTLED if status == 429 else Fault.TIMEOUT if status == 408 else Fault.SERVER
    return FetchError(
        fault, f"the server answered {status}{said(response)}", retry_after_s=retry_after_s(response.headers)
    )


def licence_refusal(response: Response, login: str) -> FetchError | None:
    """The fault of an account that has not accepted a data centre's licence, None where the answer says no such thing.

    Thin-egress-app answers 401 or 403 with an `error_description` that has EULA in it, and a `resolution_url`.
    """
    found = document(response)
    if response.status not in (401, 403) or "eula" not in str(found.get("error_description", "")).lower():
        return None
    where = found.get("resolution_url") or f"{login}/profile"
    return FetchError(
        Fault.EULA,
        "the data centre's licence (EULA) or application was not accepted for this account: open "
        f"{where} in a browser, log in, approve, and wait a minute",
    )
