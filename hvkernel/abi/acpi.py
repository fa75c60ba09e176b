"""ACPI tables that the host writes and the guest reads, under the names of include/acpi/actbl*.h.

Tables are packed and little-endian. The DSDT's AML is not modelled; what it would say is firmware data of the
machine. Signatures are four ASCII bytes (`ACPI_SIG_MADT` and so on); `checksum` computes the byte that makes a
table add up to 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hvkernel.abi.wire import Wire, u8, u16, u32, u64, wire

ACPI_FADT_LEGACY_DEVICES: Final = 1
"""FADT boot_flags: there are LPC or ISA devices. (include/acpi/actbl.h:260 @6.1.192)"""
ACPI_FADT_8042: Final = 1 << 1
"""FADT boot_flags: there is a keyboard controller at port 0x60. (include/acpi/actbl.h:261 @6.1.192)"""
ACPI_FADT_NO_VGA: Final = 1 << 2
"""FADT boot_flags: do not look for VGA. (include/acpi/actbl.h:262 @6.1.192)"""
ACPI_FADT_NO_CMOS_RTC: Final = 1 << 5
"""FADT boot_flags: no CMOS clock. (include/acpi/actbl.h:265 @6.1.192)"""
ACPI_FADT_PSCI_COMPLIANT: Final = 1
"""FADT arm_boot_flags: PSCI is there. (include/acpi/actbl.h:271 @6.1.192)"""
ACPI_FADT_PSCI_USE_HVC: Final = 1 << 1
"""FADT arm_boot_flags: call it by HVC instead of SMC. (include/acpi/actbl.h:272 @6.1.192)"""
ACPI_FADT_WBINVD: Final = 1
"""FADT flags: WBINVD works. (include/acpi/actbl.h:276 @6.1.192)"""
ACPI_FADT_POWER_BUTTON: Final = 1 << 4
"""FADT flags: the power button is a device. (include/acpi/actbl.h:280 @6.1.192)"""
ACPI_FADT_SLEEP_BUTTON: Final = 1 << 5
"""FADT flags: the sleep button is a device. (include/acpi/actbl.h:281 @6.1.192)"""
ACPI_FADT_32BIT_TIMER: Final = 1 << 8
"""FADT flags: the timer has 32 bits. (include/acpi/actbl.h:284 @6.1.192)"""
ACPI_FADT_RESET_REGISTER: Final = 1 << 10
"""FADT flags: reset_register works. (include/acpi/actbl.h:286 @6.1.192)"""
ACPI_FADT_APIC_PHYSICAL: Final = 1 << 19
"""FADT flags: use physical destination mode. (include/acpi/actbl.h:295 @6.1.192)"""
ACPI_FADT_HW_REDUCED: Final = 1 << 20
"""FADT flags: no ACPI hardware (Generation 2, arm64). (include/acpi/actbl.h:296 @6.1.192)"""
ACPI_MADT_PCAT_COMPAT: Final = 1
"""MADT flags: there is a pair of 8259s too. (include/acpi/actbl2.h:841 @6.1.192)"""
ACPI_MADT_ENABLED: Final = 1
"""Processor flags: there and usable. (include/acpi/actbl2.h:1111 @6.1.192)"""
ACPI_MADT_ONLINE_CAPABLE: Final = 2
"""Processor flags: may be enabled later. (include/acpi/actbl2.h:1112 @6.1.192)"""
ACPI_SRAT_CPU_ENABLED: Final = 1
"""SRAT processor flags: valid. (include/acpi/actbl3.h:251 @6.1.192)"""
ACPI_SRAT_MEM_ENABLED: Final = 1
"""SRAT memory flags: valid. (include/acpi/actbl3.h:233 @6.1.192)"""
ACPI_SRAT_MEM_HOT_PLUGGABLE: Final = 1 << 1
"""SRAT memory flags: may be plugged. (include/acpi/actbl3.h:234 @6.1.192)"""
ACPI_SRAT_GICC_ENABLED: Final = 1
"""SRAT GICC flags: valid. (include/acpi/actbl3.h:265 @6.1.192)"""
ACPI_GTDT_INTERRUPT_MODE: Final = 1
"""GTDT timer flags: edge triggered. (include/acpi/actbl1.h:1110 @6.1.192)"""
ACPI_GTDT_INTERRUPT_POLARITY: Final = 1 << 1
"""GTDT timer flags: active low. (include/acpi/actbl1.h:1111 @6.1.192)"""
ACPI_GTDT_ALWAYS_ON: Final = 1 << 2
"""GTDT timer flags: runs in every power state. (include/acpi/actbl1.h:1112 @6.1.192)"""
ACPI_SIG_RSDP: Final = b"RSD PTR "
"""Signature of the RSDP. (include/acpi/actbl.h:36 @6.1.192)"""
ACPI_SIG_RSDT: Final = b"RSDT"
"""Signature of the RSDT. (include/acpi/actbl.h:37 @6.1.192)"""
ACPI_SIG_XSDT: Final = b"XSDT"
"""Signature of the XSDT. (include/acpi/actbl.h:38 @6.1.192)"""
ACPI_SIG_FADT: Final = b"FACP"
"""Signature of the FADT. (include/acpi/actbl.h:32 @6.1.192)"""
ACPI_SIG_DSDT: Final = b"DSDT"
"""Signature of the DSDT. (include/acpi/actbl.h:31 @6.1.192)"""
ACPI_SIG_GTDT: Final = b"GTDT"
"""Signature of the GTDT. (include/acpi/actbl1.h:43 @6.1.192)"""
ACPI_SIG_MADT: Final = b"APIC"
"""Signature of the MADT. (include/acpi/actbl2.h:33 @6.1.192)"""
ACPI_SIG_SRAT: Final = b"SRAT"
"""Signature of the SRAT. (include/acpi/actbl3.h:31 @6.1.192)"""


class AcpiMadtType(IntEnum):
    """Types of MADT entries.

    Source: include/acpi/actbl2.h:850 @6.1.192
    """

    ACPI_MADT_TYPE_LOCAL_APIC = 0
    ACPI_MADT_TYPE_IO_APIC = 1
    ACPI_MADT_TYPE_INTERRUPT_OVERRIDE = 2
    ACPI_MADT_TYPE_NMI_SOURCE = 3
    ACPI_MADT_TYPE_LOCAL_APIC_NMI = 4
    ACPI_MADT_TYPE_LOCAL_APIC_OVERRIDE = 5
    ACPI_MADT_TYPE_IO_SAPIC = 6
    ACPI_MADT_TYPE_LOCAL_SAPIC = 7
    ACPI_MADT_TYPE_INTERRUPT_SOURCE = 8
    ACPI_MADT_TYPE_LOCAL_X2APIC = 9
    ACPI_MADT_TYPE_LOCAL_X2APIC_NMI = 10
    ACPI_MADT_TYPE_GENERIC_INTERRUPT = 11
    ACPI_MADT_TYPE_GENERIC_DISTRIBUTOR = 12
    ACPI_MADT_TYPE_GENERIC_MSI_FRAME = 13
    ACPI_MADT_TYPE_GENERIC_REDISTRIBUTOR = 14
    ACPI_MADT_TYPE_GENERIC_TRANSLATOR = 15
    ACPI_MADT_TYPE_MULTIPROC_WAKEUP = 16
    ACPI_MADT_TYPE_RESERVED = 17
    ACPI_MADT_TYPE_OEM_RESERVED = 0x80


class AcpiMadtGicVersion(IntEnum):
    """GIC versions in `AcpiMadtGenericDistributor`.

    Source: include/acpi/actbl2.h:1032 @6.1.192
    """

    ACPI_MADT_GIC_VERSION_NONE = 0
    ACPI_MADT_GIC_VERSION_V1 = 1
    ACPI_MADT_GIC_VERSION_V2 = 2
    ACPI_MADT_GIC_VERSION_V3 = 3
    ACPI_MADT_GIC_VERSION_V4 = 4
    ACPI_MADT_GIC_VERSION_RESERVED = 5


class AcpiSratType(IntEnum):
    """Types of SRAT entries.

    Source: include/acpi/actbl3.h:187 @6.1.192
    """

    ACPI_SRAT_TYPE_CPU_AFFINITY = 0
    ACPI_SRAT_TYPE_MEMORY_AFFINITY = 1
    ACPI_SRAT_TYPE_X2APIC_CPU_AFFINITY = 2
    ACPI_SRAT_TYPE_GICC_AFFINITY = 3
    ACPI_SRAT_TYPE_GIC_ITS_AFFINITY = 4
    ACPI_SRAT_TYPE_GENERIC_AFFINITY = 5
    ACPI_SRAT_TYPE_GENERIC_PORT_AFFINITY = 6
    ACPI_SRAT_TYPE_RESERVED = 7


@wire(size=36, source="include/acpi/actbl.h:68 @6.1.192; ACPI 6.3")
class AcpiTableHeader(Wire):
    """In front of every table but RSDP and FACS. All bytes of a table add up to 0."""

    __kernel__ = "acpi_table_header"

    signature: Annotated[bytes, 4]
    length: u32
    revision: u8
    checksum: u8
    oem_id: Annotated[bytes, 6]
    oem_table_id: Annotated[bytes, 8]
    oem_revision: u32
    asl_compiler_id: Annotated[bytes, 4]
    asl_compiler_revision: u32


@wire(size=12, source="include/acpi/actbl.h:90 @6.1.192; ACPI 6.3")
class AcpiGenericAddress(Wire):
    """A register in memory or I/O space."""

    __kernel__ = "acpi_generic_address"

    space_id: u8
    bit_width: u8
    bit_offset: u8
    access_width: u8
    address: u64


@wire(size=36, source="include/acpi/actbl.h:105 @6.1.192; ACPI 6.3")
class AcpiTableRsdp(Wire):
    """Root pointer, ACPI 2.0 and later: checksum covers the first 20 bytes, extended_checksum all."""

    __kernel__ = "acpi_table_rsdp"

    signature: Annotated[bytes, 8]
    checksum: u8
    oem_id: Annotated[bytes, 6]
    revision: u8
    rsdt_physical_address: u32
    length: u32
    xsdt_physical_address: u64
    extended_checksum: u8
    reserved: Annotated[bytes, 3]


@wire(size=20, source="include/acpi/actbl.h:119 @6.1.192; ACPI 6.3")
class AcpiRsdpCommon(Wire):
    """Root pointer, ACPI 1.0."""

    __kernel__ = "acpi_rsdp_common"

    signature: Annotated[bytes, 8]
    checksum: u8
    oem_id: Annotated[bytes, 6]
    revision: u8
    rsdt_physical_address: u32


@wire(size=40, source="include/acpi/actbl.h:143 @6.1.192; ACPI 6.3")
class AcpiTableRsdt(Wire):
    """Root table with 32-bit addresses; more entries follow the first."""

    __kernel__ = "acpi_table_rsdt"

    header: AcpiTableHeader
    table_offset_entry: Annotated[tuple[int, ...], u32, 1]


@wire(size=44, source="include/acpi/actbl.h:148 @6.1.192; ACPI 6.3")
class AcpiTableXsdt(Wire):
    """Root table with 64-bit addresses; more entries follow the first."""

    __kernel__ = "acpi_table_xsdt"

    header: AcpiTableHeader
    table_offset_entry: Annotated[tuple[int, ...], u64, 1]


@wire(size=276, source="include/acpi/actbl.h:199 @6.1.192; ACPI 6.3")
class AcpiTableFadt(Wire):
    """Fixed description table, ACPI 6."""

    __kernel__ = "acpi_table_fadt"

    header: AcpiTableHeader
    facs: u32
    dsdt: u32
    model: u8
    preferred_profile: u8
    sci_interrupt: u16
    smi_command: u32
    acpi_enable: u8
    acpi_disable: u8
    s4_bios_request: u8
    pstate_control: u8
    pm1a_event_block: u32
    pm1b_event_block: u32
    pm1a_control_block: u32
    pm1b_control_block: u32
    pm2_control_block: u32
    pm_timer_block: u32
    gpe0_block: u32
    gpe1_block: u32
    pm1_event_length: u8
    pm1_control_length: u8
    pm2_control_length: u8
    pm_timer_length: u8
    gpe0_block_length: u8
    gpe1_block_length: u8
    gpe1_base: u8
    cst_control: u8
    c2_latency: u16
    c3_latency: u16
    flush_size: u16
    flush_stride: u16
    duty_offset: u8
    duty_width: u8
    day_alarm: u8
    month_alarm: u8
    century: u8
    boot_flags: u16
    reserved: u8
    flags: u32
    reset_register: AcpiGenericAddress
    reset_value: u8
    arm_boot_flags: u16
    minor_revision: u8
    Xfacs: u64
    Xdsdt: u64
    xpm1a_event_block: AcpiGenericAddress
    xpm1b_event_block: AcpiGenericAddress
    xpm1a_control_block: AcpiGenericAddress
    xpm1b_control_block: AcpiGenericAddress
    xpm2_control_block: AcpiGenericAddress
    xpm_timer_block: AcpiGenericAddress
    xgpe0_block: AcpiGenericAddress
    xgpe1_block: AcpiGenericAddress
    sleep_control: AcpiGenericAddress
    sleep_status: AcpiGenericAddress
    hypervisor_id: u64


@wire(size=2, source="include/acpi/actbl1.h:92 @6.1.192; ACPI 6.3")
class AcpiSubtableHeader(Wire):
    """In front of every entry of a table with entries."""

    __kernel__ = "acpi_subtable_header"

    type: u8
    length: u8


@wire(size=96, source="include/acpi/actbl1.h:1091 @6.1.192; ACPI 6.3")
class AcpiTableGtdt(Wire):
    """Generic timer description table (arm64), revision 2; ACPI 6.3 appends 8 bytes for the EL2 virtual timer."""

    __kernel__ = "acpi_table_gtdt"

    header: AcpiTableHeader
    counter_block_addresss: u64
    reserved: u32
    secure_el1_interrupt: u32
    secure_el1_flags: u32
    non_secure_el1_interrupt: u32
    non_secure_el1_flags: u32
    virtual_timer_interrupt: u32
    virtual_timer_flags: u32
    non_secure_el2_interrupt: u32
    non_secure_el2_flags: u32
    counter_read_block_address: u64
    platform_timer_count: u32
    platform_timer_offset: u32


@wire(size=44, source="include/acpi/actbl2.h:833 @6.1.192; ACPI 6.3")
class AcpiTableMadt(Wire):
    """Interrupt controller table; entries follow."""

    __kernel__ = "acpi_table_madt"

    header: AcpiTableHeader
    address: u32
    flags: u32


@wire(size=8, source="include/acpi/actbl2.h:878 @6.1.192; ACPI 6.3")
class AcpiMadtLocalApic(Wire):
    """A processor by its local APIC."""

    __kernel__ = "acpi_madt_local_apic"

    header: AcpiSubtableHeader
    processor_id: u8
    id: u8
    lapic_flags: u32


@wire(size=12, source="include/acpi/actbl2.h:887 @6.1.192; ACPI 6.3")
class AcpiMadtIoApic(Wire):
    """An I/O APIC."""

    __kernel__ = "acpi_madt_io_apic"

    header: AcpiSubtableHeader
    id: u8
    reserved: u8
    address: u32
    global_irq_base: u32


@wire(size=10, source="include/acpi/actbl2.h:897 @6.1.192; ACPI 6.3")
class AcpiMadtInterruptOverride(Wire):
    """An ISA interrupt that is not wired one to one."""

    __kernel__ = "acpi_madt_interrupt_override"

    header: AcpiSubtableHeader
    bus: u8
    source_irq: u8
    global_irq: u32
    inti_flags: u16


@wire(size=6, source="include/acpi/actbl2.h:915 @6.1.192; ACPI 6.3")
class AcpiMadtLocalApicNmi(Wire):
    """Where NMIs come in."""

    __kernel__ = "acpi_madt_local_apic_nmi"

    header: AcpiSubtableHeader
    processor_id: u8
    inti_flags: u16
    lint: u8


@wire(size=16, source="include/acpi/actbl2.h:972 @6.1.192; ACPI 6.3")
class AcpiMadtLocalX2apic(Wire):
    """A processor whose APIC id does not fit in eight bits."""

    __kernel__ = "acpi_madt_local_x2apic"

    header: AcpiSubtableHeader
    reserved: u16
    local_apic_id: u32
    lapic_flags: u32
    uid: u32


@wire(size=12, source="include/acpi/actbl2.h:982 @6.1.192; ACPI 6.3")
class AcpiMadtLocalX2apicNmi(Wire):
    """Where NMIs come in, for those processors."""

    __kernel__ = "acpi_madt_local_x2apic_nmi"

    header: AcpiSubtableHeader
    inti_flags: u16
    uid: u32
    lint: u8
    reserved: Annotated[bytes, 3]


@wire(size=80, source="include/acpi/actbl2.h:992 @6.1.192; ACPI 6.3")
class AcpiMadtGenericInterrupt(Wire):
    """A processor by its GIC interface (GICC), ACPI 6.3."""

    __kernel__ = "acpi_madt_generic_interrupt"

    header: AcpiSubtableHeader
    reserved: u16
    cpu_interface_number: u32
    uid: u32
    flags: u32
    parking_version: u32
    performance_interrupt: u32
    parked_address: u64
    base_address: u64
    gicv_base_address: u64
    gich_base_address: u64
    vgic_interrupt: u32
    gicr_base_address: u64
    arm_mpidr: u64
    efficiency_class: u8
    reserved2: Annotated[bytes, 1]
    spe_interrupt: u16


@wire(size=24, source="include/acpi/actbl2.h:1020 @6.1.192; ACPI 6.3")
class AcpiMadtGenericDistributor(Wire):
    """The GIC distributor (GICD)."""

    __kernel__ = "acpi_madt_generic_distributor"

    header: AcpiSubtableHeader
    reserved: u16
    gic_id: u32
    base_address: u64
    global_irq_base: u32
    version: u8
    reserved2: Annotated[bytes, 3]


@wire(size=24, source="include/acpi/actbl2.h:1043 @6.1.192; ACPI 6.3")
class AcpiMadtGenericMsiFrame(Wire):
    """A GICv2m frame."""

    __kernel__ = "acpi_madt_generic_msi_frame"

    header: AcpiSubtableHeader
    reserved: u16
    msi_frame_id: u32
    base_address: u64
    flags: u32
    spi_count: u16
    spi_base: u16


@wire(size=16, source="include/acpi/actbl2.h:1059 @6.1.192; ACPI 6.3")
class AcpiMadtGenericRedistributor(Wire):
    """A range of GIC redistributors (GICR)."""

    __kernel__ = "acpi_madt_generic_redistributor"

    header: AcpiSubtableHeader
    reserved: u16
    base_address: u64
    length: u32


@wire(size=20, source="include/acpi/actbl2.h:1068 @6.1.192; ACPI 6.3")
class AcpiMadtGenericTranslator(Wire):
    """A GIC ITS."""

    __kernel__ = "acpi_madt_generic_translator"

    header: AcpiSubtableHeader
    reserved: u16
    translation_id: u32
    base_address: u64
    reserved2: u32


@wire(size=48, source="include/acpi/actbl3.h:179 @6.1.192; ACPI 6.3")
class AcpiTableSrat(Wire):
    """Affinity table; entries follow."""

    __kernel__ = "acpi_table_srat"

    header: AcpiTableHeader
    table_revision: u32
    reserved: u64


@wire(size=16, source="include/acpi/actbl3.h:204 @6.1.192; ACPI 6.3")
class AcpiSratCpuAffinity(Wire):
    """Node of a processor named by its local APIC id."""

    __kernel__ = "acpi_srat_cpu_affinity"

    header: AcpiSubtableHeader
    proximity_domain_lo: u8
    apic_id: u8
    flags: u32
    local_sapic_eid: u8
    proximity_domain_hi: Annotated[bytes, 3]
    clock_domain: u32


@wire(size=40, source="include/acpi/actbl3.h:220 @6.1.192; ACPI 6.3")
class AcpiSratMemAffinity(Wire):
    """Node of a range of memory."""

    __kernel__ = "acpi_srat_mem_affinity"

    header: AcpiSubtableHeader
    proximity_domain: u32
    reserved: u16
    base_address: u64
    length: u64
    reserved1: u32
    flags: u32
    reserved2: u64


@wire(size=24, source="include/acpi/actbl3.h:239 @6.1.192; ACPI 6.3")
class AcpiSratX2apicCpuAffinity(Wire):
    """Node of a processor named by its x2APIC id."""

    __kernel__ = "acpi_srat_x2apic_cpu_affinity"

    header: AcpiSubtableHeader
    reserved: u16
    proximity_domain: u32
    apic_id: u32
    flags: u32
    clock_domain: u32
    reserved2: u32


@wire(size=18, source="include/acpi/actbl3.h:255 @6.1.192; ACPI 6.3")
class AcpiSratGiccAffinity(Wire):
    """Node of a processor named by its ACPI uid (arm64)."""

    __kernel__ = "acpi_srat_gicc_affinity"

    header: AcpiSubtableHeader
    proximity_domain: u32
    acpi_processor_uid: u32
    flags: u32
    clock_domain: u32


def checksum(data: bytes) -> int:
    """Return the byte that makes ``data`` plus itself add up to 0 modulo 256 (ACPI 6.3, 5.2.6)."""
    return -sum(data) & 0xFF
