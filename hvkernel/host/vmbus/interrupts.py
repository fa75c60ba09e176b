"""The interrupt page of guests before WS2012: one bit per channel instead of event flags.

The guest's receive half comes first, its send half at 2048 (drivers/hv/connection.c: vmbus_connect). Version 0.13 uses
it both ways with connection 2; version 1.1 signals each channel's own connection and reads the receive half only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.abi import vmbus as abi

if TYPE_CHECKING:
    from hvkernel.host.vmbus.server import VmbusServer

__all__ = ["InterruptPage"]

_SEND_HALF: Final = 2048


class InterruptPage:
    """The page that INITIATE_CONTACT named, if the version uses one."""

    __slots__ = ("_gpa", "_server")

    def __init__(self, server: VmbusServer) -> None:
        self._server = server
        self._gpa = 0

    def connect(self, gpa: int, vp: int) -> None:
        """Use the page at ``gpa``; a page that is not the guest's memory is recorded and not used."""
        bus = self._server.bus
        if gpa & 0xFFF or not bus.is_ram(gpa >> 12):
            bus.record("tolerated", f"interrupt page {gpa:#x} is not a page of this guest's memory; not used")
            return
        self._gpa = gpa
        bus.share("interrupt page", gpa, (gpa >> 12,), vp)
        bus.host.ports.connect_event(abi.VMBUS_EVENT_CONNECTION_ID, self._on_event)

    def disconnect(self) -> None:
        """Let go of the page."""
        if self._gpa:
            bus = self._server.bus
            bus.host.ports.disconnect(abi.VMBUS_EVENT_CONNECTION_ID)
            bus.unshare("interrupt page", self._gpa)
            self._gpa = 0

    def signal(self, relid: int) -> bool:
        """Set the channel's receive bit and interrupt VP 0 with flag 0."""
        if not self._gpa:
            return False
        bus = self._server.bus
        gpa = self._gpa + relid // 8
        bus.memory.write(gpa, bytes([bus.memory.read(gpa, 1)[0] | 1 << relid % 8]))
        return bus.host.synic.signal_event(0, abi.VMBUS_MESSAGE_SINT, 0)

    def _on_event(self, flag: int) -> None:
        memory, base = self._server.bus.memory, self._gpa + _SEND_HALF
        bits = int.from_bytes(memory.read(base, _SEND_HALF), "little")
        if not bits:
            self._server.throttle.unnecessary("no channel")
            return
        memory.write(base, bytes(_SEND_HALF))
        for relid in list(self._server.by_relid):
            if bits >> relid & 1:
                self._server.by_relid[relid].signalled()
