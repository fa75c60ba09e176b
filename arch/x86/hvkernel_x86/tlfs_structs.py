"""Structs of asm/hyperv-tlfs.h on x86: register contents, VP assist page, MSI, visibility hypercall, GHCB."""

from __future__ import annotations

from typing import Annotated, Final

from hvkernel.abi.tlfs_device import HvDeviceInterruptDescriptor, HvDeviceInterruptTarget, HvIoapicRte
from hvkernel.abi.wire import Bits, Union, Wire, overlay, u8, u16, u32, u64, union, wire

ABI_ARCH: Final = "x86_64"
"""The architecture that ``hvkernel abi`` shows this module for."""


@wire(size=4096, source="arch/x86/include/asm/hyperv-tlfs.h:291 @6.1.192")
class HvGpaRangeForVisibility(Wire):
    """Input of HvCallModifySparseGpaPageHostVisibility."""

    __kernel__ = "hv_gpa_range_for_visibility"

    partition_id: u64
    host_visibility: Annotated[int, Bits(u32, 2)]
    reserved0: Annotated[int, Bits(u32, 30)]
    reserved1: u32
    gpa_page_list: Annotated[tuple[int, ...], u64, 510]


@union(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:302 @6.1.192", align=8)
class HvX64MsrHypercallContents(Union):
    """The hypercall register. TLFS names bit 1 Locked; Linux counts it as reserved."""

    __kernel__ = "hv_x64_msr_hypercall_contents"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 11)]
    guest_physical_address: Annotated[int, Bits(u64, 52)]
    """A page number, in spite of its name."""


@union(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:311 @6.1.192", align=8)
class HvVpAssistMsrContents(Union):
    """The VP assist page register."""

    __kernel__ = "hv_vp_assist_msr_contents"

    as_uint64: u64
    enable: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 11)]
    pfn: Annotated[int, Bits(u64, 52)]


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:320 @6.1.192")
class HvReenlightenmentControl(Wire):
    """The reenlightenment control register."""

    __kernel__ = "hv_reenlightenment_control"

    vector: Annotated[int, Bits(u64, 8)]
    reserved1: Annotated[int, Bits(u64, 8)]
    enabled: Annotated[int, Bits(u64, 1)]
    reserved2: Annotated[int, Bits(u64, 15)]
    target_vp: Annotated[int, Bits(u64, 32)]


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:328 @6.1.192")
class HvTscEmulationControl(Wire):
    """The TSC emulation control register."""

    __kernel__ = "hv_tsc_emulation_control"

    enabled: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 63)]


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:333 @6.1.192")
class HvTscEmulationStatus(Wire):
    """The TSC emulation status register."""

    __kernel__ = "hv_tsc_emulation_status"

    inprogress: Annotated[int, Bits(u64, 1)]
    reserved: Annotated[int, Bits(u64, 63)]


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:363 @6.1.192")
class HvNestedEnlightenmentsControlFeatures(Wire):
    """Features."""

    directhypercall: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 31)]


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:363 @6.1.192")
class HvNestedEnlightenmentsControlHypercallControls(Wire):
    """Reserved."""

    reserved: u32


