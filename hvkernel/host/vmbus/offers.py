"""Offers: the numbers that a channel gets for one connection, and the message that tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.vmbus.messages import MONITOR_INVALID, header

if TYPE_CHECKING:
    from hvkernel.host.vmbus.channel import ServerChannel

__all__ = ["MAX_CHANNELS", "MAX_MONITORS", "EventTarget", "Numbers", "connection_id", "offer_message", "user_defined"]

MAX_CHANNELS: Final = 2047
"""Relids 1 to 2047: each is an event flag, and a SINT has 2048 of them (TLFS: HV_EVENT_FLAGS_COUNT)."""

MAX_MONITORS: Final = 128
"""Monitor ids: 4 groups of 32 (drivers/hv/hyperv_vmbus.h: struct hv_monitor_page)."""


class EventTarget(NamedTuple):
    """How the two sides signal a channel."""

    connection_id: int
    """Connection that the guest signals."""
    event_flag: int
    """Flag that the host sets."""


class Numbers:
    """Relids or monitor ids in use; the lowest free one is next (OpenVMM: AssignedChannels, AssignedMonitors)."""

    __slots__ = ("_first", "_limit", "_used")

    def __init__(self, first: int, limit: int) -> None:
        self._first, self._limit = first, limit
        self._used: dict[int, bool] = {}

    def take(self) -> int | None:
        """Return the lowest free number, ``None`` when there is none."""
        for number in range(self._first, self._limit + 1):
            if number not in self._used:
                self._used[number] = True
                return number
        return None

    @property
    def room(self) -> int:
        """How many numbers are free."""
        return self._limit + 1 - self._first - len(self._used)

    def free(self, number: int) -> None:
        """Give a number back."""
        del self._used[number]


def connection_id(relid: int) -> int:
    """Return the connection that the guest signals for a channel (OpenVMM: ConnectionId::new, VTL 0)."""
    return relid | abi.VMBUS_MESSAGE_SINT << 12


def user_defined(pipe_mode: int | None, data: bytes, owner: str) -> abi.VmbusChannelOfferU:
    """Return the 120 bytes of an offer's union.

    :raises ValueError: more data than fit.
    """
    room = abi.MAX_USER_DEFINED_BYTES if pipe_mode is None else abi.MAX_PIPE_USER_DEFINED_BYTES
    if len(data) > room:
        raise ValueError(f"{owner}: user_defined of {len(data)} bytes; an offer of this kind has room for {room}")
    head = b"" if pipe_mode is None else pipe_mode.to_bytes(4, "little")
    return abi.VmbusChannelOfferU.unpack(head + data.ljust(room, b"\0"))


def offer_message(channel: ServerChannel) -> abi.VmbusChannelOfferChannel:
    """Return the OFFERCHANNEL of a channel that has its numbers.

    Every channel has its own connection since Win7; older guests get the same bytes and ignore them
    (OpenVMM: send_offer).
    """
    offer = channel.offer
    return abi.VmbusChannelOfferChannel(
        header=header(Type.CHANNELMSG_OFFERCHANNEL),
        offer=abi.VmbusChannelOffer(
            if_type=offer.if_type,
            if_instance=offer.if_instance,
            reserved1=0,
            reserved2=0,
            chn_flags=offer.chn_flags,
            mmio_megabytes=offer.mmio_megabytes,
            u=user_defined(offer.pipe_mode, offer.user_defined, channel.device.name),
            sub_channel_index=offer.sub_channel_index,
            reserved3=0,
        ),
        child_relid=channel.relid,
        monitorid=MONITOR_INVALID if channel.monitor_id is None else channel.monitor_id,
        monitor_allocated=int(channel.monitor_id is not None),
        reserved=0,
        is_dedicated_interrupt=1,
        reserved1=0,
        connection_id=channel.connection_id,
    )
