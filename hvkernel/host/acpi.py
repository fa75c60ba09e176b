"""The ACPI tables of the virtual machine, as bytes.

Identities, revisions, sizes and the list of tables are those of published boot logs of Hyper-V VMs: RSDP and tables of
``VRTUAL MICROSFT``, DSDT of ``MSFTVM DSDT01``, FADT of 276 bytes, MADT revision 4. Left out are OEM0 (its contents are
not published), BGRT, FPDT and DBG2, which carry nothing for the bus. The DSDT holds what a guest needs to find the
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

__all__ = ["Acpi", "build_tables", "fadt", "header", "rsdp", "xsdt"]

_OEM: Final = b"VRTUAL"
_TABLE_ID: Final = b"MICROSFT"
_CREATOR: Final = b"MSFT"

HYPERVISOR_ID: Final = int.from_bytes(b"MsHyperV", "little")
"""FADT hypervisor_id (arch/arm64/hyperv/mshyperv.c: hyperv_init)."""


def header(
    signature: bytes, revision: int, body: bytes, *, oem: bytes = _OEM, table_id: bytes = _TABLE_ID, creator: int = 1
) -> bytes:
    """Return a table: the 36-byte header (struct acpi_table_header) and ``body``, with its checksum."""
    size = AcpiTableHeader.SIZE + len(body)
    named = AcpiTableHeader(signature, size, revision, 0, oem, table_id.ljust(8, b"\0"), 1, _CREATOR, creator)
    table = bytearray(named.pack())
    table += body
    table[9] = checksum(bytes(table))
    return bytes(table)


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


def _dsdt(generation: int, low: tuple[int, int], high: tuple[int, int], interrupts: Sequence[int]) -> bytes:
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
        bridge = aml.device("SBRG", aml.name("_ADR", aml.number(0x0007_0000)), aml.device("VMBS", *vmbus))
        root = (aml.name("_HID", aml.eisa_id("PNP0A03")), aml.name("_ADR", aml.number(0)), aml.name("_CRS", windows))
        body = aml.scope("\\_SB", aml.device("PCI0", *root, bridge))
    else:
        module = (aml.name("_HID", aml.text("ACPI0004")), aml.name("_UID", aml.number(0)), aml.name("_CRS", windows))
        body = aml.scope("\\_SB", aml.device("VMOD", *module, aml.device("VMBS", *vmbus)))
    return header(b"DSDT", 2, body, oem=b"MSFTVM", table_id=b"DSDT01", creator=0x0500_0000)


def _fadt(fields: Mapping[str, int]) -> bytes:
    body = bytearray(AcpiTableFadt.SIZE)
    for name, value in fields.items():
        field = AcpiTableFadt.field(name)
        body[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return header(b"FACP", 6, bytes(body[AcpiTableHeader.SIZE :]))


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
) -> list[tuple[bytes, bytes]]:
    """Return the tables that do not name addresses, in the order in which they are laid out.

    :param memory: ``(start, size, node)`` of RAM and of the ranges into which memory could be added.
    """
    facs = bytearray(64)
    pack_into("<4sI", facs, 0, b"FACS", 64)
    facs[32] = 2
    tables = [
        (b"FACS", bytes(facs)),
        (b"DSDT", _dsdt(shape.generation, shape.low_mmio, high_mmio, arch.vmbus_interrupts)),
        (b"SRAT", _srat(arch, shape, memory)),
        (b"APIC", header(b"APIC", 4, arch.madt(shape))),
    ]
    tables += [(signature, header(signature, *table)) for signature, table in arch.extra_tables().items()]
    return tables


def fadt(arch: ArchHost, generation: int, dsdt: int, facs: int) -> bytes:
    """Return the FADT, which names the addresses of DSDT and FACS."""
    fields = {"minor_revision": 0, "hypervisor_id": HYPERVISOR_ID, **arch.fadt_fields(generation)}
    return _fadt({**fields, "dsdt": dsdt, "Xdsdt": dsdt, "facs": facs, "Xfacs": facs})


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
