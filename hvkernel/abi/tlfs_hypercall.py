"""HYPDOC"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Union, Wire, overlay, tail, u8, u32, u64, union, wire

HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE: Final = 0x2
"""HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE. (include/asm-generic/hyperv-tlfs.h:147 @6.1.192)"""
HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST: Final = 0x3
"""HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST. (include/asm-generic/hyperv-tlfs.h:148 @6.1.192)"""
HVCALL_NOTIFY_LONG_SPIN_WAIT: Final = 0x8
"""HVCALL_NOTIFY_LONG_SPIN_WAIT. (include/asm-generic/hyperv-tlfs.h:149 @6.1.192)"""
HVCALL_SEND_IPI: Final = 0xB
"""HVCALL_SEND_IPI. (include/asm-generic/hyperv-tlfs.h:150 @6.1.192)"""
HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX: Final = 0x13
"""HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX. (include/asm-generic/hyperv-tlfs.h:151 @6.1.192)"""
HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX: Final = 0x14
"""HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX. (include/asm-generic/hyperv-tlfs.h:152 @6.1.192)"""
HVCALL_SEND_IPI_EX: Final = 0x15
"""HVCALL_SEND_IPI_EX. (include/asm-generic/hyperv-tlfs.h:153 @6.1.192)"""
HVCALL_GET_PARTITION_ID: Final = 0x46
"""HVCALL_GET_PARTITION_ID. (include/asm-generic/hyperv-tlfs.h:154 @6.1.192)"""
HVCALL_DEPOSIT_MEMORY: Final = 0x48
"""HVCALL_DEPOSIT_MEMORY. (include/asm-generic/hyperv-tlfs.h:155 @6.1.192)"""
HVCALL_CREATE_VP: Final = 0x4E
"""HVCALL_CREATE_VP. (include/asm-generic/hyperv-tlfs.h:156 @6.1.192)"""
HVCALL_GET_VP_REGISTERS: Final = 0x50
"""HVCALL_GET_VP_REGISTERS. (include/asm-generic/hyperv-tlfs.h:157 @6.1.192)"""
HVCALL_SET_VP_REGISTERS: Final = 0x51
"""HVCALL_SET_VP_REGISTERS. (include/asm-generic/hyperv-tlfs.h:158 @6.1.192)"""
HVCALL_POST_MESSAGE: Final = 0x5C
"""HVCALL_POST_MESSAGE. (include/asm-generic/hyperv-tlfs.h:159 @6.1.192)"""
HVCALL_SIGNAL_EVENT: Final = 0x5D
"""HVCALL_SIGNAL_EVENT. (include/asm-generic/hyperv-tlfs.h:160 @6.1.192)"""
HVCALL_POST_DEBUG_DATA: Final = 0x69
"""HVCALL_POST_DEBUG_DATA. (include/asm-generic/hyperv-tlfs.h:161 @6.1.192)"""
HVCALL_RETRIEVE_DEBUG_DATA: Final = 0x6A
"""HVCALL_RETRIEVE_DEBUG_DATA. (include/asm-generic/hyperv-tlfs.h:162 @6.1.192)"""
HVCALL_RESET_DEBUG_SESSION: Final = 0x6B
"""HVCALL_RESET_DEBUG_SESSION. (include/asm-generic/hyperv-tlfs.h:163 @6.1.192)"""
HVCALL_ADD_LOGICAL_PROCESSOR: Final = 0x76
"""HVCALL_ADD_LOGICAL_PROCESSOR. (include/asm-generic/hyperv-tlfs.h:164 @6.1.192)"""
HVCALL_MAP_DEVICE_INTERRUPT: Final = 0x7C
"""HVCALL_MAP_DEVICE_INTERRUPT. (include/asm-generic/hyperv-tlfs.h:165 @6.1.192)"""
HVCALL_UNMAP_DEVICE_INTERRUPT: Final = 0x7D
"""HVCALL_UNMAP_DEVICE_INTERRUPT. (include/asm-generic/hyperv-tlfs.h:166 @6.1.192)"""
HVCALL_RETARGET_INTERRUPT: Final = 0x7E
"""HVCALL_RETARGET_INTERRUPT. (include/asm-generic/hyperv-tlfs.h:167 @6.1.192)"""
HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE: Final = 0xAF
"""HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE. (include/asm-generic/hyperv-tlfs.h:168 @6.1.192)"""
HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_LIST: Final = 0xB0
"""HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_LIST. (include/asm-generic/hyperv-tlfs.h:169 @6.1.192)"""
HVCALL_MODIFY_SPARSE_GPA_PAGE_HOST_VISIBILITY: Final = 0xDB
"""HVCALL_MODIFY_SPARSE_GPA_PAGE_HOST_VISIBILITY. (include/asm-generic/hyperv-tlfs.h:170 @6.1.192)"""
HV_EXT_CALL_QUERY_CAPABILITIES: Final = 0x8001
"""HV_EXT_CALL_QUERY_CAPABILITIES. (include/asm-generic/hyperv-tlfs.h:173 @6.1.192)"""
HV_EXT_CALL_MEMORY_HEAT_HINT: Final = 0x8003
"""HV_EXT_CALL_MEMORY_HEAT_HINT. (include/asm-generic/hyperv-tlfs.h:174 @6.1.192)"""
HV_FLUSH_ALL_PROCESSORS: Final = 1 << 0
"""HV_FLUSH_ALL_PROCESSORS. (include/asm-generic/hyperv-tlfs.h:176 @6.1.192)"""
HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES: Final = 1 << 1
"""HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES. (include/asm-generic/hyperv-tlfs.h:177 @6.1.192)"""
HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY: Final = 1 << 2
"""HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY. (include/asm-generic/hyperv-tlfs.h:178 @6.1.192)"""
HV_FLUSH_USE_EXTENDED_RANGE_FORMAT: Final = 1 << 3
"""HV_FLUSH_USE_EXTENDED_RANGE_FORMAT. (include/asm-generic/hyperv-tlfs.h:179 @6.1.192)"""
HV_EXT_CAPABILITY_MEMORY_COLD_DISCARD_HINT: Final = 1 << 8
"""HV_EXT_CAPABILITY_MEMORY_COLD_DISCARD_HINT. (include/asm-generic/hyperv-tlfs.h:182 @6.1.192)"""
HV_PARTITION_ID_SELF: Final = 0xFFFF_FFFF_FFFF_FFFF
"""HV_PARTITION_ID_SELF. (include/asm-generic/hyperv-tlfs.h:189 @6.1.192)"""
HV_VP_INDEX_SELF: Final = 0xFFFF_FFFE
"""HV_VP_INDEX_SELF. (include/asm-generic/hyperv-tlfs.h:190 @6.1.192)"""
HV_HYPERCALL_RESULT_MASK: Final = 0xFFFF
"""HV_HYPERCALL_RESULT_MASK. (include/asm-generic/hyperv-tlfs.h:192 @6.1.192)"""
HV_HYPERCALL_FAST_BIT: Final = 1 << 16
"""HV_HYPERCALL_FAST_BIT. (include/asm-generic/hyperv-tlfs.h:193 @6.1.192)"""
HV_HYPERCALL_VARHEAD_OFFSET: Final = 0x11
"""HV_HYPERCALL_VARHEAD_OFFSET. (include/asm-generic/hyperv-tlfs.h:194 @6.1.192)"""
HV_HYPERCALL_VARHEAD_MASK: Final = 0x07FE_0000
"""HV_HYPERCALL_VARHEAD_MASK. (include/asm-generic/hyperv-tlfs.h:195 @6.1.192)"""
HV_HYPERCALL_RSVD0_MASK: Final = 0xF800_0000
"""HV_HYPERCALL_RSVD0_MASK. (include/asm-generic/hyperv-tlfs.h:196 @6.1.192)"""
HV_HYPERCALL_REP_COMP_OFFSET: Final = 0x20
"""HV_HYPERCALL_REP_COMP_OFFSET. (include/asm-generic/hyperv-tlfs.h:197 @6.1.192)"""
HV_HYPERCALL_REP_COMP_1: Final = 1 << 32
"""HV_HYPERCALL_REP_COMP_1. (include/asm-generic/hyperv-tlfs.h:198 @6.1.192)"""
HV_HYPERCALL_REP_COMP_MASK: Final = 0x0FFF_0000_0000
"""HV_HYPERCALL_REP_COMP_MASK. (include/asm-generic/hyperv-tlfs.h:199 @6.1.192)"""
HV_HYPERCALL_RSVD1_MASK: Final = 0xF000_0000_0000
"""HV_HYPERCALL_RSVD1_MASK. (include/asm-generic/hyperv-tlfs.h:200 @6.1.192)"""
HV_HYPERCALL_REP_START_OFFSET: Final = 0x30
"""HV_HYPERCALL_REP_START_OFFSET. (include/asm-generic/hyperv-tlfs.h:201 @6.1.192)"""
HV_HYPERCALL_REP_START_MASK: Final = 0x0FFF_0000_0000_0000
"""HV_HYPERCALL_REP_START_MASK. (include/asm-generic/hyperv-tlfs.h:202 @6.1.192)"""
HV_HYPERCALL_RSVD2_MASK: Final = 0xF000_0000_0000_0000
"""HV_HYPERCALL_RSVD2_MASK. (include/asm-generic/hyperv-tlfs.h:203 @6.1.192)"""
HV_HYPERCALL_RSVD_MASK: Final = 0xF000_F000_F800_0000
"""HV_HYPERCALL_RSVD_MASK. (include/asm-generic/hyperv-tlfs.h:204 @6.1.192)"""
HV_STATUS_SUCCESS: Final = 0
"""HV_STATUS_SUCCESS. (include/asm-generic/hyperv-tlfs.h:209 @6.1.192)"""
HV_STATUS_INVALID_HYPERCALL_CODE: Final = 2
"""HV_STATUS_INVALID_HYPERCALL_CODE. (include/asm-generic/hyperv-tlfs.h:210 @6.1.192)"""
HV_STATUS_INVALID_HYPERCALL_INPUT: Final = 3
"""HV_STATUS_INVALID_HYPERCALL_INPUT. (include/asm-generic/hyperv-tlfs.h:211 @6.1.192)"""
HV_STATUS_INVALID_ALIGNMENT: Final = 4
"""HV_STATUS_INVALID_ALIGNMENT. (include/asm-generic/hyperv-tlfs.h:212 @6.1.192)"""
HV_STATUS_INVALID_PARAMETER: Final = 5
"""HV_STATUS_INVALID_PARAMETER. (include/asm-generic/hyperv-tlfs.h:213 @6.1.192)"""
HV_STATUS_ACCESS_DENIED: Final = 6
"""HV_STATUS_ACCESS_DENIED. (include/asm-generic/hyperv-tlfs.h:214 @6.1.192)"""
HV_STATUS_OPERATION_DENIED: Final = 8
"""HV_STATUS_OPERATION_DENIED. (include/asm-generic/hyperv-tlfs.h:215 @6.1.192)"""
HV_STATUS_INSUFFICIENT_MEMORY: Final = 0xB
"""HV_STATUS_INSUFFICIENT_MEMORY. (include/asm-generic/hyperv-tlfs.h:216 @6.1.192)"""
HV_STATUS_INVALID_PORT_ID: Final = 0x11
"""HV_STATUS_INVALID_PORT_ID. (include/asm-generic/hyperv-tlfs.h:217 @6.1.192)"""
HV_STATUS_INVALID_CONNECTION_ID: Final = 0x12
"""HV_STATUS_INVALID_CONNECTION_ID. (include/asm-generic/hyperv-tlfs.h:218 @6.1.192)"""
HV_STATUS_INSUFFICIENT_BUFFERS: Final = 0x13
"""HV_STATUS_INSUFFICIENT_BUFFERS. (include/asm-generic/hyperv-tlfs.h:219 @6.1.192)"""
HV_MAX_FLUSH_PAGES: Final = 0x800
"""HV_MAX_FLUSH_PAGES. (include/asm-generic/hyperv-tlfs.h:435 @6.1.192)"""
HV_GPA_PAGE_RANGE_PAGE_SIZE_2MB: Final = 0
"""HV_GPA_PAGE_RANGE_PAGE_SIZE_2MB. (include/asm-generic/hyperv-tlfs.h:436 @6.1.192)"""
HV_GPA_PAGE_RANGE_PAGE_SIZE_1GB: Final = 1
"""HV_GPA_PAGE_RANGE_PAGE_SIZE_1GB. (include/asm-generic/hyperv-tlfs.h:437 @6.1.192)"""
HV_MAX_FLUSH_REP_COUNT: Final = 0x1FE
"""HV_MAX_FLUSH_REP_COUNT. (include/asm-generic/hyperv-tlfs.h:460 @6.1.192)"""
HV_MEMORY_HINT_MAX_GPA_PAGE_RANGES: Final = 0x1FF
"""HV_MEMORY_HINT_MAX_GPA_PAGE_RANGES. (include/asm-generic/hyperv-tlfs.h:781 @6.1.192)"""
HV_EXT_MEMORY_HEAT_HINT_TYPE_COLD_DISCARD: Final = 2
"""HV_EXT_MEMORY_HEAT_HINT_TYPE_COLD_DISCARD. (include/asm-generic/hyperv-tlfs.h:786 @6.1.192)"""


HV_HYPERCALL_PARAM_ALIGN: Final = 8
"""HV_HYPERCALL_PARAM_ALIGN. (drivers/hv/hyperv_vmbus.h:96 @6.1.192)"""


class HvGenericSetFormat(IntEnum):
    """``HV_GENERIC_SET_FORMAT``.

    Source: include/asm-generic/hyperv-tlfs.h:184 @6.1.192
    """

    HV_GENERIC_SET_SPARSE_4K = 0
    HV_GENERIC_SET_ALL = 1


class HvSubnodeType(IntEnum):
    """``HV_SUBNODE_TYPE``.

    Source: include/asm-generic/hyperv-tlfs.h:533 @6.1.192
    """

    HvSubnodeAny = 0
    HvSubnodeSocket = 1
    HvSubnodeAmdNode = 2
    HvSubnodeL3 = 3
    HvSubnodeCount = 4
    HvSubnodeInvalid = -1


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:405 @6.1.192")
class HvVpset(Wire):
    """``hv_vpset``."""

    __kernel__ = "hv_vpset"

    format: u64
    valid_bank_mask: u64
    bank_contents = tail(u64)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:412 @6.1.192")
class HvSendIpi(Wire):
    """``hv_send_ipi``."""

    __kernel__ = "hv_send_ipi"

    vector: u32
    reserved: u32
    cpu_mask: u64


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:419 @6.1.192")
class HvSendIpiEx(Wire):
    """``hv_send_ipi_ex``."""

    __kernel__ = "hv_send_ipi_ex"

    vector: u32
    reserved: u32
    vp_set: HvVpset


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:426 @6.1.192")
class HvGuestMappingFlush(Wire):
    """``hv_guest_mapping_flush``."""

    __kernel__ = "hv_guest_mapping_flush"

    address_space: u64
    flags: u64


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:440 @6.1.192")
class HvGpaPageRangePage(Wire):
    """``hv_gpa_page_range.page``."""

    additional_pages: Annotated[int, Bits(u64, 11)]
    largepage: Annotated[int, Bits(u64, 1)]
    basepfn: Annotated[int, Bits(u64, 52)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:440 @6.1.192", align=8)
class HvGpaPageRange(Union):
    """``hv_gpa_page_range``."""

    __kernel__ = "hv_gpa_page_range"

    address_space: u64
    page: HvGpaPageRangePage
    reserved: Annotated[int, Bits(u64, 12)]
    page_size: Annotated[int, Bits(u64, 1)]
    reserved1: Annotated[int, Bits(u64, 8)]
    base_large_pfn: Annotated[int, Bits(u64, 43)]


@wire(size=4096, source="include/asm-generic/hyperv-tlfs.h:463 @6.1.192", packed=False)
class HvGuestMappingFlushList(Wire):
    """``hv_guest_mapping_flush_list``."""

    __kernel__ = "hv_guest_mapping_flush_list"

    address_space: u64
    flags: u64
    gpa_list: Annotated[tuple[HvGpaPageRange, ...], 510]


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:470 @6.1.192")
class HvTlbFlush(Wire):
    """``hv_tlb_flush``."""

    __kernel__ = "hv_tlb_flush"

    address_space: u64
    flags: u64
    processor_mask: u64
    gva_list = tail(u64)


@wire(size=32, source="include/asm-generic/hyperv-tlfs.h:478 @6.1.192")
class HvTlbFlushEx(Wire):
    """``hv_tlb_flush_ex``."""

    __kernel__ = "hv_tlb_flush_ex"

    address_space: u64
    flags: u64
    hv_vp_set: HvVpset
    gva_list = tail(u64)


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:486 @6.1.192")
class HvGetPartitionId(Wire):
    """``hv_get_partition_id``."""

    __kernel__ = "hv_get_partition_id"

    partition_id: u64


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:491 @6.1.192")
class HvDepositMemory(Wire):
    """``hv_deposit_memory``."""

    __kernel__ = "hv_deposit_memory"

    partition_id: u64
    gpa_page_list = tail(u64)


@wire(size=4, source="include/asm-generic/hyperv-tlfs.h:496 @6.1.192")
class HvProximityDomainFlags(Wire):
    """``hv_proximity_domain_flags``."""

    __kernel__ = "hv_proximity_domain_flags"

    proximity_preferred: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 30)]
    proximity_info_valid: Annotated[int, Bits(u32, 1)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:503 @6.1.192")
class HvProximityDomainInfo(Union):
    """``hv_proximity_domain_info``."""

    __kernel__ = "hv_proximity_domain_info"

    domain_id: u32
    flags: HvProximityDomainFlags = overlay(4)
    as_uint64: u64


@wire(size=56, source="include/asm-generic/hyperv-tlfs.h:511 @6.1.192")
class HvLpStartupStatus(Wire):
    """``hv_lp_startup_status``."""

    __kernel__ = "hv_lp_startup_status"

    hv_status: u64
    substatus1: u64
    substatus2: u64
    substatus3: u64
    substatus4: u64
    substatus5: u64
    substatus6: u64


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:522 @6.1.192")
class HvAddLogicalProcessorIn(Wire):
    """``hv_add_logical_processor_in``."""

    __kernel__ = "hv_add_logical_processor_in"

    lp_index: u32
    apic_id: u32
    proximity_domain_info: HvProximityDomainInfo
    flags: u64


@wire(size=56, source="include/asm-generic/hyperv-tlfs.h:529 @6.1.192")
class HvAddLogicalProcessorOut(Wire):
    """``hv_add_logical_processor_out``."""

    __kernel__ = "hv_add_logical_processor_out"

    startup_status: HvLpStartupStatus


@wire(size=40, source="include/asm-generic/hyperv-tlfs.h:544 @6.1.192")
class HvCreateVp(Wire):
    """``hv_create_vp``."""

    __kernel__ = "hv_create_vp"

    partition_id: u64
    vp_index: u32
    padding: Annotated[bytes, 3]
    subnode_type: u8
    subnode_id: u64
    proximity_domain_info: HvProximityDomainInfo
    flags: u64


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:624 @6.1.192", packed=False)
class Input(Wire):
    """``input``."""

    __kernel__ = "input"

    name0: u32
    name1: u32


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:617 @6.1.192")
class HvGetVpRegistersInputHeader(Wire):
    """``hv_get_vp_registers_input.header``."""

    partitionid: u64
    vpindex: u32
    inputvtl: u8
    padding: Annotated[bytes, 3]


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:617 @6.1.192")
class HvGetVpRegistersInput(Wire):
    """``hv_get_vp_registers_input``."""

    __kernel__ = "hv_get_vp_registers_input"

    header: HvGetVpRegistersInputHeader
    element = tail(Input)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:632 @6.1.192")
class HvGetVpRegistersOutputAs32(Wire):
    """``hv_get_vp_registers_output.as32``."""

    a: u32
    b: u32
    c: u32
    d: u32


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:632 @6.1.192")
class HvGetVpRegistersOutputAs64(Wire):
    """``hv_get_vp_registers_output.as64``."""

    low: u64
    high: u64


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:632 @6.1.192")
class HvGetVpRegistersOutput(Wire):
    """``hv_get_vp_registers_output``."""

    __kernel__ = "hv_get_vp_registers_output"

    as32: HvGetVpRegistersOutputAs32
    as64: HvGetVpRegistersOutputAs64 = overlay(0)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:648 @6.1.192")
class HvSetVpRegistersInputHeader(Wire):
    """``hv_set_vp_registers_input.header``."""

    partitionid: u64
    vpindex: u32
    inputvtl: u8
    padding: Annotated[bytes, 3]


@wire(size=32, source="include/asm-generic/hyperv-tlfs.h:648 @6.1.192")
class HvSetVpRegistersInputElement(Wire):
    """``hv_set_vp_registers_input.element``."""

    name: u32
    padding1: u32
    padding2: u64
    valuelow: u64
    valuehigh: u64


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:648 @6.1.192")
class HvSetVpRegistersInput(Wire):
    """``hv_set_vp_registers_input``."""

    __kernel__ = "hv_set_vp_registers_input"

    header: HvSetVpRegistersInputHeader
    element = tail(HvSetVpRegistersInputElement)


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:787 @6.1.192")
class HvMemoryHint(Wire):
    """``hv_memory_hint``."""

    __kernel__ = "hv_memory_hint"

    type: Annotated[int, Bits(u64, 2)]
    reserved: Annotated[int, Bits(u64, 62)]
    ranges = tail(HvGpaPageRange)


@wire(size=4, source="include/linux/hyperv.h:772 @6.1.192")
class HvConnectionIdU(Wire):
    """``hv_connection_id.u``."""

    id: Annotated[int, Bits(u32, 24)]
    reserved: Annotated[int, Bits(u32, 8)]


@union(size=4, source="include/linux/hyperv.h:772 @6.1.192", align=4)
class HvConnectionId(Union):
    """``hv_connection_id``."""

    __kernel__ = "hv_connection_id"

    asu32: u32
    u: HvConnectionIdU


@wire(size=256, source="drivers/hv/hyperv_vmbus.h:99 @6.1.192", packed=False)
class HvInputPostMessage(Wire):
    """``hv_input_post_message``."""

    __kernel__ = "hv_input_post_message"

    connectionid: HvConnectionId
    reserved: u32
    message_type: u32
    payload_size: u32
    payload: Annotated[tuple[int, ...], u64, 30]
