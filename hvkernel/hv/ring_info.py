"""The guest's private view of a ring: ``struct hv_ring_buffer_info`` and the inline functions about it.

Source: ``include/linux/hyperv.h`` of Linux 6.1.192, and the small helpers of ``drivers/hv/ring_buffer.c`` that only
read indices. What writes and reads packets is :mod:`hvkernel.hv.ring_buffer`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from hvkernel.abi.ring import VMBUS_PKT_TRAILER, HvRingBuffer, VmpacketDescriptor
from hvkernel.machine.faults import PageFault

if TYPE_CHECKING:
    from hvkernel.api.guest.sched import Mutex, Spinlock
    from hvkernel.hv.ring_walk import RingWalk
    from hvkernel.machine.vmap import Vmap, Word

__all__ = [
    "VMBUS_PKT_TRAILER",
    "VMBUS_RING_SIZE",
    "BulkRing",
    "HvRingBufferDebugInfo",
    "HvRingBufferInfo",
    "ReciprocalValue",
    "RingChannel",
    "VmbusPacket",
    "hv_get_avail_to_write_percent",
    "hv_get_bytes_to_read",
    "hv_get_bytes_to_write",
    "hv_pkt_data",
    "hv_pkt_datalen",
    "hv_pkt_iter_avail",
    "hv_pkt_iter_bytes_read",
    "hv_pkt_len",
    "reciprocal_divide",
    "reciprocal_value",
]

WRITE_INDEX: Final = HvRingBuffer.offset_of("write_index")
READ_INDEX: Final = HvRingBuffer.offset_of("read_index")
INTERRUPT_MASK: Final = HvRingBuffer.offset_of("interrupt_mask")
PENDING_SEND_SZ: Final = HvRingBuffer.offset_of("pending_send_sz")
FEATURE_BITS: Final = HvRingBuffer.offset_of("feature_bits")
DESC_SIZE: Final = VmpacketDescriptor.SIZE
DESC_TRANS_ID: Final = VmpacketDescriptor.offset_of("trans_id")
"""Offsets of the shared structures, in bytes (include/linux/hyperv.h)."""

_U32: Final = 0xFFFF_FFFF
_DESC: Final = struct.Struct("<HHHHQ")

Bytes = bytes | bytearray | memoryview


class RingChannel(Protocol):
    """The fields of ``struct vmbus_channel`` that ring_buffer.c reads and writes (include/linux/hyperv.h)."""

    outbound: HvRingBufferInfo
    inbound: HvRingBufferInfo
    rescind: bool
    intr_out_empty: int
    intr_in_full: int
    out_full_total: int
    out_full_first: int
    out_full_flag: bool
    next_request_id_callback: Callable[[Any, int], int] | None
    request_addr_callback: Callable[[Any, int], int] | None


class BulkRing(Protocol):
    """The bulk copies of one ring (``jit=True``): offsets count from the start of the ring data."""

    def put(self, offset: int, parts: Sequence[Bytes]) -> int:
        """Copy the parts, back to back, to *offset*; return how many bytes that was."""
        ...

    def get(self, offset: int, length: int) -> bytes:
        """Copy *length* bytes at *offset* out of the ring."""
        ...

    def close(self) -> None:
        """Give the mapping back."""
        ...


@dataclass(frozen=True, slots=True)
class ReciprocalValue:
    """``struct reciprocal_value`` (include/linux/reciprocal_div.h)."""

    m: int
    sh1: int
    sh2: int


_NO_RECIPROCAL: Final = ReciprocalValue(0, 0, 0)
"""That of a ring which is not set up."""


def reciprocal_value(d: int) -> ReciprocalValue:
    """Multiplier and shifts that divide a u32 by *d*. Source: lib/math/reciprocal_div.c reciprocal_value."""
    bits = (d - 1).bit_length()
    m = (((1 << 32) * ((1 << bits) - d)) // d + 1) & _U32
    return ReciprocalValue(m, min(bits, 1), max(bits - 1, 0))


def reciprocal_divide(a: int, value: ReciprocalValue) -> int:
    """``a / d`` for a u32 *a*. Source: include/linux/reciprocal_div.h reciprocal_divide."""
    t = (a * value.m) >> 32
    return (t + ((a - t) >> value.sh1)) >> value.sh2


def VMBUS_RING_SIZE(payload_sz: int, page_size: int) -> int:
    """Bytes of a ring for *payload_sz* bytes of data, control page included.

    The control page is taken out of the payload from 8 guest pages on, else it is added.
    Source: include/linux/hyperv.h VMBUS_HEADER_ADJ, VMBUS_RING_SIZE.
    """
    header = 0 if payload_sz >= 8 * page_size else page_size
    return (header + payload_sz + page_size - 1) & -page_size


class VmbusPacket:
    """One packet, copied out of the ring: ``struct vmpacket_descriptor`` and what follows it.

    ``len8`` and ``offset8`` are the checked values, in units of 8 bytes. ``raw`` is the whole packet, descriptor
    included, without trailer.
    """

    __slots__ = ("flags", "len8", "offset8", "raw", "trans_id", "type")

    type: int
    offset8: int
    len8: int
    flags: int
    trans_id: int

    def __init__(self, raw: bytes | bytearray) -> None:
        self.type, self.offset8, self.len8, self.flags, self.trans_id = _DESC.unpack_from(raw)
        self.raw = raw

    def __repr__(self) -> str:
        return (
            f"VmbusPacket(type={self.type}, offset8={self.offset8}, len8={self.len8}, flags={self.flags:#x}, "
            f"trans_id={self.trans_id:#x})"
        )


def hv_pkt_data(desc: VmbusPacket) -> bytes | bytearray:
    """The payload, padding included. Source: include/linux/hyperv.h hv_pkt_data."""
    return desc.raw[desc.offset8 << 3 : desc.len8 << 3]


def hv_pkt_datalen(desc: VmbusPacket) -> int:
    """Bytes of payload, padding included. Source: include/linux/hyperv.h hv_pkt_datalen."""
    return (desc.len8 << 3) - (desc.offset8 << 3)


def hv_pkt_len(desc: VmbusPacket) -> int:
    """Bytes of the packet without trailer. Source: include/linux/hyperv.h hv_pkt_len."""
    return desc.len8 << 3


@dataclass(slots=True)
class HvRingBufferDebugInfo:
    """``struct hv_ring_buffer_debug_info`` (drivers/hv/hyperv_vmbus.h); sizes and offsets in bytes."""

    current_interrupt_mask: int
    current_read_index: int
    current_write_index: int
    bytes_avail_toread: int
    bytes_avail_towrite: int


class HvRingBufferInfo:
    """``struct hv_ring_buffer_info`` (include/linux/hyperv.h): the guest's private view of one ring.

    ``ring_buffer`` is the mapping (control page, data, data again), None before init and after cleanup. ``ring_size``
    includes the control page, ``ring_datasize`` does not; ``priv_read_index`` is where the iterator stands. All in
    bytes. ``write_index`` to ``feature_bits`` are the words of ``struct hv_ring_buffer`` in the control page, once the
    ring was mapped.
    """

    __slots__ = (
        "bulk",
        "came_back_for",
        "data_offset",
        "feature_bits",
        "interrupt_mask",
        "pending_send_sz",
        "pkt_buffer_size",
        "priv_read_index",
        "read_index",
        "ring_buffer",
        "ring_buffer_mutex",
        "ring_datasize",
        "ring_lock",
        "ring_size",
        "ring_size_div10_reciprocal",
        "told",
        "walk",
        "write_index",
    )

    write_index: Word
    read_index: Word
    interrupt_mask: Word
    pending_send_sz: Word
    feature_bits: Word

    def __init__(self) -> None:
        self.ring_buffer: Vmap | None = None
        self.bulk: BulkRing | None = None
        self.ring_size = 0
        self.ring_size_div10_reciprocal = _NO_RECIPROCAL
        self.ring_lock: Spinlock | None = None
        self.ring_datasize = 0
        self.data_offset = 0
        self.priv_read_index = 0
        self.ring_buffer_mutex: Mutex | None = None
        self.pkt_buffer_size = 0
        self.walk: RingWalk | None = None
        """How an inbound ring is read that cannot be in order; None while it can (:mod:`hvkernel.hv.ring_walk`)."""
        self.came_back_for: tuple[int, int] | None = None
        """Private and write index when hv_end_read() last said that there is more, and there was nothing to take."""
        self.told: frozenset[str] = frozenset()
        """Kinds of findings about this ring that were made; each is made once."""

    def map(self, ring: Vmap) -> None:
        """Take a mapping as the ring."""
        self.ring_buffer = ring
        self.write_index, self.read_index = ring.word32(WRITE_INDEX), ring.word32(READ_INDEX)
        self.interrupt_mask, self.pending_send_sz = ring.word32(INTERRUPT_MASK), ring.word32(PENDING_SEND_SZ)
        self.feature_bits = ring.word32(FEATURE_BITS)

    def mapped(self, field: int, *, write: bool = False) -> Vmap:
        """The mapping.

        :param field: offset in the control page that the caller is about to use, bytes.
        :raises PageFault: there is none, before init or after cleanup: the kernel follows a null pointer.
        """
        if self.ring_buffer is None:
            raise PageFault(field, write, "hv_ring_buffer_info.ring_buffer is NULL")
        return self.ring_buffer


def hv_get_bytes_to_read(rbi: HvRingBufferInfo) -> int:
    """Bytes between the shared read and write index. Source: include/linux/hyperv.h hv_get_bytes_to_read."""
    if rbi.ring_buffer is None:
        rbi.mapped(READ_INDEX)
    read_loc = rbi.read_index.load()
    write_loc = rbi.write_index.load()
    if write_loc >= read_loc:
        return write_loc - read_loc
    return (rbi.ring_datasize - read_loc + write_loc) & _U32


def hv_get_bytes_to_write(rbi: HvRingBufferInfo) -> int:
    """Free bytes; an empty ring reports all of them, although one must stay free. Source: include/linux/hyperv.h."""
    rbi.mapped(READ_INDEX)
    read_loc = rbi.read_index.load()
    write_loc = rbi.write_index.load()
    if write_loc >= read_loc:
        return (rbi.ring_datasize - (write_loc - read_loc)) & _U32
    return read_loc - write_loc


def hv_get_avail_to_write_percent(rbi: HvRingBufferInfo) -> int:
    """Free space as the kernel reckons it: of the ring *with* its control page, so never 100.

    Source: include/linux/hyperv.h hv_get_avail_to_write_percent.
    """
    avail = hv_get_bytes_to_write(rbi)
    return reciprocal_divide((avail * 10) & _U32, rbi.ring_size_div10_reciprocal)


def hv_pkt_iter_avail(rbi: HvRingBufferInfo) -> int:
    """Bytes between the private read index and the write index. Source: drivers/hv/ring_buffer.c hv_pkt_iter_avail."""
    assert rbi.ring_buffer is not None
    write_loc = rbi.write_index.load()
    priv = rbi.priv_read_index
    if write_loc >= priv:
        return write_loc - priv
    return (rbi.ring_datasize - priv + write_loc) & _U32


def hv_pkt_iter_bytes_read(rbi: HvRingBufferInfo, start_read_index: int) -> int:
    """Bytes taken since *start_read_index*. Source: drivers/hv/ring_buffer.c hv_pkt_iter_bytes_read."""
    priv = rbi.priv_read_index
    if priv >= start_read_index:
        return priv - start_read_index
    return (rbi.ring_datasize - start_read_index + priv) & _U32
