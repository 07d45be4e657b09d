"""Errors a user can act on, each with the exit code that docs/cli.md documents.

A message is one paragraph: the value, the rule it breaks, the remedy. Anything else that reaches the command line
is our bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

from geofm_pipeline.access.faults import OF_THE_LOGIN, Fault
from geofm_pipeline.addresses import shown_in


class GeofmError(Exception):
    """Base of all errors with a remedy; addresses in its words lose what may be secret."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(shown_in(message))


class InputError(GeofmError, ValueError):
    """An option, file or configuration value that cannot be right."""

    exit_code = 2


class NothingFoundError(GeofmError):
    """The request is well-formed, but the archive holds nothing for it."""

    exit_code = 3


class ArchiveError(GeofmError):
    """A catalogue or raster could not be read; what was written so far is kept and a second run continues."""

    exit_code = 4


class StoreDamagedError(GeofmError):
    """Verification found bytes that are not what was written."""

    exit_code = 5


class OutputConflictError(GeofmError):
    """`--out` holds another plan, a newer schema or a running writer."""

    exit_code = 6


class ResourceError(GeofmError):
    """Disk, memory or the byte budget does not suffice."""

    exit_code = 7


class ClusterError(GeofmError):
    """The Dask scheduler cannot be reached or lost its workers."""

    exit_code = 8


class LoginError(GeofmError):
    """NASA Earthdata login, or what it needs, failed; the message says what is wrong and what to do."""

    exit_code = 9


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count SIGINT."""


class BlockReadError(ArchiveError):
    """A file or block of a granule that cannot be had.

    Parameters
    ----------
    granule, band : names of what was read, e.g. `HLS.L30.T10SFE.2019253T183445.v2.0` and `B04` or `Fmask`
    block : (block row, block column), or None when the file as a whole is at fault
    cause : what is wrong, in words a user understands
    transient : whether the same read may succeed later (time-out, 5xx, a failed login): then the run stops; permanent
        faults become a recorded state
    fault : the kind, where fetching bytes failed
    """

    def __init__(
        self,
        *,
        granule: str,
        band: str,
        cause: str,
        block: tuple[int, int] | None = None,
        transient: bool = False,
        fault: Fault | None = None,
    ) -> None:
        where = f" block (row {block[0]}, column {block[1]})" if block is not None else ""
        super().__init__(f"{granule} {band}{where}: {cause}")
        self.granule, self.band, self.block, self.cause, self.transient = granule, band, block, cause, transient
        self.fault = fault

    @property
    def worth_repeating(self) -> bool:
        """Whether the same task may succeed at once; a refused login would only be refused again."""
        return self.transient and self.fault not in OF_THE_LOGIN

    def __reduce__(self) -> tuple[object, ...]:
        """Exceptions travel between Dask workers by pickle, which cannot guess keyword-only arguments."""
        return (_rebuild, (self.granule, self.band, self.cause, self.block, self.transient, self.fault))


def _rebuild(
    granule: str, band: str, cause: str, block: tuple[int, int] | None, transient: bool, fault: Fault | None
) -> BlockReadError:
    return BlockReadError(granule=granule, band=band, cause=cause, block=block, transient=transient, fault=fault)
