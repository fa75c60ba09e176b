"""Channel messages on the host's side: what a guest may send, and since which version; and the host's own.

Numbers and layouts are :mod:`hvkernel.abi.vmbus`'s. First versions: OpenVMM
(vm/devices/vmbus/vmbus_core/src/protocol.rs: vmbus_messages!), where a version of 0 means "also before a connection".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.wire import Wire

__all__ = [
    "GUEST_MESSAGES",
    "MONITOR_INVALID",
    "VERSION_COPPER",
    "BadMessage",
    "GuestMessage",
    "header",
    "parse_message",
]

VERSION_COPPER: Final = 0x0006_0000
"""VMBus 6.0, which Linux 6.1 does not know (OpenVMM: Version::Copper). Its VERSION_RESPONSE is 4 bytes longer."""

MONITOR_INVALID: Final = 0xFF
"""monitorid of an offer without a monitor (OpenVMM: MonitorId::INVALID)."""

_HEADER: Final = struct.Struct("<II")


class GuestMessage(NamedTuple):
    """One message that a guest may send."""

    body: type[Wire]
    since: int
    """First protocol version; 0 when it is legal without a connection."""
    handler: str
    """Method of the server."""


GUEST_MESSAGES: Final[Mapping[int, GuestMessage]] = MappingProxyType(
    {
        Type.CHANNELMSG_REQUESTOFFERS: GuestMessage(
            abi.VmbusChannelMessageHeader, abi.VERSION_WS2008, "request_offers"
        ),
        Type.CHANNELMSG_OPENCHANNEL: GuestMessage(abi.VmbusChannelOpenChannel, abi.VERSION_WS2008, "open_channel"),
        Type.CHANNELMSG_CLOSECHANNEL: GuestMessage(abi.VmbusChannelCloseChannel, abi.VERSION_WS2008, "close_channel"),
        Type.CHANNELMSG_GPADL_HEADER: GuestMessage(abi.VmbusChannelGpadlHeader, abi.VERSION_WS2008, "gpadl_header"),
        Type.CHANNELMSG_GPADL_BODY: GuestMessage(abi.VmbusChannelGpadlBody, abi.VERSION_WS2008, "gpadl_body"),
        Type.CHANNELMSG_GPADL_TEARDOWN: GuestMessage(
            abi.VmbusChannelGpadlTeardown, abi.VERSION_WS2008, "gpadl_teardown"
        ),
        Type.CHANNELMSG_RELID_RELEASED: GuestMessage(
            abi.VmbusChannelRelidReleased, abi.VERSION_WS2008, "relid_released"
        ),
        Type.CHANNELMSG_INITIATE_CONTACT: GuestMessage(abi.VmbusChannelInitiateContact, 0, "initiate_contact"),
        Type.CHANNELMSG_UNLOAD: GuestMessage(abi.VmbusChannelMessageHeader, abi.VERSION_WS2008, "unload"),
        Type.CHANNELMSG_TL_CONNECT_REQUEST: GuestMessage(
            abi.VmbusChannelTlConnectRequest, abi.VERSION_WIN10, "tl_connect_request"
        ),
        Type.CHANNELMSG_MODIFYCHANNEL: GuestMessage(
            abi.VmbusChannelModifychannel, abi.VERSION_WIN10_V4_1, "modify_channel"
        ),
    }
)
"""Message number: what it is. Any other number is not for the host."""


class BadMessage(Exception):
    """A message that the host drops without an answer; the text says why."""


def header(message_type: Type) -> abi.VmbusChannelMessageHeader:
    """Return the header of a message of the host."""
    return abi.VmbusChannelMessageHeader(msgtype=message_type, padding=0)


def parse_message(payload: bytes, version: int | None) -> tuple[GuestMessage, Wire]:
    """Look a guest's message up and decode its fixed part. A longer message than known is legal.

    :param version: version of the connection, ``None`` without one.
    :raises BadMessage: too short, not a guest's message, or newer than the connection.
    """
    if len(payload) < _HEADER.size:
        raise BadMessage(f"a channel message of {len(payload)} bytes has no room for its 8-byte header")
    number = _HEADER.unpack_from(payload)[0]
    row = GUEST_MESSAGES.get(number)
    if row is None:
        name = Type(number).name if number in Type else "unknown"
        raise BadMessage(f"message type {number} ({name}) is not one that a guest sends")
    name = Type(number).name
    if row.since and version is None:
        raise BadMessage(f"{name} without a connection")
    if version is not None and version < row.since:
        raise BadMessage(
            f"{name} needs version {row.since >> 16}.{row.since & 0xFFFF}, "
            f"the connection has {version >> 16}.{version & 0xFFFF}"
        )
    if len(payload) < row.body.SIZE:
        raise BadMessage(f"{name} of {len(payload)} bytes; it has at least {row.body.SIZE}")
    return row, row.body.unpack(payload)
