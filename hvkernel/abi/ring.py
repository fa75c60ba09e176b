"""The ring buffer: its control page, packet descriptors and GPA ranges.

A channel has two rings, each a control page followed by data. On the ring every packet is a descriptor, its
payload padded to 8 bytes, and an 8-byte trailer.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Union, Wire, tail, u8, u16, u32, u64, union, wire

MAX_PAGE_BUFFER_COUNT: Final = 32
"""Pages of one `VmbusChannelPacketPageBuffer`. (include/linux/hyperv.h:29 @6.1.192)"""
MAX_MULTIPAGE_BUFFER_COUNT: Final = 32
"""Pages of one `HvMultipageBuffer`. (include/linux/hyperv.h:30 @6.1.192)"""
MAX_PAGE_BUFFER_PACKET: Final = 0x218
"""Bytes of a page buffer packet on the ring, its 0x18 bytes of fixed header included.

Source: include/linux/hyperv.h:104 @6.1.192
"""
MAX_MULTIPAGE_BUFFER_PACKET: Final = 0x120
"""Bytes of a multi-page buffer packet on the ring. (include/linux/hyperv.h:107 @6.1.192)"""
VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED: Final = 1
"""Descriptor flag: the receiver is to send a completion. (include/linux/hyperv.h:479 @6.1.192)"""
VMBUS_NO_RQSTOR: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Transaction id table: the channel has none. (include/linux/hyperv.h:813 @6.1.192)"""
VMBUS_RQST_ERROR: Final = 0xFFFF_FFFF_FFFF_FFFE
"""Transaction id table: no free id; the packet is not sent. (include/linux/hyperv.h:814 @6.1.192)"""
VMBUS_RQST_ADDR_ANY: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Transaction id table: match any address. (include/linux/hyperv.h:815 @6.1.192)"""
VMBUS_RQST_ID_NO_RESPONSE: Final = 0xFFFF_FFFF_FFFF_FFFD
"""netvsc: transaction id of a packet that gets no reply. (include/linux/hyperv.h:817 @6.1.192)"""
VMBUS_RQST_INIT: Final = 0xFFFF_FFFF_FFFF_FFFD
"""storvsc: transaction id of an initialisation packet. (include/linux/hyperv.h:819 @6.1.192)"""
VMBUS_RQST_RESET: Final = 0xFFFF_FFFF_FFFF_FFFC
"""storvsc: transaction id of a reset packet. (include/linux/hyperv.h:820 @6.1.192)"""
VMBUS_DEFAULT_MAX_PKT_SIZE: Final = 4096
"""Largest inbound packet unless the driver asks for more. (include/linux/hyperv.h:831 @6.1.192)"""
VMBUS_PKT_TRAILER: Final = 8
"""Bytes behind every packet on the ring: the index at which it was put, times 2**32.

