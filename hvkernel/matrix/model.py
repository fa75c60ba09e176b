"""What a matrix is made of: cells, and what became of each. Plain data that crosses processes as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self

__all__ = ["EVENT_NAMES", "HANG", "INTERPRETER", "Cell", "CellResult", "Problem", "Status"]

Status = Literal["pass", "fail", "crash", "over-budget"]
"""``fail``: an invariant is broken. ``crash``: the interpreter that ran it died, or the model raised. ``over-budget``:
it took more virtual time or more steps than a cell may."""


EVENT_NAMES: Final = ("rescind", "rebind", "reload", "cpu-hotplug", "retarget", "subchannels", "hibernate")
"""Events that can happen to a guest that is up; :mod:`hvkernel.matrix.events` says what they are."""

INTERPRETER: Final = "interpreter"
"""The problem of a cell that raised what nobody caught. With ``-`` and how behind it (``interpreter-SIGSEGV``,
``interpreter-exit-3``) that of one that killed its interpreter."""

HANG: Final = f"{INTERPRETER}-hang"
"""The problem of a cell whose interpreter gave no answer."""


@dataclass(frozen=True)
class Cell:
    """One combination of values, under one seed."""

    number: int
    """Place in the run, from 0."""
    values: tuple[tuple[str, str], ...]
    """(axis, value), in the order of the axes."""
    seed: int
    """Seed of the machine; not an axis of the array."""

    @cached_property
    def key(self) -> str:
        """The same for the same values and seed in any run: what a resumed run knows a cell by."""
        text = json.dumps([self.values, self.seed], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def by_axis(self) -> dict[str, str]:
        """Value by axis."""
        return dict(self.values)


@dataclass(frozen=True)
class Problem:
    """One broken invariant."""

    invariant: str
    text: str


@dataclass(frozen=True)
class CellResult:
    """What became of a cell."""

    cell: Cell
    status: Status
    outcome: str
    """``up``, ``panic``, ``hung``, ``unsupported`` or ``not-linked``; empty when it crashed before there was one."""
    phase: str
    """Where it ended: ``build``, ``link``, ``boot``, ``drive``, ``events``, ``shutdown``, ``invariants``."""
    problems: tuple[Problem, ...] = ()
    dmesg: tuple[str, ...] = ()
    """The last lines of the log, of a cell that did not pass."""
    virtual: int = 0
    """Virtual time, 100 ns units."""
    steps: int = 0
    """Scheduler steps."""
    cpu_ms: float = 0.0
    """CPU time of the worker; no part of any comparison."""
    undriven: tuple[str, ...] = ()
    """Names of the devices that have a driver and that no drive used."""

    def to_json(self) -> str:
        """Return the result as one line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        cell = data.pop("cell")
        values = tuple((axis, value) for axis, value in cell["values"])
        problems = tuple(Problem(**one) for one in data.pop("problems"))
        data["dmesg"], data["undriven"] = tuple(data["dmesg"]), tuple(data["undriven"])
        return cls(cell=Cell(cell["number"], values, cell["seed"]), problems=problems, **data)
