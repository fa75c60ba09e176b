"""What the TLFS numbers and names beyond what Linux 6.1 uses: status and call codes, privileges, register names.

Names are the TLFS's own. Where Linux has a number too, it is in `hvkernel.abi.tlfs_features` or
`hvkernel.abi.tlfs_hypercall` under the kernel's name; a test holds the two equal.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated

from hvkernel.abi.wire import Bits, Union, Wire, overlay, u8, u16, u32, u64, union, wire


class HvStatus(IntEnum):
    """HV_STATUS: what a hypercall returns in the low 16 bits of its result.

    Source: TLFS appendix "Hypercall status codes"
    """

    HV_STATUS_SUCCESS = 0x0
    HV_STATUS_INVALID_HYPERCALL_CODE = 0x2
    HV_STATUS_INVALID_HYPERCALL_INPUT = 0x3
    HV_STATUS_INVALID_ALIGNMENT = 0x4
    HV_STATUS_INVALID_PARAMETER = 0x5
    HV_STATUS_ACCESS_DENIED = 0x6
    HV_STATUS_INVALID_PARTITION_STATE = 0x7
    HV_STATUS_OPERATION_DENIED = 0x8
    HV_STATUS_UNKNOWN_PROPERTY = 0x9
    HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE = 0xA
    HV_STATUS_INSUFFICIENT_MEMORY = 0xB
    HV_STATUS_PARTITION_TOO_DEEP = 0xC
    HV_STATUS_INVALID_PARTITION_ID = 0xD
    HV_STATUS_INVALID_VP_INDEX = 0xE
    HV_STATUS_NOT_FOUND = 0x10
    HV_STATUS_INVALID_PORT_ID = 0x11
    HV_STATUS_INVALID_CONNECTION_ID = 0x12
    HV_STATUS_INSUFFICIENT_BUFFERS = 0x13
    HV_STATUS_NOT_ACKNOWLEDGED = 0x14
    HV_STATUS_INVALID_VP_STATE = 0x15
    HV_STATUS_ACKNOWLEDGED = 0x16
    HV_STATUS_INVALID_SAVE_RESTORE_STATE = 0x17
    HV_STATUS_INVALID_SYNIC_STATE = 0x18
    HV_STATUS_OBJECT_IN_USE = 0x19
    HV_STATUS_INVALID_PROXIMITY_DOMAIN_INFO = 0x1A
    HV_STATUS_NO_DATA = 0x1B
    HV_STATUS_INACTIVE = 0x1C
    HV_STATUS_NO_RESOURCES = 0x1D
    HV_STATUS_FEATURE_UNAVAILABLE = 0x1E
    HV_STATUS_PARTIAL_PACKET = 0x1F
    HV_STATUS_INSUFFICIENT_BUFFER = 0x33
    HV_STATUS_INVALID_LP_INDEX = 0x41
    HV_STATUS_INVALID_REGISTER_VALUE = 0x50
    HV_STATUS_INVALID_VTL_STATE = 0x51
    HV_STATUS_NX_NOT_DETECTED = 0x55
    HV_STATUS_INVALID_DEVICE_ID = 0x57
    HV_STATUS_INVALID_DEVICE_STATE = 0x58
    HV_STATUS_OPERATION_FAILED = 0x71
    HV_STATUS_TIMEOUT = 0x78


class HvCallCode(IntEnum):
    """HV_CALL_CODE: the hypercalls that a guest may meet, in the low 16 bits of the control word.

    Source: TLFS appendix "Hypercall code index"; openvmm vm/hv1/hvdef/src/lib.rs:HypercallCode
    """

    HvCallSwitchVirtualAddressSpace = 0x0001
    HvCallFlushVirtualAddressSpace = 0x0002
    HvCallFlushVirtualAddressList = 0x0003
    HvCallNotifyLongSpinWait = 0x0008
    HvCallSendSyntheticClusterIpi = 0x000B
    HvCallModifyVtlProtectionMask = 0x000C
    HvCallEnablePartitionVtl = 0x000D
    HvCallEnableVpVtl = 0x000F
    HvCallVtlCall = 0x0011
    HvCallVtlReturn = 0x0012
    HvCallFlushVirtualAddressSpaceEx = 0x0013
    HvCallFlushVirtualAddressListEx = 0x0014
    HvCallSendSyntheticClusterIpiEx = 0x0015
    HvCallGetPartitionId = 0x0046
    HvCallDepositMemory = 0x0048
    HvCallCreateVp = 0x004E
    HvCallGetVpRegisters = 0x0050
    HvCallSetVpRegisters = 0x0051
    HvCallTranslateVirtualAddress = 0x0052
    HvCallPostMessage = 0x005C
    HvCallSignalEvent = 0x005D
    HvCallPostDebugData = 0x0069
    HvCallRetrieveDebugData = 0x006A
    HvCallResetDebugSession = 0x006B
    HvCallAddLogicalProcessor = 0x0076
    HvCallMapDeviceInterrupt = 0x007C
    HvCallUnmapDeviceInterrupt = 0x007D
    HvCallRetargetDeviceInterrupt = 0x007E
    HvCallStartVirtualProcessor = 0x0099
    HvCallGetVpIndexFromApicId = 0x009A
    HvCallFlushGuestPhysicalAddressSpace = 0x00AF
    HvCallFlushGuestPhysicalAddressList = 0x00B0
    HvCallAcceptGpaPages = 0x00D9
    HvCallModifySparseGpaPageHostVisibility = 0x00DB
    HvCallMemoryMappedIoRead = 0x0106
    HvCallMemoryMappedIoWrite = 0x0107
    HvExtCallQueryCapabilities = 0x8001
    HvExtCallMemoryHeatHint = 0x8003


class HvPartitionPrivilege(IntFlag):
    """HV_PARTITION_PRIVILEGE_MASK: features A in the low 32 bits, B in the high ones.

    Source: TLFS "Feature and interface discovery", CPUID leaf 0x40000003 EAX and EBX;
    AdjustMessageBuffers from include/asm-generic/hyperv-tlfs.h @6.1.192 (reserved in the TLFS);
    AccessDebugRegs, ConfigureProfiler, AccessVpExitTracing, FastHypercallOutput and
    AccessRootSchedulerReg from openvmm vm/hv1/hvdef/src/lib.rs:HvPartitionPrivilege
    """

    AccessVpRunTimeReg = 1 << 0
    AccessPartitionReferenceCounter = 1 << 1
    AccessSynicRegs = 1 << 2
    AccessSyntheticTimerRegs = 1 << 3
    AccessIntrCtrlRegs = 1 << 4
    AccessHypercallMsrs = 1 << 5
    AccessVpIndex = 1 << 6
    AccessResetReg = 1 << 7
    AccessStatsReg = 1 << 8
    AccessPartitionReferenceTsc = 1 << 9
    AccessGuestIdleReg = 1 << 10
    AccessFrequencyRegs = 1 << 11
    AccessDebugRegs = 1 << 12
    AccessReenlightenmentControls = 1 << 13
    AccessRootSchedulerReg = 1 << 14
    AccessTscInvariantControls = 1 << 15
    CreatePartitions = 1 << 32
    AccessPartitionId = 1 << 33
    AccessMemoryPool = 1 << 34
    AdjustMessageBuffers = 1 << 35
    PostMessages = 1 << 36
    SignalEvents = 1 << 37
    CreatePort = 1 << 38
    ConnectPort = 1 << 39
    AccessStats = 1 << 40
    Debugging = 1 << 43
    CpuManagement = 1 << 44
    ConfigureProfiler = 1 << 45
    AccessVpExitTracing = 1 << 46
    EnableExtendedGvaRangesForFlushVirtualAddressList = 1 << 47
    AccessVsm = 1 << 48
    AccessVpRegisters = 1 << 49
    FastHypercallOutput = 1 << 51
    EnableExtendedHypercalls = 1 << 52
    StartVirtualProcessor = 1 << 53
    Isolation = 1 << 54


class HvRegisterName(IntEnum):
    """HV_REGISTER_NAME: registers by the number that HvCallGetVpRegisters and HvCallSetVpRegisters take.

    On arm64 that is the only way to reach them; on x86 most are MSRs as well, with numbers of their own.

    Source: TLFS "Virtual processor register names"; openvmm vm/hv1/hvdef/src/lib.rs:registers
    """

    HvRegisterHypervisorVersion = 0x00000100
    HvRegisterPrivilegesAndFeaturesInfo = 0x00000200
    HvRegisterFeaturesInfo = 0x00000201
    HvRegisterImplementationLimitsInfo = 0x00000202
    HvRegisterHardwareFeaturesInfo = 0x00000203
    HvRegisterGuestCrashP0 = 0x00000210
    HvRegisterGuestCrashP1 = 0x00000211
    HvRegisterGuestCrashP2 = 0x00000212
    HvRegisterGuestCrashP3 = 0x00000213
    HvRegisterGuestCrashP4 = 0x00000214
    HvRegisterGuestCrashCtl = 0x00000215
    HvRegisterVpRuntime = 0x00090000
    HvRegisterGuestOsId = 0x00090002
    HvRegisterVpIndex = 0x00090003
    HvRegisterTimeRefCount = 0x00090004
    HvRegisterVpAssistPage = 0x00090013
    HvRegisterReferenceTsc = 0x00090017
    HvRegisterReferenceTscSequence = 0x0009001A
    HvRegisterSint0 = 0x000A0000
    HvRegisterSint1 = 0x000A0001
    HvRegisterSint2 = 0x000A0002
    HvRegisterSint3 = 0x000A0003
    HvRegisterSint4 = 0x000A0004
    HvRegisterSint5 = 0x000A0005
    HvRegisterSint6 = 0x000A0006
    HvRegisterSint7 = 0x000A0007
    HvRegisterSint8 = 0x000A0008
    HvRegisterSint9 = 0x000A0009
    HvRegisterSint10 = 0x000A000A
    HvRegisterSint11 = 0x000A000B
    HvRegisterSint12 = 0x000A000C
    HvRegisterSint13 = 0x000A000D
    HvRegisterSint14 = 0x000A000E
    HvRegisterSint15 = 0x000A000F
    HvRegisterScontrol = 0x000A0010
    HvRegisterSversion = 0x000A0011
    HvRegisterSiefp = 0x000A0012
    HvRegisterSimp = 0x000A0013
    HvRegisterEom = 0x000A0014
    HvRegisterStimer0Config = 0x000B0000
    HvRegisterStimer0Count = 0x000B0001
    HvRegisterStimer1Config = 0x000B0002
    HvRegisterStimer1Count = 0x000B0003
    HvRegisterStimer2Config = 0x000B0004
    HvRegisterStimer2Count = 0x000B0005
    HvRegisterStimer3Config = 0x000B0006
    HvRegisterStimer3Count = 0x000B0007


class HvGuestOsOpenSource(IntEnum):
    """OS type of an open source guest, bits 62:56 of its guest OS id.

    Source: TLFS "Establishing the hypercall interface", guest OS identity register
    """

    LINUX = 1
    FREEBSD = 2
    XEN = 3
    ILLUMOS = 4


@union(size=8, source="TLFS HV_HYPERCALL_INPUT; openvmm vm/hv1/hvdef/src/lib.rs:Control")
class HvHypercallInput(Union):
    """A hypercall's control word. Linux counts is_nested as reserved."""

    as_uint64: u64
    call_code: Annotated[int, Bits(u64, 16)]
    is_fast: Annotated[int, Bits(u64, 1)]
    variable_header_size: Annotated[int, Bits(u64, 10)]
    """In 8-byte units."""
    reserved0: Annotated[int, Bits(u64, 4)]
    is_nested: Annotated[int, Bits(u64, 1)]
    rep_count: Annotated[int, Bits(u64, 12)]
    reserved1: Annotated[int, Bits(u64, 4)]
    rep_start_index: Annotated[int, Bits(u64, 12)]
    reserved2: Annotated[int, Bits(u64, 4)]


