"""Explains channel messages: one, or many one after the other."""

from __future__ import annotations

from typing import Final

from hvkernel.abi import vmbus
from hvkernel.abi.ring import GpaRange
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.wire import Guid, Wire
from hvkernel.decode.node import Bus, Node, Offered
from hvkernel.decode.structs import blob, explain_struct, pages, unsigned

__all__ = ["explain_message", "explain_messages", "explain_ranges", "looks_like_messages", "page_count"]

_HEADER: Final = vmbus.VmbusChannelMessageHeader.SIZE
_MOST: Final = vmbus.MAX_SIZE_CHANNEL_MESSAGE
_PAGE: Final = 4096
"""HV_HYP_PAGE_SIZE."""
_BODY_PAGES: Final = (_MOST - vmbus.VmbusChannelGpadlBody.SIZE) // 8


def looks_like_messages(data: bytes, at: int = 0) -> bool:
    """Whether the bytes at an offset can be a channel message's: a known number, and a padding of zero."""
    there = len(data) - at
    if there < _HEADER or unsigned(data, at + 4, 4):
        return False
    row = vmbus.channel_message(unsigned(data, at, 4))
    return row is not None and (there >= row.struct.SIZE or there < _MOST)


def page_count(byte_offset: int, byte_count: int) -> int:
    """Return how many 4 KiB pages a GPA range lies in."""
    return (byte_offset % _PAGE + byte_count + _PAGE - 1) // _PAGE


def explain_messages(bus: Bus, data: bytes) -> tuple[list[Node], list[tuple[int, str]], list[str]]:
    """Explain a file of messages: each in 240 bytes, or back to back; returns records, problems, notes."""
    records: list[Node] = []
    problems: list[tuple[int, str]] = []
    notes: list[str] = []
    stride = 0
    blocks = range(0, len(data), _MOST)
    if len(data) % _MOST == 0 and all(looks_like_messages(data, at) for at in blocks):
        stride = _MOST
    at = 0
    while at < len(data):
        if len(records) >= bus.limit:
            notes.append(f"the first {bus.limit} messages are explained; {len(data) - at} bytes are left")
            break
        if records and not stride and not looks_like_messages(data, at):
            if any(data[at:]):
                problems.append((at, f"{len(data) - at} bytes that are no channel message"))
            else:
                notes.append(f"{len(data) - at} bytes of zero follow")
            break
        node, used = explain_message(bus, data, at, at + stride if stride else len(data), alone=bool(stride))
        records.append(node)
        at += stride or max(used, 1)
    return records, problems, notes


def explain_message(
    bus: Bus, data: bytes, offset: int, limit: int, *, to_host: bool | None = None, alone: bool = True
) -> tuple[Node, int]:
    """Explain one message; returns it with the number of bytes that it has.

    :param limit: where the bytes that can belong to it end.
    :param to_host: direction it travelled in, None when unknown.
    :param alone: nothing but this message lies before ``limit``.
    """
    node = Node("message", offset, limit - offset)
    if limit - offset < _HEADER:
        node.problems.append(f"{limit - offset} bytes are no channel message: its header has {_HEADER}")
        node.children.append(blob("bytes", data, offset, limit - offset))
        return node, limit - offset
    number = unsigned(data, offset, 4)
    row = vmbus.channel_message(number)
    if row is None:
        head = explain_struct(bus, vmbus.VmbusChannelMessageHeader, data, offset, limit)
        node.children += head.children
        named = number in Type.__members__.values()
        if named:
            node.problems.append(f"message type {number} is a number without a meaning")
        if limit - offset > _HEADER:
            node.children.append(blob("bytes", data, offset + _HEADER, limit - offset - _HEADER))
        return node, limit - offset
    node.name = row.number.name
    if to_host is not None and to_host != (row.sender == "guest"):
        node.problems.append(f"{node.name} is sent by the {row.sender}")
    if bus.version is not None and row.since > bus.version and row.number is not Type.CHANNELMSG_INITIATE_CONTACT:
        node.problems.append(
            f"{node.name} needs VMBus {_version(row.since)}, the connection has {_version(bus.version)}"
        )
    body = explain_struct(bus, row.struct, data, offset, limit, to_host=row.sender == "guest")
    node.children += body.children
    node.problems += body.problems
    if body.problems:
        node.size = limit - offset
        return node, limit - offset
    used = row.struct.SIZE
    if row.number is Type.CHANNELMSG_GPADL_HEADER:
        used += _gpadl_header(bus, node, data, offset, min(limit, offset + _MOST))
    elif row.number is Type.CHANNELMSG_GPADL_BODY:
        used += _gpadl_body(bus, node, data, offset, min(limit, offset + _MOST), alone)
    _follow(bus, node, row.number, row.struct, data, offset)
    if alone and limit - offset > used:
        rest = blob("rest", data, offset + used, limit - offset - used)
        if any(data[offset + used : limit]):
            rest.notes.append(f"{node.name} has {used} bytes; these follow it")
        node.children.append(rest)
    else:
        node.size = used
    return node, used


