"""ACPI tables in guest memory, AML, devices and their drivers; DMI."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.api.guest.device import AcpiDriver
from hvkernel.linux import aml

# AML by hand: ACPI 6.4, chapter 20 ---------------------------------------------------------------------------------


def pkg(body: Any) -> Any:
    for extra in range(4):
        total = len(body) + 1 + extra
        if not extra and total < 64:
            return bytes([total]) + body
        if extra and total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 15, *(total >> 4 + 8 * n & 255 for n in range(extra))]) + body
    raise AssertionError


def name(path: Any, value: Any) -> Any:
    return b"\x08" + path + value


def text(value: Any) -> Any:
    return b"\x0d" + value + b"\0"


def device(path: Any, *objects: Any) -> Any:
    return b"\x5b\x82" + pkg(path + b"".join(objects))


def scope(path: Any, *objects: Any) -> Any:
    return b"\x10" + pkg(path + b"".join(objects))


def buffer(data: Any) -> Any:
    return b"\x11" + pkg(b"\x0a" + bytes([len(data)]) + data)


def crs(*items: Any) -> Any:
    return buffer(b"".join(items) + b"\x79\0")


DWORD = struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0xC, 3, 0, 0xF8000000, 0xFED3FFFF, 0, 0x6D40000)
QWORD = struct.pack("<BHBBBQQQQQ", 0x8A, 43, 0, 0xC, 3, 0, 0xFE0000000, 0xFFFFFFFFF, 0, 0x20000000)
IRQ = struct.pack("<BHBBI", 0x89, 6, 3, 1, 18)
GEN2 = scope(
    b"\\_SB_",
    device(
        b"VMOD",
        name(b"_HID", text(b"ACPI0004")),
        name(b"_CRS", crs(DWORD, QWORD)),
        device(
            b"VMBS",
            name(b"_HID", text(b"VMBUS")),
            name(b"_STA", b"\x0a\x0f"),
            name(b"_CCA", b"\x01"),
            name(b"_CRS", crs(IRQ)),
        ),
    ),
    device(b"GONE", name(b"_HID", text(b"NOT0001")), name(b"_STA", b"\x00")),
)
GEN1 = scope(
    b"\\_SB_",
    device(
        b"PCI0",
        name(b"_HID", b"\x0c\x41\xd0\x0a\x03"),
        name(b"_CRS", crs(DWORD)),
        device(b"SBRG", device(b"VMB8", name(b"_HID", text(b"VMBUS")))),
    ),
)


def table(signature: Any, body: Any, revision: Any = 1) -> Any:
    raw = bytearray(
        struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, b"OEMID ", b"TABLE   ", 1, b"MSFT", 1)
        + body
    )
    raw[9] = -sum(raw) & 255
    return bytes(raw)


def write_tables(
    memory: Any, dsdt: Any = GEN2, madt: Any = b"", srat: Any = b"", at: Any = 0x200000, break_rsdp: Any = False
) -> Any:
    """Lay the tables out; the address of the RSDP."""
    blobs = {
        b"DSDT": table(b"DSDT", dsdt),
        b"APIC": table(b"APIC", bytes(8) + madt),
        b"SRAT": table(b"SRAT", bytes(12) + srat),
    }
    places, where = {}, at + 0x1000
    for signature, raw in blobs.items():
        memory.write(where, raw)
        places[signature] = where
        where += (len(raw) + 63) & ~63
    body = bytearray(276 - 36)
    struct.pack_into("<Q", body, 140 - 36, places[b"DSDT"])
    facp = table(b"FACP", bytes(body), 6)
    memory.write(where, facp)
    places[b"FACP"] = where
    where += 512
    xsdt = table(b"XSDT", struct.pack("<3Q", places[b"FACP"], places[b"APIC"], places[b"SRAT"]))
    memory.write(where, xsdt)
    rsdp = bytearray(struct.pack("<8sB6sBIIQB3s", b"RSD PTR ", 0, b"OEMID ", 2, 0, 36, where, 0, b""))
    rsdp[8] = -sum(rsdp[:20]) & 255
    rsdp[32] = -sum(rsdp) & 255
    if break_rsdp:
        rsdp[8] ^= 1
    memory.write(at, bytes(rsdp))
    return at


def acpi_guest(make_guest: Any, **what: Any) -> Any:
    options = {
        "config": {"ACPI": "y"},
        "rsdp": 0x200000,
        "prepare": lambda machine: write_tables(machine.memory.host, **what),
    }
    guest = make_guest(**options)
    assert guest.kernel.acpi.boot_table_init() is not what.get("break_rsdp", False)
    return guest


def test_the_tables_are_listed_as_in_a_real_log(make_guest: Any) -> None:
    guest = acpi_guest(make_guest)
    assert guest.lines[:2] == [
        "ACPI: Early table checksum verification enabled",
        "ACPI: RSDP 0x0000000000200000 000024 (v02 OEMID )",
    ]
    assert [line.split()[1] for line in guest.lines[2:]] == ["XSDT", "FACP", "DSDT", "APIC", "SRAT"]
    assert guest.kernel.acpi.get_table("DSDT")[36:] == GEN2
    assert guest.kernel.acpi.get_table("NONE") is None


OLD_IRQ = struct.pack("<BH", 0x22, 1 << 5 | 1 << 7)
TWO_IRQS = struct.pack("<BHBBII", 0x89, 10, 3, 2, 18, 19)
FIXED = struct.pack("<BHBII", 0x86, 9, 1, 0xFEC00000, 0x1000)
WORD = struct.pack("<BHBBBHHHHH", 0x88, 13, 0, 0xC, 3, 0, 0x1000, 0x1FFF, 0, 0x1000)
MIXED = scope(
    b"\\_SB_",
    device(b"VMBS", name(b"_HID", text(b"VMBUS")), name(b"_CRS", crs(OLD_IRQ, TWO_IRQS, FIXED, WORD, DWORD))),
)


def test_only_windows_and_extended_interrupts_are_the_bus_s(make_guest: Any) -> None:
    """drivers/hv/vmbus_drv.c:vmbus_walk_resources passes over the others, and over all interrupts but the first."""
    guest = acpi_guest(make_guest, dsdt=MIXED)
    guest.call(guest.kernel.acpi.acpi_init)
    (vmbus,) = [d for d in guest.kernel.acpi.devices() if d.name == "VMBUS:00"]
    assert vmbus.crs_irqs == (18,)
    assert [(r.start, r.end) for r in vmbus.crs] == [(0xF8000000, 0xFED3FFFF)]


def test_the_namespace_of_generation_2(make_guest: Any) -> None:
    guest = acpi_guest(make_guest)
    k = guest.kernel
    assert guest.call(k.acpi.acpi_init) == 0
    devices = {d.name: d for d in k.acpi.devices()}
    assert list(devices) == ["LNXSYSTM:00", "LNXSYBUS:00", "ACPI0004:00", "VMBUS:00", "NOT0001:00"]
    drv = AcpiDriver("gone", ("NOT0001",), lambda device: pytest.fail("a device that is not present has no driver"))
    assert guest.call(k.acpi.acpi_bus_register_driver, drv) == 0
    vmbus = devices["VMBUS:00"]
    assert (vmbus.path, vmbus.hid, vmbus.cca, vmbus.crs_irqs, vmbus.crs) == ("\\_SB.VMOD.VMBS", "VMBUS", 1, (18,), ())
    assert [(r.start, r.end) for r in vmbus.parent.crs] == [(0xF8000000, 0xFED3FFFF), (0xFE0000000, 0xFFFFFFFFF)]
    # lsvmbus and the real logs show this path for Gen2.
    assert k.driver.dev_path(vmbus) == "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00"
    assert k.driver.uevent_env(vmbus, "add")["MODALIAS"] == "acpi:VMBUS:"


def test_the_namespace_of_generation_1(make_guest: Any) -> None:
    guest = acpi_guest(make_guest, dsdt=GEN1)
    guest.call(guest.kernel.acpi.acpi_init)
    assert [d.name for d in guest.kernel.acpi.devices()][2:] == ["PNP0A03:00", "device:00", "VMBUS:00"]


def test_a_driver_binds_to_the_devices_it_names(make_guest: Any) -> None:
    guest = acpi_guest(make_guest)
    k = guest.kernel
    seen: Any = []

    def body() -> None:
        k.acpi.acpi_init()
        drv = AcpiDriver("vmbus", ("VMBUS", "VMBus"), lambda d: seen.append(d.path) or 0, lambda d: seen.append("gone"))
        assert k.acpi.acpi_bus_register_driver(drv) == 0
        assert k.acpi.acpi_bus_register_driver(drv) == -16
        k.acpi.acpi_bus_unregister_driver(drv)

    guest.call(body)
    assert seen == ["\\_SB.VMOD.VMBS", "gone"]


def test_without_tables_there_is_no_acpi(make_guest: Any) -> None:
    guest = make_guest()
    k = guest.kernel
    assert not k.acpi.boot_table_init()
    assert k.acpi.acpi_init() == -19
    assert k.acpi.acpi_bus_register_driver(AcpiDriver("x", ("X",), lambda d: 0)) == -19


def test_a_broken_root_pointer_is_reported(make_guest: Any) -> None:
    guest = acpi_guest(make_guest, break_rsdp=True)
    assert "ACPI BIOS Error (bug): A valid RSDP was not found" in guest.lines


def test_a_root_pointer_outside_memory_is_survived(make_guest: Any) -> None:
    guest = make_guest(rsdp=1 << 39)
    assert not guest.kernel.acpi.boot_table_init()
    assert any(line.startswith("ACPI Error:") for line in guest.lines)


def test_acpi_off_is_obeyed(make_guest: Any) -> None:
    guest = make_guest(command_line=b"acpi=off", rsdp=0x200000, prepare=lambda m: write_tables(m.memory.host))
    assert not guest.kernel.acpi.boot_table_init()


def lapic(uid: Any, apic: Any, flags: Any = 1) -> Any:
    return struct.pack("<BBBBI", 0, 8, uid, apic, flags)


def x2apic(uid: Any, apic: Any, flags: Any = 1) -> Any:
    return struct.pack("<BBHIII", 9, 16, 0, apic, flags, uid)


def gicc(uid: Any, mpidr: Any, flags: Any = 1) -> Any:
    raw = bytearray(80)
    struct.pack_into("<BBHIII", raw, 0, 11, 80, 0, uid, uid, flags)
    struct.pack_into("<Q", raw, 68, mpidr)
    return bytes(raw)


def test_cpus_of_the_madt_in_its_order(make_guest: Any) -> None:
    guest = acpi_guest(
        make_guest,
        madt=lapic(1, 4) + lapic(2, 0) + x2apic(3, 300) + lapic(9, 255) + lapic(4, 6, 0) + gicc(5, 0x80000001),
    )
    assert guest.kernel.acpi.madt_cpus() == [
        (4, True, 1),
        (0, True, 2),
        (300, True, 3),
        (6, False, 4),
        (0x80000001, True, 5),
    ]


def test_nodes_of_the_srat(make_guest: Any) -> None:
    srat = struct.pack("<BBBBIB3sI", 0, 16, 7, 4, 1, 0, b"", 0) + struct.pack("<BBHIIIII", 2, 24, 0, 3, 300, 1, 0, 0)
    srat += struct.pack("<BBIIII", 3, 18, 7, 5, 1, 0) + struct.pack("<BBBBIB3sI", 0, 16, 1, 0, 0, 0, b"", 0)
    guest = acpi_guest(make_guest, madt=lapic(1, 4) + x2apic(3, 300) + gicc(5, 0x80000001), srat=srat)
    assert guest.kernel.acpi.srat_nodes() == {4: 0, 300: 1, 0x80000001: 0}


def test_an_entry_with_a_bad_length_ends_the_list(make_guest: Any) -> None:
    guest = acpi_guest(make_guest, madt=lapic(1, 4) + b"\x00\x00" + lapic(2, 5))
    assert guest.kernel.acpi.madt_cpus() == [(4, True, 1)]
    assert "ACPI: [APIC:0x00] Invalid length" in guest.lines


def test_damaged_aml_keeps_what_was_read(make_guest: Any) -> None:
    guest = acpi_guest(make_guest, dsdt=GEN2 + b"\xfe\xfe")
    guest.call(guest.kernel.acpi.acpi_init)
    assert any(d.name == "VMBUS:00" for d in guest.kernel.acpi.devices())
    assert guest.findings == ["acpi"]


def test_what_needs_an_interpreter_is_skipped() -> None:
    root = aml.Node("\\", "scope")
    method = b"\x14" + pkg(b"_INI\x00\xa4\x00")
    region = b"\x5b\x80REG0\x00\x0b\x00\x10\x0a\x10"
    field = b"\x5b\x81" + pkg(b"REG0\x01ABCD\x08")
    mutex = b"\x5b\x01MTX0\x00"
    package = name(b"PKG0", b"\x12" + pkg(b"\x02\x01" + text(b"x")))
    aml.Reader(method + region + field + mutex + package + name(b"NEXT", b"\xff"), root).read()
    assert root.objects == {"PKG0": [1, "x"], "NEXT": (1 << 64) - 1}


def test_eisa_ids() -> None:
    assert aml.eisa_id(0x030AD041) == "PNP0A03"
    assert aml.eisa_id(0x0C0CD041) == "PNP0C0C"


def test_names_with_parents_and_paths() -> None:
    root = aml.Node("\\", "scope")
    aml.Reader(
        scope(b"\\_SB_", device(b"AAAA", scope(b"^^BBBB", name(b"X___", b"\1")))) + name(b"\\\x2e_SB_Y___", b"\1"), root
    ).read()
    sb, b = root.child("_SB"), root.child("BBBB")
    assert sb is not None
    assert b is not None
    assert [(c.name, c.kind) for c in sb.children] == [("AAAA", "device")]
    assert b.objects == {"X": 1}
    assert sb.objects == {"Y": 1}


@pytest.mark.parametrize("cut", range(1, len(GEN2)))
def test_every_truncation_is_one_kind_of_error(cut: Any) -> None:
    root = aml.Node("\\", "scope")
    with pytest.raises(aml.AmlError):
        aml.Reader(GEN2[:cut], root).read()


@settings(max_examples=300)
@given(st.binary(max_size=80), st.integers(0, len(GEN2) - 1), st.integers(0, 255))
def test_hostile_aml_and_resources_never_raise_anything_else(raw: Any, at: Any, value: Any) -> None:
    changed = bytearray(GEN2)
    changed[at] = value
    for data in (raw, bytes(changed)):
        with contextlib.suppress(aml.AmlError):
            aml.Reader(data, aml.Node("\\", "scope")).read()
        with contextlib.suppress(aml.AmlError):
            aml.resources(data)


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(60):
        data = scope(b"AAAA", data)
    with pytest.raises(aml.AmlError, match="deeper than 32"):
        aml.Reader(data, aml.Node("\\", "scope")).read()


# DMI -------------------------------------------------------------------------------------------------------------


def smbios(kind: Any, length: Any, strings: Any, fields: Any) -> Any:
    body = bytearray(length)
    body[0], body[1] = kind, length
    for offset, value in fields.items():
        body[offset] = value
    return bytes(body) + b"".join(s + b"\0" for s in strings) + b"\0"


STRUCTURES = (
    smbios(0, 24, [b"Microsoft Corporation", b"Hyper-V UEFI Release v4.1", b"08/23/2024"], {5: 2, 8: 3})
    + smbios(1, 27, [b"Microsoft Corporation", b"Virtual Machine"], {4: 1, 5: 2})
    + smbios(2, 15, [b"Virtual Machine"], {5: 1})
    + smbios(127, 4, [], {})
    + b"\0"
)


def entry(base: Any, size: Any) -> Any:
    raw = bytearray(struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, 3, 1, 0, 1, 0, size, base))
    raw[5] = -sum(raw) & 255
    return bytes(raw)


@pytest.mark.parametrize("damage", [None, "checksum", "size", "structure"])
def test_dmi_line_of_a_real_log(make_guest: Any, damage: Any) -> None:
    guest = make_guest()
    memory = guest.machine.memory.guest
    data = bytearray(STRUCTURES)
    if damage == "structure":
        data[1] = 1
    memory.write(0x300000, bytes(data))
    head = bytearray(entry(0x300000, len(data) if damage != "size" else 0))
    if damage == "checksum":
        head[5] ^= 1
    memory.write(0x2F0000, bytes(head))
    firmware = guest.kernel.firmware
    firmware.tables = type(firmware.tables)(smbios=0x2F0000)
    dmi = firmware.dmi_setup(memory)
    if damage is None:
        assert (
            dmi.line()
            == "Microsoft Corporation Virtual Machine/Virtual Machine, BIOS Hyper-V UEFI Release v4.1 08/23/2024"
        )
    elif damage == "structure":
        assert dmi.line() == ", BIOS  "
    else:
        assert dmi is None
