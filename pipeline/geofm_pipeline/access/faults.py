"""What may go wrong between an href and its bytes, in words a user understands."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Kinds of faults; the values are the words that cards count them under."""

    MISSING = "no such file"
    LOGIN = "login failed"
    EULA = "licence not accepted"
    EXPIRED = "credentials expired"
    REGION = "wrong region"
    REFUSED = "request refused"
    HTML = "HTML page instead of data"
    TEXT = "text instead of data"
    NO_RANGES = "ranges ignored"
    CONTENT = "wrong content"
    LOCAL = "local file unreadable"
    SCHEME = "unknown scheme"
    THROTTLED = "429 too many requests"
    SERVER = "5xx server error"
    TIMEOUT = "timeout"
    CONNECTION = "connection lost"
    SHORT = "short body"


TRANSIENT = frozenset({Fault.THROTTLED, Fault.SERVER, Fault.TIMEOUT, Fault.CONNECTION, Fault.SHORT, Fault.TEXT})
"""Kinds after which the same request may succeed."""
OF_THE_LOGIN = frozenset({Fault.LOGIN, Fault.EULA, Fault.EXPIRED, Fault.REGION, Fault.HTML})
"""Kinds that a user's account, not an archive, has to put right."""
OF_THE_FILE = frozenset({Fault.MISSING, Fault.CONTENT})
"""Kinds that say something of the file itself and become a recorded state; all others stop the run, since one login
or one server would condemn every file after the other."""


class FetchError(Exception):
    """Bytes that cannot be had. The message never holds the href, whose query may carry a secret, nor a header.

    Parameters
    ----------
    fault : the kind
    cause : what is wrong and what to do, in words a user understands
    retry_after_s : seconds that the server asked to wait, None where it did not
    unreached : the host has never answered this process, so that a long wait for it is not to be justified
    """

    def __init__(
        self, fault: Fault, cause: str, *, retry_after_s: float | None = None, unreached: bool = False
    ) -> None:
        super().__init__(cause)
        self.fault, self.cause, self.retry_after_s, self.unreached = fault, cause, retry_after_s, unreached
        self.status: int | None = None
        """HTTP status of a server's refusal; does not travel between processes."""

    @property
    def transient(self) -> bool:
        """Whether asking again soon may help."""
        return self.fault in TRANSIENT

    @property
    def stops_the_run(self) -> bool:
        """Whether nothing may be concluded about the file."""
        return self.fault not in OF_THE_FILE

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (self.fault, self.cause, self.retry_after_s, self.unreached))


def _rebuilt(fault: Fault, cause: str, retry_after_s: float | None, unreached: bool) -> FetchError:
    return FetchError(fault, cause, retry_after_s=retry_after_s, unreached=unreached)
