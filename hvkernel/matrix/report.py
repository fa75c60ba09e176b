"""What a run of a matrix comes to: counts, combinations, failures and their causes; what every face of it prints.

A :class:`Report` takes results one by one and keeps little of those that passed, so that a hundred thousand cells are
no burden: one row of value numbers for each distinct combination, with how often it passed and failed.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Final, Protocol, TypeAlias, get_args

from hvkernel.matrix.model import Cell, CellResult, Status

__all__ = [
    "KEPT",
    "MAX_CAUSES",
    "STATUSES",
    "Cause",
    "Failure",
    "Kind",
    "OnShrink",
    "Pairs",
    "Report",
    "Row",
    "kind_of",
    "visible",
]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)
"""Every status, the good one first."""

KEPT: Final = 1000
"""Failures that are kept whole, with their log. Of further ones there is the count, per combination and kind."""

MAX_CAUSES: Final = 20
"""Failures that are shrunk for one report; shrinking one takes dozens of cells."""

OnShrink: TypeAlias = Callable[[int, str], None]
"""Is told the causes so far and the kind of failure that is looked into."""

MAX_LINE: Final = 2000
"""Characters of one line of a log, or of a problem, in a report."""


class Cause(Protocol):
    """Why a cell fails, as :mod:`hvkernel.matrix.shrink` finds it."""

    @property
    def values(self) -> tuple[tuple[str, str], ...]:
        """(axis, value) of the few values that matter; empty: any cell fails."""
        ...

    @property
    def alike(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Axis of one of these values, and its other values with which the cell fails too."""
        ...

    @property
    def text(self) -> str:
        """``fails iff ...``."""
        ...

    @property
    def replay(self) -> str:
        """Command that runs the smallest cell that fails."""
        ...


def visible(text: str, *, limit: int = MAX_LINE) -> str:
    """Return one line of ``text`` with all that would drive a terminal, or turn the direction of writing, made visible.

    :param limit: characters after which the rest is only counted.
    """
    shown = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text[:limit])
    return shown if len(text) <= limit else f"{shown} ... ({len(text) - limit} more characters)"


def kind_of(result: CellResult) -> str:
    """Return what kind of failure it is: the first broken invariant, or the status where none was looked at."""
    if result.problems:
        return result.problems[0].invariant
    return "" if result.status == "pass" else result.status


def _explains(cause: Cause, cell: Cell) -> bool:
    by_axis, alike = cell.by_axis, dict(cause.alike)
    return all(by_axis.get(axis) in (value, *alike.get(axis, ())) for axis, value in cause.values)


@dataclass(slots=True)
class Row:
    """One combination of values, under any seed."""

    values: tuple[int, ...]
    """Index into the axis's values, axis by axis; -1 where the cell does not have the axis."""
    counts: array[int]
    """Cells by status, in the order of :data:`STATUSES`."""


@dataclass(slots=True)
class Failure:
    """One cell that did not pass."""

    result: CellResult
    row: int
    """Index into the rows."""
    kind: str
    replay: str
    cause: int | None = None
    """Index into the report's causes."""
    tried: bool = False
    """Whether it was shrunk itself."""


