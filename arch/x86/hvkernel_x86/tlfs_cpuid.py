"""CPUID leaves bit by bit, under the TLFS's names, beyond what Linux 6.1 looks at.

Features A and B are `~hvkernel.abi.tlfs_codes.HvPartitionPrivilege`, the version leaf is
`~hvkernel.abi.tlfs_codes.HvHypervisorVersionInfo`. Bits under the kernel's names are in `hvkernel_x86.tlfs`; a test
holds the two equal.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Annotated, Final

from hvkernel.abi.wire import Bits, Wire, u32, wire

ABI_ARCH: Final = "x86_64"
"""The architecture that ``hvkernel abi`` shows this module for."""

HV_CPUID_HARDWARE_FEATURES: Final = 0x4000_0006
"""CPUID leaf: hardware features in use (EAX). (TLFS "Feature and interface discovery"; Linux does not read it)"""
HV_CPUID_VIRT_STACK_VENDOR: Final = 0x4000_0080
"""CPUID leaf: highest leaf of the virtualisation stack (EAX) and its vendor.

Source: openvmm vm/hv1/hvdef/src/lib.rs:VIRTUALIZATION_STACK_CPUID_VENDOR
"""


class HvFeaturesD(IntFlag):
    """CPUID leaf 0x40000003 EDX.

    Source: TLFS "Feature and interface discovery"; openvmm vm/hv1/hvdef/src/lib.rs:HvFeatures
    """

    MwaitAvailable = 1 << 0
    GuestDebuggingAvailable = 1 << 1
    PerformanceMonitorsAvailable = 1 << 2
    CpuDynamicPartitioningAvailable = 1 << 3
    XmmRegistersForFastHypercallAvailable = 1 << 4
    GuestIdleAvailable = 1 << 5
    HypervisorSleepStateSupportAvailable = 1 << 6
    NumaDistanceQueryAvailable = 1 << 7
    FrequencyRegsAvailable = 1 << 8
    SyntheticMachineCheckAvailable = 1 << 9
    GuestCrashRegsAvailable = 1 << 10
    DebugRegsAvailable = 1 << 11
    Npiep1Available = 1 << 12
    DisableHypervisorAvailable = 1 << 13
    ExtendedGvaRangesForFlushVirtualAddressListAvailable = 1 << 14
    FastHypercallOutputAvailable = 1 << 15
    SvmFeaturesAvailable = 1 << 16
    SintPollingModeAvailable = 1 << 17
    HypercallMsrLockAvailable = 1 << 18
    DirectSyntheticTimers = 1 << 19
    RegisterPatAvailable = 1 << 20
    RegisterBndcfgsAvailable = 1 << 21
    WatchdogTimerAvailable = 1 << 22
    SyntheticTimeUnhaltedTimerAvailable = 1 << 23
    LbrAvailable = 1 << 26
    IptAvailable = 1 << 27
    CrossVtlFlushAvailable = 1 << 28
    IdleSpecCtrlAvailable = 1 << 29
    TranslateGvaFlagsAvailable = 1 << 30
    ApicEoiInterceptAvailable = 1 << 31


class HvEnlightenmentRecommendation(IntFlag):
    """CPUID leaf 0x40000004 EAX.

    Source: TLFS "Feature and interface discovery"; openvmm vm/hv1/hvdef/src/lib.rs:HvEnlightenmentInformation
    """

    UseHypercallForAddressSpaceSwitch = 1 << 0
    UseHypercallForLocalFlush = 1 << 1
    UseHypercallForRemoteFlushAndLocalFlushEntire = 1 << 2
    UseApicMsrs = 1 << 3
    UseHvRegisterForReset = 1 << 4
    UseRelaxedTiming = 1 << 5
    UseDmaRemapping = 1 << 6
    UseInterruptRemapping = 1 << 7
    UseX2ApicMsrs = 1 << 8
    DeprecateAutoEoi = 1 << 9
    UseSyntheticClusterIpi = 1 << 10
    UseExProcessorMasks = 1 << 11
    Nested = 1 << 12
    UseIntForMbecSystemCalls = 1 << 13
    UseVmcsEnlightenments = 1 << 14
    UseSyncedTimeline = 1 << 15
    CoreSchedulerRequested = 1 << 16
    UseDirectLocalFlushEntire = 1 << 17
    NoNonArchitecturalCoreSharing = 1 << 18
    UseX2Apic = 1 << 19
    RestoreTimeOnResume = 1 << 20
    UseHypercallForMmioAccess = 1 << 21
    UseGpaPinningHypercall = 1 << 22
    WakeVps = 1 << 23


class HvHardwareFeature(IntFlag):
    """CPUID leaf 0x40000006 EAX, without the hypervisor level in bits 13:10.

    Source: TLFS "Feature and interface discovery"; openvmm vm/hv1/hvdef/src/lib.rs:HvHardwareFeatures
    """

    ApicOverlayAssistInUse = 1 << 0
    MsrBitmapsInUse = 1 << 1
    ArchitecturalPerformanceCountersInUse = 1 << 2
    SecondLevelAddressTranslationInUse = 1 << 3
    DmaRemappingInUse = 1 << 4
    InterruptRemappingInUse = 1 << 5
    MemoryPatrolScrubberPresent = 1 << 6
    DmaProtectionInUse = 1 << 7
    HpetRequested = 1 << 8
    SyntheticTimersVolatile = 1 << 9


class HvVirtStackProperty(IntFlag):
    """CPUID leaf 0x40000082 EAX.

    Source: openvmm vm/hv1/hvdef/src/lib.rs:VS1_PARTITION_PROPERTIES_EAX_IS_PORTABLE
    """

    IsPortable = 1 << 0
    DebugDevicePresent = 1 << 1
    ExtendedIoapicRte = 1 << 2


@wire(size=16, source="TLFS HV_ISOLATION_CONFIGURATION; openvmm vm/hv1/hvdef/src/lib.rs:HvIsolationConfiguration")
class HvIsolationConfiguration(Wire):
    """CPUID leaf 0x4000000C, EAX to EDX."""

    paravisor_present: Annotated[int, Bits(u32, 1)]
    reserved0: Annotated[int, Bits(u32, 31)]
    isolation_type: Annotated[int, Bits(u32, 4)]
    """An `~hvkernel_x86.tlfs.HvIsolationType`; 3, unknown to 6.1, is TDX."""
    reserved11: Annotated[int, Bits(u32, 1)]
    shared_gpa_boundary_active: Annotated[int, Bits(u32, 1)]
    shared_gpa_boundary_bits: Annotated[int, Bits(u32, 6)]
    """Address bit at which shared memory begins."""
    reserved12: Annotated[int, Bits(u32, 20)]
    reserved2: u32
    reserved3: u32
