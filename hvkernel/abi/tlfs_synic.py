"""The synthetic interrupt controller: messages, event flags, timers and the reference TSC page.

Register numbers are the architecture's; the contents are the same everywhere.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Union, Wire, overlay, s64, u8, u32, u64, union, wire

HV_SYNIC_SINT_COUNT: Final = 16
"""Synthetic interrupt sources of a virtual processor. (include/asm-generic/hyperv-tlfs.h:228 @6.1.192)"""
HV_SYNIC_VERSION_1: Final = 0x1
"""What SVERSION reads as. (include/asm-generic/hyperv-tlfs.h:230 @6.1.192)"""
HV_SYNIC_FIRST_VALID_VECTOR: Final = 16
"""Lowest vector that a SINT may have; lower ones are reserved by the architecture.

Source: include/asm-generic/hyperv-tlfs.h:232 @6.1.192
"""
HV_SYNIC_CONTROL_ENABLE: Final = 1 << 0
"""SCONTROL: the SynIC is on. (include/asm-generic/hyperv-tlfs.h:234 @6.1.192)"""
HV_SYNIC_SIMP_ENABLE: Final = 1 << 0
"""SIMP: the message page is mapped. (include/asm-generic/hyperv-tlfs.h:235 @6.1.192)"""
HV_SYNIC_SIEFP_ENABLE: Final = 1 << 0
"""SIEFP: the event flags page is mapped. (include/asm-generic/hyperv-tlfs.h:236 @6.1.192)"""
HV_SYNIC_SINT_MASKED: Final = 1 << 16
"""SINT: the source is masked. (include/asm-generic/hyperv-tlfs.h:237 @6.1.192)"""
HV_SYNIC_SINT_AUTO_EOI: Final = 1 << 17
"""SINT: the interrupt ends itself on delivery. (include/asm-generic/hyperv-tlfs.h:238 @6.1.192)"""
HV_SYNIC_SINT_VECTOR_MASK: Final = 0xFF
"""SINT: the vector. (include/asm-generic/hyperv-tlfs.h:239 @6.1.192)"""
HV_SYNIC_STIMER_COUNT: Final = 4
"""Synthetic timers of a virtual processor. (include/asm-generic/hyperv-tlfs.h:241 @6.1.192)"""
HV_MESSAGE_SIZE: Final = 256
"""Bytes of a message slot, header included. (include/asm-generic/hyperv-tlfs.h:244 @6.1.192)"""
HV_MESSAGE_PAYLOAD_BYTE_COUNT: Final = 240
"""Most bytes that a message carries. (include/asm-generic/hyperv-tlfs.h:245 @6.1.192)"""
HV_MESSAGE_PAYLOAD_QWORD_COUNT: Final = 30
"""The same in 8-byte words. (include/asm-generic/hyperv-tlfs.h:246 @6.1.192)"""
HV_EVENT_FLAGS_COUNT: Final = 2048
"""Event flags of one SINT. (include/asm-generic/hyperv-tlfs.h:336 @6.1.192)"""
HV_EVENT_FLAGS_LONG_COUNT: Final = 32
"""The same in unsigned longs of a 64-bit guest; a 32-bit guest has 64, over the same 256 bytes.

Source: include/asm-generic/hyperv-tlfs.h:337 @6.1.192
"""


HV_MAX_MAX_DELTA_TICKS: Final = 0xFFFF_FFFF
"""Longest delay of the synthetic timer clock event, in 100 ns. (include/clocksource/hyperv_timer.h:20 @6.1.192)"""
HV_MIN_DELTA_TICKS: Final = 1
"""Shortest delay of the synthetic timer clock event, in 100 ns. (include/clocksource/hyperv_timer.h:21 @6.1.192)"""


class HvMessageType(IntEnum):
    """Types of SynIC messages. Those below 0x80000000 are chosen by the sender; VMBus uses 1.

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
    """The reference TSC page (HV_REFERENCE_TSC_PAGE): reference time = (tsc * tsc_scale >> 64) + tsc_offset, in
    100 ns.
    """

    __kernel__ = "ms_hyperv_tsc_page"

    tsc_sequence: u32
    """Changes with every update; 0 means: invalid, read the reference counter instead."""
    reserved1: u32
    tsc_scale: u64
    tsc_offset: s64


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:105 @6.1.192", align=8)
class HvReferenceTscMsr(Union):
    """The reference TSC register: where the guest wants the page, and whether."""

    __kernel__ = "hv_reference_tsc_msr"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 11)]
    pfn: Annotated[int, Bits(u64, 52)]


