"""The few AML encodings that the DSDT needs.

Source: ACPI specification 6.4, chapter 20 (AML) and section 6.4 (resource data types).
"""

from __future__ import annotations

from struct import pack

__all__ = [
    "buffer",
    "device",
    "dword_memory",
    "eisa_id",
    "end_tag",
    "interrupt",
    "name",
    "number",
    "qword_memory",
    "resources",
    "scope",
    "text",
]


def _package_length(body: int) -> bytes:
    """PkgLength for ``body`` bytes that follow it; it counts itself."""
    for extra in range(4):
        total = body + 1 + extra
        if extra == 0 and total < 0x40:
            return bytes((total,))
        if extra and total < 1 << 4 + 8 * extra:
            return bytes((extra << 6 | total & 0xF, *(total >> 4 + 8 * n & 0xFF for n in range(extra))))
    raise ValueError(f"an AML package of {body} bytes is too long")


def _segment(part: str) -> bytes:
    if not 1 <= len(part) <= 4:
        raise ValueError(f"AML name segment {part!r}: 1 to 4 characters")
    return part.ljust(4, "_").encode("ascii")


def _path(path: str) -> bytes:
    root = b"\\" if path.startswith("\\") else b""
    parts = [_segment(part) for part in path.removeprefix("\\").split(".")]
    if len(parts) == 1:
        return root + parts[0]
    prefix = b"\x2e" if len(parts) == 2 else bytes((0x2F, len(parts)))
    return root + prefix + b"".join(parts)


def number(value: int) -> bytes:
    """An integer in its shortest form."""
    if value in (0, 1):
        return bytes((value,))
    for op, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if value < 1 << 8 * size:
            return bytes((op,)) + value.to_bytes(size, "little")
    raise ValueError(f"AML integer {value:#x} has more than 64 bits")


def text(value: str) -> bytes:
    """A string."""
    return b"\x0d" + value.encode("ascii") + b"\0"


def eisa_id(value: str) -> bytes:
    """An EISA id such as ``PNP0A03`` as the DWord that stands for it."""
    letters = [ord(c) - 0x40 for c in value[:3]]
    code = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(value[3:], 16)
    return b"\x0c" + pack(">I", code)


def buffer(data: bytes) -> bytes:
    """A buffer."""
    inner = number(len(data)) + data
    return b"\x11" + _package_length(len(inner)) + inner


def name(path: str, value: bytes) -> bytes:
    """``Name(path, value)``."""
    return b"\x08" + _path(path) + value


def device(path: str, *objects: bytes) -> bytes:
    """``Device(path) { objects }``."""
    inner = _path(path) + b"".join(objects)
    return b"\x5b\x82" + _package_length(len(inner)) + inner


def scope(path: str, *objects: bytes) -> bytes:
    """``Scope(path) { objects }``."""
    inner = _path(path) + b"".join(objects)
    return b"\x10" + _package_length(len(inner)) + inner


def dword_memory(first: int, last: int) -> bytes:
    """``DWordMemory(ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite, ...)``."""
    return pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 0x03, 0, first, last, 0, last - first + 1)


def qword_memory(first: int, last: int) -> bytes:
    """``QWordMemory`` of the same kind."""
    return pack("<BHBBBQQQQQ", 0x8A, 43, 0, 0x0C, 0x03, 0, first, last, 0, last - first + 1)


def interrupt(*numbers: int) -> bytes:
    """``Interrupt(ResourceConsumer, Edge, ActiveHigh, Exclusive) { numbers }``."""
    return pack("<BHBB", 0x89, 2 + 4 * len(numbers), 0x03, len(numbers)) + pack(f"<{len(numbers)}I", *numbers)


def end_tag() -> bytes:
    """The end tag, with the checksum left out (zero is valid)."""
    return b"\x79\0"


def resources(*descriptors: bytes) -> bytes:
    """A ``ResourceTemplate``."""
    return buffer(b"".join(descriptors) + end_tag())
