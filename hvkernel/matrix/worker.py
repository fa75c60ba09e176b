"""An interpreter that runs cells, and the place at which it stands and is replaced when it dies.

A worker loads everything once, then takes cells from its pipe and answers each with a row, in order. So when it dies,
the first cell without an answer is the one that it died of.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final, Protocol, Self, TypeAlias

from hvkernel.matrix.model import HANG, INTERPRETER, Cell, CellResult, Problem
from hvkernel.matrix.store import Row, row_of

__all__ = [
    "DEATHS",
    "HANGS",
    "MEMORY",
    "WATCHDOG",
    "Cells",
    "Factory",
    "Station",
    "WorkerError",
    "cell_runner",
]

WATCHDOG: Final = 120.0
"""Seconds of wall clock after which a cell's interpreter counts as hung. Cells have budgets in virtual time and in
steps and take some 30 ms; this is for what no budget sees, such as a loop inside of one step."""
DEATHS: Final = 3
"""Workers that may die of a cell before it is recorded. Not one: the first may have been killed by somebody else."""
HANGS: Final = 2
"""Likewise for workers that hang."""
MEMORY: Final = 1 << 30
"""Bytes of resident memory above which a worker is replaced between two cells. Twice as many is the most that its heap
can have in one, so that a cell that eats memory ends in a MemoryError and not in the death of somebody else."""
STARTS: Final = 3
"""Workers that may die one after the other before they took a cell."""
GRACE: Final = 5.0
"""Seconds beyond the watchdog that a worker has to end itself, with a traceback, before it is killed."""
TAIL: Final = 40
"""Lines of a dead worker's standard error that are kept."""
YOUNG: Final = 1_000_000
"""Containers more than before that a cell may hold before the collector runs in the middle of it. The cells of the
default spec hold 5,000 in the median and 39,000 at most; what they leave in circles is collected after each."""
RETIRES: Final = "retires"
LOG: Final = 1 << 16
"""Bytes of standard error at which it is emptied between two cells."""


class Cells(Protocol):
    """What runs cells: :class:`hvkernel.matrix.cell.CellRunner`."""

    def run(self, cell: Cell) -> CellResult: ...


Factory: TypeAlias = Callable[[str], Cells]
"""Makes a :class:`Cells` of a spec as JSON; pickled by its name, so a function or class of a module."""


def cell_runner(spec: str, **options: Any) -> Cells:
    """The real one: a :class:`~hvkernel.matrix.cell.CellRunner`, with all plugins that are installed.

    :param options: of the runner, as ``sample``.
    """
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.matrix.cell import CellRunner

    return CellRunner(MatrixSpec.from_json(spec), **options)


class WorkerError(RuntimeError):
    """No worker can be started: the fault is nobody's cell."""


# in the worker -------------------------------------------------------------------------------------------------


def child(fd: int) -> None:
    """Be a worker: the whole life of the process, on the pipe ``fd``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's
    faulthandler.enable()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is printed before a death is not lost
    link = Connection(fd)
    with contextlib.suppress(EOFError, OSError):  # the coordinator is gone
        factory, spec, watchdog, memory = link.recv()
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        heap = 2 * memory
        resource.setrlimit(resource.RLIMIT_DATA, (heap if hard == resource.RLIM_INFINITY else min(heap, hard), hard))
        try:
            cells: Cells = pickle.loads(factory)(spec)
        except Exception as error:
            link.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            return
        gc.set_threshold(YOUNG)
        _forget()
        link.send(None)
        while True:
            for cell in link.recv():
                # A C thread that ends a hung interpreter, also one whose coordinator is gone.
                faulthandler.dump_traceback_later(watchdog, exit=True)
                row = _run(cells, cell)
                faulthandler.cancel_dump_traceback_later()
                link.send(tuple(row))
                _forget()
                if _resident() > memory:
                    link.send(RETIRES)
                    return


def _forget() -> None:
    """Free what a cell left in circles, and look at what stays (plugins, Kconfig trees, caches) never again."""
    gc.collect()
    gc.freeze()


def _run(cells: Cells, cell: Cell) -> Row:
    """Run a cell. Whatever is raised, ``SystemExit`` too, is the cell's."""
    try:
        return row_of(cells.run(cell))
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        lines = traceback.format_exc().splitlines()[-TAIL:]
        return row_of(CellResult(cell, "crash", "", "", (Problem(INTERPRETER, said),), tuple(lines)))