Source: drivers/hv/ring_buffer.c:25 @6.1.192
"""


class VmbusPacketType(IntEnum):
    """Types of ring packets.

    Source: include/linux/hyperv.h:462 @6.1.192
    """

    VM_PKT_INVALID = 0
    VM_PKT_SYNCH = 1
    VM_PKT_ADD_XFER_PAGESET = 2
    VM_PKT_RM_XFER_PAGESET = 3
    VM_PKT_ESTABLISH_GPADL = 4
    VM_PKT_TEARDOWN_GPADL = 5
    VM_PKT_DATA_INBAND = 6
    VM_PKT_DATA_USING_XFER_PAGES = 7
    VM_PKT_DATA_USING_GPADL = 8
    VM_PKT_DATA_USING_GPA_DIRECT = 9
    VM_PKT_CANCEL_REQUEST = 10
    VM_PKT_COMP = 11
    VM_PKT_DATA_USING_ADDITIONAL_PKT = 12
    VM_PKT_ADDITIONAL_DATA = 13


@wire(size=16, source="include/linux/hyperv.h:77 @6.1.192")
class HvPageBuffer(Wire):
    """A piece of one 4 KiB page; also a GPA range with one page number."""

    __kernel__ = "hv_page_buffer"

    len: u32
    offset: u32
    pfn: u64


@wire(size=264, source="include/linux/hyperv.h:84 @6.1.192")
class HvMultipageBuffer(Wire):
    """A GPA range of up to 32 pages."""

    __kernel__ = "hv_multipage_buffer"

    len: u32
    offset: u32
    pfn_array: Annotated[tuple[int, ...], u64, 32]


@wire(size=8, source="include/linux/hyperv.h:96 @6.1.192")
class HvMpbArray(Wire):
    """A GPA range with as many page numbers as it needs."""

    __kernel__ = "hv_mpb_array"

    len: u32
    offset: u32
    pfn_array = tail(u64)


@union(size=4, source="include/linux/hyperv.h:113 @6.1.192")
class HvRingBufferFeatureBits(Union):
    """What the writer of this ring can do."""

    feat_pending_send_sz: Annotated[int, Bits(u32, 1)]
    value: u32
    """The whole word."""


@wire(size=4096, source="include/linux/hyperv.h:113 @6.1.192")
class HvRingBuffer(Wire):
    """The control page in front of each ring, as the host sees it.

    A guest with larger pages pads it to its own page (`ring_header_size`), so ring data begin there.
    """

    __kernel__ = "hv_ring_buffer"

    write_index: u32
    """Byte offset into the data at which the writer goes on."""
    read_index: u32
    """Byte offset into the data at which the reader goes on."""
    interrupt_mask: u32
    """The reader sets it to 1 while it polls: no interrupt wanted."""
    pending_send_sz: u32
    """Bytes that the writer waits for; 0 when it does not wait."""
    reserved1: Annotated[tuple[int, ...], u32, 12]
    feature_bits: HvRingBufferFeatureBits
    reserved2: Annotated[bytes, 4028]
    buffer = tail(u8)


@wire(size=16, source="include/linux/hyperv.h:347 @6.1.192")
class VmpacketDescriptor(Wire):
    """In front of every packet. Lengths are in 8-byte units."""

    __kernel__ = "vmpacket_descriptor"

    type: u16
    """A `VmbusPacketType`."""
    offset8: u16
    """Where the payload begins, from the start of the descriptor."""
    len8: u16
    """Length, descriptor included."""
    flags: u16
    trans_id: u64
    """Repeated by the completion."""


@wire(size=20, source="include/linux/hyperv.h:355 @6.1.192")
class VmpacketHeader(Wire):
    """Descriptor with the previous packet's offset; unused."""

    __kernel__ = "vmpacket_header"

    prev_pkt_start_offset: u32
    descriptor: VmpacketDescriptor


@wire(size=8, source="include/linux/hyperv.h:360 @6.1.192")
class VmtransferPageRange(Wire):
    """Part of a transfer page set."""

    __kernel__ = "vmtransfer_page_range"

    byte_count: u32
    byte_offset: u32


@wire(size=32, source="include/linux/hyperv.h:365 @6.1.192")
class VmtransferPagePacketHeader(Wire):
    """VM_PKT_DATA_USING_XFER_PAGES: data that lie in a GPADL shared before. More ranges follow the first."""

    __kernel__ = "vmtransfer_page_packet_header"

    d: VmpacketDescriptor
    xfer_pageset_id: u16
    sender_owns_set: u8
    reserved: u8
    range_cnt: u32
    ranges: Annotated[tuple[VmtransferPageRange, ...], 1]


@wire(size=24, source="include/linux/hyperv.h:374 @6.1.192")
class VmgpadlPacketHeader(Wire):
    """VM_PKT_DATA_USING_GPADL."""

    __kernel__ = "vmgpadl_packet_header"

    d: VmpacketDescriptor
    gpadl: u32
    reserved: u32


@wire(size=24, source="include/linux/hyperv.h:380 @6.1.192")
class VmaddRemoveTransferPageSet(Wire):
    """VM_PKT_ADD_XFER_PAGESET and VM_PKT_RM_XFER_PAGESET."""

    __kernel__ = "vmadd_remove_transfer_page_set"

    d: VmpacketDescriptor
    gpadl: u32
    xfer_pageset_id: u16
    reserved: u16


@wire(size=8, source="include/linux/hyperv.h:391 @6.1.192", packed=False)
class GpaRange(Wire):
    """Guest memory that is to look contiguous: the page numbers of its 4 KiB pages follow."""

    __kernel__ = "gpa_range"

    byte_count: u32
    byte_offset: u32
    """Into the first page."""
    pfn_array = tail(u64)


@wire(size=32, source="include/linux/hyperv.h:404 @6.1.192")
class VmestablishGpadl(Wire):
    """VM_PKT_ESTABLISH_GPADL; the ranges' page numbers follow."""

    __kernel__ = "vmestablish_gpadl"

    d: VmpacketDescriptor
    gpadl: u32
    range_cnt: u32
    range: Annotated[tuple[GpaRange, ...], 1]


