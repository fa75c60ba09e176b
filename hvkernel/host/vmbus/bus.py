"""What all parts of the VMBus server share: the hypervisor under them and the live connection's numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final, cast

from hvkernel.abi import vmbus as abi
from hvkernel.machine import HvPfn

if TYPE_CHECKING:
    from hvkernel.host.vmbus.buffers import HostMemory
    from hvkernel.host.vmbus.hypervisor import Hypervisor

__all__ = ["CHANNEL_MESSAGE", "Bus"]

CHANNEL_MESSAGE: Final = 1
"""Message type of every channel message, both ways (drivers/hv/connection.c: vmbus_post_msg)."""


class Bus:
    """The connection's context. One per server; its numbers change with the connection."""

    __slots__ = ("host", "ledger", "machine", "memory", "message_vp", "version")

    def __init__(self, host: Hypervisor) -> None:
        self.host = host
        self.machine = host.machine
        self.memory: HostMemory = host.machine.memory.host
        self.ledger = host.machine.ledger
        self.version: int | None = None
        """Version of the connection, ``None`` without one."""
        self.message_vp = 0
        """VP that gets the host's messages; kept after a disconnection, for UNLOAD_RESPONSE."""

    def post(self, payload: bytes, *, vp: int | None = None, sint: int = abi.VMBUS_MESSAGE_SINT) -> None:
        """Send a channel message to the guest.

        :param vp: VP index; ``None`` for the one that gets this connection's messages.
        """
        target = self.message_vp if vp is None else vp
        status = self.host.synic.post_message(target, sint, CHANNEL_MESSAGE, abi.VMBUS_MESSAGE_PORT_ID, payload)
        if status:
            name = abi.VmbusChannelMessageType(payload[0]).name.removeprefix("CHANNELMSG_")
            self.record("tolerated", f"{name} is lost: VP {target} takes no messages (HV_STATUS {status:#x})")
        elif self.machine.tracer is not None:
            self.machine.tracer.message(self.machine.clock.now, target, False, payload)

    def record(self, kind: str, text: str) -> None:
        """Add a finding: ``refused``, ``ignored``, ``tolerated``, or ``plugin`` for a device that raised."""
        self.host.record(kind, f"vmbus: {text}")

    def is_ram(self, pfn: int) -> bool:
        """Whether a 4 KiB page is memory of this guest.

        A page of the hypervisor over a hole of the memory map is not: it goes when the guest moves it.
        """
        memory = self.machine.memory
        if not memory.is_ram(HvPfn(pfn)):
            return False
        if memory.overlays.at(HvPfn(pfn)) is None:
            return True
        return any(start <= pfn << 12 < start + size for start, size in memory.ram)

    def first_not_ram(self, pfns: Sequence[int]) -> int | None:
        """The first of the pages that is not memory of this guest, ``None`` if all are."""
        lowest, highest = min(pfns) << 12, max(pfns) << 12
        if any(start <= lowest and highest < start + size for start, size in self.machine.memory.ram):
            return None  # between two pages of one range there is nothing but its memory
        return next((pfn for pfn in pfns if not self.is_ram(pfn)), None)

    def share(self, via: str, key: Hashable, pfns: Sequence[int], vp: int) -> None:
        """Enter pages into the sharing ledger."""
        self.ledger.share_pages(cast("Sequence[HvPfn]", pfns), via, key, self.machine.clock.now, vp)

    def unshare(self, via: str, key: Hashable) -> None:
        """Take pages out of the sharing ledger."""
        self.ledger.revoke(via, key)

    def watch(self, pfn: int, touched: Callable[[], None]) -> None:
        """Have ``touched`` called when the guest sets a bit in a page."""
        self.machine.memory.watch(HvPfn(pfn), touched)

    def unwatch(self, pfn: int) -> None:
        """End that; nothing happens when nobody watches."""
        self.machine.memory.unwatch(HvPfn(pfn))
