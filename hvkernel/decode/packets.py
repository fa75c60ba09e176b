"""Explains ring packets: descriptor, ranges, payload."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from hvkernel.abi import ring
from hvkernel.abi.meaning import Names, Payload
from hvkernel.abi.ring import VmbusPacketType as Type
from hvkernel.abi.wire import Guid, Wire
from hvkernel.decode.messages import explain_ranges
from hvkernel.decode.node import Bus, Node
from hvkernel.decode.structs import blob, explain_struct, unsigned

__all__ = ["explain_packet", "explain_packets", "looks_like_packet", "trailer"]

_DESCRIPTOR: Final = ring.VmpacketDescriptor.SIZE
_HEADS: Final[MappingProxyType[Type, type[Wire]]] = MappingProxyType(
    {
        Type.VM_PKT_ADD_XFER_PAGESET: ring.VmaddRemoveTransferPageSet,
        Type.VM_PKT_RM_XFER_PAGESET: ring.VmaddRemoveTransferPageSet,
        Type.VM_PKT_ESTABLISH_GPADL: ring.VmestablishGpadl,
        Type.VM_PKT_TEARDOWN_GPADL: ring.VmteardownGpadl,
        Type.VM_PKT_DATA_USING_GPADL: ring.VmgpadlPacketHeader,
        Type.VM_PKT_ADDITIONAL_DATA: ring.VmadditionalData,
    }
)
"""Packet types whose head is a struct without code of its own."""
_KNOWN: Final = frozenset(int(kind) for kind in Type if kind is not Type.VM_PKT_INVALID)


def looks_like_packet(data: bytes, at: int = 0) -> bool:
    """Whether a descriptor can be there: known type, known flags, payload inside the packet."""
    if len(data) - at < _DESCRIPTOR:
        return False
    kind, offset8, len8, flags = (unsigned(data, at + 2 * i, 2) for i in range(4))
    return kind in _KNOWN and 2 <= offset8 <= len8 and not flags & ~1


def trailer(data: bytes, at: int) -> bool:
    """Whether 8 bytes can be a packet's trailer: the index at which it was put, in the upper half."""
    return len(data) - at >= 8 and not unsigned(data, at, 4) and not unsigned(data, at + 4, 4) & 7


def explain_packets(bus: Bus, data: bytes) -> tuple[list[Node], list[tuple[int, str]], list[str]]:
    """Explain packets one after the other, with or without their trailers; returns records, problems, notes."""
    records: list[Node] = []
    problems: list[tuple[int, str]] = []
    notes: list[str] = []
    at = 0
    while at < len(data):
        if len(records) >= bus.limit:
            notes.append(f"the first {bus.limit} packets are explained; {len(data) - at} bytes are left")
            break
        if records and not looks_like_packet(data, at):
            if trailer(data, at) and (at + 8 == len(data) or looks_like_packet(data, at + 8)):
                records[-1].children.append(_trailer(data, at))
                at += 8
                continue
            if any(data[at:]):
                problems.append((at, f"{len(data) - at} bytes that are no packet"))
            else:
                notes.append(f"{len(data) - at} bytes of zero follow")
            break
        node = explain_packet(bus, data, at, len(data), exact=False)
        records.append(node)
        if node.size <= 0:
            break
        at += node.size
    return records, problems, notes


def _trailer(data: bytes, at: int) -> Node:
    index = unsigned(data, at + 4, 4)
    return Node("trailer", at, 8, f"packet was put at {index:#x}", index, data[at : at + 8])


def explain_packet(
    bus: Bus,
    data: bytes,
    offset: int,
    limit: int,
    *,
    relid: int = 0,
    to_host: bool | None = None,
    device: Guid | None = None,
    exact: bool = True,
) -> Node:
    """Explain one packet; its size is what its length says, as far as that can be.

    :param device: class of the channel's device, None when unknown.
    :param exact: the packet is to end at ``limit``; else other bytes may follow it.
    """
    node = Node("packet", offset, limit - offset)
    if limit - offset < _DESCRIPTOR:
        node.problems.append(f"{limit - offset} bytes are no packet: its descriptor has {_DESCRIPTOR}")
        node.children.append(blob("bytes", data, offset, limit - offset))
        return node
    head = explain_struct(bus, ring.VmpacketDescriptor, data, offset, limit, name="descriptor")
    node.children.append(head)
    kind, offset8, len8, flags = (unsigned(data, offset + 2 * i, 2) for i in range(4))
    trans_id = unsigned(data, offset + 8, 8)
    if kind in _KNOWN:
        node.name = Type(kind).name
    if flags & ~1:
        head.problems.append(f"flags {flags:#x}: only bit 0, completion requested, is defined")
    node.text = f"trans_id {trans_id:#x}"
    if not 2 <= offset8 <= len8:
        head.problems.append(f"offset8 {offset8} is not from 2 to len8 {len8}: the payload lies outside the packet")
        node.children.append(blob("bytes", data, offset + _DESCRIPTOR, limit - offset - _DESCRIPTOR))
        return node
    length = len8 * 8
    if length > limit - offset or (exact and length < limit - offset):
        head.problems.append(f"len8 {len8} says {length} bytes, {limit - offset} are there")
    start, end = min(offset + offset8 * 8, limit), min(offset + length, limit)
    node.size = end - offset
    _head(bus, node, kind, data, offset, start)
    selector = _payload(bus, node, data, start, end, (relid, kind, trans_id), to_host, device or bus.device)
    if kind != Type.VM_PKT_COMP and flags & 1 and to_host is not None:
        bus.requests[relid, to_host, trans_id] = selector
    return node


