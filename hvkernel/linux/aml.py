"""A reader of AML: the namespace of devices with their named objects, not an interpreter.

Definitions that only a running interpreter could give a value (methods, fields, regions) are skipped; a device whose
object is made by a method has no such object here. Source: ACPI 6.4, chapter 20 (encoding), 6.4 (resource
descriptors).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

AmlValue = int | str | bytes | list["AmlValue"] | None

_ZERO, _ONE, _ONES = 0x00, 0x01, 0xFF
_ALIAS, _NAME, _SCOPE, _BUFFER, _PACKAGE, _VARPACKAGE, _METHOD, _EXTERNAL = (
    0x06,
    0x08,
    0x10,
    0x11,
    0x12,
    0x13,
    0x14,
    0x15,
)
_EXT = 0x5B
_EXT_MUTEX, _EXT_EVENT = 0x01, 0x02
_EXT_REGION, _EXT_FIELD, _EXT_DEVICE, _EXT_PROCESSOR, _EXT_POWER, _EXT_THERMAL, _EXT_INDEX = (
    0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86,
)  # fmt: skip
_SKIPPED: Final = frozenset({_EXT_FIELD, _EXT_INDEX})
_SIZES: Final = MappingProxyType({0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8})
MAX_DEPTH: Final = 32
"""Nesting that a sane table has; deeper is refused. A limit of this reader."""


class AmlError(ValueError):
    """The byte stream is not AML, or is cut off."""


@dataclass(slots=True)
class Node:
    """A scope or device, with its named objects and children."""

    name: str
    """Four characters without padding underscores, as ``VMBS``."""
    kind: str
    """``scope``, ``device``, ``processor`` or ``other``."""
    parent: Node | None = None
    objects: dict[str, AmlValue] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    @property
    def path(self) -> str:
        """As ``\\_SB.VMOD.VMBS``."""
        if self.parent is None:
            return "\\"
        above = self.parent.path
        return above + self.name if above == "\\" else f"{above}.{self.name}"

    def child(self, name: str) -> Node | None:
        return next((c for c in self.children if c.name == name), None)


class Reader:
    """Reads one definition block into a namespace."""

    def __init__(self, data: bytes, root: Node) -> None:
        self._data = data
        self._root = root

    def read(self) -> None:
        """:raises AmlError: with the offset, for anything that is not understood. What was read before stays."""
        self._terms(0, len(self._data), self._root, 0)

    def _byte(self, at: int, end: int) -> int:
        if at >= end:
            raise AmlError(f"AML ends at offset {at:#x} inside a term")
        return self._data[at]

    def _length(self, at: int, end: int) -> tuple[int, int]:
        """(end of the package, first byte after PkgLength)."""
        lead = self._byte(at, end)
        extra = lead >> 6
        if not extra:
            total = lead & 0x3F
        else:
            if at + extra >= end:
                raise AmlError(f"AML package length at offset {at:#x} is cut off")
            total = lead & 0xF
            for n in range(extra):
                total |= self._data[at + 1 + n] << (4 + 8 * n)
        stop = at + total
        if total < 1 + extra or stop > end:
            raise AmlError(f"AML package at offset {at:#x} says {total} bytes, {end - at} are left")
        return stop, at + 1 + extra

    def _name(self, at: int, end: int) -> tuple[str, int]:
        prefix = ""
        while self._byte(at, end) in b"\\^":
            prefix += chr(self._data[at])
            at += 1
        lead = self._byte(at, end)
        if lead == 0:
            return prefix, at + 1
        if lead == 0x2E:
            count, at = 2, at + 1
        elif lead == 0x2F:
            count, at = self._byte(at + 1, end), at + 2
        else:
            count = 1
        if at + 4 * count > end:
            raise AmlError(f"AML name at offset {at:#x} is cut off")
        parts = []
        for n in range(count):
            raw = self._data[at + 4 * n : at + 4 * n + 4]
            if not all(c == 0x5F or 0x41 <= c <= 0x5A or (i and 0x30 <= c <= 0x39) for i, c in enumerate(raw)):
                raise AmlError(f"AML name segment {raw!r} at offset {at + 4 * n:#x}")
            parts.append(raw.decode("ascii").rstrip("_") or "_")
        return prefix + ".".join(parts), at + 4 * count

    def _open(self, path: str, scope: Node, kind: str) -> Node:
        node = self._root if path.startswith("\\") else scope
        rest = path.lstrip("\\")
        while rest.startswith("^"):
            node = node.parent or node
            rest = rest[1:]
        for part in filter(None, rest.split(".")):
            found = node.child(part)
            if found is None:
                found = Node(part, "scope", node)
                node.children.append(found)
            node = found
        if kind != "scope":
            node.kind = kind
        return node

    def _terms(self, at: int, end: int, scope: Node, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise AmlError(f"AML nests deeper than {MAX_DEPTH} at offset {at:#x}")
        while at < end:
            at = self._term(at, end, scope, depth)

    def _term(self, at: int, end: int, scope: Node, depth: int) -> int:
        op = self._byte(at, end)
        if op == _NAME:
            path, at = self._name(at + 1, end)
            value, at = self._value(at, end, depth)
            owner, _, leaf = path.rpartition(".")
            node = self._open(owner, scope, "scope") if owner else scope
            node.objects[leaf.lstrip("\\^")] = value
            return at
        if op == _SCOPE:
            stop, at = self._length(at + 1, end)
            path, at = self._name(at, stop)
            self._terms(at, stop, self._open(path, scope, "scope"), depth + 1)
            return stop
        if op == _METHOD:
            return self._length(at + 1, end)[0]
        if op == _ALIAS:
            _, at = self._name(at + 1, end)
            return self._name(at, end)[1]
        if op == _EXTERNAL:
            return self._name(at + 1, end)[1] + 2
        if op == _EXT:
            return self._extended(at, end, scope, depth)
        raise AmlError(f"AML opcode {op:#04x} at offset {at:#x} is not one that this reader knows")

    def _extended(self, at: int, end: int, scope: Node, depth: int) -> int:
        op = self._byte(at + 1, end)
        if op in (_EXT_DEVICE, _EXT_THERMAL, _EXT_PROCESSOR, _EXT_POWER):
            stop, body = self._length(at + 2, end)
            path, body = self._name(body, stop)
            kind = {_EXT_DEVICE: "device", _EXT_PROCESSOR: "processor"}.get(op, "other")
            body += {_EXT_PROCESSOR: 6, _EXT_POWER: 3}.get(op, 0)
            self._terms(body, stop, self._open(path, scope, kind), depth + 1)
            return stop
        if op in _SKIPPED:
            return self._length(at + 2, end)[0]
        if op == _EXT_REGION:
            _, at = self._name(at + 2, end)
            _, at = self._value(at + 1, end, depth)
            return self._value(at, end, depth)[1]
        if op == _EXT_MUTEX:
            return self._name(at + 2, end)[1] + 1
        if op == _EXT_EVENT:
            return self._name(at + 2, end)[1]
        raise AmlError(f"AML opcode 0x5b {op:#04x} at offset {at:#x} is not one that this reader knows")

    def _value(self, at: int, end: int, depth: int) -> tuple[AmlValue, int]:
        if depth > MAX_DEPTH:
            raise AmlError(f"AML nests deeper than {MAX_DEPTH} at offset {at:#x}")
        op = self._byte(at, end)
        if op in (_ZERO, _ONE):
            return op, at + 1
        if op == _ONES:
            return (1 << 64) - 1, at + 1
        size = _SIZES.get(op)
        if size is not None:
            if at + 1 + size > end:
                raise AmlError(f"AML integer at offset {at:#x} is cut off")
            return int.from_bytes(self._data[at + 1 : at + 1 + size], "little"), at + 1 + size
        if op == 0x0D:
            stop = self._data.find(b"\0", at + 1, end)
            if stop < 0:
                raise AmlError(f"AML string at offset {at:#x} has no end")
            return self._data[at + 1 : stop].decode("ascii", "replace"), stop + 1
        if op == _BUFFER:
            stop, at = self._length(at + 1, end)
            length, at = self._value(at, stop, depth + 1)
            raw = self._data[at:stop]
            if isinstance(length, int):
                raw = raw[:length].ljust(min(length, 1 << 16), b"\0")
            return raw, stop
        if op in (_PACKAGE, _VARPACKAGE):
            stop, at = self._length(at + 1, end)
            at += 1
            items: list[AmlValue] = []
            while at < stop:
                item, at = self._value(at, stop, depth + 1)
                items.append(item)
            return items, stop
        if op in b"\\^\x2e\x2f_" or 0x41 <= op <= 0x5A:
            name, at = self._name(at, end)
            return name, at
        raise AmlError(f"AML data opcode {op:#04x} at offset {at:#x} is not one that this reader knows")


def eisa_id(value: int) -> str:
    """``PNP0A03`` for the DWord that stands for it."""
    raw = int.from_bytes((value & 0xFFFFFFFF).to_bytes(4, "little"), "big")
    letters = "".join(chr(0x40 + (raw >> shift & 0x1F)) for shift in (26, 21, 16))
    return f"{letters}{raw & 0xFFFF:04X}"


ADDRESS32: Final = 0x87
ADDRESS64: Final = 0x8A
EXTENDED_IRQ: Final = 0x89
"""Tags of large resource descriptors (ACPI 6.4, section 6.4.3)."""


@dataclass(frozen=True, slots=True)
class CrsItem:
    """One descriptor of a _CRS."""

    kind: str
    """``mem``, ``io``, ``bus`` or ``irq``."""
    start: int
    end: int
    """Inclusive; for an irq both are its number."""
    tag: int = 0
    """First byte of the descriptor; of a small one without its length."""
    index: int = 0
    """Which one of the descriptor, from 0: interrupt descriptors name several."""


def resources(data: bytes) -> list[CrsItem]:
    """The descriptors of a resource template up to its end tag.

    :raises AmlError: when one is cut off. Kinds that are not memory, I/O, bus numbers or interrupts are skipped.
    """
    items: list[CrsItem] = []
    at = 0
    while at < len(data):
        tag = data[at]
        if tag & 0x80:
            if at + 3 > len(data):
                raise AmlError(f"resource descriptor at offset {at:#x} is cut off")
            length = int.from_bytes(data[at + 1 : at + 3], "little")
            body = data[at + 3 : at + 3 + length]
            if len(body) < length:
                raise AmlError(
                    f"resource descriptor {tag:#04x} at offset {at:#x} says {length} bytes, {len(body)} are left"
                )
            items += _large(tag, body)
            at += 3 + length
            continue
        length = tag & 7
        if tag >> 3 == 0x0F:
            break
        body = data[at + 1 : at + 1 + length]
        if tag >> 3 == 0x04 and len(body) >= 2:
            mask = int.from_bytes(body[:2], "little")
            numbers = [n for n in range(16) if mask >> n & 1]
            items += [CrsItem("irq", n, n, tag & ~7, index) for index, n in enumerate(numbers)]
        at += 1 + length
    return items


def _large(tag: int, body: bytes) -> list[CrsItem]:
    size = {0x87: 4, 0x88: 2, 0x8A: 8}.get(tag)
    if size is not None and len(body) >= 3 + 5 * size:
        kind = {0: "mem", 1: "io", 2: "bus"}.get(body[0])
        first, last = (int.from_bytes(body[3 + size * n : 3 + size * (n + 1)], "little") for n in (1, 2))
        return [CrsItem(kind, first, last, tag)] if kind and last >= first else []
    if tag == 0x86 and len(body) >= 9:
        base, length = int.from_bytes(body[1:5], "little"), int.from_bytes(body[5:9], "little")
        return [CrsItem("mem", base, base + length - 1, tag)] if length else []
    if tag == 0x89 and len(body) >= 2:
        count = body[1]
        numbers = [
            int.from_bytes(body[2 + 4 * n : 6 + 4 * n], "little") for n in range(count) if len(body) >= 6 + 4 * n
        ]
        return [CrsItem("irq", n, n, tag, index) for index, n in enumerate(numbers)]
    return []
