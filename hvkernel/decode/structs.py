"""Explains the members of wire structs, whatever bytes there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from hvkernel.abi.guids import guid_name
from hvkernel.abi.meaning import TO_HOST, Choice, Flags, Form, Names, Test, tag
from hvkernel.abi.wire import Field, Guid, Wire
from hvkernel.decode.node import SHOWN_BYTES, Bus, Node

__all__ = ["blob", "explain_struct", "pages", "unsigned"]

_WIDTHS: Final = MappingProxyType({"b": 1, "h": 2, "i": 4, "q": 8})
_NONE: Final[Mapping[str, int]] = MappingProxyType({})
_SHOWN_PAGES: Final = 64


def unsigned(data: bytes, offset: int, size: int) -> int:
    """Return a little-endian number; what lies beyond the end counts as zero."""
    return int.from_bytes(data[offset : offset + size], "little")


def blob(name: str, data: bytes, offset: int, size: int) -> Node:
    """Return bytes that are shown as they are."""
    shown = data[offset : offset + size]
    text = f"{size} bytes, all zero" if not any(shown) else shown[:SHOWN_BYTES].hex(" ")
    if size > SHOWN_BYTES and any(shown):
        text += f" ... ({size} bytes)"
    return Node(name, offset, size, text, shown[:SHOWN_BYTES].hex(), shown[:SHOWN_BYTES])


def pages(name: str, data: bytes, offset: int, count: int) -> Node:
    """Return page numbers of 8 bytes each."""
    values = [unsigned(data, offset + 8 * i, 8) for i in range(min(count, _SHOWN_PAGES))]
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    text = ", ".join(f"{a:#x}" if a == b else f"{a:#x}-{b:#x}" for a, b in runs)
    if count > _SHOWN_PAGES:
        text += f", ... ({count} pages)"
    return Node(
        f"{name}[{count}]", offset, 8 * count, text, values, data[offset : offset + min(8 * count, SHOWN_BYTES)]
    )


def explain_struct(
    bus: Bus,
    cls: type[Wire],
    data: bytes,
    offset: int,
    limit: int,
    *,
    name: str = "",
    to_host: bool | None = None,
    selectors: Mapping[str, int] = _NONE,
    hidden: Sequence[str] = (),
) -> Node:
    """Explain one struct as far as it lies before ``limit``; where it does not, the node has a problem.

    :param to_host: direction of travel, None when unknown.
    :param selectors: values that hold instead of those of the members of these names, for choices.
    :param hidden: members that are left out, with dots into nested structs.
    """
    size = max(min(cls.SIZE, limit - offset), 0)
    node = Node(name or tag(cls), offset, size)
    left_out = {*hidden, *_hidden(bus, cls, data, offset, limit, to_host, selectors)}
    for field in cls.FIELDS:
        if field.kind == "tail" or field.name in left_out:
            continue
        if offset + field.offset + field.size > limit:
            node.problems.append(
                f"{tag(cls)} has {cls.SIZE} bytes and ends after {size}: {field.name} and what follows are not whole"
            )
            break
        inner = [path.partition(".")[2] for path in left_out if path.startswith(f"{field.name}.")]
        node.children.append(_member(bus, cls, data, offset, field, to_host, inner))
    return node


def _hidden(
    bus: Bus, cls: type[Wire], data: bytes, offset: int, limit: int, to_host: bool | None, given: Mapping[str, int]
) -> list[str]:
    found: list[str] = []
    for rule in bus.words.choices.get(tag(cls), ()):
        value = given.get(rule.selector)
        if rule.selector == TO_HOST:
            value = None if to_host is None else int(to_host)
        elif value is None:
            field = cls.field(rule.selector)
            if offset + field.offset + field.size <= limit:
                value = unsigned(data, offset + field.offset, field.size)
        found += rule.no if value is not None and _holds(rule, value) else rule.yes
    return found


def _holds(rule: Choice, value: int) -> bool:
    if rule.test is Test.IN:
        return value in rule.values
    if rule.test is Test.FROM:
        return value >= rule.values[0]
    return value & rule.values[0] == rule.values[0]


def _member(
    bus: Bus, cls: type[Wire], data: bytes, base: int, field: Field, to_host: bool | None, hidden: list[str]
) -> Node:
    at = base + field.offset
    raw = data[at : at + min(field.size, SHOWN_BYTES)]
    if field.kind == "wire":
        return explain_struct(
            bus, field.type, data, at, at + field.size, name=field.name, to_host=to_host, hidden=hidden
        )
    if field.kind == "wires":
        size = field.size // field.elements
        node = Node(f"{field.name}[{field.elements}]", at, field.size)
        for i in range(field.elements):
            start = at + i * size
            node.children.append(explain_struct(bus, field.type, data, start, start + size, name=f"[{i}]"))
        return node
    if field.kind == "bytes":
        node = blob(field.name, data, at, field.size)
    elif field.kind == "guid":
        guid = Guid(data[at : at + 16])
        known = guid_name(guid)
        node = Node(field.name, at, 16, f"{guid} ({known})" if known else str(guid), str(guid), raw)
    elif field.kind == "ints":
        width = _WIDTHS[field.code.lower()]
        values = [unsigned(data, at + i * width, width) for i in range(field.elements)]
        shown = ", ".join(f"{value:#x}" for value in values) if any(values) else f"{field.elements} zeros"
        node = Node(field.name, at, field.size, shown, values, raw)
    else:
        node = _number(bus, f"{tag(cls)}.{field.name}", data, at, field, raw)
    if field.name.startswith(("reserve", "padding")) and any(data[at : at + field.size]) and node.value:
        node.notes.append(f"{field.name} is reserved and not zero")
    return node


def _number(bus: Bus, key: str, data: bytes, at: int, field: Field, raw: bytes) -> Node:
    value = unsigned(data, at, field.size)
    bits = None
    if field.kind == "bits":
        value = value >> field.bit_offset & (1 << field.bit_size) - 1
        bits = (field.bit_offset, field.bit_size)
    elif field.code.islower() and value >> 8 * field.size - 1:
        value -= 1 << 8 * field.size
    node = Node(field.name, at, field.size, f"{value:#x}", value, raw, bits)
    meaning = bus.words.meanings.get(key)
    if isinstance(meaning, Names):
        known = meaning.values.get(value)
        if known is not None:
            node.text = f"{known} ({value:#x})"
        elif meaning.closed:
            node.problems.append(f"{field.name} {value:#x} has no meaning")
    elif isinstance(meaning, Flags):
        there = [name for mask, name in meaning.bits.items() if value & mask == mask]
        unknown = value
        for mask in meaning.bits:
            unknown &= ~mask
        node.text = " | ".join([*there, *([f"{unknown:#x}"] if unknown else [])]) or "none"
        node.text += f" ({value:#x})"
        if unknown:
            node.notes.append(f"{field.name} has bits without a name: {unknown:#x}")
    elif meaning is Form.DECIMAL:
        node.text = str(value)
    elif meaning is Form.VERSION:
        node.text = f"{value >> 16}.{value & 0xFFFF} ({value:#x})"
    elif meaning is Form.VERSION8:
        node.text = f"{value >> 8}.{value & 0xFF} ({value:#x})"
    elif meaning is Form.UNITS8:
        node.text = f"{value} ({value * 8} bytes)"
    return node
