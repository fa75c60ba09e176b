"""From a failing cell to the few values that make it fail.

Every value of the cell is left out in turn, so that its axis stands at its default, and stays left out where the cell
still fails in the same way. What cannot be left out alone because the rest would be no machine is left out together
with what depends on it. What remains is minimal: without any one of it the cell passes, or there is no such machine.
Before that whole groups of values are tried, because a trial that fails may cost an interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal, Protocol

from hvkernel.matrix.axes import replay_command
from hvkernel.matrix.model import INTERPRETER, Cell, CellResult

if TYPE_CHECKING:
    from hvkernel.config.matrix import MatrixSpec

__all__ = ["Cause", "Trials", "shrink"]

RUNS: Final = 60
"""Most boots that one cell is shrunk by; a cell of twenty axes takes some twenty."""

LETHAL: Final = 20
"""Most boots among them that may end their interpreter, or be ended by the watchdog."""

TOGETHER: Final = 3
"""Most values that are left out together."""

NO_MACHINE: Final = "legal-cell"
"""The problem of a cell whose values contradict one another."""

Verdict = Literal["fails", "passes", "no-machine"]
Values = tuple[tuple[str, str], ...]


class Trials(Protocol):
    """What runs the cells that are tried: a :class:`~hvkernel.matrix.cell.CellRunner`, in this process, or
    :class:`~hvkernel.matrix.apart.Apart`, in another."""

    @property
    def spec(self) -> MatrixSpec:
        """What the cells are of."""
        ...

    def run(self, cell: Cell, *, twice: bool) -> CellResult:
        """Run a cell; ``twice``: if it passes, once more, which must do the same."""
        ...


@dataclass(frozen=True)
class Cause:
    """What makes a cell fail."""

    values: Values
    """The values that matter, each without which the cell passes; empty: it fails with every axis at its default."""
    needed: Values
    """Further values of the shrunk cell without which there is no such machine."""
    alike: tuple[tuple[str, tuple[str, ...]], ...]
    """Axis of a value that matters, and its other values of the spec with which the shrunk cell fails too."""
    invariant: str
    """What is broken."""
    text: str
    """As ``fails iff page_size=64K``. *iff* is said only of what was confirmed."""
    replay: str
    """Command that runs the shrunk cell."""
    runs: int
    """Boots that it took."""


class _Known:
    """Cells with some of the values left out, each run once."""

    def __init__(self, trials: Trials, cell: Cell, invariant: str, runs: int) -> None:
        self._trials = trials
        self._cell = cell
        self._invariant = invariant
        self._most = runs
        self._known: dict[Values, Verdict] = {cell.values: "fails"}
        self.runs = 0
        self._ended = 0

    @property
    def over(self) -> bool:
        """Whether no more boots are allowed."""
        return self.runs >= self._most or self._ended >= LETHAL

    def verdict(self, values: Values) -> Verdict | None:
        """Return what becomes of a cell with these values; ``None``: not known, and no more boots are allowed."""
        known = self._known.get(values)
        if known is None:
            if self.over:
                return None
            cell = Cell(self._cell.number, values, self._cell.seed)
            result = self._trials.run(cell, twice=self._invariant == "same-run")
            broken = {problem.invariant for problem in result.problems}
            if NO_MACHINE in broken or result.outcome == "unsupported":
                known = "no-machine"
            else:
                known = "fails" if self._invariant in broken else "passes"
                self.runs += 1
                self._ended += any(name.startswith(INTERPRETER) for name in broken)
            self._known[values] = known
        return known

    def fails(self, values: Values) -> bool:
        return self.verdict(values) == "fails"


def shrink(trials: Trials, result: CellResult, *, runs: int = RUNS) -> Cause:
    """Find the values that make a cell fail.

    :param trials: runs the cells that are tried.
    :param result: of a cell that did not pass.
    :param runs: most boots.
    :raises ValueError: the cell passed.
    """
    if not result.problems:
        raise ValueError(f"cell {result.cell.number} has no problem to shrink")
    invariant = result.problems[0].invariant
    if invariant == NO_MACHINE:
        text = f"there is no such machine: {result.problems[0].text}"
        return Cause(result.cell.values, (), (), invariant, text, replay_command(trials.spec, result.cell), 0)
    known = _Known(trials, result.cell, invariant, runs)
    values = _left_out(known, result.cell.values)
    matter: list[tuple[str, str]] = []
    needed: list[tuple[str, str]] = []
    confirmed = True
    for one in values:
        verdict = known.verdict(_without(values, (one,)))
        if verdict == "no-machine":
            needed.append(one)
        else:
            matter.append(one)
            confirmed = confirmed and verdict == "passes"
    if not matter:
        # None of them can go, so all of them are what it takes.
        matter, needed = needed, []
    alike, all_tried = _alike(known, trials.spec, values, matter)
    cell = Cell(result.cell.number, values, result.cell.seed)
    text = _text(trials.spec, matter, alike, confirmed and all_tried)
    return Cause(
        tuple(matter),
        tuple(needed),
        tuple(alike.items()),
        invariant,
        text,
        replay_command(trials.spec, cell),
        known.runs,
    )


def _without(values: Values, gone: Values) -> Values:
    return tuple(one for one in values if one not in gone)


def _left_out(known: _Known, values: Values) -> Values:
    """Leave out what can be: one at a time, then together, until nothing more can."""
    values = _in_groups(known, values)
    before: Values | None = None
    while values != before:
        before = values
        for one in values:
            fewer = _without(values, (one,))
            if known.fails(fewer):
                values = fewer
        if values == before:
            values = _together(known, values)
    return values


def _in_groups(known: _Known, values: Values) -> Values:
    """Leave out halves, quarters and so on: most values do not matter, and each trial that shows it fails."""
    size = len(values) // 2
    while size > 1:
        for group in [values[start : start + size] for start in range(0, len(values), size)]:
            fewer = _without(values, group)
            if known.fails(fewer):
                values = fewer
        size //= 2
    return values


def _together(known: _Known, values: Values) -> Values:
    """Leave out some values that cannot go one by one: of each group at least one, alone, leaves no machine."""
    stuck = [one for one in values if known.verdict(_without(values, (one,))) == "no-machine"]
    for count in range(2, TOGETHER + 1):
        for group in combinations(values, count):
            if any(one in stuck for one in group) and known.fails(_without(values, group)):
                return _without(values, group)
    return values


def _alike(
    known: _Known, spec: MatrixSpec, values: Values, matter: list[tuple[str, str]]
) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Try the other values of the axes that matter; return those with which it fails too, and whether that was all."""
    found = {}
    verdicts: list[Verdict | None] = []
    for axis, value in matter:
        alike = []
        for other in spec.varied.get(axis, ()):
            if other != value:
                swapped = tuple((name, other if name == axis else kept) for name, kept in values)
                verdicts.append(known.verdict(swapped))
                if verdicts[-1] == "fails":
                    alike.append(other)
        if alike:
            found[axis] = tuple(alike)
    return found, None not in verdicts


def _text(spec: MatrixSpec, matter: list[tuple[str, str]], alike: dict[str, tuple[str, ...]], confirmed: bool) -> str:
    """Say it, the values of an axis in the spec's order: two cells of one cause say the same."""
    if not matter:
        return "fails with every axis at its default"
    parts = []
    for axis, value in matter:
        bad = (value, *alike.get(axis, ()))
        ordered = [one for one in spec.varied.get(axis, bad) if one in bad] if len(bad) > 1 else [value]
        parts.append(f"{axis} is {' or '.join(ordered)}" if len(ordered) > 1 else f"{axis}={value}")
    return f"fails {'iff' if confirmed else 'with'} {' and '.join(parts)}"