@wire(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:363 @6.1.192")
class HvNestedEnlightenmentsControl(Wire):
    """What a nested hypervisor lets the outer one do for its guest."""

    __kernel__ = "hv_nested_enlightenments_control"

    features: HvNestedEnlightenmentsControlFeatures
    hypercallControls: HvNestedEnlightenmentsControlHypercallControls


@wire(size=56, source="arch/x86/include/asm/hyperv-tlfs.h:374 @6.1.192")
class HvVpAssistPage(Wire):
    """The VP assist page (HV_VP_ASSIST_PAGE)."""

    __kernel__ = "hv_vp_assist_page"

    apic_assist: u32
    """Bit 0: no EOI is needed for the interrupt in service."""
    reserved1: u32
    vtl_control: Annotated[tuple[int, ...], u64, 3]
    nested_control: HvNestedEnlightenmentsControl
    enlighten_vmentry: u8
    reserved2: Annotated[bytes, 7]
    current_nested_vmcs: u64


@wire(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:606 @6.1.192")
class HvEnlightenmentsControl(Wire):
    """Synthetic controls of a nested AMD guest."""

    __kernel__ = "hv_enlightenments_control"

    nested_flush_hypercall: Annotated[int, Bits(u32, 1)]
    msr_bitmap: Annotated[int, Bits(u32, 1)]
    enlightened_npt_tlb: Annotated[int, Bits(u32, 1)]
    reserved: Annotated[int, Bits(u32, 29)]


@union(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:641 @6.1.192")
class HvMsiAddressRegister(Union):
    """Address of an x86 MSI."""

    __kernel__ = "hv_msi_address_register"

    as_uint32: u32
    reserved1: Annotated[int, Bits(u32, 2)]
    destination_mode: Annotated[int, Bits(u32, 1)]
    redirection_hint: Annotated[int, Bits(u32, 1)]
    reserved2: Annotated[int, Bits(u32, 8)]
    destination_id: Annotated[int, Bits(u32, 8)]
    msi_base: Annotated[int, Bits(u32, 12)]


@union(size=4, source="arch/x86/include/asm/hyperv-tlfs.h:653 @6.1.192")
class HvMsiDataRegister(Union):
    """Data of an x86 MSI."""

    __kernel__ = "hv_msi_data_register"

    as_uint32: u32
    vector: Annotated[int, Bits(u32, 8)]
    delivery_mode: Annotated[int, Bits(u32, 3)]
    reserved1: Annotated[int, Bits(u32, 3)]
    level_assert: Annotated[int, Bits(u32, 1)]
    trigger_mode: Annotated[int, Bits(u32, 1)]
    reserved2: Annotated[int, Bits(u32, 16)]


@union(size=8, source="arch/x86/include/asm/hyperv-tlfs.h:666 @6.1.192", align=8)
class HvMsiEntry(Union):
    """An MSI as the hypervisor sees it."""

    __kernel__ = "hv_msi_entry"

    as_uint64: u64
    address: HvMsiAddressRegister
    data: HvMsiDataRegister = overlay(4)


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:583 @6.1.192")
class HvInterruptEntry(Wire):
    """One interrupt as its source states it; its size follows from this architecture's ``hv_msi_entry``."""

    __kernel__ = "hv_interrupt_entry"

    source: u32
    reserved1: u32
    msi_entry: HvMsiEntry
    ioapic_rte: HvIoapicRte = overlay(8)


@wire(size=64, source="include/asm-generic/hyperv-tlfs.h:607 @6.1.192", align=8)
class HvRetargetDeviceInterrupt(Wire):
    """Input of HvCallRetargetDeviceInterrupt."""

    __kernel__ = "hv_retarget_device_interrupt"

    partition_id: u64
    device_id: u64
    int_entry: HvInterruptEntry
    reserved2: u64
    int_target: HvDeviceInterruptTarget


@wire(size=80, source="include/asm-generic/hyperv-tlfs.h:756 @6.1.192")
class HvInputMapDeviceInterrupt(Wire):
    """Input of HvCallMapDeviceInterrupt."""

    __kernel__ = "hv_input_map_device_interrupt"

    partition_id: u64
    device_id: u64
    flags: u64
    logical_interrupt_entry: HvInterruptEntry
    interrupt_descriptor: HvDeviceInterruptDescriptor


@wire(size=16, source="include/asm-generic/hyperv-tlfs.h:764 @6.1.192")
class HvOutputMapDeviceInterrupt(Wire):
    """Output of HvCallMapDeviceInterrupt."""

    __kernel__ = "hv_output_map_device_interrupt"

    interrupt_entry: HvInterruptEntry


@wire(size=32, source="include/asm-generic/hyperv-tlfs.h:768 @6.1.192")
class HvInputUnmapDeviceInterrupt(Wire):
    """Input of HvCallUnmapDeviceInterrupt."""

    __kernel__ = "hv_input_unmap_device_interrupt"

    partition_id: u64
    device_id: u64
    interrupt_entry: HvInterruptEntry


@union(size=8, source="arch/x86/hyperv/ivm.c:23 @6.1.192")
class HvGhcbHypercallHypercallinput(Union):
    """Its control word."""

    callcode: Annotated[int, Bits(u32, 16)]
    isfast: Annotated[int, Bits(u32, 1)]
    reserved1: Annotated[int, Bits(u32, 14)]
    isnested: Annotated[int, Bits(u32, 1)]
    countofelements: Annotated[int, Bits(u32, 12)] = overlay(4)
    reserved2: Annotated[int, Bits(u32, 4)]
    repstartindex: Annotated[int, Bits(u32, 12)]
    reserved3: Annotated[int, Bits(u32, 4)]
    asuint64: u64


@union(size=8, source="arch/x86/hyperv/ivm.c:23 @6.1.192")
class HvGhcbHypercallHypercalloutput(Union):
    """Its result."""

    callstatus: u16
    reserved1: u16 = overlay(2)
    elementsprocessed: Annotated[int, Bits(u32, 12)] = overlay(4)
    reserved2: Annotated[int, Bits(u32, 20)]
    asunit64: u64


@wire(size=4096, source="arch/x86/hyperv/ivm.c:23 @6.1.192")
class HvGhcbHypercall(Wire):
    """The hypercall."""

    hypercalldata: Annotated[tuple[int, ...], u64, 509]
    outputgpa: u64
    hypercallinput: HvGhcbHypercallHypercallinput
    reserved2: u64
    hypercalloutput: HvGhcbHypercallHypercalloutput = overlay(4080)


@union(size=4096, source="arch/x86/hyperv/ivm.c:23 @6.1.192", align=4096)
class HvGhcb(Union):
    """A GHCB page that holds a hypercall of an SEV-SNP guest."""

    __kernel__ = "hv_ghcb"

    ghcb: Annotated[bytes, 4096]
    hypercall: HvGhcbHypercall


@wire(size=16, source="TLFS HV_X64_SEGMENT_REGISTER")
class HvX64SegmentRegister(Wire):
    """A segment register."""

    base: u64
    limit: u32
    selector: u16
    attributes: u16


@wire(size=16, source="TLFS HV_X64_TABLE_REGISTER")
class HvX64TableRegister(Wire):
    """A descriptor table register."""

    pad: Annotated[tuple[int, ...], u16, 3]
    limit: u16
    base: u64


@wire(size=224, source="TLFS HV_INITIAL_VP_CONTEXT; openvmm vm/hv1/hvdef/src/lib.rs:InitialVpContextX64")
class HvInitialVpContext(Wire):
    """State in which HvCallStartVirtualProcessor starts a VP; follows `HvInputStartVirtualProcessor`."""

    rip: u64
    rsp: u64
    rflags: u64
    cs: HvX64SegmentRegister
    ds: HvX64SegmentRegister
    es: HvX64SegmentRegister
    fs: HvX64SegmentRegister
    gs: HvX64SegmentRegister
    ss: HvX64SegmentRegister
    tr: HvX64SegmentRegister
    ldtr: HvX64SegmentRegister
    idtr: HvX64TableRegister
    gdtr: HvX64TableRegister
    efer: u64
    cr0: u64
    cr3: u64
    cr4: u64
    msr_cr_pat: u64
