"""Explains the image of one ring: control page, the packets that wait, and those read before that are still there."""

from __future__ import annotations

from typing import Final

from hvkernel.abi import ring
from hvkernel.abi.ring import VMBUS_PKT_TRAILER
from hvkernel.decode.node import Bus, Node
from hvkernel.decode.packets import explain_packet, looks_like_packet
from hvkernel.decode.structs import explain_struct, unsigned

__all__ = ["explain_ring", "looks_like_ring"]

CONTROL: Final = ring.HvRingBuffer.SIZE
_LONGEST: Final = 0xFFFF * 8 + VMBUS_PKT_TRAILER
"""Bytes that a packet with its trailer can have: len8 has 16 bits."""


def looks_like_ring(data: bytes) -> bool:
    """Whether the first page can be a control page: both indices inside the data, the reserved words zero."""
    if len(data) < 2 * CONTROL or len(data) % CONTROL:
        return False
    size = len(data) - CONTROL
    write, read = unsigned(data, 0, 4), unsigned(data, 4, 4)
    features = unsigned(data, 64, 4)
    started = write or read or features
    return (
        bool(started) and max(write, read) < size and not (write | read) & 7 and not any(data[16:64]) and features < 2
    )


def explain_ring(bus: Bus, data: bytes) -> tuple[list[Node], list[tuple[int, str]], list[str]]:
    """Explain a control page of 4 KiB and the data behind it; returns records, problems, notes.

    A guest with larger pages pads the control page to its own page; the host's view, and this one, has 4 KiB of it.
    """
    control = explain_struct(bus, ring.HvRingBuffer, data, 0, len(data), name="control page")
    records = [control]
    notes: list[str] = []
    size = len(data) - CONTROL
    if size < CONTROL or size % CONTROL:
        control.problems.append(
            f"{max(size, 0)} bytes of data behind the control page are not whole pages of {CONTROL}"
        )
    if size < 24:
        return records, [], notes
    size &= ~7
    write, read = unsigned(data, 0, 4), unsigned(data, 4, 4)
    bad = False
    for name, index in (("write_index", write), ("read_index", read)):
        if index >= size or index & 7:
            control.problems.append(f"{name} {index:#x} is not a multiple of 8 below the {size:#x} bytes of data")
            bad = True
    if bad:
        return records, [], notes
    waiting = (write - read) % size
    notes.append(f"{waiting} bytes wait, {size - waiting} are free")
    body = data[CONTROL : CONTROL + size]
    _walk(bus, records, body, read, waiting)
    _older(bus, records, notes, body, read, size - waiting)
    return records, [], notes


def _walk(bus: Bus, records: list[Node], body: bytes, read: int, waiting: int) -> None:
    """Explain the packets from the read index to the write index."""
    size, at = len(body), read
    while waiting:
        if len(records) > bus.limit:
            records[-1].notes.append(f"{waiting} more waiting bytes are not explained")
            return
        window = _around(body, at, min(waiting, _LONGEST))
        node = explain_packet(bus, window, 0, len(window), exact=False)
        length = unsigned(window, 4, 2) * 8 if len(window) >= 16 else 0
        total = length + VMBUS_PKT_TRAILER
        if length < 16 or total > waiting or node.size != length:
            node.problems.append(
                f"{length} bytes and a trailer of {VMBUS_PKT_TRAILER} do not fit the {waiting} that wait: the packets "
                "behind cannot be found"
            )
            waiting = 0
        else:
            _check_trailer(node, window, length, at)
            waiting -= total
        _place(node, at, size)
        node.name = f"waiting at {at:#x}: {node.name}"
        records.append(node)
        at = (at + total) % size


def _check_trailer(node: Node, window: bytes, length: int, at: int) -> None:
    index, low = unsigned(window, length + 4, 4), unsigned(window, length, 4)
    tail = Node("trailer", length, 8, f"packet was put at {index:#x}", index, window[length : length + 8])
    if index != at or low:
        tail.notes.append(f"the trailer is {low | index << 32:#x}; of a packet at {at:#x} it is {at << 32:#x}")
    node.children.append(tail)


def _older(bus: Bus, records: list[Node], notes: list[str], body: bytes, read: int, room: int) -> None:
    """Explain packets that were read, backwards from the read index as long as the trailers lead to packets."""
    size, end, found = len(body), read, 0
    while room >= 16 + VMBUS_PKT_TRAILER:
        tail = _around(body, (end - VMBUS_PKT_TRAILER) % size, VMBUS_PKT_TRAILER)
        start = unsigned(tail, 4, 4)
        total = (end - start) % size or size
        if unsigned(tail, 0, 4) or start >= size or start & 7 or total > room or total < 16 + VMBUS_PKT_TRAILER:
            break
        window = _around(body, start, total - VMBUS_PKT_TRAILER)
        if not looks_like_packet(window) or unsigned(window, 4, 2) * 8 != len(window):
            break
        if len(records) > bus.limit:
            notes.append("older packets are left out")
            break
        node = explain_packet(bus, window, 0, len(window))
        _place(node, start, size)
        node.name = f"read before, at {start:#x}: {node.name}"
        records.append(node)
        room -= total
        end = start
        found += 1
    if found:
        notes.append(f"{found} packets that were read are still there, the latest first")


def _around(body: bytes, at: int, length: int) -> bytes:
    """Bytes of the ring, round its end."""
    first = body[at : at + length]
    return first + body[: length - len(first)]


def _place(node: Node, at: int, size: int) -> None:
    """Turn offsets in a packet into those of the file."""
    node.offset = CONTROL + (at + node.offset) % size
    for child in node.children:
        _place(child, at, size)