@union(size=8, source="TLFS HV_HYPERCALL_OUTPUT")
class HvHypercallOutput(Union):
    """A hypercall's result."""

    as_uint64: u64
    call_status: u16
    """An `HvStatus`."""
    reserved1: u16 = overlay(2)
    elements_processed: Annotated[int, Bits(u32, 12)] = overlay(4)
    """Repetitions done, counted from 0 whatever the start index was."""
    reserved2: Annotated[int, Bits(u32, 20)]


@wire(size=8, source="TLFS HvCallSignalEvent; openvmm vm/hv1/hvdef/src/lib.rs:SignalEvent")
class HvInputSignalEvent(Wire):
    """Input of HvCallSignalEvent; Linux 6.1 passes it fast, as one register, and has no struct for it."""

    connection_id: u32
    flag_number: u16
    rsvdz: u16


@wire(size=16, source="TLFS HvCallGetVpIndexFromApicId; openvmm vm/hv1/hvdef/src/lib.rs:GetVpIndexFromApicId")
class HvInputGetVpIndexFromApicId(Wire):
    """Input header of HvCallGetVpIndexFromApicId; 32-bit APIC ids follow, 32-bit VP indices come back."""

    partition_id: u64
    target_vtl: u8
    reserved: Annotated[bytes, 7]


@wire(size=16, source="TLFS HvCallStartVirtualProcessor")
class HvInputStartVirtualProcessor(Wire):
    """Input of HvCallStartVirtualProcessor; the architecture's initial register state follows."""

    partition_id: u64
    vp_index: u32
    target_vtl: u8
    reserved: Annotated[bytes, 3]


@wire(size=16, source="TLFS HV_HYPERVISOR_VERSION_INFO, CPUID leaf 0x40000002")
class HvHypervisorVersionInfo(Wire):
    """The host's version: EAX to EDX of the leaf, low to high half of the arm64 register."""

    build_number: u32
    minor_version: u16
    major_version: u16
    service_pack: u32
    service_number: Annotated[int, Bits(u32, 24)]
    service_branch: Annotated[int, Bits(u32, 8)]
