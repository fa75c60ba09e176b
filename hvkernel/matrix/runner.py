"""Run cells on the cores of this machine, and keep what became of them.

``run()`` is the coordinator: it hands cells to worker processes, writes their rows as they come, and can be ended at
any moment: a cell whose row was committed is never run again, any other one is.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from typing import Final, TypeAlias

from hvkernel.config.errors import InputError
from hvkernel.matrix.model import Cell
from hvkernel.matrix.store import Row, Spec, Store
from hvkernel.matrix.worker import WATCHDOG, Factory, Station, cell_runner

__all__ = ["Meter", "OnProgress", "Progress", "Stop", "check_jobs", "cores", "left_to_do", "run", "until_signal"]

DEPTH: Final = 8
"""Cells that a worker has before it, so that it never waits for the coordinator."""
CHUNK: Final = 4096
"""Cells that are looked up in the store at a time."""
PER_CORE: Final = 16
"""Most workers for each core: each has 60 MB, and more of them than cores are no faster."""
EVERY: Final = 0.2
"""Seconds between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; also what ``run()`` returns at its end."""

    total: int
    """Cells of the whole run."""
    done: int
    """Cells that have a result, those of earlier runs on the same store included."""
    failed: int
    """Those of them that did not pass."""
    earlier: int
    """Cells that had a result when this run began."""
    seconds: float
    """Wall clock since this run began."""
    workers: int
    replaced: int
    """Workers that died, hung or grew too large."""
    interrupted: int = 0
    """Signal that ended the run early, such as ``SIGINT``; 0 if none did."""

    @property
    def rate(self) -> float:
        """Cells a second, of this run."""
        return (self.done - self.earlier) / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at this rate; ``None`` while nobody can say."""
        if self.done >= self.total:
            return 0.0
        return (self.total - self.done) / self.rate if self.rate > 0 else None


def check_jobs(jobs: int | None) -> None:
    """:raises InputError: nobody wants so many worker processes."""
    if jobs is not None and jobs < 1:
        raise InputError("--jobs", "jobs", jobs, "at least 1")
    most = PER_CORE * cores()
    if jobs is not None and jobs > most:
        raise InputError("--jobs", "jobs", jobs, f"at most {most}, {PER_CORE} for each core")


OnProgress: TypeAlias = Callable[[Progress], None]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run(
    spec: Spec,
    cells: Sequence[Cell],
    store: Store,
    *,
    factory: Factory = cell_runner,
    jobs: int | None = None,
    progress: OnProgress | None = None,
    watchdog: float = WATCHDOG,
) -> Progress:
    """Run those of ``cells`` that have no result in ``store``, in worker processes.

    SIGINT and SIGTERM end the run between two results when it is the main thread that calls; the second one ends it
    at once.

    :param factory: makes what runs the cells, once in each worker.
    :param jobs: worker processes; all cores when not given.
    :param progress: called some times a second, and once at the end.
    :param watchdog: seconds of wall clock after which a cell's interpreter counts as hung.
    :raises InputError: ``jobs`` is less than one, or more than anybody wants.
    :raises StoreError: results cannot be written.
    :raises WorkerError: workers cannot be started.
    """
    check_jobs(jobs)
    meter = Meter(len(cells), store, progress)
    todo = left_to_do(cells, store)
    text = spec.to_json()
    count = max(0, min(jobs or cores(), meter.total - meter.done))
    with until_signal() as stop, ExitStack() as stations:
        crew = [stations.enter_context(Station(factory, text, watchdog=watchdog)) for _ in range(count)]
        while not stop.signal:
            for station in crew:
                # Towards the end each takes few, so that none has a queue while others have nothing.
                depth = max(1, min(DEPTH, (meter.total - meter.done) // (2 * count)))
                if len(station.pending) <= depth // 2:
                    station.give(islice(todo, depth - len(station.pending)))
            if not any(station.pending for station in crew):
                break
            wait([stop.waker, *(station.link for station in crew)], min(EVERY, *(one.patience for one in crew)))
            rows: list[Row] = []
            try:
                for station in crew:
                    rows += station.collect()
            finally:
                meter.keep(rows, count, sum(station.replaced for station in crew))
    return meter.close(stop.signal)


def left_to_do(cells: Sequence[Cell], store: Store) -> Iterator[Cell]:
    """Those of ``cells`` that have no result yet, in order. Holds some thousands of them at a time, not all."""
    rest = iter(cells)
    while some := list(islice(rest, CHUNK)):
        numbers = [cell.number for cell in some]
        done = store.done_keys(min(numbers), max(numbers))
        yield from (cell for cell in some if cell.key not in done) if done else some


class Meter:
    """Counts results into a store and tells how far the run is."""

    def __init__(self, total: int, store: Store, progress: OnProgress | None) -> None:
        """Begin; what the store has already is counted as done.

        :param total: cells of the whole run.
        """
        counts = store.counts()
        self.total = total
        self.earlier = self.done = sum(counts.values())
        self.failed = self.done - counts.get("pass", 0)
        self._store, self._progress = store, progress
        self._workers = self._replaced = 0
        self._began = time.monotonic()
        self._told = 0.0

    def keep(self, rows: Sequence[Row], workers: int, replaced: int) -> None:
        """Write rows, and report if it is time to.

        :raises StoreError: they cannot be written.
        """
        self._workers, self._replaced = workers, replaced
        if rows:
            self._store.add_rows(rows)
            self.done += len(rows)
            self.failed += sum(row.status != "pass" for row in rows)
        now = time.monotonic()
        if self._progress is not None and now - self._told >= EVERY:
            self._told = now
            self._progress(self._now())

    def close(self, interrupted: int) -> Progress:
        """Report for the last time."""
        last = self._now(interrupted)
        if self._progress is not None:
            self._progress(last)
        return last

    def _now(self, interrupted: int = 0) -> Progress:
        seconds = time.monotonic() - self._began
        return Progress(
            self.total, self.done, self.failed, self.earlier, seconds, self._workers, self._replaced, interrupted
        )


class Stop:
    """Whether somebody asked the run to end."""

    def __init__(self, waker: socket.socket) -> None:
        """Not yet.

        :param waker: becomes readable when a signal arrives.
        """
        self.signal = 0
        """The signal, or 0."""
        self.waker = waker


@contextmanager
def until_signal() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a note; the next one acts as it did before. Only in the main thread."""
    here, there = socket.socketpair()
    stop = Stop(here)
    try:
        if threading.current_thread() is not threading.main_thread():
            yield stop
            return
        there.setblocking(False)
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, _: object) -> None:
            stop.signal = number
            for one, handler in before.items():
                signal.signal(one, handler)

        waker = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        try:
            for number in before:
                signal.signal(number, note)
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(waker)
    finally:
        here.close()
        there.close()
