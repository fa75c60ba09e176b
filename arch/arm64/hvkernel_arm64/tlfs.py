"""arm64: feature bits, register numbers, MSI. Counterpart of asm/hyperv-tlfs.h.

Registers are reached by HvCallGetVpRegisters and HvCallSetVpRegisters; there is no SVERSION, no SINT above 0
and no timer above 0 in 6.1. A hypercall is ``hvc #0`` with HV_FUNC_ID in x0, the control word in x1 and the
parameters' addresses, or fast parameters, from x2 on.
"""

from __future__ import annotations

from typing import Annotated, Final

from hvkernel.abi.tlfs_device import HvDeviceInterruptDescriptor, HvDeviceInterruptTarget, HvIoapicRte
from hvkernel.abi.wire import Union, Wire, overlay, u32, u64, union, wire

ABI_ARCH: Final = "arm64"
"""The architecture that ``hvkernel abi`` shows this module for."""

HV_REGISTER_HYPERVISOR_VERSION: Final = 0x100
"""Register: what CPUID leaf 0x40000002 says on x86. (arch/arm64/include/asm/hyperv-tlfs.h:28 @6.1.192)"""
HV_REGISTER_FEATURES: Final = 0x200
"""Register: what CPUID leaf 0x40000003 says on x86. (arch/arm64/include/asm/hyperv-tlfs.h:29 @6.1.192)"""
HV_REGISTER_ENLIGHTENMENTS: Final = 0x201
"""Register: what CPUID leaf 0x40000004 says on x86. (arch/arm64/include/asm/hyperv-tlfs.h:30 @6.1.192)"""
HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE: Final = 1 << 8
"""Features: the crash registers; features D on x86, C on arm64. (arch/arm64/include/asm/hyperv-tlfs.h:38 @6.1.192)"""
HV_STIMER_DIRECT_MODE_AVAILABLE: Final = 1 << 13
"""Features: synthetic timers may raise a vector directly; features D on x86, C on arm64.

Source: arch/arm64/include/asm/hyperv-tlfs.h:41 @6.1.192
"""
HV_REGISTER_CRASH_P0: Final = 0x210
"""Register: crash parameter 0. (arch/arm64/include/asm/hyperv-tlfs.h:46 @6.1.192)"""
HV_REGISTER_CRASH_P1: Final = 0x211
"""Register: crash parameter 1. (arch/arm64/include/asm/hyperv-tlfs.h:47 @6.1.192)"""
HV_REGISTER_CRASH_P2: Final = 0x212
"""Register: crash parameter 2. (arch/arm64/include/asm/hyperv-tlfs.h:48 @6.1.192)"""
HV_REGISTER_CRASH_P3: Final = 0x213
"""Register: crash parameter 3. (arch/arm64/include/asm/hyperv-tlfs.h:49 @6.1.192)"""
HV_REGISTER_CRASH_P4: Final = 0x214
"""Register: crash parameter 4. (arch/arm64/include/asm/hyperv-tlfs.h:50 @6.1.192)"""
HV_REGISTER_CRASH_CTL: Final = 0x215
"""Register: crash control. (arch/arm64/include/asm/hyperv-tlfs.h:51 @6.1.192)"""
HV_REGISTER_GUEST_OSID: Final = 0x0009_0002
"""Register: who the guest is. (arch/arm64/include/asm/hyperv-tlfs.h:53 @6.1.192)"""
HV_REGISTER_VP_INDEX: Final = 0x0009_0003
"""Register: the VP's index. (arch/arm64/include/asm/hyperv-tlfs.h:54 @6.1.192)"""
HV_REGISTER_TIME_REF_COUNT: Final = 0x0009_0004
"""Register: reference time in 100 ns. (arch/arm64/include/asm/hyperv-tlfs.h:55 @6.1.192)"""
HV_REGISTER_REFERENCE_TSC: Final = 0x0009_0017
"""Register: where the guest wants the reference TSC page. (arch/arm64/include/asm/hyperv-tlfs.h:56 @6.1.192)"""
HV_REGISTER_SINT0: Final = 0x000A_0000
"""Register: synthetic interrupt source 0. (arch/arm64/include/asm/hyperv-tlfs.h:58 @6.1.192)"""
HV_REGISTER_SCONTROL: Final = 0x000A_0010
"""Register: SynIC control. (arch/arm64/include/asm/hyperv-tlfs.h:59 @6.1.192)"""
HV_REGISTER_SIEFP: Final = 0x000A_0012
"""Register: where the guest wants the event flags page. (arch/arm64/include/asm/hyperv-tlfs.h:60 @6.1.192)"""
HV_REGISTER_SIMP: Final = 0x000A_0013
"""Register: where the guest wants the message page. (arch/arm64/include/asm/hyperv-tlfs.h:61 @6.1.192)"""
HV_REGISTER_EOM: Final = 0x000A_0014
"""Register: writing it says that a message slot was freed while msg_pending was set.

Source: arch/arm64/include/asm/hyperv-tlfs.h:62 @6.1.192
"""
HV_REGISTER_STIMER0_CONFIG: Final = 0x000B_0000
"""Register: configuration of synthetic timer 0. (arch/arm64/include/asm/hyperv-tlfs.h:64 @6.1.192)"""
HV_REGISTER_STIMER0_COUNT: Final = 0x000B_0001
"""Register: expiry or period of synthetic timer 0, in 100 ns. (arch/arm64/include/asm/hyperv-tlfs.h:65 @6.1.192)"""


