"""init.h: initcalls by level and link order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hvkernel.linux.linkorder import LinkRank, link_rank

LEVELS: Final = (
    "early",
    "pure",
    "core",
    "core_sync",
    "postcore",
    "postcore_sync",
    "arch",
    "arch_sync",
    "subsys",
    "subsys_sync",
    "fs",
    "fs_sync",
    "rootfs",
    "device",
    "device_sync",
    "late",
    "late_sync",
)
"""Source: include/linux/init.h: early, 0, 1, 1s, ... 5, 5s, rootfs, 6, 6s, 7, 7s."""


class Initcall(NamedTuple):
    """One registered function."""

    level: int
    """Index into LEVELS."""
    rank: LinkRank
    sequence: int
    name: str
    fn: Callable[[], int | None]


class Initcalls:
    """``kernel.initcall``: the table that the linker would have made."""

    def __init__(self, after: Callable[[Initcall, int], None]) -> None:
        """:param after: called with each initcall and its result (checks preempt_count, records failures)."""
        self._calls: list[Initcall] = []
        self._after = after
        self._sorted = False
        self.done: list[tuple[str, int]] = []
        """Name and result of every initcall that ran, in order."""

    def add(self, level: str, path: str, fn: Callable[[], int | None], name: str) -> None:
        """Register ``fn`` of object file ``path`` at ``level``; several of one file keep the order of registration.

        :raises ValueError: for an unknown level or a path that is not an object file.
        """
        if level not in LEVELS:
            raise ValueError(f"initcall {name} ({path}): level {level!r} is none of {', '.join(LEVELS)}")
        self._calls.append(Initcall(LEVELS.index(level), link_rank(path), len(self._calls), name, fn))
        self._sorted = False

    def order(self) -> list[Initcall]:
        """All of them, in calling order."""
        if not self._sorted:
            self._calls.sort()
            self._sorted = True
        return self._calls

    def run(self, first: str, last: str) -> None:
        """Run the levels from ``first`` to ``last``. Source: init/main.c:do_one_initcall, do_initcall_level."""
        low, high = LEVELS.index(first), LEVELS.index(last)
        for call in tuple(self.order()):
            if low <= call.level <= high:
                result = call.fn() or 0
                self.done.append((call.name, result))
                self._after(call, result)
