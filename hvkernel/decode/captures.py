"""Explains pcapng files that hvkernel wrote."""

from __future__ import annotations

from hvkernel.abi.wire import Guid
from hvkernel.decode.messages import explain_message
from hvkernel.decode.node import Bus, Node, Unrecognised
from hvkernel.decode.packets import explain_packet
from hvkernel.decode.pcapng import CapturedPacket, read_pcapng
from hvkernel.decode.structs import explain_struct
from hvkernel.trace.pcapng import HEADER_VERSION, KIND_MESSAGE, KIND_PACKET, LINKTYPE, PcapHeader

__all__ = ["explain_capture"]


def explain_capture(bus: Bus, data: bytes) -> tuple[list[Node], list[tuple[int, str]], list[str]]:
    """Explain every message and packet of a capture; returns records, problems, notes.

    :raises Unrecognised: the file has packets, and none of them is hvkernel's.
    """
    capture = read_pcapng(data, bus.limit)
    ours = [packet for packet in capture.packets if _is_ours(packet)]
    if capture.packets and not ours:
        kinds = ", ".join(sorted({str(packet.interface.linktype) for packet in capture.packets}))
        raise Unrecognised(
            f"is a pcapng file without packets of hvkernel: link type {LINKTYPE} and its header; these have {kinds}"
        )
    notes = [f"comment: {_inert(comment)}" for comment in capture.comments[:10]]
    if len(ours) < len(capture.packets):
        notes.append(f"{len(capture.packets) - len(ours)} packets are of something else")
    if capture.total > len(capture.packets):
        notes.append(f"the first {len(capture.packets)} of {capture.total} packets are explained")
    records = [_packet(bus, data, number, packet) for number, packet in enumerate(ours, 1)]
    return records, list(capture.problems), notes


def _inert(text: str) -> str:
    """The beginning of a text that somebody else wrote, with control characters made visible."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])
    return f"{shown} ..." if len(text) > 200 else shown


def _is_ours(packet: CapturedPacket) -> bool:
    data = packet.data
    return (
        packet.interface.linktype == LINKTYPE
        and len(data) >= PcapHeader.SIZE
        and data[0] == HEADER_VERSION
        and data[3] == PcapHeader.SIZE
    )


def _packet(bus: Bus, data: bytes, number: int, packet: CapturedPacket) -> Node:
    header = PcapHeader.unpack(packet.data)
    offset, limit = packet.offset, packet.offset + len(packet.data)
    start = offset + PcapHeader.SIZE
    to_host = bool(header.to_host)
    ticks = packet.interface.ticks
    seconds = f"{packet.timestamp // ticks}.{packet.timestamp % ticks * 10**7 // ticks:07}"
    node = Node(f"#{number}", offset, limit - offset)
    way = f"{'guest -> host' if to_host else 'host -> guest'} VP {header.vp}"
    node.children.append(explain_struct(bus, PcapHeader, data, offset, limit, name="capture header"))
    if header.kind == KIND_MESSAGE:
        if header.vmbus_version:
            bus.version = header.vmbus_version
        inner, _ = explain_message(bus, data, start, limit, to_host=to_host)
    elif header.kind == KIND_PACKET:
        device = header.if_type if any(header.if_type) else None
        inner = explain_packet(
            bus, data, start, limit, relid=header.relid, to_host=to_host, device=Guid(device) if device else None
        )
        way += f" relid {header.relid}"
    else:
        node.problems.append(f"kind {header.kind} is neither a message nor a packet")
        return node
    if packet.original > len(packet.data):
        inner.notes.append(f"{packet.original - len(packet.data)} bytes were not captured")
    node.children.append(inner)
    node.text = f"{seconds} {way} {inner.name} {inner.text}".rstrip()
    return node