def explain_ranges(
    bus: Bus, data: bytes, offset: int, limit: int, count: int, *, may_go_on: bool
) -> tuple[list[Node], int, int]:
    """Explain GPA ranges, at most ``count``, before ``limit``.

    :param may_go_on: page numbers may be missing at the end: they come in other messages.
    :returns: the ranges, the bytes they take, and the page numbers that are missing.
    """
    found: list[Node] = []
    at = offset
    for index in range(count):
        if limit - at < GpaRange.SIZE:
            if not (may_go_on and at == limit):
                node = Node(f"range[{index}]", at, max(limit - at, 0))
                node.problems.append(
                    f"range {index} of {count} does not fit: {max(limit - at, 0)} bytes are left for it"
                )
                found.append(node)
            break
        node = explain_struct(bus, GpaRange, data, at, limit, name=f"range[{index}]")
        byte_count, byte_offset = unsigned(data, at, 4), unsigned(data, at + 4, 4)
        if byte_offset >= _PAGE:
            node.problems.append(f"byte_offset {byte_offset} is not in the first page of {_PAGE} bytes")
        wanted = page_count(byte_offset, byte_count)
        there = min(wanted, (limit - at - GpaRange.SIZE) // 8)
        if there:
            node.children.append(pages("pfn_array", data, at + GpaRange.SIZE, there))
        node.size = GpaRange.SIZE + 8 * there
        node.text = f"{byte_count} bytes in {wanted} pages"
        found.append(node)
        at += node.size
        if there < wanted:
            if not may_go_on:
                node.problems.append(f"{there} of {wanted} page numbers are there")
            return found, at - offset, wanted - there
        if len(found) >= bus.limit:
            node.notes.append(f"{count - index - 1} more ranges are not explained")
            break
    return found, at - offset, 0


def _gpadl_header(bus: Bus, node: Node, data: bytes, offset: int, limit: int) -> int:
    gpadl, length, count = (
        unsigned(data, offset + 12, 4),
        unsigned(data, offset + 16, 2),
        unsigned(data, offset + 18, 2),
    )
    found, used, missing = explain_ranges(bus, data, offset + 20, limit, count, may_go_on=True)
    node.children += found
    if not count:
        node.problems.append("rangecount is 0: a GPADL has a range")
    if missing:
        node.notes.append(f"{missing} page numbers follow in GPADL_BODY messages")
    bus.gpadls[gpadl] = missing
    if len(found) == count == 1 and not found[0].problems and (used + 8 * missing) % 65536 != length:
        node.problems.append(f"range_buflen is {length}; the range takes {used + 8 * missing} bytes, modulo 65536")
    return used


def _gpadl_body(bus: Bus, node: Node, data: bytes, offset: int, limit: int, alone: bool) -> int:
    gpadl = unsigned(data, offset + 12, 4)
    room = min((limit - offset - 16) // 8, _BODY_PAGES)
    owed = bus.gpadls.get(gpadl)
    count = room if owed is None else min(owed, room)
    if owed is not None:
        if alone and room > owed and any(data[offset + 16 + 8 * owed : offset + 16 + 8 * room]):
            node.problems.append(f"{room} page numbers; GPADL {gpadl:#x} lacks {owed}")
        bus.gpadls[gpadl] = owed - count
    if count:
        node.children.append(pages("pfn", data, offset + 16, count))
    return 8 * count


def _follow(bus: Bus, node: Node, number: Type, struct: type[Wire], data: bytes, offset: int) -> None:
    """Learn what later records need, and name the channel."""
    if number is Type.CHANNELMSG_INITIATE_CONTACT:
        bus.asked = unsigned(data, offset + 8, 4)
        node.text = f"version {_version(bus.asked)}"
    elif number is Type.CHANNELMSG_VERSION_RESPONSE:
        taken = data[offset + 8] and not data[offset + 9]
        if taken and bus.asked:
            bus.version = bus.asked
        node.text = "accepted" if taken else "refused"
    elif number is Type.CHANNELMSG_UNLOAD_RESPONSE:
        bus.version = None
    elif number is Type.CHANNELMSG_OFFERCHANNEL:
        offer = vmbus.VmbusChannelOfferChannel.unpack(data, offset)
        bus.offers[offer.child_relid] = Offered(
            Guid(offer.offer.if_type), Guid(offer.offer.if_instance), offer.offer.sub_channel_index
        )
    for field in struct.FIELDS:
        if field.name == "child_relid":
            relid = unsigned(data, offset + field.offset, 4)
            offered = bus.offers.get(relid)
            node.text = f"relid {relid}" + (f" ({offered})" if offered else "")


def _version(version: int) -> str:
    return f"{version >> 16}.{version & 0xFFFF}"
