"""Monitored notification: the guest sets a bit in a page that the hypervisor looks at, instead of a hypercall.

INITIATE_CONTACT names two pages; the second is the guest's (drivers/hv/connection.c: vmbus_connect). The host fills in
whom each bit signals and how long it may wait, and enables the group. What looks at the page is the hypervisor: it
notices a bit at the latest one latency after it was set (include/linux/hyperv.h: struct hv_monitor_page).

*unspecified*: when exactly the hypervisor looks. Here each bit is seen exactly one latency after it was set, so that
time stands still for nobody and a machine in which nothing happens is idle.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from hvkernel.abi.monitor import HvMonitorPage, HvMonitorTriggerGroup

if TYPE_CHECKING:
    from hvkernel.host.vmbus.bus import Bus
    from hvkernel.host.vmbus.channel import ServerChannel

__all__ = ["Monitor"]

_TRIGGER_STATE: Final = HvMonitorPage.offset_of("trigger_state")
_TRIGGER_GROUP: Final = HvMonitorPage.offset_of("trigger_group")
_LATENCY: Final = HvMonitorPage.offset_of("latency")
_PARAMETER: Final = HvMonitorPage.offset_of("parameter")
_GROUP_BYTES: Final = HvMonitorTriggerGroup.SIZE


class Monitor:
    """The monitor pages of the connection."""

    __slots__ = ("_bus", "_channels", "_due", "_pages")

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._pages = (0, 0)
        self._channels: dict[int, ServerChannel] = {}
        self._due: dict[int, bool] = {}
        """Bits that were set and not yet looked at."""

    @property
    def usable(self) -> bool:
        """Whether the guest gave monitor pages."""
        return bool(self._pages[1])

    def connect(self, parent_to_child: int, child_to_parent: int, vp: int) -> None:
        """Use the pages at these addresses; zero means none."""
        self._pages = (parent_to_child, child_to_parent)
        for gpa in dict.fromkeys(self._pages):
            if gpa:
                self._bus.share("monitor", gpa, (gpa >> 12,), vp)

    def disconnect(self) -> None:
        """Let go of the pages."""
        if self.usable:
            self._bus.unwatch(self._pages[1] >> 12)
        for gpa in dict.fromkeys(self._pages):
            if gpa:
                self._bus.unshare("monitor", gpa)
        self._pages = (0, 0)
        self._channels.clear()
        self._due.clear()

    def enable(self, channel: ServerChannel) -> None:
        """Tell the guest's page whom a channel's bit signals, and enable its group."""
        number = channel.monitor_id
        if number is None:
            return
        memory, page = self._bus.memory, self._pages[1]
        if not self._channels:
            self._bus.watch(page >> 12, self._touched)
        self._channels[number] = channel
        memory.write(page + _LATENCY + 2 * number, channel.offer.monitor_latency.to_bytes(2, "little"))
        memory.write(page + _PARAMETER + 8 * number, channel.connection_id.to_bytes(8, "little"))
        state = int.from_bytes(memory.read(page + _TRIGGER_STATE, 4), "little")
        memory.write(page + _TRIGGER_STATE, (state | 1 << number // 32).to_bytes(4, "little"))

    def disable(self, channel: ServerChannel) -> None:
        """Forget a channel that closes."""
        if channel.monitor_id is not None and self._channels.pop(channel.monitor_id, None) is not None:
            page = self._pages[1]
            self._due.pop(channel.monitor_id, None)
            self._bus.memory.write(page + _PARAMETER + 8 * channel.monitor_id, bytes(8))
            if not self._channels:
                self._bus.unwatch(page >> 12)

    def _touched(self) -> None:
        """Look at each bit that was set just now one latency of its channel later."""
        clock = self._bus.machine.clock
        for group, pending in enumerate(self._pending()):
            while pending:
                number = 32 * group + (pending & -pending).bit_length() - 1
                pending &= pending - 1
                if number not in self._due:
                    self._due[number] = True
                    channel = self._channels.get(number)
                    latency = 0 if channel is None else channel.offer.monitor_latency
                    clock.at(clock.now + latency, partial(self._look, number))

    def _pending(self) -> tuple[int, ...]:
        """The ``pending`` words of the four groups of the guest's page."""
        groups = self._bus.memory.read(self._pages[1] + _TRIGGER_GROUP, 4 * _GROUP_BYTES)
        return tuple(int.from_bytes(groups[at : at + 4], "little") for at in range(0, len(groups), _GROUP_BYTES))

    def _look(self, number: int) -> None:
        """Take one bit of the guest's page and signal its channel."""
        memory, page = self._bus.memory, self._pages[1]
        if self._due.pop(number, None) is None or not page:
            return
        at = page + _TRIGGER_GROUP + _GROUP_BYTES * (number // 32)
        pending = int.from_bytes(memory.read(at, 4), "little")
        bit = 1 << number % 32
        if not pending & bit:
            return
        memory.write(at, (pending & ~bit).to_bytes(4, "little"))
        channel = self._channels.get(number)
        if channel is None:
            self._bus.record("ignored", f"monitor bit {number} belongs to no open channel")
        else:
            channel.kick()
