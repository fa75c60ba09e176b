"""Hypercalls: call codes, control word, status codes and parameter blocks."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Union, Wire, overlay, tail, u8, u32, u64, union, wire

HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE: Final = 0x2
"""HvCallFlushVirtualAddressSpace: `HvTlbFlush`, simple. (include/asm-generic/hyperv-tlfs.h:147 @6.1.192)"""
HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST: Final = 0x3
"""HvCallFlushVirtualAddressList: `HvTlbFlush`, rep over its gva_list.

Source: include/asm-generic/hyperv-tlfs.h:148 @6.1.192
"""
HVCALL_NOTIFY_LONG_SPIN_WAIT: Final = 0x8
"""HvCallNotifyLongSpinWait: fast, input is the spin count. (include/asm-generic/hyperv-tlfs.h:149 @6.1.192)"""
HVCALL_SEND_IPI: Final = 0xB
"""HvCallSendSyntheticClusterIpi: `HvSendIpi`, simple, may be fast. (include/asm-generic/hyperv-tlfs.h:150 @6.1.192)"""
HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX: Final = 0x13
"""HvCallFlushVirtualAddressSpaceEx: `HvTlbFlushEx`, variable header.

Source: include/asm-generic/hyperv-tlfs.h:151 @6.1.192
"""
HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX: Final = 0x14
"""HvCallFlushVirtualAddressListEx: `HvTlbFlushEx`, variable header and rep.

Source: include/asm-generic/hyperv-tlfs.h:152 @6.1.192
"""
HVCALL_SEND_IPI_EX: Final = 0x15
"""HvCallSendSyntheticClusterIpiEx: `HvSendIpiEx`, variable header. (include/asm-generic/hyperv-tlfs.h:153 @6.1.192)"""
HVCALL_GET_PARTITION_ID: Final = 0x46
"""HvCallGetPartitionId: output `HvGetPartitionId`. (include/asm-generic/hyperv-tlfs.h:154 @6.1.192)"""
HVCALL_DEPOSIT_MEMORY: Final = 0x48
"""HvCallDepositMemory: `HvDepositMemory`, rep; root partition only. (include/asm-generic/hyperv-tlfs.h:155 @6.1.192)"""
HVCALL_CREATE_VP: Final = 0x4E
"""HvCallCreateVp: `HvCreateVp`; root partition only. (include/asm-generic/hyperv-tlfs.h:156 @6.1.192)"""
HVCALL_GET_VP_REGISTERS: Final = 0x50
"""HvCallGetVpRegisters: `HvGetVpRegistersInput`, rep over the register names.

Source: include/asm-generic/hyperv-tlfs.h:157 @6.1.192
"""
HVCALL_SET_VP_REGISTERS: Final = 0x51
"""HvCallSetVpRegisters: `HvSetVpRegistersInput`, rep over names with values.

Source: include/asm-generic/hyperv-tlfs.h:158 @6.1.192
"""
HVCALL_POST_MESSAGE: Final = 0x5C
"""HvCallPostMessage: `HvInputPostMessage`. (include/asm-generic/hyperv-tlfs.h:159 @6.1.192)"""
HVCALL_SIGNAL_EVENT: Final = 0x5D
"""HvCallSignalEvent: connection id in bits 31:0, flag number in 47:32; usually fast.

