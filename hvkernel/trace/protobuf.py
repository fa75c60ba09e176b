"""As much of the Protocol Buffers encoding as a trace needs: numbers, texts and messages in messages.

Source: "Encoding" of the Protocol Buffers documentation. A library and generated classes would be a dependency for a
page of code, and slower: a trace has one message per event.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["block", "fixed64", "number", "text", "varint"]

_FIXED64: Final = struct.Struct("<Q")
_U64: Final = 0xFFFF_FFFF_FFFF_FFFF


_SHORT: Final = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """Encode a number below 2**64; a negative one as its two's complement, as int64 fields do."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    if 0 <= value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    value &= _U64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_NUMBER: Final = tuple(varint(field << 3) for field in range(256))
_BLOCK: Final = tuple(varint(field << 3 | 2) for field in range(256))
"""Keys of fields, by their numbers."""


def number(field: int, value: int) -> bytes:
    """A field of type int64, uint64, int32, uint32, bool or enum."""
    return _NUMBER[field] + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field << 3 | 1) + _FIXED64.pack(value)


def block(field: int, data: bytes) -> bytes:
    """A field of type bytes, or a message."""
    length = len(data)
    return _BLOCK[field] + (_SHORT[length] if length < 0x80 else varint(length)) + data


def text(field: int, value: str) -> bytes:
    """A field of type string."""
    return block(field, value.encode("utf-8", "replace"))
