"""The packet half of ``drivers/hv/channel.c``: sending, receiving, and the requestor.

Every function goes by the kernel's name. A packet is a descriptor (16 bytes: type, offset of the payload and length in
units of 8 bytes, flags, transaction id), what its type asks for, the payload, and zeroes up to a multiple of 8.
tests/hv/test_kernel_ring.py holds the functions against the kernel's own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.abi.ring import MAX_PAGE_BUFFER_COUNT, VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED, VmbusPacketType
from hvkernel.api.guest.errno import EINVAL
from hvkernel.api.guest.hyperv import (
    VMBUS_NO_RQSTOR,
    VMBUS_RQST_ADDR_ANY,
    VMBUS_RQST_ERROR,
    HvMpbArray,
    HvPageBuffer,
    VmbusRequestor,
)

if TYPE_CHECKING:
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

Buffer = bytes | bytearray | memoryview

VM_PKT_DATA_USING_GPA_DIRECT: Final = int(VmbusPacketType.VM_PKT_DATA_USING_GPA_DIRECT)
DESC: Final = struct.Struct("<HHHHQ")
"""``struct vmpacket_descriptor``: type, offset8, len8, flags, trans_id."""
MPB_DESC: Final = struct.Struct("<HHHHQIIII")
"""``struct vmbus_packet_mpb_array`` up to the pages: descriptor, reserved, rangecount, len and offset of the range."""
PAGE_DESC: Final = struct.Struct("<HHHHQII")
PAGE_RANGE: Final = struct.Struct("<IIQ")
ONE_PFN: Final = struct.Struct("<Q")
U64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF


# requestor -----------------------------------------------------------------------------------------------------


def vmbus_alloc_requestor(v: HvVmbus, rqstor: VmbusRequestor, size: int) -> int:
    """Make ``size`` slots, chained from 0 on."""
    rqstor.req_arr = [*range(1, size), U64_MAX]
    rqstor.req_bitmap = bytearray(size)
    rqstor.size = size
    rqstor.next_request_id = 0
    rqstor.req_lock = v.kernel.locking.spin_lock_init("vmbus_requestor.req_lock")
    return 0


def vmbus_free_requestor(rqstor: VmbusRequestor) -> None:
    """Drop the slots; ``size`` keeps its value, as in the kernel."""
    rqstor.req_arr = []
    rqstor.req_bitmap = bytearray()


def vmbus_next_request_id(v: HvVmbus, channel: VmbusChannel, rqst_addr: int) -> int:
    """Take a slot for ``rqst_addr``: its id from 1 on, VMBUS_RQST_ERROR if full, VMBUS_NO_RQSTOR without slots."""
    rqstor = channel.requestor
    if not channel.rqstor_size:
        return VMBUS_NO_RQSTOR
    assert rqstor.req_lock is not None
    with rqstor.req_lock.irqsave():
        current_id = rqstor.next_request_id
        if current_id >= rqstor.size:
            return VMBUS_RQST_ERROR
        rqstor.next_request_id = rqstor.req_arr[current_id]
        rqstor.req_arr[current_id] = rqst_addr
        rqstor.req_bitmap[current_id] = 1
    return current_id + 1


def __vmbus_request_addr_match(channel: VmbusChannel, trans_id: int, rqst_addr: int) -> int:
    rqstor = channel.requestor
    if not channel.rqstor_size:
        return VMBUS_NO_RQSTOR
    if not trans_id:
        return VMBUS_RQST_ERROR
    slot = trans_id - 1
    if slot >= rqstor.size or not rqstor.req_bitmap[slot]:
        return VMBUS_RQST_ERROR
    req_addr = rqstor.req_arr[slot]
    if rqst_addr in (VMBUS_RQST_ADDR_ANY, req_addr):
        rqstor.req_arr[slot] = rqstor.next_request_id
        rqstor.next_request_id = slot
        rqstor.req_bitmap[slot] = 0
    return req_addr


def vmbus_request_addr_match(v: HvVmbus, channel: VmbusChannel, trans_id: int, rqst_addr: int) -> int:
    """Return what ``trans_id`` stands for, and free the slot if that is ``rqst_addr`` or the wildcard."""
    if channel.requestor.req_lock is None:
        return __vmbus_request_addr_match(channel, trans_id, rqst_addr)
    with channel.requestor.req_lock.irqsave():
        return __vmbus_request_addr_match(channel, trans_id, rqst_addr)


def vmbus_request_addr(v: HvVmbus, channel: VmbusChannel, trans_id: int) -> int:
    """Return what ``trans_id`` stands for and free the slot; VMBUS_RQST_ERROR for an id that is not in use."""
    return vmbus_request_addr_match(v, channel, trans_id, VMBUS_RQST_ADDR_ANY)


# packets -------------------------------------------------------------------------------------------------------


def vmbus_sendpacket_getid(
    v: HvVmbus, channel: VmbusChannel, buffer: Buffer, requestid: int, type: int, flags: int
) -> tuple[int, int]:
    """Send one packet: (0 or a negative errno, transaction id). The trailing pad to 8 bytes is zero."""
    packetlen = DESC.size + len(buffer)
    aligned = (packetlen + 7) & ~7
    desc = DESC.pack(type & 0xFFFF, DESC.size >> 3, aligned >> 3 & 0xFFFF, flags & 0xFFFF, VMBUS_RQST_ERROR)
    parts: tuple[Buffer, ...] = (desc,)
    if buffer:
        parts = (desc, buffer, bytes(aligned - packetlen)) if aligned != packetlen else (desc, buffer)
    return v.rings.hv_ringbuffer_write(channel, parts, requestid)


def vmbus_sendpacket(v: HvVmbus, channel: VmbusChannel, buffer: Buffer, requestid: int, type: int, flags: int) -> int:
    """Send one packet; 0 or a negative errno."""
    return vmbus_sendpacket_getid(v, channel, buffer, requestid, type, flags)[0]


def vmbus_sendpacket_pagebuffer(
    v: HvVmbus, channel: VmbusChannel, pagebuffers: Sequence[HvPageBuffer], buffer: Buffer, requestid: int
) -> int:
    """Send a GPA-direct packet of at most 32 single-page ranges (``struct vmbus_channel_packet_page_buffer``).

    6.1.192 has it no more (its netvsc builds the ranges itself); older kernels do. -EINVAL for more ranges.
    """
    if len(pagebuffers) > MAX_PAGE_BUFFER_COUNT:
        return -EINVAL
    desc_size = PAGE_DESC.size + PAGE_RANGE.size * len(pagebuffers)
    aligned = (desc_size + len(buffer) + 7) & ~7
    desc = PAGE_DESC.pack(
        VM_PKT_DATA_USING_GPA_DIRECT,
        desc_size >> 3,
        aligned >> 3 & 0xFFFF,
        VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
        VMBUS_RQST_ERROR,
        0,
        len(pagebuffers),
    ) + b"".join(PAGE_RANGE.pack(one.len, one.offset, one.pfn) for one in pagebuffers)
    return v.rings.hv_ringbuffer_write(channel, (desc, buffer, bytes(aligned - desc_size - len(buffer))), requestid)[0]


def vmbus_sendpacket_mpb_desc(
    v: HvVmbus, channel: VmbusChannel, desc: HvMpbArray, desc_size: int, buffer: Buffer, requestid: int
) -> int:
    """Send a GPA-direct packet of one multi-page range.

    :param desc_size: bytes of descriptor to send; at least 32 plus 8 per page.
    :raises ValueError: ``desc_size`` is smaller than the descriptor.
    """
    pages = desc.pfn_array
    count = len(pages)
    wanted = MPB_DESC.size + 8 * count
    if desc_size < wanted:
        raise ValueError(f"vmbus_sendpacket_mpb_desc: desc_size {desc_size} is below {wanted} ({count} pages)")
    packetlen = desc_size + len(buffer)
    aligned = (packetlen + 7) & ~7
    head = MPB_DESC.pack(
        VM_PKT_DATA_USING_GPA_DIRECT,
        desc_size >> 3,
        aligned >> 3 & 0xFFFF,
        VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
        VMBUS_RQST_ERROR,
        0,
        1,
        desc.len,
        desc.offset,
    )
    whole = head + (ONE_PFN.pack(pages[0]) if count == 1 else struct.pack(f"<{count}Q", *pages))
    if desc_size != wanted:
        whole += bytes(desc_size - wanted)
    parts = (whole, buffer, bytes(aligned - packetlen)) if aligned != packetlen else (whole, buffer)
    return v.rings.hv_ringbuffer_write(channel, parts, requestid)[0]


def vmbus_recvpacket(v: HvVmbus, channel: VmbusChannel, bufferlen: int) -> tuple[int, bytes, int, int]:
    """Take one packet's payload: (status, bytes, actual length, transaction id)."""
    return v.rings.hv_ringbuffer_read(channel, bufferlen, raw=False)


def vmbus_recvpacket_raw(v: HvVmbus, channel: VmbusChannel, bufferlen: int) -> tuple[int, bytes, int, int]:
    """Take one packet with its descriptor: (status, bytes, actual length, transaction id)."""
    return v.rings.hv_ringbuffer_read(channel, bufferlen, raw=True)