Source: include/asm-generic/hyperv-tlfs.h:160 @6.1.192
"""
HVCALL_POST_DEBUG_DATA: Final = 0x69
"""HvCallPostDebugData. (include/asm-generic/hyperv-tlfs.h:161 @6.1.192)"""
HVCALL_RETRIEVE_DEBUG_DATA: Final = 0x6A
"""HvCallRetrieveDebugData. (include/asm-generic/hyperv-tlfs.h:162 @6.1.192)"""
HVCALL_RESET_DEBUG_SESSION: Final = 0x6B
"""HvCallResetDebugSession. (include/asm-generic/hyperv-tlfs.h:163 @6.1.192)"""
HVCALL_ADD_LOGICAL_PROCESSOR: Final = 0x76
"""HvCallAddLogicalProcessor; root partition only. (include/asm-generic/hyperv-tlfs.h:164 @6.1.192)"""
HVCALL_MAP_DEVICE_INTERRUPT: Final = 0x7C
"""HvCallMapDeviceInterrupt; root partition only. (include/asm-generic/hyperv-tlfs.h:165 @6.1.192)"""
HVCALL_UNMAP_DEVICE_INTERRUPT: Final = 0x7D
"""HvCallUnmapDeviceInterrupt; root partition only. (include/asm-generic/hyperv-tlfs.h:166 @6.1.192)"""
HVCALL_RETARGET_INTERRUPT: Final = 0x7E
"""HvCallRetargetDeviceInterrupt: moves a pass-through device's interrupt to other VPs.

Source: include/asm-generic/hyperv-tlfs.h:167 @6.1.192
"""
HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE: Final = 0xAF
"""HvCallFlushGuestPhysicalAddressSpace: `HvGuestMappingFlush`; for nested hypervisors.

Source: include/asm-generic/hyperv-tlfs.h:168 @6.1.192
"""
HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_LIST: Final = 0xB0
"""HvCallFlushGuestPhysicalAddressList: `HvGuestMappingFlushList`, rep; for nested hypervisors.

Source: include/asm-generic/hyperv-tlfs.h:169 @6.1.192
"""
HVCALL_MODIFY_SPARSE_GPA_PAGE_HOST_VISIBILITY: Final = 0xDB
"""HvCallModifySparseGpaPageHostVisibility: rep over pages, in isolated partitions.

Source: include/asm-generic/hyperv-tlfs.h:170 @6.1.192
"""
HV_EXT_CALL_QUERY_CAPABILITIES: Final = 0x8001
"""HvExtCallQueryCapabilities: output is a 64-bit mask of extended hypercalls.

Source: include/asm-generic/hyperv-tlfs.h:173 @6.1.192
"""
HV_EXT_CALL_MEMORY_HEAT_HINT: Final = 0x8003
"""HvExtCallMemoryHeatHint: `HvMemoryHint`, variable header. (include/asm-generic/hyperv-tlfs.h:174 @6.1.192)"""
HV_FLUSH_ALL_PROCESSORS: Final = 1 << 0
"""Flush flag: on every VP; the processor mask is not looked at. (include/asm-generic/hyperv-tlfs.h:176 @6.1.192)"""
HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES: Final = 1 << 1
"""Flush flag: in every address space; address_space is not looked at.

Source: include/asm-generic/hyperv-tlfs.h:177 @6.1.192
"""
HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY: Final = 1 << 2
"""Flush flag: leave global mappings alone. (include/asm-generic/hyperv-tlfs.h:178 @6.1.192)"""
HV_FLUSH_USE_EXTENDED_RANGE_FORMAT: Final = 1 << 3
"""Flush flag: the list has ranges with large pages. (include/asm-generic/hyperv-tlfs.h:179 @6.1.192)"""
HV_EXT_CAPABILITY_MEMORY_COLD_DISCARD_HINT: Final = 1 << 8
"""Extended capability: cold discard hints are taken (free page reporting).

