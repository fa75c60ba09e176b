"""Run cells one at a time in an interpreter apart.

A failing cell is shrunk and replayed this way: it may kill whoever runs it, always or now and then, or never end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final, Self

from hvkernel.matrix.model import HANG, Cell, CellResult
from hvkernel.matrix.store import Row, result_of
from hvkernel.matrix.worker import Cells, Station, cell_runner

if TYPE_CHECKING:
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.matrix.runner import Stop

__all__ = ["Apart", "Interrupted"]

WATCHDOG: Final = 60.0
"""Seconds of wall clock after which a trial counts as hung. Fewer than a run gives its cells, because a cell that hangs
is tried again and again; still some times what a cell takes that uses up its budget of steps."""
DEATHS: Final = 2
"""Interpreters that may die of a trial before that is its result: somebody else may have killed the first."""
HANGS: Final = 20
"""Trials that may hang until this is :attr:`Apart.tired`."""


class Interrupted(Exception):
    """A signal asked for the end while a cell ran."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


class Apart:
    """Runs cells of one spec in another process, which is started for the first of them.

    :param spec: what the cells are of.
    :param stop: is looked at while a cell runs.
    :param watchdog: seconds that a cell may take.
    :param whole_log: results have the whole log, those of cells that pass, too.
    :param factory: makes what runs the cells; takes ``sample`` and ``whole_log`` besides the spec.
    """

    def __init__(
        self,
        spec: MatrixSpec,
        stop: Stop | None = None,
        *,
        watchdog: float = WATCHDOG,
        whole_log: bool = False,
        factory: Callable[..., Cells] = cell_runner,
    ) -> None:
        self.spec = spec
        self._stop = stop
        self._watchdog = watchdog
        self._factory = partial(factory, whole_log=whole_log)
        self._stations: dict[bool, Station] = {}
        self._open = ExitStack()
        self._hangs = 0
        self.printed: tuple[str, ...] = ()
        """The last lines that the last cell printed, where its interpreter lives."""

    @property
    def tired(self) -> bool:
        """Whether so many cells hung that it is enough."""
        return self._hangs >= HANGS

    def run(self, cell: Cell, *, twice: bool) -> CellResult:
        """Run a cell. That it kills its interpreter, or never ends, is its result.

        :param twice: if it passes, run it once more, which must do the same.
        :raises Interrupted: somebody asked for the end.
        :raises WorkerError: no interpreter can be started.
        """
        station = self._station(twice)
        station.give([cell])
        wakers = [] if self._stop is None else [self._stop.waker]
        rows: list[Row] = []
        while not rows:
            wait([station.link, *wakers], station.patience)
            if self._stop is not None and self._stop.signal:
                raise Interrupted(self._stop.signal)
            rows = station.collect()
        result = result_of(rows[0])
        self._hangs += any(problem.invariant == HANG for problem in result.problems)
        self.printed = station.last_words()
        return result

    def _station(self, twice: bool) -> Station:
        if twice not in self._stations:
            make = partial(self._factory, sample=int(twice))  # one in one, or none
            station = Station(make, self.spec.to_json(), watchdog=self._watchdog, deaths=DEATHS, hangs=1)
            self._stations[twice] = self._open.enter_context(station)
        return self._stations[twice]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
