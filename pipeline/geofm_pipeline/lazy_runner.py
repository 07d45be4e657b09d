"""A Runner that starts with the first task, so that a run without any starts no cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geofm_pipeline.access.settings import Reading
from geofm_pipeline.cluster import A, R, Runner, open_runner


@dataclass(frozen=True, kw_only=True)
class _Options:
    workers: int | None
    scheduler: str | None
    scratch: Path
    reading: Reading | None


class LazyRunner:
    """See :class:`geofm_pipeline.cluster.Runner`; asking for `workers` or `dashboard` starts it, too."""

    def __init__(self, stack: contextlib.ExitStack, options: _Options, said: Callable[[str], None]) -> None:
        self._stack, self._options, self._said = stack, options, said
        self._started: Runner | None = None

    @property
    def workers(self) -> int:
        """Worker threads that run tasks."""
        return self._start().workers

    @property
    def dashboard(self) -> str | None:
        """URL of the Dask dashboard, if there is one."""
        return self._start().dashboard

    def run(self, task: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
        """Yield (position of the argument, result) as tasks finish."""
        if arguments:
            yield from self._start().run(task, arguments)

    def _start(self) -> Runner:
        if self._started is None:
            options = self._options
            opened = open_runner(
                workers=options.workers, scheduler=options.scheduler, scratch=options.scratch, reading=options.reading
            )
            self._started = self._stack.enter_context(opened)
            if self._started.dashboard:
                self._said(f"dask: {self._started.workers} worker threads, dashboard {self._started.dashboard}")
        return self._started


@contextlib.contextmanager
def lazy_runner(
    *,
    workers: int | None,
    scheduler: str | None,
    scratch: Path,
    said: Callable[[str], None],
    reading: Reading | None = None,
) -> Iterator[LazyRunner]:
    """Like :func:`geofm_pipeline.cluster.open_runner`, opened when the first task comes; `said` is told where."""
    options = _Options(workers=workers, scheduler=scheduler, scratch=scratch, reading=reading)
    with contextlib.ExitStack() as stack:
        yield LazyRunner(stack, options, said)
