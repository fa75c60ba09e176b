"""GPA ranges as they lie in a GPADL or a GPA-direct packet (include/linux/hyperv.h: struct gpa_range)."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["BadRange", "Range", "parse_ranges"]

Range = tuple[int, int, tuple[int, ...]]
"""``(byte_count, byte_offset, pfns)``; byte_offset is into the first page."""

_HEAD: Final = struct.Struct("<II")
_PFN: Final = struct.Struct("<Q")
_MAX_PFN: Final = 1 << 52


class BadRange(ValueError):
    """A range that does not describe memory."""


def parse_ranges(data: bytes, count: int) -> tuple[tuple[Range, ...], int]:
    """Take ``count`` ranges off the start of ``data``.

    The number of page numbers of a range is what its offset and length span, in 4 KiB pages.

    :returns: the ranges, and the bytes that they took.
    :raises BadRange: an empty range, an offset beyond the first page, or too few page numbers.
    """
    at = 0
    size = len(data)
    ranges: list[Range] = []
    for number in range(count):
        if size - at < 8:
            raise BadRange(f"range {number} of {count}: {size - at} bytes left, its header needs 8")
        byte_count, byte_offset = _HEAD.unpack_from(data, at)
        if not byte_count:
            raise BadRange(f"range {number} of {count}: byte_count is 0")
        if byte_offset > 0xFFF:
            raise BadRange(f"range {number} of {count}: byte_offset {byte_offset:#x} is beyond the first page (0xfff)")
        pages = byte_offset + byte_count + 0xFFF >> 12
        at += 8
        room = (size - at) // 8
        if pages > room:
            raise BadRange(f"range {number} of {count}: {byte_count:#x} bytes need {pages} page numbers, {room} follow")
        pfns = _PFN.unpack_from(data, at) if pages == 1 else struct.unpack_from(f"<{pages}Q", data, at)
        highest = pfns[0] if pages == 1 else max(pfns)
        if highest >= _MAX_PFN:
            raise BadRange(f"range {number} of {count}: page number {highest:#x} is beyond 52 bits")
        ranges.append((byte_count, byte_offset, pfns))
        at += 8 * pages
    return tuple(ranges), at
