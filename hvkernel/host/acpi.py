"""The ACPI tables of the virtual machine, as bytes.

Identities, revisions, sizes and the order of tables are those of published boot logs of Hyper-V VMs. With UEFI: tables
of ``VRTUAL MICROSFT``, DSDT of ``MSFTVM DSDT01``, FADT of 276 bytes, MADT revision 4. With the BIOS of generation 1:
the tables of ACPI 1.0, found through an RSDT. Left out are OEM0, OEMB and SLIC (their contents are not published),
BGRT, FPDT and DBG2, which carry nothing for the bus. The DSDT holds what a guest needs to find the
VMBus: the bus device and the module device (generation 2) or PCI root (generation 1) whose ``_CRS`` has the MMIO
windows. A real one holds some hundred devices more; that is a simplification of this model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import pack, pack_into
from typing import Final

from hvkernel.abi.acpi import (
    ACPI_SRAT_MEM_ENABLED,
    ACPI_SRAT_MEM_HOT_PLUGGABLE,
    AcpiSratMemAffinity,
    AcpiSratType,
    AcpiSubtableHeader,
    AcpiTableFadt,
    AcpiTableHeader,
    AcpiTableRsdp,
    checksum,
)
from hvkernel.api.host.arch import ArchHost, FirmwareShape
from hvkernel.host import aml

__all__ = ["Acpi", "Maker", "Style", "bios_style", "build_tables", "fadt", "header", "rsdp", "rsdp_1", "rsdt", "xsdt"]

_OEM: Final = b"VRTUAL"
_TABLE_ID: Final = b"MICROSFT"
_CREATOR: Final = b"MSFT"

HYPERVISOR_ID: Final = int.from_bytes(b"MsHyperV", "little")
"""FADT hypervisor_id (arch/arm64/hyperv/mshyperv.c: hyperv_init)."""


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made a table, as its header says."""

    oem: bytes = _OEM
    table_id: bytes = _TABLE_ID
    revision: int = 1
    creator: bytes = _CREATOR
    creator_revision: int = 1


def header(signature: bytes, revision: int, body: bytes, maker: Maker = Maker()) -> bytes:
    """Return a table: the 36-byte header (struct acpi_table_header) and ``body``, with its checksum."""
    size = AcpiTableHeader.SIZE + len(body)
    table_id = maker.table_id.ljust(8, b"\0")
    made = (maker.oem, table_id, maker.revision, maker.creator, maker.creator_revision)
    table = bytearray(AcpiTableHeader(signature, size, revision, 0, *made).pack())
    table += body
    table[9] = checksum(bytes(table))
    return bytes(table)


@dataclass(frozen=True, slots=True)
class Style:
    """What differs between the tables of UEFI and those of the BIOS. The defaults are UEFI's."""

    maker: Maker = Maker()
    dsdt_maker: Maker = Maker(b"MSFTVM", b"DSDT01", 1, _CREATOR, 0x0500_0000)
    dsdt_revision: int = 2
    madt_revision: int = 4
    fadt_revision: int = 6
    fadt_size: int = AcpiTableFadt.SIZE


def bios_style(date: str) -> Style:
    """Return the style of generation 1's BIOS.

    :param date: of the BIOS, ``MM/DD/YYYY``. The tables carry it as revision: ``12001807`` in logs of 12/07/2018.
    """
    month, day, year = date.split("/")
    made = Maker(revision=int(f"{month}00{year[2:]}{day}", 16), creator_revision=0x97)
    return Style(made, Maker(b"MSFTVM", b"MSFTVM02", 2, b"INTL", 0x0200_2026), 1, 1, 2, 129)


@dataclass(frozen=True, slots=True)
class Acpi:
    """Where the tables lie in guest memory, and what they are."""

    rsdp: int
    """Address of the root pointer."""
    tables: Mapping[bytes, tuple[int, bytes]]
    """Signature to address and contents."""

    def table(self, signature: bytes) -> bytes:
        """Return the contents of one table.

        :raises KeyError: there is none.
        """
        return self.tables[signature][1]


def _address(number: int) -> bytes:
    return aml.name("_ADR", aml.number(number))


def _ide() -> bytes:
    """The PIIX IDE function, its channels and their drives.

    Guests of generation 1 see the ISA bridge as the eighth device without a _HID and the VMBus as the second of its
    name (``PNP0A03:00/device:07/VMBUS:01``, observed in logs 04 and 10). What the seven and the other one are is
    *unspecified*: an IDE function with two channels of two drives is seven, and a VMBus device that is not present
    is taken for the other.
    """
    drives = [aml.device(f"DRV{number}", _address(number)) for number in range(2)]
    channels = [aml.device(f"CHN{number}", _address(number), *drives) for number in range(2)]
    return aml.device("IDE0", _address(0x0007_0001), *channels)


