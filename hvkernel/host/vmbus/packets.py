"""Packets of a channel: taken apart with every check a host makes, and put together.

Layouts: include/linux/hyperv.h, struct vmpacket_descriptor, vmdata_gpa_direct, vmtransfer_page_packet_header. What is
refused follows OpenVMM (vmbus_ring/src/lib.rs: parse_packet; gparange.rs: parse).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from hvkernel.abi.ring import VmbusPacketType
from hvkernel.api.host import Packet
from hvkernel.host.vmbus.buffers import GpaBuffer, HostMemory
from hvkernel.host.vmbus.ranges import BadRange, parse_ranges

__all__ = ["BadPacket", "build_packet", "build_transfer_pages", "parse_packet"]

_DESCRIPTOR: Final = struct.Struct("<HHHHQ")
_TWO_U32: Final = struct.Struct("<II")
_XFER: Final = struct.Struct("<HBBI")
_COMPLETION_REQUESTED: Final = 1
_INBAND: Final = int(VmbusPacketType.VM_PKT_DATA_INBAND)
_COMP: Final = int(VmbusPacketType.VM_PKT_COMP)
_GPA_DIRECT: Final = int(VmbusPacketType.VM_PKT_DATA_USING_GPA_DIRECT)
_XFER_PAGES: Final = int(VmbusPacketType.VM_PKT_DATA_USING_XFER_PAGES)


class BadPacket(Exception):
    """A packet that no correct guest writes."""


def parse_packet(raw: bytes, memory: HostMemory) -> Packet:
    """Take one packet apart.

    :param raw: descriptor to end of padding, as :meth:`IncomingRing.read` returns it (lengths already checked).
    :param memory: the host's view of guest memory, for the ranges of a GPA-direct packet.
    :raises BadPacket: unknown type or flags, or ranges that do not fit the descriptor.
    """
    kind, offset8, len8, flags, trans_id = _DESCRIPTOR.unpack_from(raw)
    if flags & ~_COMPLETION_REQUESTED:
        raise BadPacket(f"packet flags {flags:#x}: only bit 0 (completion requested) is defined")
    start = offset8 * 8
    payload = raw[start : len8 * 8]
    if kind in (_INBAND, _COMP):
        return Packet(kind, flags, trans_id, payload)
    if kind == _GPA_DIRECT:
        if start < 24:
            raise BadPacket(f"GPA-direct packet: data offset {start} leaves no room for its 24-byte header")
        _, count = _TWO_U32.unpack_from(raw, 16)
        if not count:
            raise BadPacket("GPA-direct packet without a range")
        try:
            ranges, _ = parse_ranges(raw[24:start], count)
        except BadRange as error:
            raise BadPacket(f"GPA-direct packet: {error}") from None
        return Packet(kind, flags, trans_id, payload, GpaBuffer(memory, ranges))
    if kind == _XFER_PAGES:
        if start < 24:
            raise BadPacket(f"transfer-page packet: data offset {start} leaves no room for its 24-byte header")
        pageset, _, _, count = _XFER.unpack_from(raw, 16)
        if 24 + count * 8 > start:
            raise BadPacket(f"transfer-page packet: {count} ranges do not fit before the data at {start}")
        pairs = tuple(_TWO_U32.unpack_from(raw, 24 + 8 * i) for i in range(count))
        return Packet(kind, flags, trans_id, payload, None, pageset, pairs)
    raise BadPacket(f"packet type {kind:#x} is not one that a guest sends")


def build_packet(kind: int, payload: bytes, trans_id: int, flags: int) -> bytes:
    """Return descriptor and payload, padded to 8 bytes."""
    size = len(payload)
    pad = -size & 7
    packet = _DESCRIPTOR.pack(kind, 2, 2 + (size + pad >> 3), flags, trans_id) + payload
    return packet + bytes(pad) if pad else packet


def build_transfer_pages(
    pageset: int, ranges: Sequence[tuple[int, int]], payload: bytes, trans_id: int, flags: int
) -> bytes:
    """Return a VM_PKT_DATA_USING_XFER_PAGES packet; ``ranges`` are ``(byte_count, byte_offset)``."""
    pad = -len(payload) & 7
    offset8 = 3 + len(ranges)
    head = _DESCRIPTOR.pack(
        VmbusPacketType.VM_PKT_DATA_USING_XFER_PAGES, offset8, offset8 + (len(payload) + pad >> 3), flags, trans_id
    )
    body = b"".join(_TWO_U32.pack(count, offset) for count, offset in ranges)
    return head + _XFER.pack(pageset, 0, 0, len(ranges)) + body + payload + bytes(pad)
