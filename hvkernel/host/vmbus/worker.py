"""The host task of an open channel: it sleeps until the guest signals, then empties the guest's ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.abi.ring import VMBUS_PKT_TRAILER
from hvkernel.host.vmbus.packets import BadPacket, parse_packet
from hvkernel.host.vmbus.ring import RingCorrupt
from hvkernel.machine import Fault

if TYPE_CHECKING:
    from hvkernel.host.vmbus.bus import Bus
    from hvkernel.host.vmbus.channel import ServerChannel
    from hvkernel.machine import Task

__all__ = ["Worker"]


class Worker:
    """Runs one channel's incoming packets through its device, one at a time and in order."""

    __slots__ = ("_bus", "_channel", "_stopped", "_task", "due")

    def __init__(self, bus: Bus, channel: ServerChannel) -> None:
        self._bus = bus
        self._channel = channel
        self.due = True
        """Whether the task has yet to look at the rings. Read only."""
        self._stopped = False
        self._task: Task | None = None

    def start(self) -> None:
        """Make the task."""
        self._task = self._bus.machine.spawn(
            self._run, name=f"vmbus {self._channel.device.name}.{self._channel.relid}", side="host"
        )

    def wake(self) -> None:
        """Let the task look at the rings."""
        self.due = True
        if self._task is not None and not self._stopped:
            self._bus.machine.wake(self._task)

    def stop(self) -> None:
        """End the task once it is in no device's method."""
        if not self._stopped:
            self._stopped = True
            if self._task is not None:
                self._bus.machine.wake(self._task)

    def _run(self) -> None:
        machine, channel = self._bus.machine, self._channel
        while not self._stopped:
            if not self.due:
                machine.block()
                continue
            self.due = False
            try:
                self._drain()
                channel.flush()
            except (RingCorrupt, Fault) as error:
                channel.corrupt(error)

    def _drain(self) -> None:
        machine, channel = self._bus.machine, self._channel
        rings = channel.rings
        if rings is None:
            return
        incoming = rings.incoming
        incoming.mask()
        while not self._stopped:
            raw = incoming.read()
            if raw is None:
                # The guest may write before it sees that signals are wanted again.
                machine.preempt()
                if incoming.unmask():
                    incoming.mask()
                    continue
                return
            try:
                packet = parse_packet(raw, self._bus.memory)
            except BadPacket as error:
                raise RingCorrupt(str(error)) from None
            # The bytes are copied out, so the guest may have their room before the device looks at them.
            signal = incoming.commit()
            if machine.tracer is not None:
                machine.tracer.taken(machine.clock.now, channel.relid, True, len(raw) + VMBUS_PKT_TRAILER)
            if signal:
                channel.signal_guest()
            if packet.buffer is None:
                channel.device.packet(channel, packet)
                continue
            channel.hold(packet.trans_id, packet.buffer)
            channel.device.packet(channel, packet)
            if not packet.completion_requested:
                channel.release(packet.trans_id)
