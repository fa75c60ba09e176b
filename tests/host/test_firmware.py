"""What the firmware leaves in memory, read back with the ABI's structs; AML also with iasl where it is installed."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import unpack_from
from typing import Any

import pytest

from hvkernel.abi import acpi, smbios
from hvkernel.config import load_profile, profile_names
from hvkernel.host import Host, aml, ram_ranges
from hvkernel.machine import Machine, VpTopology
from hvkernel_arm64.host import HostArm64
from hvkernel_x86.host import HostX86

MIB = 1 << 20
BOTH = [(name, generation) for name in profile_names() for generation in load_profile(name).generations]


Build = Callable[..., Host]


@pytest.fixture
def build() -> Iterator[Build]:
    """Make partitions: ``build("ws2022", 2, cpus=4, memory=1 << 30, nodes=1)``."""
    machines: list[Machine] = []

    def make(name: str, generation: int, *, cpus: int = 4, memory: int = 1 << 30, nodes: int = 1) -> Host:
        profile = load_profile(name)
        arch = HostArm64() if "arm64" in profile.architectures else HostX86()
        vps = [VpTopology(vp_index=n, hw_id=2 * n, node=n * nodes // cpus) for n in range(cpus)]
        machines.append(Machine(ram_ranges(profile, memory), vps))
        return Host(machines[-1], profile, generation, arch)

    yield make
    for machine in machines:
        machine.close()


def read(host: Host, gpa: int, size: int) -> bytes:
    return host.machine.memory.guest.read(gpa, size)


def walk(host: Host) -> dict[bytes, bytes]:
    """Find every table as a guest does, from the root pointer on, checking each checksum."""
    root = read(host, host.machine.firmware.rsdp, acpi.AcpiTableRsdp.SIZE)
    assert sum(root[:20]) & 0xFF == 0
    pointer = acpi.AcpiTableRsdp.unpack(root)
    bios = host.generation == 1
    assert pointer.signature == b"RSD PTR "
    assert (pointer.oem_id, pointer.revision) == ((b"ACPIAM", 0) if bios else (b"VRTUAL", 2))
    assert bios or sum(root) & 0xFF == 0
    found: dict[bytes, bytes] = {}

    def take(gpa: int) -> bytes:
        header = acpi.AcpiTableHeader.unpack(read(host, gpa, acpi.AcpiTableHeader.SIZE))
        table = read(host, gpa, header.length)
        assert sum(table) & 0xFF == 0, header.signature
        found[header.signature] = table
        return table

    table = take(pointer.rsdt_physical_address if bios else pointer.xsdt_physical_address)
    width, form = (4, "<I") if bios else (8, "<Q")
    for at in range(acpi.AcpiTableHeader.SIZE, len(table), width):
        take(unpack_from(form, table, at)[0])
    fadt = acpi.AcpiTableFadt.unpack(found[b"FACP"].ljust(acpi.AcpiTableFadt.SIZE, b"\0"))
    assert (fadt.Xdsdt, fadt.Xfacs) == ((0, 0) if bios else (fadt.dsdt, fadt.facs))
    take(fadt.dsdt)
    assert read(host, fadt.facs, 4) == b"FACS"
    return found


@pytest.mark.parametrize(("name", "generation"), BOTH)
def test_the_tables_can_be_walked(build: Build, name: str, generation: int) -> None:
    host = build(name, generation)
    tables = walk(host)
    assert {b"FACP", b"DSDT", b"APIC", b"SRAT"} <= set(tables)
    # "FACP ... 000114 (v06" with UEFI, "000081 (v02" with the BIOS, as every log has it
    assert (len(tables[b"FACP"]), tables[b"FACP"][8]) == ((0x81, 2) if generation == 1 else (0x114, 6))
    if generation == 1:
        return
    fadt = acpi.AcpiTableFadt.unpack(tables[b"FACP"])
    assert fadt.hypervisor_id.to_bytes(8, "little") == b"MsHyperV"


@pytest.mark.parametrize(("name", "generation"), BOTH)
def test_the_memory_map_covers_ram_once_and_holds_every_table(build: Build, name: str, generation: int) -> None:
    host = build(name, generation, memory=6 << 30)
    entries = host.machine.firmware.memory_map
    assert list(entries) == sorted(entries)
    for (start, size, _), (after, _, _) in itertools.pairwise(entries):
        assert start + size <= after
    for start, size, _ in entries:
        assert not (start | size) & 0x3FF
        assert any(lo <= start and start + size <= lo + n for lo, n in host.machine.memory.ram)
    usable = sum(size for _, size, kind in entries if kind == 1)
    assert (6 << 30) - usable < 2 * MIB
    for address, data in host.acpi.tables.values():
        (kind,) = [k for start, size, k in entries if start <= address and address + len(data) <= start + size]
        assert kind in (3, 4), hex(address)
    reserved = [(start, start + size) for start, size, kind in entries if kind != 1]
    for pointer in (host.machine.firmware.rsdp, host.machine.firmware.smbios):
        assert not pointer or any(start <= pointer < end for start, end in reserved)


def madt(host: Host) -> list[tuple[int, bytes]]:
    table = walk(host)[b"APIC"]
    at, out = acpi.AcpiTableMadt.SIZE, []
    while at < len(table):
        kind, length = table[at], table[at + 1]
        out.append((kind, table[at : at + length]))
        at += length
    assert at == len(table)
    return out


@pytest.mark.parametrize(
    ("name", "cpus", "size"), [("azure-gen2", 1, 0x50), ("ws2025", 12, 0xA8), ("azure-arm64", 1, 0x94)]
)
def test_the_madt_has_the_size_of_real_ones(build: Build, name: str, cpus: int, size: int) -> None:
    # Published logs: "APIC ... 000050 (v04" with 1 processor, "0000A8 (v04" with 12, on Arm "000094 (v04" with 1.
    host = build(name, 2, cpus=cpus)
    assert len(walk(host)[b"APIC"]) == size


@pytest.mark.parametrize(
    ("name", "generation", "listed"),
    [("ws2012", 1, 64), ("ws2012r2", 1, 64), ("ws2016", 1, 128), ("ws2016", 2, 240), ("ws2022", 1, 4), ("wsl2", 2, 4)],
)
def test_processors_are_listed_by_hardware_id_and_the_extra_ones_disabled(
    build: Build, name: str, generation: int, listed: int
) -> None:
    # Published logs: "Allowing 64 CPUs, 60 hotplug CPUs" (BIOS 090006), "Allowing 128 CPUs, 108 hotplug CPUs" (2016),
    # "240 Processors exceeds NR_CPUS limit of 128" (generation 2, build 14393: docker/for-win issue 608).
    host = build(name, generation)
    entries = [acpi.AcpiMadtLocalApic.unpack(data) for kind, data in madt(host) if kind == 0]
    assert [(e.id, e.lapic_flags) for e in entries[:4]] == [(0, 1), (2, 1), (4, 1), (6, 1)]
    assert [e.processor_id for e in entries] == list(range(1, listed + 1))
    assert [e.lapic_flags for e in entries[4:]] == [0] * (listed - 4)
    assert len({e.id for e in entries}) == listed


def test_a_vm_with_all_processors_has_no_extra_ones(build: Build) -> None:
    assert [kind for kind, _ in madt(build("ws2012", 1, cpus=64))].count(0) == 64


def test_the_root_table_lists_the_tables_as_real_ones_do(build: Build) -> None:
    # "ACPI: FACP", "WAET" or "GTDT", "APIC", "SRAT" in that order; SRAT v02 on x86 and v03 on Arm
    for name, own, revision in (("azure-gen2", b"WAET", 2), ("azure-arm64", b"GTDT", 3)):
        tables = walk(build(name, 2))
        assert list(tables)[:5] == [b"XSDT", b"FACP", own, b"APIC", b"SRAT"]
        assert tables[b"SRAT"][8] == revision


def test_the_tables_of_the_bios_carry_its_date(build: Build) -> None:
    # "FACP 0x... 000081 (v02 VRTUAL MICROSFT 12001807 MSFT 00000097)", "APIC ... 000452 (v01", "SRAT ... (v02 VRTUAL
    # MICROSFT 00000001 MSFT 00000001)", "DSDT ... (v01 MSFTVM MSFTVM02 00000002 INTL 02002026)" (BIOS of 12/07/2018)
    tables = walk(build("azure-gen1", 1))
    assert list(tables) == [b"RSDT", b"FACP", b"WAET", b"SRAT", b"APIC", b"DSDT"]
    seen = {name: acpi.AcpiTableHeader.unpack(data) for name, data in tables.items()}
    for name, revision in ((b"RSDT", 1), (b"FACP", 2), (b"WAET", 1), (b"APIC", 1)):
        assert (seen[name].revision, seen[name].oem_table_id) == (revision, b"MICROSFT")
        assert (seen[name].oem_revision, seen[name].asl_compiler_revision) == (0x12001807, 0x97)
    assert (seen[b"SRAT"].revision, seen[b"SRAT"].oem_revision, seen[b"SRAT"].asl_compiler_revision) == (2, 1, 1)
    dsdt = seen[b"DSDT"]
    assert (dsdt.revision, dsdt.oem_revision) == (1, 2)
    assert (dsdt.asl_compiler_id, dsdt.asl_compiler_revision) == (b"INTL", 0x02002026)
    assert len(walk(build("ws2016", 1))[b"APIC"]) == 0x452


def test_the_frame_buffer_of_generation_1_is_the_video_adapters(build: Build) -> None:
    # "pci 0000:00:08.0: BAR 0 [mem 0xf8000000-0xfbffffff]"
    assert build("azure-gen1", 1).machine.firmware.framebuffer == (0xF800_0000, 0x400_0000)
    assert build("azure-gen2", 2).machine.firmware.framebuffer == (0x4000_0000, 0x80_0000)


def test_ids_beyond_254_are_x2apic_entries(build: Build) -> None:
    host = build("ws2025", 2, cpus=200)
    kinds = [kind for kind, _ in madt(host)]
    assert (kinds.count(0), kinds.count(9)) == (128, 72)
    wide = [acpi.AcpiMadtLocalX2apic.unpack(data) for kind, data in madt(host) if kind == 9]
    assert [(w.local_apic_id, w.uid) for w in wide[:2]] == [(256, 129), (258, 130)]


def test_legacy_interrupt_controllers_are_generation_1s(build: Build) -> None:
    for generation, flags in ((1, 1), (2, 0)):
        host = build("ws2022", generation)
        assert acpi.AcpiTableMadt.unpack(walk(host)[b"APIC"]).flags == flags


def test_a_large_machine_fits(build: Build) -> None:
    host = build("ws2025", 2, cpus=1024, memory=4 << 30)
    assert len(walk(host)[b"SRAT"]) > 1024 * 16


def test_too_little_memory_is_an_error(build: Build) -> None:
    with pytest.raises(ValueError, match="bytes of low RAM are too few"):
        build("ws2022", 2, memory=8 * MIB)


def test_the_srat_splits_ram_over_the_nodes(build: Build) -> None:
    host = build("azure-gen2", 2, memory=4 << 30, nodes=2)
    table = walk(host)[b"SRAT"]
    at, cpus, memory = acpi.AcpiTableSrat.SIZE, [], []
    while at < len(table):
        if table[at] == 0:
            cpus.append(acpi.AcpiSratCpuAffinity.unpack(table, at))
        else:
            memory.append(acpi.AcpiSratMemAffinity.unpack(table, at))
        at += table[at + 1]
    assert [(c.apic_id, c.proximity_domain_lo) for c in cpus] == [(0, 0), (2, 0), (4, 1), (6, 1)]
    ram = [(m.base_address, m.length, m.proximity_domain) for m in memory[:3]]
    g = 1 << 30
    assert ram == [(0, g, 0), (4 * g, g, 0), (5 * g, 2 * g, 1)]
    assert {m.flags for m in memory} == {3}, "enabled and hot-pluggable, as in every log"


# DSDT


def windows(dsdt: bytes) -> list[tuple[int, int]]:
    found = []
    at = dsdt.find(b"\x87\x17\x00")
    found.append(unpack_from("<II", dsdt, at + 10))
    at = dsdt.find(b"\x8a\x2b\x00")
    found.append(unpack_from("<QQ", dsdt, at + 14))
    return found


@pytest.mark.parametrize(("name", "generation"), BOTH)
def test_the_dsdt_gives_the_bus_its_windows(build: Build, name: str, generation: int) -> None:
    host = build(name, generation)
    dsdt = walk(host)[b"DSDT"]
    assert dsdt[10:24] == (b"MSFTVMMSFTVM02" if generation == 1 else b"MSFTVMDSDT01\0\0")
    assert windows(dsdt) == [host.profile.memory.low_mmio, host.profile.memory.high_mmio]
    assert dsdt.count(b"_HID\x0dVMBUS\0") == (2 if generation == 1 else 1), "generation 1 has one that is absent"
    assert (b"ACPI0004" in dsdt) == (generation == 2)
    assert (aml.eisa_id("PNP0A03") in dsdt) == (generation == 1)
    interrupts = host.arch.vmbus_interrupts
    assert dsdt.count(b"\x89\x06\x00\x03\x01") == len(interrupts)


@pytest.mark.parametrize(("name", "generation"), BOTH)
def test_iasl_takes_every_table_apart(
    build: Build, name: str, generation: int, tmp_path: Path, program: Callable[[str, str], str]
) -> None:
    iasl = program("iasl", "acpica-tools")
    host = build(name, generation)
    for signature, table in walk(host).items():
        file = tmp_path / f"{signature.decode()}.dat"
        file.write_bytes(table)
        run = subprocess.run([iasl, "-d", file.name], cwd=tmp_path, capture_output=True, text=True, check=False)
        text = run.stdout + run.stderr + file.with_suffix(".dsl").read_text()
        assert run.returncode == 0, text
        for word in ("Invalid", "Error", "ERROR", "Warning"):
            assert word not in text.replace("Error Injection", ""), f"{signature!r}: {text}"
    dsl = (tmp_path / "DSDT.dsl").read_text()
    assert 'Name (_HID, "VMBUS")' in dsl
    again = subprocess.run([iasl, "DSDT.dsl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [line for line in (again.stdout + again.stderr).splitlines() if line.startswith("Error")]
    # Hyper-V's _HID is five characters long, which the compiler minds and no system does.
    assert len(errors) == (2 if generation == 1 else 1), "generation 1 has one that is absent"
    assert all("_HID string must be exactly 7 or 8 characters (VMBUS)" in error for error in errors)


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (aml.number(0), "00"),
        (aml.number(1), "01"),
        (aml.number(0xFF), "0aff"),
        (aml.number(0x100), "0b0001"),
        (aml.number(0x1234_5678), "0c78563412"),
        (aml.number(1 << 40), "0e0000000000010000"),
        (aml.text("Ab"), "0d416200"),
        (aml.eisa_id("PNP0A03"), "0c41d00a03"),
        (aml.name("_UID", aml.number(0)), "085f55494400"),
        (aml.scope("\\_SB", b""), "10065c5f53425f"),
        (aml.device("\\_SB.VMOD.VMBS"), "5b82105c2f035f53425f564d4f44564d4253"),
        (aml.buffer(bytes(3)), "11060a03000000"),
        (aml.interrupt(18), "8906000301" + "12000000"),
    ],
)
def test_aml_encodings(made: bytes, code: str) -> None:
    assert made.hex() == code


@pytest.mark.parametrize(("size", "lead"), [(62, 1), (63, 2), (0xFFD, 2), (0xFFE, 3), (0xF_FFFC, 3), (0xF_FFFD, 4)])
def test_aml_package_lengths_count_themselves(size: int, lead: int) -> None:
    package = aml.device("ABCD", bytes(size - 4))
    assert len(package) == 2 + lead + size
    first = package[2]
    length = first & 0x3F if lead == 1 else first & 0xF
    for n in range(lead - 1):
        length |= package[3 + n] << 4 + 8 * n
    assert (first >> 6, length) == (lead - 1, lead + size)


def test_what_aml_cannot_say() -> None:
    with pytest.raises(ValueError, match="name segment 'TOOLONG'"):
        aml.device("TOOLONG")
    with pytest.raises(ValueError, match="more than 64 bits"):
        aml.number(1 << 64)
    with pytest.raises(ValueError, match="too long"):
        aml.device("ABCD", bytes(1 << 28))


# SMBIOS


def strings(data: bytes) -> dict[int, list[str]]:
    """Structures by type, each with its strings."""
    at, out = 0, {}
    while True:
        head = smbios.DmiHeader.unpack(data, at)
        end = data.index(b"\0\0", at + head.length)
        out[head.type] = data[at + head.length : end].decode().split("\0")
        at = end + 2
        if head.type == smbios.SmbiosType.DMI_ENTRY_END_OF_TABLE:
            return out


def test_smbios_of_generation_2(build: Build) -> None:
    host = build("azure-gen2", 2)
    raw = read(host, host.machine.firmware.smbios, smbios.Smbios3EntryPoint.SIZE)
    assert sum(raw) & 0xFF == 0
    point = smbios.Smbios3EntryPoint.unpack(raw)
    assert (point.anchor, point.major_version, point.minor_version) == (b"_SM3_", 3, 1)
    found = strings(read(host, point.structure_table_address, point.structure_table_maximum_size))
    # DMI: Microsoft Corporation Virtual Machine/Virtual Machine, BIOS Hyper-V UEFI Release v4.1 08/23/2024 (log 01)
    assert found[0] == ["Microsoft Corporation", "Hyper-V UEFI Release v4.1", "08/23/2024"]
    assert found[1][:2] == found[2][:2] == ["Microsoft Corporation", "Virtual Machine"]


def test_smbios_of_generation_1(build: Build) -> None:
    host = build("azure-gen1", 1)
    raw = read(host, host.machine.firmware.smbios, smbios.SmbiosEntryPoint.SIZE)
    assert sum(raw) & 0xFF == 0
    assert sum(raw[16:]) & 0xFF == 0
    point = smbios.SmbiosEntryPoint.unpack(raw)
    assert (point.anchor, point.intermediate_anchor, point.bcd_revision) == (b"_SM_", b"_DMI_", 0x23)
    found = strings(read(host, point.structure_table_address, point.structure_table_length))
    assert len(found) == point.number_of_structures
    # "BIOS 090008  12/07/2018" (log 04): the version ends in a space
    assert found[0][1:] == ["090008 ", "12/07/2018"]


def test_direct_boot_has_neither_smbios_nor_efi(build: Build) -> None:
    host = build("wsl2", 2)
    firmware = host.machine.firmware
    assert (firmware.smbios, firmware.efi, firmware.rsdp) == (0, False, 0xE_0000)


@pytest.mark.parametrize(
    ("name", "memory", "expected"),
    [
        ("azure-gen2", 1 << 30, ((0, 1 << 30),)),
        ("azure-gen2", 8 << 30, ((0, 1 << 30), (4 << 30, 7 << 30))),
        ("ws2022", 8 << 30, ((0, 0xF800_0000), (4 << 30, (8 << 30) - 0xF800_0000))),
        # "[mem 0x0000000100000000-0x0000000fdfffffff]", "[mem 0x0000001000000000-..." in a published Azure log
        ("azure-gen2", 64 << 30, ((0, 1 << 30), (4 << 30, 0xE_E000_0000), (1 << 36, (63 << 30) - 0xE_E000_0000))),
    ],
)
def test_where_ram_lies(name: str, memory: int, expected: Any) -> None:
    assert ram_ranges(load_profile(name), memory) == expected
