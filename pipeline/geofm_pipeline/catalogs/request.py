"""One search: the ground, the years, how services are reached, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is searched for."""

    region: Region
    years: Years
    access: Access = field(default_factory=Access)
    say: Callable[[str], None] = field(default=lambda _: None)
    """Takes whole sentences of progress."""
    notes: list[str] = field(default_factory=list)
    """Sentences that belong to the result, such as what a catalogue lacks."""

    sources: list[ArchiveSource] = field(default_factory=list)
    """What has read for this search."""

    @property
    def source(self) -> ArchiveSource:
        """Where bytes come from; counted with the search."""
        self.sources.append(ArchiveSource(self.access))
        return self.sources[-1]

    @property
    def tally(self) -> Tally:
        """What the search took so far."""
        return sum((source.tally for source in self.sources), start=Tally())

    def note(self, sentence: str) -> None:
        """Tell a sentence that belongs to the result."""
        self.notes.append(sentence)
        self.say(f"catalogue: {sentence}")


LATER = ". Check the address and the network, run the same command later, or use another --catalog"
"""What to do about a service that cannot be reached; `auto` says it once for all of them."""


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Turn what the access layer raises for a catalogue into an ArchiveError that names it."""
    try:
        yield
    except FetchError as error:
        raise ArchiveError(f"{name} {_what(error)}") from error


def _what(error: FetchError) -> str:
    if error.fault == Fault.HTML:
        return (
            "is a web page, not data: a login or an error page came back; open the address in a browser, run the same "
            "command later, or use another --catalog"
        )
    if error.transient:
        return f"cannot be reached: {error.cause}; it was tried again with growing waits{LATER}"
    return f"cannot be read: {error.cause}; check the address, or use another --catalog"