@dataclass(slots=True)
class Kind:
    """How many cells failed in one way."""

    name: str
    cells: int
    first: Failure


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of values of two axes."""

    seen: int
    """Pairs that a cell had."""
    possible: int
    """Pairs that a cell can have."""
    impossible: tuple[tuple[int, int, int, int], ...]
    """Those that none can have: both axes by index, the earlier first, and their values by index."""


class Report:
    """Gathers the results of one run."""

    def __init__(
        self,
        axes: Mapping[str, Sequence[str]],
        *,
        planned: int,
        replay: Callable[[Cell], str],
        possible: Callable[[Mapping[str, str]], bool] = lambda _: True,
        title: str = "",
        kept: int = KEPT,
    ) -> None:
        """Make an empty report.

        :param axes: values by axis, in the order of the spec; values that only come up in results are added.
        :param planned: cells of the whole run.
        :param replay: the command that runs one cell again.
        :param possible: whether there can be a cell with these values; asked for pairs that no cell had.
        :param title: of the spec.
        :param kept: failures that are kept whole.
        """
        self.title = title
        self.planned = planned
        self.axes: dict[str, list[str]] = {name: list(values) for name, values in axes.items()}
        self.counts: Counter[Status] = Counter()
        self.rows: list[Row] = []
        self.failures: list[Failure] = []
        self.kinds: dict[str, Kind] = {}
        self.causes: list[tuple[str, Cause]] = []
        """(kind, cause), in the order found."""
        self.cells: Counter[tuple[int | None, str]] = Counter()
        """Failures by cause (``None``: not shrunk) and kind, once :meth:`attribute` has counted them."""
        self.undriven: Counter[str] = Counter()
        """Cells by name of a device that had a driver in them and that no drive used."""
        self._replay = replay
        self._possible = possible
        self._kept = kept
        self._by_values: dict[tuple[int, ...], int] = {}
        self._number = {name: {value: i for i, value in enumerate(values)} for name, values in self.axes.items()}

    def add(self, result: CellResult) -> None:
        """Count a result, and keep it if it did not pass."""
        self.counts[result.status] += 1
        self.undriven.update(result.undriven)
        index = self._row_of(result.cell)
        self.rows[index].counts[STATUSES.index(result.status)] += 1
        if result.status == "pass":
            return
        kind = kind_of(result)
        known = self.kinds.get(kind)
        if known is not None:
            known.cells += 1
        if len(self.failures) < self._kept or known is None:
            failure = Failure(result, index, kind, self._replay(result.cell))
            self.failures.append(failure)
            if known is None:
                self.kinds[kind] = Kind(kind, 1, failure)

    def _row_of(self, cell: Cell) -> int:
        if len(cell.values) != len(self._number) or any(axis not in self._number for axis, _ in cell.values):
            self._add_axes(cell)
        by_axis = cell.by_axis
        found = []
        for axis, numbers in self._number.items():
            value = by_axis.get(axis)
            if value is None:
                found.append(-1)
                continue
            if value not in numbers:
                numbers[value] = len(numbers)
                self.axes[axis].append(value)
            found.append(numbers[value])
        values = tuple(found)
        index = self._by_values.get(values)
        if index is None:
            index = self._by_values[values] = len(self.rows)
            self.rows.append(Row(values, array("Q", [0] * len(STATUSES))))
        return index

    def _add_axes(self, cell: Cell) -> None:
        """Take in axes that the report was not told of; the rows so far do not have them."""
        for axis, _ in cell.values:
            if axis not in self._number:
                self.axes[axis], self._number[axis] = [], {}
                for row in self.rows:
                    row.values = (*row.values, -1)
                self._by_values = {row.values: index for index, row in enumerate(self.rows)}

    @property
    def done(self) -> int:
        """Cells that have a result."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """Cells that did not pass."""
        return self.done - self.counts["pass"]

    @property
    def omitted(self) -> int:
        """Failures that are only counted."""
        return self.failed - len(self.failures)

    @cached_property
    def pairs(self) -> Pairs:
        """Which pairs of values of two axes met in a cell. To be asked when all results are in."""
        seen = 0
        impossible: list[tuple[int, int, int, int]] = []
        missing = 0
        names = list(self.axes)
        for one, other in combinations(range(len(names)), 2):
            met = {(row.values[one], row.values[other]) for row in self.rows}
            for pair in product(range(len(self.axes[names[one]])), range(len(self.axes[names[other]]))):
                if pair in met:
                    seen += 1
                    continue
                values = {name: self.axes[name][at] for name, at in zip((names[one], names[other]), pair, strict=True)}
                if self._possible(values):
                    missing += 1
                else:
                    impossible.append((one, other, *pair))
        return Pairs(seen, seen + missing, tuple(impossible))

    def explain(
        self,
        shrink: Callable[[CellResult], Cause | None],
        *,
        limit: int = MAX_CAUSES,
        progress: OnShrink | None = None,
    ) -> None:
        """Find the causes of the failures that are kept.

        A cell that fails in the same way as one that was shrunk, and has the values that matter there, or others that
        are as bad, is put to the same cause; each other one is shrunk itself, until there are ``limit`` causes.

        :param shrink: returns the cause of one failure, or nothing where it cannot.
        :param progress: is told the causes so far and the kind that is looked into.
        """
        tried = 0
        first = [kind.first for kind in self.kinds.values()]  # no kind goes without for the many of another
        for failure in (*first, *self.failures):
            if failure.cause is None:
                failure.cause = self._cause_of(failure.kind, failure.result.cell)
            if failure.cause is None and not failure.tried and tried < limit:
                tried += 1
                failure.tried = True
                if progress is not None:
                    progress(len(self.causes), failure.kind)
                found = shrink(failure.result)
                if found is not None:
                    failure.cause = len(self.causes)
                    self.causes.append((failure.kind, found))

    def attribute(self, failures: Iterable[CellResult] = ()) -> None:
        """Count the cells of each cause, those that are not kept with them.

        :param failures: results of all cells that failed; needed only when some were not kept.
        """
        kept = {failure.result.cell.key for failure in self.failures}
        self.cells = Counter((failure.cause, failure.kind) for failure in self.failures)
        if self.omitted:
            for result in failures:
                if result.cell.key not in kept:
                    kind = kind_of(result)
                    self.cells[self._cause_of(kind, result.cell), kind] += 1

    def _cause_of(self, kind: str, cell: Cell) -> int | None:
        for index, (other, cause) in enumerate(self.causes):
            if kind == other and _explains(cause, cell):
                return index
        return None