@union(size=1, source="include/asm-generic/hyperv-tlfs.h:284 @6.1.192")
class HvMessageFlags(Union):
    """Flags of a message slot."""

    __kernel__ = "hv_message_flags"

    asu8: u8
    msg_pending: Annotated[int, Bits(u8, 1)]
    reserved: Annotated[int, Bits(u8, 7)]


@wire(size=4, source="include/asm-generic/hyperv-tlfs.h:293 @6.1.192")
class HvPortIdU(Wire):
    """The number by its parts."""

    id: Annotated[int, Bits(u32, 24)]
    reserved: Annotated[int, Bits(u32, 8)]


@union(size=4, source="include/asm-generic/hyperv-tlfs.h:293 @6.1.192", align=4)
class HvPortId(Union):
    """A port's number, 24 bits."""

    __kernel__ = "hv_port_id"

    asu32: u32
    u: HvPortIdU


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:302 @6.1.192")
class HvMessageHeader(Wire):
    """Header of a message slot (HV_MESSAGE_HEADER). A slot is free while message_type is 0."""

    __kernel__ = "hv_message_header"

    message_type: u32
    payload_size: u8
    """Bytes used of the payload, at most 240."""
    message_flags: HvMessageFlags
    reserved: Annotated[bytes, 2]
    sender: u64
    port: HvPortId = overlay(8)


@union(size=240, source="include/asm-generic/hyperv-tlfs.h:314 @6.1.192")
class HvMessageU(Union):
    """The payload; VMBus puts a channel message there."""

    payload: Annotated[tuple[int, ...], u64, 30]


@wire(size=256, source="include/asm-generic/hyperv-tlfs.h:314 @6.1.192")
class HvMessage(Wire):
    """One message slot (HV_MESSAGE)."""

    __kernel__ = "hv_message"

    header: HvMessageHeader
    u: HvMessageU


@wire(size=4096, source="include/asm-generic/hyperv-tlfs.h:322 @6.1.192")
class HvMessagePage(Wire):
    """The SIM page: one slot for each SINT (HV_MESSAGE_PAGE)."""

    __kernel__ = "hv_message_page"

    sint_message: Annotated[tuple[HvMessage, ...], 16]


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:327 @6.1.192")
class HvTimerMessagePayload(Wire):
    """Payload of HVMSG_TIMER_EXPIRED. Times are in 100 ns units of reference time."""

    __kernel__ = "hv_timer_message_payload"

    timer_index: u32
    reserved: u32
    expiration_time: u64
    delivery_time: u64


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:342 @6.1.192", align=8)
class HvStimerConfig(Union):
    """A synthetic timer's configuration register."""

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
    """The 2048 event flags of one SINT; the SIEF page holds 16 of these (HV_SYNIC_EVENT_FLAGS)."""

    __kernel__ = "hv_synic_event_flags"

    flags: Annotated[tuple[int, ...], u64, 32]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:364 @6.1.192", align=8)
class HvSynicScontrol(Union):
    """The SynIC control register."""

    __kernel__ = "hv_synic_scontrol"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 63)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:373 @6.1.192", align=8)
class HvSynicSint(Union):
    """A synthetic interrupt source register."""

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
    """The message page register."""

    __kernel__ = "hv_synic_simp"

    as_uint64: u64
    simp_enabled: Annotated[int, Bits(u64, 1)]
    preserved: Annotated[int, Bits(u64, 11)]
    base_simp_gpa: Annotated[int, Bits(u64, 52)]


@union(size=8, source="include/asm-generic/hyperv-tlfs.h:396 @6.1.192", align=8)
class HvSynicSiefp(Union):
    """The event flags page register."""

    __kernel__ = "hv_synic_siefp"

    as_uint64: u64
    siefp_enabled: Annotated[int, Bits(u64, 1)]
    preserved: Annotated[int, Bits(u64, 11)]
    base_siefp_gpa: Annotated[int, Bits(u64, 52)]