Source: include/asm-generic/hyperv-tlfs.h:182 @6.1.192
"""
HV_PARTITION_ID_SELF: Final = 0xFFFF_FFFF_FFFF_FFFF
"""Stands for the caller's own partition. (include/asm-generic/hyperv-tlfs.h:189 @6.1.192)"""
HV_VP_INDEX_SELF: Final = 0xFFFF_FFFE
"""Stands for the caller's own virtual processor. (include/asm-generic/hyperv-tlfs.h:190 @6.1.192)"""
HV_HYPERCALL_RESULT_MASK: Final = 0xFFFF
"""Status in a hypercall's result; call code in its control word. (include/asm-generic/hyperv-tlfs.h:192 @6.1.192)"""
HV_HYPERCALL_FAST_BIT: Final = 1 << 16
"""Control word: parameters are in registers. (include/asm-generic/hyperv-tlfs.h:193 @6.1.192)"""
HV_HYPERCALL_VARHEAD_OFFSET: Final = 17
"""Control word: lowest bit of the variable header's size in 8-byte units.

Source: include/asm-generic/hyperv-tlfs.h:194 @6.1.192
"""
HV_HYPERCALL_VARHEAD_MASK: Final = 0x07FE_0000
"""Control word: the variable header's size. (include/asm-generic/hyperv-tlfs.h:195 @6.1.192)"""
HV_HYPERCALL_RSVD0_MASK: Final = 0xF800_0000
"""Control word: bits 31:27, zero. TLFS gives bit 31 to nested hypervisors.

Source: include/asm-generic/hyperv-tlfs.h:196 @6.1.192
"""
HV_HYPERCALL_REP_COMP_OFFSET: Final = 32
"""Control word and result: lowest bit of the repetition count, done or to do.

Source: include/asm-generic/hyperv-tlfs.h:197 @6.1.192
"""
HV_HYPERCALL_REP_COMP_1: Final = 1 << 32
"""Control word: a repetition count of one. (include/asm-generic/hyperv-tlfs.h:198 @6.1.192)"""
HV_HYPERCALL_REP_COMP_MASK: Final = 0x0FFF_0000_0000
"""Control word: repetitions asked for; result: repetitions done. (include/asm-generic/hyperv-tlfs.h:199 @6.1.192)"""
HV_HYPERCALL_RSVD1_MASK: Final = 0xF000_0000_0000
"""Control word: bits 47:44, zero. (include/asm-generic/hyperv-tlfs.h:200 @6.1.192)"""
HV_HYPERCALL_REP_START_OFFSET: Final = 48
"""Control word: lowest bit of the index to start at. (include/asm-generic/hyperv-tlfs.h:201 @6.1.192)"""
HV_HYPERCALL_REP_START_MASK: Final = 0x0FFF_0000_0000_0000
"""Control word: index of the first repetition still to do. (include/asm-generic/hyperv-tlfs.h:202 @6.1.192)"""
HV_HYPERCALL_RSVD2_MASK: Final = 0xF000_0000_0000_0000
"""Control word: bits 63:60, zero. (include/asm-generic/hyperv-tlfs.h:203 @6.1.192)"""
HV_HYPERCALL_RSVD_MASK: Final = 0xF000_F000_F800_0000
"""Control word: every reserved bit; a call with one set is refused. (include/asm-generic/hyperv-tlfs.h:204 @6.1.192)"""
HV_STATUS_SUCCESS: Final = 0
"""The call did what it was asked for. (include/asm-generic/hyperv-tlfs.h:209 @6.1.192)"""
HV_STATUS_INVALID_HYPERCALL_CODE: Final = 2
"""Unknown call code. (include/asm-generic/hyperv-tlfs.h:210 @6.1.192)"""
HV_STATUS_INVALID_HYPERCALL_INPUT: Final = 3
"""The control word is wrong: reserved bits, or a rep count that does not go with the call.

Source: include/asm-generic/hyperv-tlfs.h:211 @6.1.192
"""
HV_STATUS_INVALID_ALIGNMENT: Final = 4
"""A parameter block is misaligned, crosses a page or lies outside memory.

Source: include/asm-generic/hyperv-tlfs.h:212 @6.1.192
"""
HV_STATUS_INVALID_PARAMETER: Final = 5
"""A parameter has a value that is not allowed. (include/asm-generic/hyperv-tlfs.h:213 @6.1.192)"""
HV_STATUS_ACCESS_DENIED: Final = 6
"""The partition lacks the privilege. (include/asm-generic/hyperv-tlfs.h:214 @6.1.192)"""
HV_STATUS_OPERATION_DENIED: Final = 8
"""Not allowed in the present state. (include/asm-generic/hyperv-tlfs.h:215 @6.1.192)"""
HV_STATUS_INSUFFICIENT_MEMORY: Final = 11
"""The partition's pool is used up; deposit more. (include/asm-generic/hyperv-tlfs.h:216 @6.1.192)"""
HV_STATUS_INVALID_PORT_ID: Final = 17
"""No such port. (include/asm-generic/hyperv-tlfs.h:217 @6.1.192)"""
HV_STATUS_INVALID_CONNECTION_ID: Final = 18
"""No such connection, or it is of another type. (include/asm-generic/hyperv-tlfs.h:218 @6.1.192)"""
HV_STATUS_INSUFFICIENT_BUFFERS: Final = 19
"""The port's message queue is full; try again later. (include/asm-generic/hyperv-tlfs.h:219 @6.1.192)"""
HV_MAX_FLUSH_PAGES: Final = 2048
"""4 KiB pages that one entry of a GPA range list covers at most. (include/asm-generic/hyperv-tlfs.h:435 @6.1.192)"""
HV_GPA_PAGE_RANGE_PAGE_SIZE_2MB: Final = 0
"""GPA range of large pages: they are 2 MiB. (include/asm-generic/hyperv-tlfs.h:436 @6.1.192)"""
HV_GPA_PAGE_RANGE_PAGE_SIZE_1GB: Final = 1
"""GPA range of large pages: they are 1 GiB. (include/asm-generic/hyperv-tlfs.h:437 @6.1.192)"""
HV_MAX_FLUSH_REP_COUNT: Final = 510
"""Ranges that fit in one input page of the guest mapping flush. (include/asm-generic/hyperv-tlfs.h:460 @6.1.192)"""
HV_MEMORY_HINT_MAX_GPA_PAGE_RANGES: Final = 511
"""Ranges that fit in one input page of the memory heat hint. (include/asm-generic/hyperv-tlfs.h:781 @6.1.192)"""
HV_EXT_MEMORY_HEAT_HINT_TYPE_COLD_DISCARD: Final = 2
"""Heat hint: the pages are cold and their contents may be dropped. (include/asm-generic/hyperv-tlfs.h:786 @6.1.192)"""


