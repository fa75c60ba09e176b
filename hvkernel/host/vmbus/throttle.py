"""Unnecessary signals: a guest that sends too many of them is stopped for a while.

The host expects a signal when a ring goes from empty to not empty; at other times it is unnecessary, and a guest with
too many of those may be suspended for a few seconds (Documentation/virt/hyperv/vmbus.rst, "VMbus interrupts").
How many are excessive, in what time, and how long exactly the guest stands still is published nowhere: profile data,
*unspecified*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hvkernel.host.vmbus.bus import Bus

__all__ = ["Limits", "Throttle"]


class Limits(Protocol):
    """How much a guest may signal in vain (``hvkernel.config``: Throttle). Times in 100 ns units."""

    @property
    def budget(self) -> int:
        """Unnecessary signals within one interval."""
        ...

    @property
    def interval(self) -> int:
        """Length of the interval."""
        ...

    @property
    def pause(self) -> int:
        """How long the guest stands still."""
        ...


class Throttle:
    """Counts the unnecessary signals of one guest, over all its channels."""

    __slots__ = ("_bus", "_count", "_limits", "_start", "pauses", "total")

    def __init__(self, bus: Bus, limits: Limits | None) -> None:
        """:param limits: ``None`` for a host that counts and never pauses."""
        self._bus = bus
        self._limits = limits
        self._start = 0
        self._count = 0
        self.total = 0
        """Unnecessary signals since the machine started."""
        self.pauses = 0
        """How often the guest was stopped."""

    def unnecessary(self, where: str) -> None:
        """Count one; the guest's processors stand still when it was one too many.

        Called in the guest's hypercall: time passes and none of its code runs. An interval starts with the first
        unnecessary signal after the last one ended.

        :param where: the channel, for the finding.
        """
        self.total += 1
        limits = self._limits
        if limits is None:
            return
        clock = self._bus.machine.clock
        if clock.now - self._start >= limits.interval:
            self._start, self._count = clock.now, 0
        self._count += 1
        if self._count <= limits.budget:
            return
        self.pauses += 1
        self._bus.record(
            "throttled",
            f"more than {limits.budget} unnecessary signals within {limits.interval // 10_000} ms, "
            f"the last one for {where}; the guest is paused for {limits.pause // 10_000} ms",
        )
        clock.charge(limits.pause)
        self._start, self._count = clock.now, 0