def _resident() -> int:
    """Bytes of memory that this process has in use now."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# outside of it -------------------------------------------------------------------------------------------------


class Station:
    """One worker at a time, and the cells that it was given. Belongs to one thread."""

    def __init__(
        self,
        factory: Factory,
        spec: str,
        *,
        watchdog: float = WATCHDOG,
        memory: int = MEMORY,
        deaths: int = DEATHS,
        hangs: int = HANGS,
    ) -> None:
        """Start a worker.

        :param spec: the spec as JSON.
        :param watchdog: seconds that a cell may take.
        :param memory: bytes at which a worker is replaced.
        :param deaths: workers that may die of a cell before that is its result.
        :param hangs: workers that may hang in it.
        """
        self._most_deaths, self._most_hangs = deaths, hangs
        self._first = (pickle.dumps(factory), spec, watchdog, memory)
        self._watchdog, self._memory = watchdog, memory
        self.pending: deque[Cell] = deque()
        """Cells without an answer, in order."""
        self.replaced = 0
        """Workers that were."""
        self._deaths: Counter[str] = Counter()
        self._hangs: Counter[str] = Counter()
        self._failed_starts = 0
        self._start()

    def _start(self) -> None:
        self._ready = False
        self._began = time.monotonic()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 # it lives as long as the worker
        self.link, theirs = Pipe()
        # -c instead of multiprocessing: that would run the caller's main program again, whatever it is.
        fd = theirs.fileno()
        code = f"import sys; sys.path[:] = {sys.path!r}; from hvkernel.matrix.worker import child; child({fd})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[fd],
            process_group=0,  # a terminal's Ctrl-C goes to the coordinator alone
        )
        theirs.close()
        with contextlib.suppress(OSError):  # it died already; collect() will see that
            self.link.send(self._first)

    def give(self, cells: Iterable[Cell]) -> None:
        """Add cells behind the pending ones."""
        new = list(cells)
        if new and not self.pending:
            self._began = time.monotonic()
        self.pending.extend(new)
        if self._ready:
            self._send(new)

    def _send(self, cells: Iterable[Cell]) -> None:
        with contextlib.suppress(OSError):  # as above
            self.link.send(list(cells))

    @property
    def patience(self) -> float:
        """Seconds until :meth:`collect` must be called even if nothing arrived."""
        if self._ready and not self.pending:
            return 3600.0
        return max(0.0, self._began + self._watchdog + GRACE - time.monotonic())

    def collect(self) -> list[Row]:
        """Take the answers that are there, without waiting. A worker that died or hangs is replaced.

        :raises WorkerError: workers do not come up.
        """
        rows: list[Row] = []
        try:
            while self.link.poll():
                answer = self.link.recv()
                if not self._ready:
                    self._came_up(answer)
                elif answer == RETIRES:
                    self._end(patience=GRACE)
                    self._replace()
                else:
                    rows.append(Row(*answer))
                    self.pending.popleft()
                    self._began = time.monotonic()
                    if os.fstat(self._log.fileno()).st_size > LOG:
                        os.lseek(self._log.fileno(), 0, os.SEEK_SET)  # the offset is the worker's too
                        os.ftruncate(self._log.fileno(), 0)
        except (EOFError, OSError, pickle.UnpicklingError):
            rows += self._died(self._end(patience=1.0))
        else:
            if self.patience == 0.0:
                rows += self._died(self._end(patience=0.0))
        return rows

    def _came_up(self, answer: object) -> None:
        if answer is not None:
            raise WorkerError(f"a worker cannot start: {answer}")
        self._ready, self._failed_starts = True, 0
        self._began = time.monotonic()
        self._send(self.pending)

    def _died(self, how: str) -> list[Row]:
        """Record the cell that a worker died of, if that is certain, and start the next worker."""
        left = self.last_words()
        rows = []
        if not self._ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise WorkerError("\n".join((f"{STARTS} workers died before their first cell: {how}", *left)))
        elif self.pending:
            cell = self.pending[0]
            # The worker's own watchdog began a little earlier than our clock.
            late = time.monotonic() - self._began >= self._watchdog or any(one.startswith("Timeout (") for one in left)
            seen, limit = (self._hangs, self._most_hangs) if late else (self._deaths, self._most_deaths)
            seen[cell.key] += 1
            if seen[cell.key] >= limit:
                if late:
                    problem = Problem(HANG, f"no answer in {self._watchdog:g} s")
                else:
                    problem = Problem(f"{INTERPRETER}-{how.replace(' status ', '-')}", f"killed its interpreter: {how}")
                rows.append(row_of(CellResult(cell, "crash", "", "", (problem,), left)))
                self.pending.popleft()
                del seen[cell.key]
        self._replace()
        return rows

    def _replace(self) -> None:
        self.link.close()
        self._log.close()
        self.replaced += 1
        self._start()

    def _end(self, patience: float) -> str:
        """Give the worker some seconds to end by itself, end it, and say how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        code = self.process.wait()
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name

    def last_words(self) -> tuple[str, ...]:
        """The end of what the worker has printed, without what differs from run to run."""
        fd = self._log.fileno()
        text = os.pread(fd, LOG, max(0, os.fstat(fd).st_size - LOG)).decode(errors="replace")
        return tuple(re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", line) for line in text.splitlines()[-TAIL:])

    def close(self) -> None:
        """End the worker, in the middle of a cell if it has one."""
        self.process.kill()
        self.process.wait()
        self.link.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