HV_HYPERCALL_PARAM_ALIGN: Final = 8
"""Alignment that parameter blocks need. (drivers/hv/hyperv_vmbus.h:96 @6.1.192)"""
VP_INVAL: Final = 0xFFFF_FFFF
"""VP index of a CPU that has not told yet. (include/asm-generic/mshyperv.h:181 @6.1.192)"""


class HvGenericSetFormat(IntEnum):
    """How `HvVpset` names virtual processors.

    Source: include/asm-generic/hyperv-tlfs.h:184 @6.1.192
    """

    HV_GENERIC_SET_SPARSE_4K = 0
    HV_GENERIC_SET_ALL = 1


class HvSubnodeType(IntEnum):
    """Kind of NUMA subnode in `HvCreateVp`.

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
    """A set of virtual processors in banks of 64 (HV_VP_SET). The banks named in the mask follow, lowest first."""

    __kernel__ = "hv_vpset"

    format: u64
    valid_bank_mask: u64
    bank_contents = tail(u64)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:412 @6.1.192")
class HvSendIpi(Wire):
    """Input of HvCallSendSyntheticClusterIpi: VPs 0 to 63 in a mask."""

    __kernel__ = "hv_send_ipi"

    vector: u32
    reserved: u32
    cpu_mask: u64


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:419 @6.1.192")
class HvSendIpiEx(Wire):
    """Input of HvCallSendSyntheticClusterIpiEx: VPs as a set, whose banks are the variable header."""

    __kernel__ = "hv_send_ipi_ex"

    vector: u32
    reserved: u32
    vp_set: HvVpset


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:426 @6.1.192")
class HvGuestMappingFlush(Wire):
    """Input of HvCallFlushGuestPhysicalAddressSpace."""

    __kernel__ = "hv_guest_mapping_flush"

    address_space: u64
    flags: u64


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:440 @6.1.192")
class HvGpaPageRangePage(Wire):
    """Arm for 4 KiB pages, and which of the two arms applies (largepage)."""

    additional_pages: Annotated[int, Bits(u64, 11)]
    largepage: Annotated[int, Bits(u64, 1)]
    basepfn: Annotated[int, Bits(u64, 52)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:440 @6.1.192", align=8)
class HvGpaPageRange(Union):
    """One entry of a GPA range list: 4 KiB pages, or large pages."""

    __kernel__ = "hv_gpa_page_range"

    address_space: u64
    page: HvGpaPageRangePage
    reserved: Annotated[int, Bits(u64, 12)]
    page_size: Annotated[int, Bits(u64, 1)]
    reserved1: Annotated[int, Bits(u64, 8)]
    base_large_pfn: Annotated[int, Bits(u64, 43)]


@wire(size=4096, source="include/asm-generic/hyperv-tlfs.h:463 @6.1.192", packed=False)
class HvGuestMappingFlushList(Wire):
    """Input of HvCallFlushGuestPhysicalAddressList."""

    __kernel__ = "hv_guest_mapping_flush_list"

    address_space: u64
    flags: u64
    gpa_list: Annotated[tuple[HvGpaPageRange, ...], 510]


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:470 @6.1.192")
class HvTlbFlush(Wire):
    """Input of HvCallFlushVirtualAddressSpace and, with its list, HvCallFlushVirtualAddressList."""

    __kernel__ = "hv_tlb_flush"

    address_space: u64
    flags: u64
    processor_mask: u64
    gva_list = tail(u64)


@wire(size=32, source="include/asm-generic/hyperv-tlfs.h:478 @6.1.192")
class HvTlbFlushEx(Wire):
    """Input of the extended flushes. The set's banks are the variable header and precede gva_list on the wire."""

    __kernel__ = "hv_tlb_flush_ex"

    address_space: u64
    flags: u64
    hv_vp_set: HvVpset
    gva_list = tail(u64)


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:486 @6.1.192")
class HvGetPartitionId(Wire):
    """Output of HvCallGetPartitionId."""

    __kernel__ = "hv_get_partition_id"

    partition_id: u64


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:491 @6.1.192")
class HvDepositMemory(Wire):
    """Input of HvCallDepositMemory."""

    __kernel__ = "hv_deposit_memory"

    partition_id: u64
    gpa_page_list = tail(u64)


