"""What a reader of the bus's traffic must remember to name it: channels, requests on their way, bytes in the rings."""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from hvkernel.abi.guids import guid_name
from hvkernel.abi.ring import VMBUS_PKT_TRAILER, VmbusPacketType
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.vmbus import VmbusChannelOfferChannel

__all__ = ["Channel", "Channels", "Packet", "Request", "message_name"]

MAX_WAITING: Final = 1 << 16
"""Packets and requests of a ring that are remembered; the oldest are forgotten when a guest breaks every rule."""
_DESCRIPTOR: Final = struct.Struct("<HHHHQ")
_U32: Final = struct.Struct("<I")
_COMPLETION_REQUESTED: Final = 1
_RELID_AT: Final = 8
"""Where the messages that name one channel have its relid."""


def message_name(data: bytes) -> str:
    """Return the kernel's name of a channel message, without ``CHANNELMSG_``."""
    number = _U32.unpack_from(data)[0] if len(data) >= 4 else -1
    try:
        return Type(number).name.removeprefix("CHANNELMSG_")
    except ValueError:
        return f"message {number}"


@dataclass(slots=True)
class Request:
    """A packet whose writer asked for a completion."""

    number: int
    """Counts all requests of the run, from 1."""
    slot: int
    """The lowest number that no other request of the channel had while this one was on its way."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet and what it is to its channel."""

    kind: str
    """Name of its type, as ``DATA_INBAND``."""
    trans_id: int
    size: int
    """Bytes, with the trailer."""
    request: Request | None
    """The request that it makes, or that it completes."""
    completes: bool
    dropped: Request | None = None
    """A request whose transaction id it uses again although no completion came."""


class Channel:
    """One offered channel; the relid's next offer is another one.

    :param number: counts the channels of the run, from 0.
    """

    def __init__(self, number: int, relid: int, name: str) -> None:
        self.number = number
        self.relid = relid
        self.name = name
        self.filled = [0, 0]
        """Bytes in the rings: to the guest, to the host."""
        self.requests: dict[tuple[bool, int], Request] = {}
        """On their way, by direction and transaction id."""
        self.waiting: tuple[deque[Packet], deque[Packet]] = (deque(maxlen=MAX_WAITING), deque(maxlen=MAX_WAITING))
        """Packets that their reader did not take yet: to the guest, to the host."""
        self._free: list[int] = []
        self._slots = 0

    def take_slot(self) -> int:
        """Return the lowest slot that is free."""
        if self._free:
            return heappop(self._free)
        self._slots += 1
        return self._slots - 1

    def free_slot(self, slot: int) -> None:
        """Give a slot back."""
        heappush(self._free, slot)

    def reset(self) -> tuple[Request, ...]:
        """The rings are gone, or new ones come; return the requests that nobody will complete."""
        lost = tuple(self.requests.values())
        for request in lost:
            self.free_slot(request.slot)
        self.requests.clear()
        self.filled = [0, 0]
        for queue in self.waiting:
            queue.clear()
        return lost


class Channels:
    """Follows the channel messages and packets of one run. Its size is that of what is open, not of what happened."""

    def __init__(self) -> None:
        self._channels: dict[int, Channel] = {}
        self._offered = 0
        self._requests = 0

    def get(self, relid: int) -> Channel:
        """Return the channel that a relid stands for now."""
        channel = self._channels.get(relid)
        return self._new(relid, f"relid {relid}") if channel is None else channel

    def _new(self, relid: int, name: str) -> Channel:
        channel = self._channels[relid] = Channel(self._offered, relid, name)
        self._offered += 1
        return channel

    def message(self, to_host: bool, data: bytes) -> Channel | None:
        """Follow a channel message; return the channel that it is about, if it names a relid that was offered."""
        number = _U32.unpack_from(data)[0] if len(data) >= 4 else 0
        if not to_host and number == Type.CHANNELMSG_OFFERCHANNEL and len(data) >= VmbusChannelOfferChannel.SIZE:
            msg = VmbusChannelOfferChannel.unpack(data)
            offer = msg.offer
            sub = f" sub-channel {offer.sub_channel_index}" if offer.sub_channel_index else ""
            kind = guid_name(offer.if_type) or str(offer.if_type)
            return self._new(msg.child_relid, f"relid {msg.child_relid}: {kind}{sub}")
        if number not in _ABOUT_A_CHANNEL or len(data) < _RELID_AT + 4:
            return None
        relid = _U32.unpack_from(data, _RELID_AT)[0]
        if to_host and number == Type.CHANNELMSG_RELID_RELEASED:
            return self._channels.pop(relid, None)
        return self._channels.get(relid)

    def packet(self, channel: Channel, to_host: bool, data: bytes) -> Packet:
        """Follow a packet that was written to a channel's ring."""
        kind, _, _, flags, trans_id = _DESCRIPTOR.unpack_from(data.ljust(_DESCRIPTOR.size, b"\0"))
        size = len(data) + VMBUS_PKT_TRAILER
        request = dropped = None
        completes = kind == VmbusPacketType.VM_PKT_COMP
        if completes:
            request = channel.requests.pop((not to_host, trans_id), None)
            if request is not None:
                channel.free_slot(request.slot)
        elif flags & _COMPLETION_REQUESTED:
            key = to_host, trans_id
            dropped = channel.requests.pop(key, None)
            if dropped is None and len(channel.requests) >= MAX_WAITING:
                dropped = channel.requests.pop(next(iter(channel.requests)))
            if dropped is not None:
                channel.free_slot(dropped.slot)
            self._requests += 1
            request = channel.requests[key] = Request(self._requests, channel.take_slot())
        packet = Packet(_kind(kind), trans_id, size, request, completes, dropped)
        channel.filled[to_host] += size
        channel.waiting[to_host].append(packet)
        return packet

    def taken(self, channel: Channel, to_host: bool, size: int) -> list[Packet]:
        """Follow the reader of a ring; return the packets that it has taken with these bytes."""
        channel.filled[to_host] = max(0, channel.filled[to_host] - size)
        queue = channel.waiting[to_host]
        packets = []
        while queue and size >= queue[0].size:
            packets.append(queue.popleft())
            size -= packets[-1].size
        return packets


def _kind(number: int) -> str:
    try:
        return VmbusPacketType(number).name.removeprefix("VM_PKT_")
    except ValueError:
        return f"type {number}"


_ABOUT_A_CHANNEL: Final = frozenset(
    (
        Type.CHANNELMSG_OFFERCHANNEL,
        Type.CHANNELMSG_RESCIND_CHANNELOFFER,
        Type.CHANNELMSG_OPENCHANNEL,
        Type.CHANNELMSG_OPENCHANNEL_RESULT,
        Type.CHANNELMSG_CLOSECHANNEL,
        Type.CHANNELMSG_GPADL_HEADER,
        Type.CHANNELMSG_GPADL_CREATED,
        Type.CHANNELMSG_GPADL_TEARDOWN,
        Type.CHANNELMSG_RELID_RELEASED,
        Type.CHANNELMSG_MODIFYCHANNEL,
        Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE,
    )
)