HV_FUNC_ID: Final = 0x4600_0001
"""SMCCC function id of a hypercall, in x0. (arch/arm64/include/asm/mshyperv.h:46 @6.1.192)"""
HV_SMCCC_FUNC_NUMBER: Final = 1
"""Function number within it. (arch/arm64/include/asm/mshyperv.h:45 @6.1.192)"""


@union(size=16, source="arch/arm64/include/asm/hyperv-tlfs.h:67 @6.1.192", align=8)
class HvMsiEntry(Union):
    """An MSI as the hypervisor sees it."""

    __kernel__ = "hv_msi_entry"

    as_uint64: Annotated[tuple[int, ...], u64, 2]
    address: u64
    data: u32 = overlay(8)
    reserved: u32 = overlay(12)


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:583 @6.1.192")
class HvInterruptEntry(Wire):
    """One interrupt as its source states it; its size follows from this architecture's ``hv_msi_entry``."""

    __kernel__ = "hv_interrupt_entry"

    source: u32
    reserved1: u32
    msi_entry: HvMsiEntry
    ioapic_rte: HvIoapicRte = overlay(8)


@wire(size=72, source="include/asm-generic/hyperv-tlfs.h:607 @6.1.192", align=8)
class HvRetargetDeviceInterrupt(Wire):
    """Input of HvCallRetargetDeviceInterrupt."""

    __kernel__ = "hv_retarget_device_interrupt"

    partition_id: u64
    device_id: u64
    int_entry: HvInterruptEntry
    reserved2: u64
    int_target: HvDeviceInterruptTarget


@wire(size=88, source="include/asm-generic/hyperv-tlfs.h:756 @6.1.192")
class HvInputMapDeviceInterrupt(Wire):
    """Input of HvCallMapDeviceInterrupt."""

    __kernel__ = "hv_input_map_device_interrupt"

    partition_id: u64
    device_id: u64
    flags: u64
    logical_interrupt_entry: HvInterruptEntry
    interrupt_descriptor: HvDeviceInterruptDescriptor


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:764 @6.1.192")
class HvOutputMapDeviceInterrupt(Wire):
    """Output of HvCallMapDeviceInterrupt."""

    __kernel__ = "hv_output_map_device_interrupt"

    interrupt_entry: HvInterruptEntry


@wire(size=40, source="include/asm-generic/hyperv-tlfs.h:768 @6.1.192")
class HvInputUnmapDeviceInterrupt(Wire):
    """Input of HvCallUnmapDeviceInterrupt."""

    __kernel__ = "hv_input_unmap_device_interrupt"

    partition_id: u64
    device_id: u64
    interrupt_entry: HvInterruptEntry


@wire(size=72, source="TLFS HV_INITIAL_VP_CONTEXT; openvmm vm/hv1/hvdef/src/lib.rs:InitialVpContextArm64")
class HvInitialVpContext(Wire):
    """State in which HvCallStartVirtualProcessor starts a VP; follows `HvInputStartVirtualProcessor`."""

    pc: u64
    sp_elh: u64
    sctlr_el1: u64
    mair_el1: u64
    tcr_el1: u64
    vbar_el1: u64
    ttbr0_el1: u64
    ttbr1_el1: u64
    x18: u64