@wire(size=4, source="include/asm-generic/hyperv-tlfs.h:496 @6.1.192")
class HvProximityDomainFlags(Wire):
    """Flags of a proximity domain."""

    __kernel__ = "hv_proximity_domain_flags"

    proximity_preferred: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 30)]
    proximity_info_valid: Annotated[int, Bits(u32, 1)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:503 @6.1.192")
class HvProximityDomainInfo(Union):
    """A proximity domain with its flags."""

    __kernel__ = "hv_proximity_domain_info"

    domain_id: u32
    flags: HvProximityDomainFlags = overlay(4)
    as_uint64: u64


@wire(size=56, source="include/asm-generic/hyperv-tlfs.h:511 @6.1.192")
class HvLpStartupStatus(Wire):
    """Status words that HvCallAddLogicalProcessor returns."""

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
    """Input of HvCallAddLogicalProcessor."""

    __kernel__ = "hv_add_logical_processor_in"

    lp_index: u32
    apic_id: u32
    proximity_domain_info: HvProximityDomainInfo
    flags: u64


@wire(size=56, source="include/asm-generic/hyperv-tlfs.h:529 @6.1.192")
class HvAddLogicalProcessorOut(Wire):
    """Output of HvCallAddLogicalProcessor."""

    __kernel__ = "hv_add_logical_processor_out"

    startup_status: HvLpStartupStatus


@wire(size=40, source="include/asm-generic/hyperv-tlfs.h:544 @6.1.192")
class HvCreateVp(Wire):
    """Input of HvCallCreateVp."""

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
    """One element of HvCallGetVpRegisters's input: two register names."""

    __kernel__ = "input"

    name0: u32
    name1: u32


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:617 @6.1.192")
class HvGetVpRegistersInputHeader(Wire):
    """The fixed part."""

    partitionid: u64
    vpindex: u32
    inputvtl: u8
    padding: Annotated[bytes, 3]


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:617 @6.1.192")
class HvGetVpRegistersInput(Wire):
    """Input of HvCallGetVpRegisters; the register names follow."""

    __kernel__ = "hv_get_vp_registers_input"

    header: HvGetVpRegistersInputHeader
    element = tail(Input)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:632 @6.1.192")
class HvGetVpRegistersOutputAs32(Wire):
    """The value in 32-bit words."""

    a: u32
    b: u32
    c: u32
    d: u32


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:632 @6.1.192")
class HvGetVpRegistersOutputAs64(Wire):
    """The value in 64-bit words."""

    low: u64
    high: u64


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:632 @6.1.192")
class HvGetVpRegistersOutput(Wire):
    """One element of HvCallGetVpRegisters's output: a register value of up to 128 bits."""

    __kernel__ = "hv_get_vp_registers_output"

    as32: HvGetVpRegistersOutputAs32
    as64: HvGetVpRegistersOutputAs64 = overlay(0)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:648 @6.1.192")
class HvSetVpRegistersInputHeader(Wire):
    """The fixed part."""

    partitionid: u64
    vpindex: u32
    inputvtl: u8
    padding: Annotated[bytes, 3]


@wire(size=32, source="include/asm-generic/hyperv-tlfs.h:648 @6.1.192")
class HvSetVpRegistersInputElement(Wire):
    """A register's name and its value of up to 128 bits."""

    name: u32
    padding1: u32
    padding2: u64
    valuelow: u64
    valuehigh: u64


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:648 @6.1.192")
class HvSetVpRegistersInput(Wire):
    """Input of HvCallSetVpRegisters; names with values follow."""

    __kernel__ = "hv_set_vp_registers_input"

    header: HvSetVpRegistersInputHeader
    element = tail(HvSetVpRegistersInputElement)


@wire(size=8, source="include/asm-generic/hyperv-tlfs.h:787 @6.1.192")
class HvMemoryHint(Wire):
    """Input of HvExtCallMemoryHeatHint; the ranges follow."""

    __kernel__ = "hv_memory_hint"

    type: Annotated[int, Bits(u64, 2)]
    reserved: Annotated[int, Bits(u64, 62)]
    ranges = tail(HvGpaPageRange)


@wire(size=4, source="include/linux/hyperv.h:772 @6.1.192")
class HvConnectionIdU(Wire):
    """The number by its parts."""

    id: Annotated[int, Bits(u32, 24)]
    reserved: Annotated[int, Bits(u32, 8)]


@union(size=4, source="include/linux/hyperv.h:772 @6.1.192", align=4)
class HvConnectionId(Union):
    """A connection's number, 24 bits (HV_CONNECTION_ID)."""

    __kernel__ = "hv_connection_id"

    asu32: u32
    u: HvConnectionIdU


@wire(size=256, source="drivers/hv/hyperv_vmbus.h:99 @6.1.192", packed=False)
class HvInputPostMessage(Wire):
    """Input of HvCallPostMessage."""

    __kernel__ = "hv_input_post_message"

    connectionid: HvConnectionId
    reserved: u32
    message_type: u32
    payload_size: u32
    payload: Annotated[tuple[int, ...], u64, 30]
