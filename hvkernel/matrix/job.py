"""A run from spec to report: what the command line and other programs do with a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvkernel.boot.plugins import load
from hvkernel.matrix.apart import Apart, Interrupted
from hvkernel.matrix.axes import axes_of, cell_from_text, plugin_axes, replay_command
from hvkernel.matrix.cover import cells_of
from hvkernel.matrix.legal import Legal, legal
from hvkernel.matrix.report import MAX_CAUSES, OnShrink, Report
from hvkernel.matrix.worker import WATCHDOG

if TYPE_CHECKING:
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.matrix.model import Cell, CellResult
    from hvkernel.matrix.report import Cause
    from hvkernel.matrix.runner import OnProgress, Progress
    from hvkernel.matrix.store import Store

__all__ = ["Job", "open_job", "replay"]


@dataclass(frozen=True)
class Job:
    """A spec and its cells."""

    spec: MatrixSpec
    legal: Legal
    cells: Sequence[Cell]

    def run(
        self,
        store: Store,
        *,
        jobs: int | None = None,
        scheduler: str | None = None,
        progress: OnProgress | None = None,
    ) -> Progress:
        """Run the cells that have no result in ``store``, here or on a cluster.

        :param jobs: worker processes; all cores when not given.
        :param scheduler: address of a Dask scheduler.
        :param progress: called some times a second.
        :raises InputError: ``jobs`` is less than one, no scheduler answers, or results cannot be written.
        """
        if scheduler is not None:
            from hvkernel.matrix import distributed

            return distributed.run_on(scheduler, self.spec, self.cells, store, progress=progress)
        from hvkernel.matrix import runner

        return runner.run(self.spec, self.cells, store, jobs=jobs, progress=progress)

    def report(self, store: Store) -> Report:
        """Gather what ``store`` has."""
        report = Report(
            self.spec.varied,
            planned=len(self.cells),
            replay=self.replay_of,
            possible=self.legal.allows,
            title=self.spec.title,
        )
        for result in store.results():
            report.add(result)
        return report

    def replay_of(self, cell: Cell) -> str:
        """Return the command that runs one cell again."""
        return replay_command(self.spec, cell)

    def explain(self, report: Report, *, limit: int = MAX_CAUSES, progress: OnShrink | None = None) -> int:
        """Find causes of failures, by cells that are run in another process; returns the signal that ended it, or 0.

        Whatever was found by then is in ``report``.

        :param limit: most failures that are shrunk.
        :param progress: is told the causes so far and the kind that is looked into.
        :raises WorkerError: no other process can be started.
        """
        from hvkernel.matrix.runner import until_signal
        from hvkernel.matrix.shrink import shrink

        with until_signal() as stop, Apart(self.spec, stop) as apart:

            def cause_of(result: CellResult) -> Cause | None:
                return shrink(apart, result) if result.problems and not apart.tired else None

            try:
                report.explain(cause_of, limit=limit, progress=progress)
            except Interrupted as end:
                return end.signal
        return 0


def open_job(spec: MatrixSpec) -> Job:
    """Make the cells of a spec.

    :raises InputError: the spec names an axis or a value that there is not, or its constraints contradict one another.
    """
    plugins = load().for_one_guest()
    found = legal(spec, axes_of(spec, plugin_axes(plugins)), plugins)
    return Job(spec, found, cells_of(spec, plugins, found=found))


def replay(spec: MatrixSpec, text: str, seed: int, *, watchdog: float = WATCHDOG) -> tuple[CellResult, tuple[str, ...]]:
    """Run one cell, given as ``AXIS=VALUE,AXIS=VALUE``, in a process of its own, twice if it passes.

    :param watchdog: seconds of wall clock after which it counts as hung.
    :return: what became of it, with its whole log, and the last lines that it printed.
    :raises InputError: it names an axis or a value that there is not.
    :raises WorkerError: no other process can be started.
    """
    cell = cell_from_text(spec, axes_of(spec, plugin_axes(load())), text, seed)
    with Apart(spec, watchdog=watchdog, whole_log=True) as apart:
        return apart.run(cell, twice=True), apart.printed
