"""A run from spec to report: what the command line and other programs do with a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from hvkernel.boot.plugins import load
from hvkernel.matrix.axes import axes_of, cell_from_text, plugin_axes, replay_command
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.cover import cells_of
from hvkernel.matrix.legal import Legal, legal
from hvkernel.matrix.report import Report

if TYPE_CHECKING:
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.matrix.model import Cell, CellResult
    from hvkernel.matrix.report import Cause
    from hvkernel.matrix.runner import OnProgress, Progress
    from hvkernel.matrix.store import Store

__all__ = ["UNSAFE", "Job", "open_job", "replay"]

UNSAFE: Final = frozenset({"interpreter"})
"""What a worker records when its interpreter died or hung."""


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

    def shrink(self, result: CellResult) -> Cause | None:
        """Return why a cell failed; nothing for one that took its interpreter with it, which would take this one."""
        if not result.problems or result.problems[0].invariant in UNSAFE:
            return None
        from hvkernel.matrix.shrink import shrink

        return shrink(self._runner, result)

    @cached_property
    def _runner(self) -> CellRunner:
        return CellRunner(self.spec)


def open_job(spec: MatrixSpec) -> Job:
    """Make the cells of a spec.

    :raises InputError: the spec names an axis or a value that there is not, or its constraints contradict one another.
    """
    plugins = load().for_one_guest()
    found = legal(spec, axes_of(spec, plugin_axes(plugins)), plugins)
    return Job(spec, found, cells_of(spec, plugins, found=found))


def replay(spec: MatrixSpec, text: str, seed: int) -> CellResult:
    """Run one cell, given as ``AXIS=VALUE,AXIS=VALUE``, in this process, twice if it passes; its whole log is kept.

    :raises InputError: it names an axis or a value that there is not.
    """
    runner = CellRunner(spec, whole_log=True)
    return runner.run(cell_from_text(spec, runner.axes, text, seed), twice=True)
