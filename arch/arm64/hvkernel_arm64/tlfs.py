"""ARMDOC"""

from __future__ import annotations

from typing import Annotated, Final

from hvkernel.abi.tlfs_device import HvDeviceInterruptDescriptor, HvDeviceInterruptTarget, HvIoapicRte
from hvkernel.abi.wire import Union, Wire, overlay, u32, u64, union, wire

HV_REGISTER_HYPERVISOR_VERSION: Final = 0x100
"""HV_REGISTER_HYPERVISOR_VERSION. (arch/arm64/include/asm/hyperv-tlfs.h:28 @6.1.192)"""
HV_REGISTER_FEATURES: Final = 0x200
"""HV_REGISTER_FEATURES. (arch/arm64/include/asm/hyperv-tlfs.h:29 @6.1.192)"""
HV_REGISTER_ENLIGHTENMENTS: Final = 0x201
"""HV_REGISTER_ENLIGHTENMENTS. (arch/arm64/include/asm/hyperv-tlfs.h:30 @6.1.192)"""
HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE: Final = 1 << 10
"""HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE. (arch/arm64/include/asm/hyperv-tlfs.h:38 @6.1.192)"""
HV_STIMER_DIRECT_MODE_AVAILABLE: Final = 1 << 19
"""HV_STIMER_DIRECT_MODE_AVAILABLE. (arch/arm64/include/asm/hyperv-tlfs.h:41 @6.1.192)"""
HV_REGISTER_CRASH_P0: Final = 0x210
"""HV_REGISTER_CRASH_P0. (arch/arm64/include/asm/hyperv-tlfs.h:46 @6.1.192)"""
HV_REGISTER_CRASH_P1: Final = 0x211
"""HV_REGISTER_CRASH_P1. (arch/arm64/include/asm/hyperv-tlfs.h:47 @6.1.192)"""
HV_REGISTER_CRASH_P2: Final = 0x212
"""HV_REGISTER_CRASH_P2. (arch/arm64/include/asm/hyperv-tlfs.h:48 @6.1.192)"""
HV_REGISTER_CRASH_P3: Final = 0x213
"""HV_REGISTER_CRASH_P3. (arch/arm64/include/asm/hyperv-tlfs.h:49 @6.1.192)"""
HV_REGISTER_CRASH_P4: Final = 0x214
"""HV_REGISTER_CRASH_P4. (arch/arm64/include/asm/hyperv-tlfs.h:50 @6.1.192)"""
HV_REGISTER_CRASH_CTL: Final = 0x215
"""HV_REGISTER_CRASH_CTL. (arch/arm64/include/asm/hyperv-tlfs.h:51 @6.1.192)"""
HV_REGISTER_GUEST_OSID: Final = 0x0009_0002
"""HV_REGISTER_GUEST_OSID. (arch/arm64/include/asm/hyperv-tlfs.h:53 @6.1.192)"""
HV_REGISTER_VP_INDEX: Final = 0x0009_0003
"""HV_REGISTER_VP_INDEX. (arch/arm64/include/asm/hyperv-tlfs.h:54 @6.1.192)"""
HV_REGISTER_TIME_REF_COUNT: Final = 0x0009_0004
"""HV_REGISTER_TIME_REF_COUNT. (arch/arm64/include/asm/hyperv-tlfs.h:55 @6.1.192)"""
HV_REGISTER_REFERENCE_TSC: Final = 0x0009_0017
"""HV_REGISTER_REFERENCE_TSC. (arch/arm64/include/asm/hyperv-tlfs.h:56 @6.1.192)"""
HV_REGISTER_SINT0: Final = 0x000A_0000
"""HV_REGISTER_SINT0. (arch/arm64/include/asm/hyperv-tlfs.h:58 @6.1.192)"""
HV_REGISTER_SCONTROL: Final = 0x000A_0010
"""HV_REGISTER_SCONTROL. (arch/arm64/include/asm/hyperv-tlfs.h:59 @6.1.192)"""
HV_REGISTER_SIEFP: Final = 0x000A_0012
"""HV_REGISTER_SIEFP. (arch/arm64/include/asm/hyperv-tlfs.h:60 @6.1.192)"""
HV_REGISTER_SIMP: Final = 0x000A_0013
"""HV_REGISTER_SIMP. (arch/arm64/include/asm/hyperv-tlfs.h:61 @6.1.192)"""
HV_REGISTER_EOM: Final = 0x000A_0014
"""HV_REGISTER_EOM. (arch/arm64/include/asm/hyperv-tlfs.h:62 @6.1.192)"""
HV_REGISTER_STIMER0_CONFIG: Final = 0x000B_0000
"""HV_REGISTER_STIMER0_CONFIG. (arch/arm64/include/asm/hyperv-tlfs.h:64 @6.1.192)"""
HV_REGISTER_STIMER0_COUNT: Final = 0x000B_0001
"""HV_REGISTER_STIMER0_COUNT. (arch/arm64/include/asm/hyperv-tlfs.h:65 @6.1.192)"""


HV_FUNC_ID: Final = 0x4600_0001
"""HV_FUNC_ID. (arch/arm64/include/asm/mshyperv.h:46 @6.1.192)"""
HV_SMCCC_FUNC_NUMBER: Final = 1
"""HV_SMCCC_FUNC_NUMBER. (arch/arm64/include/asm/mshyperv.h:45 @6.1.192)"""


@union(size=16, source="arch/arm64/include/asm/hyperv-tlfs.h:67 @6.1.192", align=8)
class HvMsiEntry(Union):
    """``hv_msi_entry``."""

    __kernel__ = "hv_msi_entry"

    as_uint64: Annotated[tuple[int, ...], u64, 2]
    address: u64
    data: u32 = overlay(8)
    reserved: u32 = overlay(12)


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:583 @6.1.192")
class HvInterruptEntry(Wire):
    """``hv_interrupt_entry``."""

    __kernel__ = "hv_interrupt_entry"

    source: u32
    reserved1: u32
    msi_entry: HvMsiEntry
    ioapic_rte: HvIoapicRte = overlay(8)


@wire(size=72, source="include/asm-generic/hyperv-tlfs.h:607 @6.1.192")
class HvRetargetDeviceInterrupt(Wire):
    """``hv_retarget_device_interrupt``."""

    __kernel__ = "hv_retarget_device_interrupt"

    partition_id: u64
    device_id: u64
    int_entry: HvInterruptEntry
    reserved2: u64
    int_target: HvDeviceInterruptTarget


@wire(size=88, source="include/asm-generic/hyperv-tlfs.h:756 @6.1.192")
class HvInputMapDeviceInterrupt(Wire):
    """``hv_input_map_device_interrupt``."""

    __kernel__ = "hv_input_map_device_interrupt"

    partition_id: u64
    device_id: u64
    flags: u64
    logical_interrupt_entry: HvInterruptEntry
    interrupt_descriptor: HvDeviceInterruptDescriptor


@wire(size=24, source="include/asm-generic/hyperv-tlfs.h:764 @6.1.192")
class HvOutputMapDeviceInterrupt(Wire):
    """``hv_output_map_device_interrupt``."""

    __kernel__ = "hv_output_map_device_interrupt"

    interrupt_entry: HvInterruptEntry


@wire(size=40, source="include/asm-generic/hyperv-tlfs.h:768 @6.1.192")
class HvInputUnmapDeviceInterrupt(Wire):
    """``hv_input_unmap_device_interrupt``."""

    __kernel__ = "hv_input_unmap_device_interrupt"

    partition_id: u64
    device_id: u64
    interrupt_entry: HvInterruptEntry