def _head(bus: Bus, node: Node, kind: int, data: bytes, offset: int, start: int) -> None:
    """Explain what lies between descriptor and payload."""
    at = offset + _DESCRIPTOR
    if kind in (Type.VM_PKT_DATA_USING_GPA_DIRECT, Type.VM_PKT_DATA_USING_XFER_PAGES):
        if start - offset < 24:
            node.problems.append(f"{start - offset} bytes before the payload are too few for the 24 before the ranges")
        else:
            direct = kind == Type.VM_PKT_DATA_USING_GPA_DIRECT
            cls: type[Wire] = ring.VmdataGpaDirect if direct else ring.VmtransferPagePacketHeader
            omitted = ("d", "range", "ranges")
            node.children += explain_struct(bus, cls, data, offset, start, hidden=omitted).children
            count = unsigned(data, offset + 20, 4)
            at = offset + 24
            if direct:
                found, used, _ = explain_ranges(bus, data, at, start, count, may_go_on=False)
                if not count:
                    node.problems.append("range_cnt is 0: a GPA-direct packet has a range")
            else:
                found, used = _transfer_ranges(bus, data, at, start, count)
            node.children += found
            at += used
    elif kind in _HEADS:
        head = explain_struct(bus, _HEADS[Type(kind)], data, offset, max(start, at), hidden=("d",))
        node.children += head.children
        node.problems += head.problems
        at = min(offset + _HEADS[Type(kind)].SIZE, start)
    if start > at:
        rest = blob("unused", data, at, start - at)
        if any(data[at:start]):
            rest.notes.append("bytes before the payload that nothing describes")
        node.children.append(rest)


def _transfer_ranges(bus: Bus, data: bytes, at: int, limit: int, count: int) -> tuple[list[Node], int]:
    size = ring.VmtransferPageRange.SIZE
    shown = min(count, max(limit - at, 0) // size)
    found = [
        explain_struct(bus, ring.VmtransferPageRange, data, at + i * size, limit, name=f"ranges[{i}]")
        for i in range(min(shown, bus.limit))
    ]
    if shown < count:
        node = Node(f"ranges[{shown}]", at + shown * size, max(limit - at - shown * size, 0))
        node.problems.append(f"{count} ranges do not fit before the payload: {shown} do")
        found.append(node)
    return found, shown * size


def _payload(
    bus: Bus,
    node: Node,
    data: bytes,
    start: int,
    end: int,
    transaction: tuple[int, int, int],
    to_host: bool | None,
    device: Guid | None,
) -> int | None:
    if end <= start:
        return None
    relid, kind, trans_id = transaction
    row = bus.words.payload(device) if device is not None else _guess(bus, data, start, end)
    if row is None:
        node.children.append(blob("payload", data, start, end - start))
        return None
    own = _selector(row, data, start, end)
    shown = own
    if kind == Type.VM_PKT_COMP and own in row.repeats and to_host is not None:
        asked = bus.requests.pop((relid, not to_host, trans_id), None)
        shown = own if asked is None else asked
    given = {row.selector: shown} if shown is not None else {}
    body = explain_struct(bus, row.struct, data, start, end, to_host=to_host, selectors=given)
    body.name = f"payload: {row.name} {body.name}"
    if row.may_end_early:
        body.problems.clear()
    if device is None:
        body.notes.append(f"taken for {row.name} by its length")
    if row.selector and shown is not None:
        meaning = bus.words.meanings.get(f"{row.struct.__kernel__ or row.struct.__name__}.{row.selector}")
        named = meaning.values.get(shown) if isinstance(meaning, Names) else None
        node.text = f"{named or hex(shown)}, {node.text}"
    node.children.append(body)
    if end - start > row.struct.SIZE:
        node.children.append(blob("rest", data, start + row.struct.SIZE, end - start - row.struct.SIZE))
    return own


def _selector(row: Payload, data: bytes, start: int, end: int) -> int | None:
    if not row.selector:
        return None
    field = row.struct.field(row.selector)
    if start + field.offset + field.size > end:
        return None
    return unsigned(data, start + field.offset, field.size)


def _guess(bus: Bus, data: bytes, start: int, end: int) -> Payload | None:
    """The one protocol whose packets have this length and whose selector has this value's name."""
    for row in bus.words.payloads:
        if end - start == row.struct.SIZE + -row.struct.SIZE % 8:
            meaning = bus.words.meanings.get(f"{row.struct.__kernel__}.{row.selector}")
            if isinstance(meaning, Names) and _selector(row, data, start, end) in meaning.values:
                return row
    return None
