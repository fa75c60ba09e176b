"""SYNDOC"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Union, Wire, overlay, s64, u8, u32, u64, union, wire

HV_SYNIC_SINT_COUNT: Final = 0x10
"""HV_SYNIC_SINT_COUNT. (include/asm-generic/hyperv-tlfs.h:228 @6.1.192)"""
HV_SYNIC_VERSION_1: Final = 0x1
"""HV_SYNIC_VERSION_1. (include/asm-generic/hyperv-tlfs.h:230 @6.1.192)"""
HV_SYNIC_FIRST_VALID_VECTOR: Final = 0x10
"""HV_SYNIC_FIRST_VALID_VECTOR. (include/asm-generic/hyperv-tlfs.h:232 @6.1.192)"""
HV_SYNIC_CONTROL_ENABLE: Final = 1 << 0
"""HV_SYNIC_CONTROL_ENABLE. (include/asm-generic/hyperv-tlfs.h:234 @6.1.192)"""
HV_SYNIC_SIMP_ENABLE: Final = 1 << 0
"""HV_SYNIC_SIMP_ENABLE. (include/asm-generic/hyperv-tlfs.h:235 @6.1.192)"""
HV_SYNIC_SIEFP_ENABLE: Final = 1 << 0
"""HV_SYNIC_SIEFP_ENABLE. (include/asm-generic/hyperv-tlfs.h:236 @6.1.192)"""
HV_SYNIC_SINT_MASKED: Final = 1 << 16
"""HV_SYNIC_SINT_MASKED. (include/asm-generic/hyperv-tlfs.h:237 @6.1.192)"""
HV_SYNIC_SINT_AUTO_EOI: Final = 1 << 17
"""HV_SYNIC_SINT_AUTO_EOI. (include/asm-generic/hyperv-tlfs.h:238 @6.1.192)"""
HV_SYNIC_SINT_VECTOR_MASK: Final = 0xFF
"""HV_SYNIC_SINT_VECTOR_MASK. (include/asm-generic/hyperv-tlfs.h:239 @6.1.192)"""
HV_SYNIC_STIMER_COUNT: Final = 4
"""HV_SYNIC_STIMER_COUNT. (include/asm-generic/hyperv-tlfs.h:241 @6.1.192)"""
HV_MESSAGE_SIZE: Final = 0x100
"""HV_MESSAGE_SIZE. (include/asm-generic/hyperv-tlfs.h:244 @6.1.192)"""
HV_MESSAGE_PAYLOAD_BYTE_COUNT: Final = 0xF0
"""HV_MESSAGE_PAYLOAD_BYTE_COUNT. (include/asm-generic/hyperv-tlfs.h:245 @6.1.192)"""
HV_MESSAGE_PAYLOAD_QWORD_COUNT: Final = 0x1E
"""HV_MESSAGE_PAYLOAD_QWORD_COUNT. (include/asm-generic/hyperv-tlfs.h:246 @6.1.192)"""
HV_EVENT_FLAGS_COUNT: Final = 0x800
"""HV_EVENT_FLAGS_COUNT. (include/asm-generic/hyperv-tlfs.h:336 @6.1.192)"""
HV_EVENT_FLAGS_LONG_COUNT: Final = 0x20
"""HV_EVENT_FLAGS_LONG_COUNT. (include/asm-generic/hyperv-tlfs.h:337 @6.1.192)"""


class HvMessageType(IntEnum):
    """``hv_message_type``.

    Source: include/asm-generic/hyperv-tlfs.h:256 @6.1.192
    """

    HVMSG_NONE = 0
    HVMSG_UNMAPPED_GPA = 0x8000_0000
    HVMSG_GPA_INTERCEPT = 0x8000_0001
    HVMSG_TIMER_EXPIRED = 0x8000_0010
    HVMSG_INVALID_VP_REGISTER_VALUE = 0x8000_0020
    HVMSG_UNRECOVERABLE_EXCEPTION = 0x8000_0021
    HVMSG_UNSUPPORTED_FEATURE = 0x8000_0022
    HVMSG_EVENTLOG_BUFFERCOMPLETE = 0x8000_0040
    HVMSG_X64_IOPORT_INTERCEPT = 0x8001_0000
    HVMSG_X64_MSR_INTERCEPT = 0x8001_0001
    HVMSG_X64_CPUID_INTERCEPT = 0x8001_0002
    HVMSG_X64_EXCEPTION_INTERCEPT = 0x8001_0003
    HVMSG_X64_APIC_EOI = 0x8001_0004
    HVMSG_X64_LEGACY_FP_ERROR = 0x8001_0005


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:98 @6.1.192")
class MsHypervTscPage(Wire):
    """``ms_hyperv_tsc_page``."""

    __kernel__ = "ms_hyperv_tsc_page"

    tsc_sequence: u32
    reserved1: u32
    tsc_scale: u64
    tsc_offset: s64


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:105 @6.1.192", align=8)
class HvReferenceTscMsr(Union):
    """``hv_reference_tsc_msr``."""

    __kernel__ = "hv_reference_tsc_msr"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 11)]
    pfn: Annotated[int, Bits(u64, 52)]


@union(size=1, source="include/asm-generic/hyperv-tlfs.h:284 @6.1.192")
class HvMessageFlags(Union):
    """``hv_message_flags``."""

    __kernel__ = "hv_message_flags"

    asu8: u8
    msg_pending: Annotated[int, Bits(u8, 1)]
    reserved: Annotated[int, Bits(u8, 7)]


@wire(size=4, source="include/asm-generic/hyperv-tlfs.h:293 @6.1.192")
class HvPortIdU(Wire):
    """``hv_port_id.u``."""

    id: Annotated[int, Bits(u32, 24)]
    reserved: Annotated[int, Bits(u32, 8)]


@union(size=4, source="include/asm-generic/hyperv-tlfs.h:293 @6.1.192", align=4)
class HvPortId(Union):
    """``hv_port_id``."""

    __kernel__ = "hv_port_id"

    asu32: u32
    u: HvPortIdU


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:302 @6.1.192")
class HvMessageHeader(Wire):
    """``hv_message_header``."""

    __kernel__ = "hv_message_header"

    message_type: u32
    payload_size: u8
    message_flags: HvMessageFlags
    reserved: Annotated[bytes, 2]
    sender: u64
    port: HvPortId = overlay(8)


@union(size=240, source="include/asm-generic/hyperv-tlfs.h:314 @6.1.192")
class HvMessageU(Union):
    """``hv_message.u``."""

    payload: Annotated[tuple[int, ...], u64, 30]


@wire(size=256, source="include/asm-generic/hyperv-tlfs.h:314 @6.1.192")
class HvMessage(Wire):
    """``hv_message``."""

    __kernel__ = "hv_message"

    header: HvMessageHeader
    u: HvMessageU


@wire(size=4096, source="include/asm-generic/hyperv-tlfs.h:322 @6.1.192")
class HvMessagePage(Wire):
    """``hv_message_page``."""

    __kernel__ = "hv_message_page"

    sint_message: Annotated[tuple[HvMessage, ...], 16]


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:327 @6.1.192")
class HvTimerMessagePayload(Wire):
    """``hv_timer_message_payload``."""

    __kernel__ = "hv_timer_message_payload"

    timer_index: u32
    reserved: u32
    expiration_time: u64
    delivery_time: u64


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:342 @6.1.192", align=8)
class HvStimerConfig(Union):
    """``hv_stimer_config``."""

    __kernel__ = "hv_stimer_config"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    periodic: Annotated[int, Bits(u64, 1)]
    lazy: Annotated[int, Bits(u64, 1)]
    auto_enable: Annotated[int, Bits(u64, 1)]
    apic_vector: Annotated[int, Bits(u64, 8)]
    direct_mode: Annotated[int, Bits(u64, 1)]
    reserved_z0: Annotated[int, Bits(u64, 3)]
    sintx: Annotated[int, Bits(u64, 4)]
    reserved_z1: Annotated[int, Bits(u64, 44)]


@union(size=256, source="include/asm-generic/hyperv-tlfs.h:359 @6.1.192", align=8)
class HvSynicEventFlags(Union):
    """``hv_synic_event_flags``."""

    __kernel__ = "hv_synic_event_flags"

    flags: Annotated[tuple[int, ...], u64, 32]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:364 @6.1.192", align=8)
class HvSynicScontrol(Union):
    """``hv_synic_scontrol``."""

    __kernel__ = "hv_synic_scontrol"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 63)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:373 @6.1.192", align=8)
class HvSynicSint(Union):
    """``hv_synic_sint``."""

    __kernel__ = "hv_synic_sint"

    as_uint64: u64
    vector: Annotated[int, Bits(u64, 8)]
    reserved1: Annotated[int, Bits(u64, 8)]
    masked: Annotated[int, Bits(u64, 1)]
    auto_eoi: Annotated[int, Bits(u64, 1)]
    polling: Annotated[int, Bits(u64, 1)]
    reserved2: Annotated[int, Bits(u64, 45)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:386 @6.1.192", align=8)
class HvSynicSimp(Union):
    """``hv_synic_simp``."""

    __kernel__ = "hv_synic_simp"

    as_uint64: u64
    simp_enabled: Annotated[int, Bits(u64, 1)]
    preserved: Annotated[int, Bits(u64, 11)]
    base_simp_gpa: Annotated[int, Bits(u64, 52)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:396 @6.1.192", align=8)
class HvSynicSiefp(Union):
    """``hv_synic_siefp``."""

    __kernel__ = "hv_synic_siefp"

    as_uint64: u64
    siefp_enabled: Annotated[int, Bits(u64, 1)]
    preserved: Annotated[int, Bits(u64, 11)]
    base_siefp_gpa: Annotated[int, Bits(u64, 52)]
