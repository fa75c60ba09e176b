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
from types import MappingProxyType
from typing import Final

from hvkernel.api.host.arch import ArchHost, FirmwareShape
from hvkernel.host import aml

__all__ = ["Acpi", "build_tables", "checksum", "header"]

_OEM: Final = b"VRTUAL"
_TABLE_ID: Final = b"MICROSFT"
_CREATOR: Final = b"MSFT"

_FADT_SIZE: Final = 276
_FADT_FIELDS: Final = MappingProxyType(
    {
        "facs": (36, 4), "dsdt": (40, 4), "preferred_profile": (45, 1), "sci_interrupt": (46, 2),
        "smi_command": (48, 4), "acpi_enable": (52, 1), "acpi_disable": (53, 1), "pm1a_event_block": (56, 4),
        "pm1a_control_block": (64, 4), "pm_timer_block": (76, 4), "gpe0_block": (80, 4), "pm1_event_length": (88, 1),
        "pm1_control_length": (89, 1), "pm_timer_length": (91, 1), "gpe0_block_length": (92, 1),
        "c2_latency": (96, 2), "c3_latency": (98, 2), "century": (108, 1), "boot_flags": (109, 2), "flags": (112, 4),
        "arm_boot_flags": (129, 2), "minor_revision": (131, 1), "xfacs": (132, 8), "xdsdt": (140, 8),
        "hypervisor_id": (268, 8),
    }
)  # fmt: skip
"""Offset and size of the FADT fields in use (include/acpi/actbl.h: struct acpi_table_fadt)."""

HYPERVISOR_ID: Final = int.from_bytes(b"MsHyperV", "little")
"""FADT hypervisor_id (arch/arm64/hyperv/mshyperv.c: hyperv_init)."""


def checksum(data: bytes) -> int:
    """Return the byte that makes the bytes of ``data`` add up to zero."""
    return -sum(data) & 0xFF


def header(
    signature: bytes, revision: int, body: bytes, *, oem: bytes = _OEM, table_id: bytes = _TABLE_ID, creator: int = 1
) -> bytes:
    """Return a table: the 36-byte header (struct acpi_table_header) and ``body``, with its checksum."""
    fields = (signature, 36 + len(body), revision, 0, oem, table_id.ljust(8, b"\0"), 1, _CREATOR, creator)
    table = bytearray(pack("<4sIBB6s8sI4sI", *fields))
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
    body = bytearray(_FADT_SIZE - 36)
    for field, value in fields.items():
        offset, size = _FADT_FIELDS[field]
        body[offset - 36 : offset - 36 + size] = value.to_bytes(size, "little")
    return header(b"FACP", 6, bytes(body))


def _srat(arch: ArchHost, shape: FirmwareShape, memory: Sequence[tuple[int, int, int]]) -> bytes:
    body = pack("<IQ", 1, 0)
    for uid, (hw_id, node) in enumerate(shape.processors, 1):
        body += arch.srat_processor(hw_id, uid, node)
    for start, size, node in memory:
        # Enabled and hot-pluggable, as every log has it (struct acpi_srat_mem_affinity).
        body += pack("<BBIHQQIIQ", 1, 40, node, 0, start, size, 0, 3, 0)
    return header(b"SRAT", 3, body)


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
    return _fadt({**fields, "dsdt": dsdt, "xdsdt": dsdt, "facs": facs, "xfacs": facs})


def xsdt(addresses: Sequence[int]) -> bytes:
    """Return the XSDT."""
    return header(b"XSDT", 1, pack(f"<{len(addresses)}Q", *addresses))


def rsdp(xsdt_address: int) -> bytes:
    """Return the root pointer of ACPI 2.0 and later (struct acpi_table_rsdp)."""
    data = bytearray(pack("<8sB6sBIIQB3s", b"RSD PTR ", 0, _OEM, 2, 0, 36, xsdt_address, 0, b""))
    data[8] = checksum(bytes(data[:20]))
    data[32] = checksum(bytes(data))
    return bytes(data)
