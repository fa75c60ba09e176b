"""The part of ``drivers/hv/channel.c`` that turns a buffer into GPADL messages: arithmetic only, no state.

The host counts in 4 KiB pages, the guest in PAGE_SIZE. A ring's control page is one guest page of which the host sees
the first 4 KiB, so a RING GPADL leaves out the rest of that page in each of its two rings.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hvkernel.abi.tlfs import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE
from hvkernel.abi.vmbus import MAX_SIZE_CHANNEL_MESSAGE, HvGpadlType, VmbusChannelMessageType

__all__ = [
    "GpadlMessages",
    "create_gpadl_header",
    "hv_gpadl_hvpfn",
    "hv_gpadl_size",
    "hv_ring_gpadl_send_hvpgoffset",
    "hvpfns_of",
]

HEADER: Final = struct.Struct("<IIIIHHII")
"""msgtype, padding, child_relid, gpadl, range_buflen, rangecount; byte_count and byte_offset of the one range."""
BODY: Final = struct.Struct("<IIII")
"""msgtype, padding, msgnumber, gpadl."""
HEADER_PFNS: Final = (MAX_SIZE_CHANNEL_MESSAGE - HEADER.size) // 8
BODY_PFNS: Final = (MAX_SIZE_CHANNEL_MESSAGE - BODY.size) // 8
RANGE_HEAD: Final = 8
U32: Final = 0xFFFF_FFFF


def hv_gpadl_size(type: HvGpadlType, size: int, page_size: int) -> int:
    """Return the bytes of a GPADL as the host counts them.

    :param size: bytes in the guest; for RING of both rings, a multiple of ``page_size``.
    :raises ValueError: a RING size that is not (the kernel has a BUG_ON here).
    """
    if type == HvGpadlType.HV_GPADL_BUFFER:
        return size
    if size % page_size:
        raise ValueError(f"hv_gpadl_size: RING size {size} is not a multiple of PAGE_SIZE {page_size}")
    return size - 2 * (page_size - HV_HYP_PAGE_SIZE)


def hv_ring_gpadl_send_hvpgoffset(offset: int, page_size: int) -> int:
    """Return where the second ring begins in a RING GPADL, in 4 KiB pages.

    :param offset: bytes from the start of the first ring in the guest.

    The subtraction wraps as an unsigned 64-bit one and the result is cut to 32 bits, so an offset below a guest page
    gives a large number; the kernel never passes one.
    """
    return ((offset - (page_size - HV_HYP_PAGE_SIZE)) & 0xFFFF_FFFF_FFFF_FFFF) >> HV_HYP_PAGE_SHIFT & U32


def hv_gpadl_hvpfn(type: HvGpadlType, send_offset: int, i: int, page_size: int) -> int:
    """Return which 4 KiB page of the guest's buffer is page ``i`` of the GPADL.

    :param send_offset: bytes where the second ring begins in the guest; 0 for BUFFER.
    """
    if type == HvGpadlType.HV_GPADL_BUFFER or i == 0:
        return i
    send_idx = hv_ring_gpadl_send_hvpgoffset(send_offset, page_size)
    if send_idx > 0x7FFF_FFFF:
        send_idx -= 1 << 32
    gap = (page_size - HV_HYP_PAGE_SIZE) >> HV_HYP_PAGE_SHIFT
    return i + (gap if i <= send_idx else 2 * gap)


def hvpfns_of(buffer: int | Sequence[int], indices: Sequence[int]) -> list[int]:
    """Translate page indices of a buffer into Hyper-V page numbers.

    :param buffer: guest physical address of contiguous memory, or the page numbers of a vmalloc area.
    """
    if isinstance(buffer, int):
        first = buffer >> HV_HYP_PAGE_SHIFT
        return [first + index for index in indices]
    return [buffer[index] for index in indices]


@dataclass(frozen=True, slots=True)
class GpadlMessages:
    """What goes to the host for one GPADL, without its handle and relid."""

    range_buflen: int
    """As stored: 16 bits, so it wraps at 8,191 pages."""
    byte_count: int
    pfns: tuple[int, ...]

    def header(self, child_relid: int, gpadl: int) -> bytes:
        """Return the GPADL_HEADER message with the first 26 page numbers."""
        first = self.pfns[:HEADER_PFNS]
        kind = VmbusChannelMessageType.CHANNELMSG_GPADL_HEADER
        return HEADER.pack(kind, 0, child_relid, gpadl, self.range_buflen, 1, self.byte_count, 0) + struct.pack(
            f"<{len(first)}Q", *first
        )

    def bodies(self, gpadl: int) -> list[bytes]:
        """Return the GPADL_BODY messages, 28 page numbers each. The kernel leaves ``msgnumber`` zero in all of them."""
        messages = []
        kind = VmbusChannelMessageType.CHANNELMSG_GPADL_BODY
        for at in range(HEADER_PFNS, len(self.pfns), BODY_PFNS):
            part = self.pfns[at : at + BODY_PFNS]
            messages.append(BODY.pack(kind, 0, 0, gpadl) + struct.pack(f"<{len(part)}Q", *part))
        return messages


def create_gpadl_header(
    type: HvGpadlType, buffer: int | Sequence[int], size: int, send_offset: int, page_size: int
) -> GpadlMessages:
    """Describe a buffer to the host.

    :param size: bytes; of a BUFFER size that is no multiple of 4096 the last page is missing, as in the kernel.
    """
    byte_count = hv_gpadl_size(type, size, page_size)
    pages = byte_count >> HV_HYP_PAGE_SHIFT
    indices: Sequence[int] = range(pages)
    if type == HvGpadlType.HV_GPADL_RING and page_size != HV_HYP_PAGE_SIZE:
        indices = [hv_gpadl_hvpfn(type, send_offset, i, page_size) for i in indices]
    return GpadlMessages((RANGE_HEAD + 8 * pages) & 0xFFFF, byte_count, tuple(hvpfns_of(buffer, indices)))
