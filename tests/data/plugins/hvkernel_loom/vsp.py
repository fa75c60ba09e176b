"""The device.

Its parameters (``DeviceSlot.parameters``): ``subchannels`` (how many it has, default 3), ``monitored`` (whether the
guest signals through the monitor page, default no), ``monitor_latency`` and ``answer_latency`` (100 ns units; the
second is the longest that an answer takes, drawn per request, so answers come out of order; default none), ``chatter``
(longest time from one unasked event to the next while a channel is open, 100 ns units; default none), and
``refused_opens`` (how many opens are refused before one is granted, default none).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from hvkernel.abi.ring import VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED, VmbusPacketType
from hvkernel.api.host import STATUS_SUCCESS, STATUS_UNSUCCESSFUL, Channel, DeviceSlot, GuestBuffer, Offer, Packet
from hvkernel_loom.wire import PAGESET, STATUS_BAD, LoomMessage, LoomOp, pattern

CHATTER: Final = 60
"""Most unasked events of one open channel."""
EVENT: Final = LoomMessage(op=LoomOp.TICK, status=0, count=0, length=0, checksum=0, handle=0, cookie=0)


@dataclass(slots=True)
class Burst:
    """Packets of the device that the driver has to complete before the request that asked for them is done."""

    request: int
    """Transaction id of the request."""
    message: LoomMessage
    left: int


@dataclass(slots=True)
class OpenChannel:
    """What the device keeps for one open of one channel."""

    notes: int = 0
    next_event: int = 1
    bursts: dict[int, Burst] = field(default_factory=dict)
    """By the transaction id of each event that is not completed yet."""


class LoomDevice:
    """One loom."""

    def __init__(self, slot: DeviceSlot) -> None:
        self.slot = slot
        self.protocol: str | None = None
        self.open: dict[int, OpenChannel] = {}
        """By relid."""
        self.shared: int | None = None
        """GPADL handle of the buffer for transfer pages."""
        self.refuse: int = slot.parameters.get("refused_opens", 0)

    def offer(self, offer: Offer) -> Offer:
        given = self.slot.parameters
        return replace(
            offer, monitored=given.get("monitored", False), monitor_latency=given.get("monitor_latency", 1000)
        )

    def on_open(self, channel: Channel) -> int:
        if self.refuse:
            self.refuse -= 1
            return STATUS_UNSUCCESSFUL
        state = self.open[channel.relid] = OpenChannel()
        self.chat(channel, state, CHATTER)
        return STATUS_SUCCESS

    def on_close(self, channel: Channel) -> None:
        del self.open[channel.relid]
        if channel.primary is channel:
            self.protocol = None
            self.shared = None

    def chat(self, channel: Channel, state: OpenChannel, left: int) -> None:
        """Send an event that nobody asked for every now and then."""
        longest = self.slot.parameters.get("chatter", 0)
        if not longest or not left:
            return

        def event() -> None:
            if self.open.get(channel.relid) is state and channel.is_open:
                channel.send_packet(VmbusPacketType.VM_PKT_DATA_INBAND, EVENT.pack())
                self.chat(channel, state, left - 1)

        self.slot.services.after(self.slot.services.rng.randrange(longest) + 1, event)

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        state = self.open[channel.relid]
        if packet.kind == VmbusPacketType.VM_PKT_COMP:
            self.event_done(channel, state, packet.trans_id)
            return
        message = LoomMessage.unpack(packet.payload[: LoomMessage.SIZE])
        data = packet.payload[LoomMessage.SIZE : LoomMessage.SIZE + message.length]
        if message.op == LoomOp.NOTE:
            state.notes += 1
        elif message.op in (LoomOp.TICK, LoomOp.DELIVER):
            self.burst(channel, state, packet.trans_id, message)
        else:
            self.answer(channel, state, packet.trans_id, self.work(channel, state, message, data, packet.buffer))

    def work(
        self, channel: Channel, state: OpenChannel, message: LoomMessage, data: bytes, buffer: GuestBuffer | None
    ) -> LoomMessage:
        """Do what is asked and return the answer."""
        if message.op == LoomOp.HELLO:
            self.protocol = "1.0"
            return message.replace(count=self.slot.parameters.get("subchannels", 3))
        if message.op == LoomOp.SUBCHANNELS:
            channel.offer_subchannels(message.count)
            return message
        if message.op == LoomOp.SUM:
            return message.replace(checksum=crc32(data), count=state.notes)
        if message.op == LoomOp.GATHER and buffer is not None:
            return message.replace(checksum=crc32(buffer.read()))
        if message.op == LoomOp.SCATTER and buffer is not None:
            woven = pattern(message.cookie, buffer.byte_count)
            buffer.write(0, woven)
            return message.replace(checksum=crc32(woven))
        if message.op == LoomOp.SHARE and channel.gpadl(message.handle) is not None:
            self.shared = message.handle
            return message
        if message.op == LoomOp.UNSHARE:
            self.shared = None
            return message
        return message.replace(status=STATUS_BAD)

    def answer(self, channel: Channel, state: OpenChannel, trans_id: int, message: LoomMessage) -> None:
        """Complete a request, after a while if this device takes its time."""
        longest = self.slot.parameters.get("answer_latency", 0)
        if not longest:
            channel.complete(trans_id, message.pack())
            return

        def late() -> None:
            # The guest may have closed the channel since; an answer to an earlier open would be a stray one.
            if self.open.get(channel.relid) is state and channel.is_open:
                channel.complete(trans_id, message.pack())

        self.slot.services.after(self.slot.services.rng.randrange(longest) + 1, late)

    def burst(self, channel: Channel, state: OpenChannel, request: int, message: LoomMessage) -> None:
        """Send the events that a TICK or DELIVER asks for."""
        buffer = channel.gpadl(self.shared) if message.op == LoomOp.DELIVER and self.shared is not None else None
        fits = buffer is not None and 0 < message.length <= buffer.byte_count
        if not message.count or (message.op == LoomOp.DELIVER and not fits):
            self.answer(channel, state, request, message.replace(status=STATUS_BAD))
            return
        burst = Burst(request, message, message.count)
        for number in range(message.count):
            if not channel.is_open:
                return
            event = message.replace(cookie=message.cookie + number)
            trans_id, state.next_event = state.next_event, state.next_event + 1
            state.bursts[trans_id] = burst
            if buffer is None:
                channel.send_packet(
                    VmbusPacketType.VM_PKT_DATA_INBAND,
                    event.pack(),
                    trans_id,
                    VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
                )
                continue
            at = number * message.length % (buffer.byte_count - message.length + 1)
            channel.send_transfer_pages(
                PAGESET,
                [(message.length, at)],
                event.replace(checksum=crc32(buffer.read(at, message.length))).pack(),
                trans_id,
                VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
            )

    def event_done(self, channel: Channel, state: OpenChannel, trans_id: int) -> None:
        """The driver completed an event; after the last one the request is done."""
        burst = state.bursts.pop(trans_id, None)
        if burst is None:
            self.slot.services.record("tolerated", f"completion of event {trans_id}, which is not outstanding")
            return
        burst.left -= 1
        if not burst.left:
            self.answer(channel, state, burst.request, burst.message)
