"""Explains SynIC message slots: one, or the page of sixteen."""

from __future__ import annotations

from typing import Final

from hvkernel.abi.tlfs_synic import HV_MESSAGE_SIZE, HvMessageHeader, HvMessageType, HvTimerMessagePayload
from hvkernel.decode.messages import explain_message
from hvkernel.decode.node import Bus, Node
from hvkernel.decode.structs import blob, explain_struct, unsigned

__all__ = ["explain_slots", "looks_like_slots"]

_MOST: Final = HV_MESSAGE_SIZE - HvMessageHeader.SIZE
_CHANNEL_MESSAGE: Final = 1
_TYPES: Final = frozenset({_CHANNEL_MESSAGE, *(int(kind) for kind in HvMessageType)})


def looks_like_slots(data: bytes) -> bool:
    """Whether this can be a slot, or a page of them, with at least one message."""
    if len(data) not in (HV_MESSAGE_SIZE, 16 * HV_MESSAGE_SIZE):
        return False
    used = False
    for at in range(0, len(data), HV_MESSAGE_SIZE):
        kind = unsigned(data, at, 4)
        if kind not in _TYPES or data[at + 4] > _MOST or data[at + 5] > 1 or any(data[at + 6 : at + 8]):
            return False
        used = used or bool(kind and data[at + 4])
    return used


def explain_slots(bus: Bus, data: bytes) -> tuple[list[Node], list[tuple[int, str]], list[str]]:
    """Explain slots of 256 bytes; returns records, problems, notes. A free slot's leftovers are not explained."""
    records: list[Node] = []
    problems: list[tuple[int, str]] = []
    notes: list[str] = []
    if len(data) % HV_MESSAGE_SIZE:
        problems.append((len(data), f"{len(data)} bytes are not whole slots of {HV_MESSAGE_SIZE}"))
    free: list[str] = []
    for at in range(0, len(data), HV_MESSAGE_SIZE):
        if len(records) >= bus.limit:
            notes.append(f"the first {bus.limit} slots are explained")
            break
        limit = min(at + HV_MESSAGE_SIZE, len(data))
        sint = at // HV_MESSAGE_SIZE
        if limit - at >= HvMessageHeader.SIZE and not unsigned(data, at, 4):
            free.append(str(sint))
            continue
        records.append(_slot(bus, data, at, limit, f"SINT {sint}" if len(data) > HV_MESSAGE_SIZE else "slot"))
    if free:
        notes.append(f"free: {', '.join(free[:16])}{' ...' if len(free) > 16 else ''}")
    return records, problems, notes


def _slot(bus: Bus, data: bytes, at: int, limit: int, name: str) -> Node:
    node = Node(name, at, limit - at)
    head = explain_struct(bus, HvMessageHeader, data, at, limit, name="header")
    node.children.append(head)
    if head.problems:
        return node
    kind, size = unsigned(data, at, 4), data[at + 4]
    start = at + HvMessageHeader.SIZE
    if size > _MOST:
        head.problems.append(f"payload_size {size} is more than the {_MOST} that a slot holds")
    end = min(start + size, limit)
    if start + min(size, _MOST) > limit:
        node.problems.append(f"the payload ends after {limit - start} of {size} bytes")
    if kind == _CHANNEL_MESSAGE:
        message, _ = explain_message(bus, data, start, end, to_host=False)
        node.children.append(message)
        node.text = f"{message.name} {message.text}".strip()
    elif kind == HvMessageType.HVMSG_TIMER_EXPIRED:
        node.children.append(explain_struct(bus, HvTimerMessagePayload, data, start, end))
        node.text = HvMessageType(kind).name
    elif end > start:
        node.children.append(blob("payload", data, start, end - start))
    return node