def _dsdt(
    generation: int, low: tuple[int, int], high: tuple[int, int], interrupts: Sequence[int], style: Style
) -> bytes:
    windows = aml.resources(aml.dword_memory(*low), aml.qword_memory(*high))
    crs = aml.name("_CRS", aml.resources(*((aml.interrupt(*interrupts),) if interrupts else ())))
    vmbus = (
        aml.name("_HID", aml.text("VMBUS")),
        aml.name("_UID", aml.number(0)),
        aml.name("_DDN", aml.text("VMBUS")),
        aml.name("_STA", aml.number(0xF)),
        crs,
    )
    if generation == 1:
        absent = aml.device("VMB8", aml.name("_HID", aml.text("VMBUS")), aml.name("_STA", aml.number(0)))
        bridge = aml.device("SBRG", _address(0x0007_0000), absent, aml.device("VMBS", *vmbus))
        root = (aml.name("_HID", aml.eisa_id("PNP0A03")), _address(0), aml.name("_CRS", windows))
        body = aml.scope("\\_SB", aml.device("PCI0", *root, _ide(), bridge))
    else:
        module = (aml.name("_HID", aml.text("ACPI0004")), aml.name("_UID", aml.number(0)), aml.name("_CRS", windows))
        body = aml.scope("\\_SB", aml.device("VMOD", *module, aml.device("VMBS", *vmbus)))
    return header(b"DSDT", style.dsdt_revision, body, style.dsdt_maker)


def _fadt(fields: Mapping[str, int], style: Style) -> bytes:
    body = bytearray(AcpiTableFadt.SIZE)
    for name, value in fields.items():
        field = AcpiTableFadt.field(name)
        body[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return header(b"FACP", style.fadt_revision, bytes(body[AcpiTableHeader.SIZE : style.fadt_size]), style.maker)


def _srat(arch: ArchHost, shape: FirmwareShape, memory: Sequence[tuple[int, int, int]]) -> bytes:
    body = pack("<IQ", 1, 0)  # table revision, reserved
    for uid, (hw_id, node) in enumerate(shape.processors, 1):
        body += arch.srat_processor(hw_id, uid, node)
    for start, size, node in memory:
        # Enabled and hot-pluggable, as every log has it (struct acpi_srat_mem_affinity).
        kind = AcpiSubtableHeader(AcpiSratType.ACPI_SRAT_TYPE_MEMORY_AFFINITY, AcpiSratMemAffinity.SIZE)
        flags = ACPI_SRAT_MEM_ENABLED | ACPI_SRAT_MEM_HOT_PLUGGABLE
        body += AcpiSratMemAffinity(kind, node, 0, start, size, 0, flags, 0).pack()
    return header(b"SRAT", arch.srat_revision, body)


def build_tables(
    arch: ArchHost,
    shape: FirmwareShape,
    memory: Sequence[tuple[int, int, int]],
    high_mmio: tuple[int, int],
    style: Style,
) -> list[tuple[bytes, bytes]]:
    """Return the tables that do not name addresses, in the order in which they are laid out.

    :param memory: ``(start, size, node)`` of RAM and of the ranges into which memory could be added.
    """
    facs = bytearray(64)
    pack_into("<4sI", facs, 0, b"FACS", 64)
    facs[32] = 2
    tables = [
        (b"FACS", bytes(facs)),
        (b"DSDT", _dsdt(shape.generation, shape.low_mmio, high_mmio, arch.vmbus_interrupts, style)),
        (b"SRAT", _srat(arch, shape, memory)),
        (b"APIC", header(b"APIC", style.madt_revision, arch.madt(shape), style.maker)),
    ]
    tables += [(name, header(name, *table, style.maker)) for name, table in arch.extra_tables().items()]
    return tables


def fadt(arch: ArchHost, generation: int, dsdt: int, facs: int, style: Style) -> bytes:
    """Return the FADT, which names the addresses of DSDT and FACS."""
    fields = {"minor_revision": 0, "hypervisor_id": HYPERVISOR_ID, **arch.fadt_fields(generation)}
    return _fadt({**fields, "dsdt": dsdt, "Xdsdt": dsdt, "facs": facs, "Xfacs": facs}, style)


def xsdt(addresses: Sequence[int]) -> bytes:
    """Return the XSDT."""
    return header(b"XSDT", 1, pack(f"<{len(addresses)}Q", *addresses))


def rsdp(xsdt_address: int) -> bytes:
    """Return the root pointer of ACPI 2.0 and later (struct acpi_table_rsdp)."""
    root = AcpiTableRsdp(b"RSD PTR ", 0, _OEM, 2, 0, AcpiTableRsdp.SIZE, xsdt_address, 0, bytes(3))
    data = bytearray(root.pack())
    data[8] = checksum(bytes(data[:20]))
    data[32] = checksum(bytes(data))
    return bytes(data)


def rsdt(addresses: Sequence[int], style: Style) -> bytes:
    """Return the RSDT."""
    return header(b"RSDT", 1, pack(f"<{len(addresses)}I", *addresses), style.maker)


def rsdp_1(rsdt_address: int) -> bytes:
    """Return the root pointer of ACPI 1.0: the first 20 bytes of the later one."""
    root = AcpiTableRsdp(b"RSD PTR ", 0, b"ACPIAM", 0, rsdt_address, 0, 0, 0, bytes(3))
    data = bytearray(root.pack()[:20])
    data[8] = checksum(bytes(data))
    return bytes(data)
