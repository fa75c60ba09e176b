"""Channel messages on the host's side: which a guest may send on which connection.

Numbers, layouts and first versions are :data:`hvkernel.abi.vmbus.CHANNEL_MESSAGES`'.
"""

from __future__ import annotations

import struct
from typing import Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.wire import Wire

__all__ = ["MONITOR_INVALID", "VERSION_COPPER", "BadMessage", "header", "parse_message"]

VERSION_COPPER: Final = 0x0006_0000
"""VMBus 6.0, which Linux 6.1 does not know (OpenVMM: Version::Copper). Its VERSION_RESPONSE is 4 bytes longer."""

MONITOR_INVALID: Final = 0xFF
"""monitorid of an offer without a monitor (OpenVMM: MonitorId::INVALID)."""

_HEADER: Final = struct.Struct("<II")


class BadMessage(Exception):
    """A message that the host drops without an answer; the text says why."""


def header(message_type: Type) -> abi.VmbusChannelMessageHeader:
    """Return the header of a message of the host."""
    return abi.VmbusChannelMessageHeader(msgtype=message_type, padding=0)


def parse_message(payload: bytes, version: int | None, newest: int) -> tuple[Type, Wire]:
    """Look a guest's message up and decode its fixed part. A longer message than known is legal.

    :param version: version of the connection, ``None`` without one. INITIATE_CONTACT is legal without.
    :param newest: newest version of the host, which decides on UNLOAD: before 3.0 hosts do not answer it, later ones
        do so on a connection of any version (iPXE src/interface/hyperv/vmbus.c: vmbus_negotiate_version makes sure of
        3.0, then connects as 0.13 and unloads that).
    :raises BadMessage: too short, not a guest's message, or newer than the connection.
    """
    if len(payload) < _HEADER.size:
        raise BadMessage(f"a channel message of {len(payload)} bytes has no room for its 8-byte header")
    number = _HEADER.unpack_from(payload)[0]
    row = abi.channel_message(number)
    if row is None or row.sender != "guest":
        name = f" ({row.number.name})" if row else ""
        raise BadMessage(f"message type {number}{name} is not one that a guest sends")
    if row.number is not Type.CHANNELMSG_INITIATE_CONTACT:
        if version is None:
            raise BadMessage(f"{_name(row.number)} without a connection")
        if row.number is Type.CHANNELMSG_UNLOAD:
            if newest < row.since:
                raise BadMessage(f"UNLOAD needs a host of version 3.0, this one has {newest >> 16}.{newest & 0xFFFF}")
        elif version < row.since:
            raise BadMessage(
                f"{_name(row.number)} needs version {row.since >> 16}.{row.since & 0xFFFF}, "
                f"the connection has {version >> 16}.{version & 0xFFFF}"
            )
    if len(payload) < row.struct.SIZE:
        raise BadMessage(f"{_name(row.number)} of {len(payload)} bytes; it has at least {row.struct.SIZE}")
    return row.number, row.struct.unpack(payload)


def _name(number: Type) -> str:
    return number.name.removeprefix("CHANNELMSG_")
