"""run.jsonl: what every run in a dataset folder did and said, one JSON line per event, appended and never rewritten.

Times and other facts of a run live here and in the card, so that no byte of the store depends on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from geofm_pipeline.addresses import shown_in
from geofm_pipeline.store.files import disk_errors

Now = Callable[[], datetime]


class RunLog:
    """Appends events to run.jsonl.

    Parameters
    ----------
    path : the log; made when the first event comes
    now : the clock, an argument so that tests can set it
    """

    def __init__(self, path: Path, *, now: Now = lambda: datetime.now(UTC)) -> None:
        self._path, self._now = path, now

    def write(self, event: str, text: str = "", *, seconds: float | None = None) -> None:
        """Append one event: `start`, `said`, `stage` (with its seconds), `failed` or `done`."""
        entry: dict[str, object] = {"time": self._now().isoformat(timespec="milliseconds"), "event": event}
        entry |= {"text": shown_in(text)} if text else {}
        entry |= {} if seconds is None else {"seconds": round(seconds, 3)}
        with disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