@wire(size=24, source="include/linux/hyperv.h:415 @6.1.192")
class VmteardownGpadl(Wire):
    """VM_PKT_TEARDOWN_GPADL."""

    __kernel__ = "vmteardown_gpadl"

    d: VmpacketDescriptor
    gpadl: u32
    reserved: u32


@wire(size=32, source="include/linux/hyperv.h:425 @6.1.192")
class VmdataGpaDirect(Wire):
    """VM_PKT_DATA_USING_GPA_DIRECT: data that lie in guest memory. Page numbers, further ranges and payload follow."""

    __kernel__ = "vmdata_gpa_direct"

    d: VmpacketDescriptor
    reserved: u32
    range_cnt: u32
    range: Annotated[tuple[GpaRange, ...], 1]


@wire(size=33, source="include/linux/hyperv.h:433 @6.1.192")
class VmadditionalData(Wire):
    """VM_PKT_ADDITIONAL_DATA."""

    __kernel__ = "vmadditional_data"

    d: VmpacketDescriptor
    total_bytes: u64
    offset: u32
    byte_cnt: u32
    data: Annotated[bytes, 1]


@union(size=32, source="include/linux/hyperv.h:441 @6.1.192")
class VmpacketLargestPossibleHeader(Union):
    """Any of the packet headers."""

    __kernel__ = "vmpacket_largest_possible_header"

    simple_hdr: VmpacketDescriptor
    xfer_page_hdr: VmtransferPagePacketHeader
    gpadl_hdr: VmgpadlPacketHeader
    add_rm_xfer_page_hdr: VmaddRemoveTransferPageSet
    establish_gpadl_hdr: VmestablishGpadl
    teardown_gpadl_hdr: VmteardownGpadl
    data_gpa_direct_hdr: VmdataGpaDirect


@wire(size=536, source="include/linux/hyperv.h:1161 @6.1.192")
class VmbusChannelPacketPageBuffer(Wire):
    """GPA direct packet with one page number per range, as the guest builds it."""

    __kernel__ = "vmbus_channel_packet_page_buffer"

    type: u16
    dataoffset8: u16
    length8: u16
    flags: u16
    transactionid: u64
    reserved: u32
    rangecount: u32
    range: Annotated[tuple[HvPageBuffer, ...], 32]


@wire(size=288, source="include/linux/hyperv.h:1173 @6.1.192")
class VmbusChannelPacketMultipageBuffer(Wire):
    """GPA direct packet with one range of up to 32 pages."""

    __kernel__ = "vmbus_channel_packet_multipage_buffer"

    type: u16
    dataoffset8: u16
    length8: u16
    flags: u16
    transactionid: u64
    reserved: u32
    rangecount: u32
    range: HvMultipageBuffer


@wire(size=32, source="include/linux/hyperv.h:1185 @6.1.192")
class VmbusPacketMpbArray(Wire):
    """GPA direct packet with one range of any length."""

    __kernel__ = "vmbus_packet_mpb_array"

    type: u16
    dataoffset8: u16
    length8: u16
    flags: u16
    transactionid: u64
    reserved: u32
    rangecount: u32
    range: HvMpbArray


def ring_header_size(page_size: int) -> int:
    """Return the guest's ``sizeof(struct hv_ring_buffer)``: the header is padded to the guest's page.

    The host sees only its first 4096 bytes (include/linux/hyperv.h:hv_ring_buffer @6.1.192).
    """
    return page_size


def vmbus_header_adj(payload_sz: int, page_size: int) -> int:
    """Return what ``VMBUS_HEADER_ADJ`` adds for the header: nothing from eight headers on, else one header.

    Source: include/linux/hyperv.h:VMBUS_HEADER_ADJ @6.1.192
    """
    header = ring_header_size(page_size)
    return 0 if payload_sz >= 8 * header else header


def vmbus_ring_size(payload_sz: int, page_size: int) -> int:
    """Return ``VMBUS_RING_SIZE``: bytes of one ring, header included, in whole guest pages.

    Source: include/linux/hyperv.h:VMBUS_RING_SIZE @6.1.192
    """
    return -(-(vmbus_header_adj(payload_sz, page_size) + payload_sz) // page_size) * page_size


PAGE_SIZE_PADDING: Final = MappingProxyType({"hv_ring_buffer": "reserved2"})
"""Structs that the guest pads to its page, and the field that grows.

Source: include/linux/hyperv.h:hv_ring_buffer @6.1.192
"""
