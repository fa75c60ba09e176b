"""linux/tracepoint.h: how a driver declares its tracepoints and passes them.

A row says what a ``TRACE_EVENT()`` of the kernel says: the fields that are kept, with their C types, and the line that
is printed of them. The line is written with the field's name where the kernel's has a conversion, ``{relid:x}`` for
``%x`` of ``__entry->relid``; the kernel's own format string follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2s
from types import MappingProxyType
from typing import Final, Protocol

from hvkernel.api.guest.hyperv import pUl

__all__ = ["Field", "TraceEvent", "Tracing", "trace_event"]

Value = int | bytes

_SIZES: Final[Mapping[str, tuple[int, bool]]] = MappingProxyType(
    {
        "char": (1, True),
        "u8": (1, False),
        "u16": (2, False),
        "u32": (4, False),
        "u64": (8, False),
        "int": (4, True),
        "unsigned int": (4, False),
        "unsigned long": (0, False),
        "struct mm_struct *": (0, False),
    }
)
"""C type to bytes (0: as many as a register has) and whether it is signed."""

_DECLARATION: Final = re.compile(r"(?P<type>.+?)\s*(?P<name>\w+)(?:\[(?P<count>\d+)\])?")
_CONVERSION: Final = re.compile(r"\{(?P<name>\w+):(?P<conversion>\w+)\}")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of TP_STRUCT__entry."""

    type: str
    """As in C."""
    name: str
    count: int | None = None
    """Elements of an array."""

    @property
    def signed(self) -> bool:
        """Whether the type is signed (``is_signed_type()``)."""
        return _SIZES[self.type][1]

    def alignment(self, bits: int) -> int:
        """Bytes that the field's offset is a multiple of.

        :param bits: word size of the kernel. A 32-bit x86 kernel aligns u64 to 4 bytes.
        """
        return min(_SIZES[self.type][0] or bits // 8, bits // 8)

    def size(self, bits: int) -> int:
        """Bytes of the whole field.

        :param bits: word size of the kernel.
        """
        return (_SIZES[self.type][0] or bits // 8) * (self.count or 1)

    def declaration(self) -> str:
        """Return the field as the event's ``format`` file declares it."""
        return f"{self.type} {self.name}" + (f"[{self.count}]" if self.count else "")


@dataclass(frozen=True)
class TraceEvent:
    """One tracepoint. Made by :func:`trace_event`."""

    system: str
    name: str
    fields: tuple[Field, ...]
    line: str
    """What is printed; ``{field:conversion}`` stands for a field."""
    source: str
    """Where the kernel passes it: file and function."""

    @cached_property
    def field_names(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def _pieces(self) -> tuple[tuple[str, int, Callable[[Value, int], str]], ...]:
        """Text, then the index of a field and how it is shown, again and again; the last text stands in the tail."""
        pieces = []
        at = 0
        for found in _CONVERSION.finditer(self.line):
            index = self.field_names.index(found["name"])
            pieces.append((self.line[at : found.start()], index, _CONVERT[found["conversion"]]))
            at = found.end()
        return tuple(pieces)

    @cached_property
    def _tail(self) -> str:
        return _CONVERSION.split(self.line)[-1]

    def text(self, values: Sequence[Value], bits: int = 64) -> str:
        """Return the event as the kernel's TP_printk prints it.

        :param bits: word size of the kernel.
        """
        return "".join(f"{text}{show(values[index], bits)}" for text, index, show in self._pieces) + self._tail

    @cached_property
    def format(self) -> str:
        """The format string of the kernel's TP_printk."""
        return _CONVERSION.sub(lambda found: f"%{found['conversion']}", self.line)

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """The fields that the conversions stand for, in order."""
        return tuple(found["name"] for found in _CONVERSION.finditer(self.line))


def trace_event(system: str, name: str, fields: str, line: str, source: str) -> TraceEvent:
    """Make a row.

    :param fields: C declarations, separated by semicolons: ``u32 child_relid; char if_type[16]``.
    :param line: what is printed, with ``{field:conversion}``.
    :param source: file and function of the kernel that pass the tracepoint.
    :raises ValueError: a declaration or a conversion that is not known, or a field that does not exist.
    """
    rows = []
    for text in fields.split(";"):
        found = _DECLARATION.fullmatch(text.strip())
        if found is None or found["type"].strip() not in _SIZES:
            raise ValueError(f"{system}:{name}: {text.strip()!r} declares no field of a known type")
        rows.append(Field(found["type"].strip(), found["name"], int(found["count"]) if found["count"] else None))
    names = [row.name for row in rows]
    for found in _CONVERSION.finditer(line):
        if found["name"] not in names or found["conversion"] not in _CONVERT:
            raise ValueError(f"{system}:{name}: {found[0]} is no field with a known conversion")
    return TraceEvent(system, name, tuple(rows), line, source)


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _decimal(value: Value, bits: int) -> str:
    """``%d``: 32 bits, signed, whatever the field is."""
    return str(((_number(value) & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000)


def _unsigned(value: Value, bits: int) -> str:
    return str(_number(value) & 0xFFFF_FFFF)


def _hexadecimal(value: Value, bits: int) -> str:
    return f"{_number(value) & 0xFFFF_FFFF:x}"


def _long(value: Value, bits: int) -> str:
    return f"{_number(value) & (1 << bits) - 1:x}"


def _long_long(value: Value, bits: int) -> str:
    return f"{_number(value):x}"


def _pointer(value: Value, bits: int) -> str:
    """``%p``: not the address but a hash of it; NULL and error values as they are (lib/vsprintf.c:ptr_to_id).

    The kernel's hash has a random key. *unspecified*: here it is always the same one.
    """
    number = _number(value)
    digits = bits // 4
    if not number or number >= (1 << bits) - 4095:
        return f"{number:0{digits}x}"
    return f"{int.from_bytes(blake2s(number.to_bytes(8, 'little'), digest_size=4).digest(), 'little'):0{digits}x}"


def _guid(value: Value, bits: int) -> str:
    assert isinstance(value, bytes)
    return pUl(value)


_CONVERT: Final[Mapping[str, Callable[[Value, int], str]]] = MappingProxyType(
    {
        "d": _decimal,
        "u": _unsigned,
        "x": _hexadecimal,
        "lx": _long,
        "llx": _long_long,
        "p": _pointer,
        "pUl": _guid,
    }
)
"""printk's conversions, as far as tracepoints use them."""


class Tracing(Protocol):
    """``kernel.tracing``."""

    @property
    def enabled(self) -> bool:
        """Whether anybody watches; ask it before collecting an event's fields."""
        ...

    def register(self, events: Sequence[TraceEvent]) -> None:
        """Make a table of tracepoints known.

        :raises ValueError: a tracepoint of that name exists.
        """
        ...

    def event(self, event: TraceEvent, *values: Value) -> None:
        """Pass a tracepoint, on the CPU and in the task of the caller.

        :param values: of the fields, in the order of the table.
        """
        ...
