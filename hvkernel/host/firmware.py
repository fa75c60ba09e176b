"""What the firmware leaves in guest memory: the memory map, the ACPI tables, SMBIOS.

Three layouts, each after published boot logs: UEFI (generation 2: tables below the top of low RAM), BIOS
(generation 1: root pointer and SMBIOS in the BIOS area, tables in the last 64 KiB), and direct boot (WSL: root
pointer at 0xe0000, tables from 1 MiB on). Sizes grow with the number of processors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.api.host.arch import FirmwareShape
from hvkernel.host import acpi, smbios
from hvkernel.machine.firmware import FirmwareTables

if TYPE_CHECKING:
    from hvkernel.config.profile import HostProfile
    from hvkernel.host.partition import Host

__all__ = ["build_firmware", "ram_ranges"]

RAM: Final = 1
RESERVED: Final = 2
ACPI_DATA: Final = 3
ACPI_NVS: Final = 4
_PAGE: Final = 0x1000
_4G: Final = 1 << 32
_1M: Final = 1 << 20
_VIDEO_BAR: Final = (0xF800_0000, 0x400_0000)
"""BAR 0 of generation 1's emulated video adapter: ``pci 0000:00:08.0`` of published logs."""
_HOT_ADD_END: Final = 1 << 40
"""Where the hot-add ranges of the SRAT end. Real hosts go on to 2^52; memory is never added here."""


def ram_ranges(profile: HostProfile, memory: int) -> tuple[tuple[int, int], ...]:
    """Return ``(start, size)`` of the RAM of a VM with ``memory`` bytes on this host.

    Below 4 GiB, from there up to the high MMIO window, and what is left above that.
    """
    high_first, high_last = profile.memory.high_mmio
    out: list[tuple[int, int]] = []
    for start, end in ((0, profile.memory.low_ram_end), (_4G, high_first), (high_last + 1, high_last + 1 + memory)):
        size = min(memory, end - start)
        if size:
            out.append((start, size))
        memory -= size
    return tuple(out)


def _srat_memory(host: Host) -> list[tuple[int, int, int]]:
    """RAM split over the nodes of the VPs in order, then the ranges into which memory could be added."""
    nodes = sorted({vp.node for vp in host.machine.vps})
    ranges = list(host.machine.memory.ram)
    shares = _node_shares(host, nodes)
    out: list[tuple[int, int, int]] = []
    for node, share in zip(nodes, shares, strict=True):
        while share and ranges:
            start, size = ranges.pop(0)
            taken = min(size, share)
            out.append((start, taken, node))
            share -= taken
            if taken < size:
                ranges.insert(0, (start + taken, size - taken))
    end = max(host.machine.memory.ram[-1][0] + host.machine.memory.ram[-1][1], _4G)
    high_first, high_last = host.profile.memory.high_mmio
    for start, stop in ((end, high_first), (max(high_last + 1, end), _HOT_ADD_END)):
        if start < stop:
            out.append((start, stop - start, nodes[0]))
    return out


def _node_shares(host: Host, nodes: Sequence[int]) -> list[int]:
    given = host.node_memory
    if given is not None and len(given) == len(nodes):
        return list(given)
    total = sum(size for _, size in host.machine.memory.ram)
    share = total // len(nodes) & ~0x1F_FFFF
    return [share] * (len(nodes) - 1) + [total - share * (len(nodes) - 1)]


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


class _Layout:
    """Places blobs one after another, each on its own page, and remembers them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.tables: dict[bytes, tuple[int, bytes]] = {}

    def put(self, address: int, data: bytes) -> int:
        memory = self._host.machine.memory
        memory.host.write(address, data)
        return address

    def place(self, start: int, blobs: Iterable[tuple[bytes, bytes]]) -> int:
        """Write tables from ``start`` upwards and return the first address after them."""
        for signature, data in blobs:
            self.tables[signature] = (self.put(start, data), data)
            start += _pages(len(data))
        return start


def build_firmware(host: Host, command_line: bytes) -> acpi.Acpi:
    """Write the firmware's tables into guest memory and set ``machine.firmware``.

    :raises ValueError: the RAM below 4 GiB is too small for them.
    """
    profile, machine = host.profile, host.machine
    if machine.memory.ram[0][0] != 0:
        raise ValueError(f"RAM starts at {machine.memory.ram[0][0]:#x}; it must start at 0")
    shape = FirmwareShape(
        processors=tuple((vp.hw_id, vp.node) for vp in sorted(machine.vps, key=lambda vp: vp.hw_id)),
        extra_processors=max(0, profile.listed_cpus(host.generation) - len(machine.vps)),
        generation=host.generation,
        low_mmio=profile.memory.low_mmio,
    )
    arch_tables = host.arch.extra_tables()
    direct, bios = profile.acpi.direct_boot, host.generation == 1
    style = acpi.bios_style(profile.acpi.bios_date) if bios else acpi.Style()
    fixed = acpi.build_tables(host.arch, shape, _srat_memory(host), profile.memory.high_mmio, style)
    need = sum(_pages(len(data)) for _, data in fixed) + 4 * _PAGE
    top = machine.memory.ram[0][1]
    if top < 16 * _1M + need:
        raise ValueError(f"{top} bytes of low RAM are too few for the firmware's tables")
    layout = _Layout(host)
    nvs = fixed[:1]
    if direct:
        base, rsdp_at = _1M, 0xE_0000
    elif bios:
        base, rsdp_at = top - max(0x1_0000, _round(need, 0x1_0000)), 0xF_5BF0
    else:
        base, rsdp_at = top - 0x5000 - need, top - 0x5000 - _PAGE + 0x14
    end = layout.place(base, fixed[1:])
    if bios and not direct:
        layout.place(top - _PAGE, nvs)
    elif direct:
        end = layout.place(end, nvs)
    else:
        layout.place(top - 0x2000, nvs)
    dsdt, facs = layout.tables[b"DSDT"][0], layout.tables[b"FACS"][0]
    end = layout.place(end, [(b"FACP", acpi.fadt(host.arch, host.generation, dsdt, facs, style))])
    order = (b"FACP", *arch_tables, *((b"SRAT", b"APIC") if bios else (b"APIC", b"SRAT")))
    listed = [layout.tables[s][0] for s in order]
    if bios:
        layout.place(end, [(b"RSDT", acpi.rsdt(listed, style))])
        root = layout.put(rsdp_at, acpi.rsdp_1(end))
    else:
        layout.place(end, [(b"XSDT", acpi.xsdt(listed))])
        root = layout.put(rsdp_at, acpi.rsdp(end))
    entry = 0
    if direct:
        memory_map = _direct_map(top)
    elif bios:
        entry = _smbios_2(layout, profile)
        memory_map = _bios_map(top, base)
    else:
        entry = _smbios_3(layout, profile, base - 0x5_8000)
        memory_map = _uefi_map(top, base)
    above = tuple((start, size, RAM) for start, size in machine.memory.ram[1:])
    machine.firmware = FirmwareTables(
        memory_map=(*memory_map, *above),
        rsdp=root,
        smbios=entry,
        efi=not bios and not direct,
        framebuffer=_VIDEO_BAR if bios else profile.memory.framebuffer,
        command_line=command_line,
        counter_hz=profile.cpu.counter_hz,
    )
    return acpi.Acpi(root, layout.tables)


def _round(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _smbios_2(layout: _Layout, profile: HostProfile) -> int:
    table, count = smbios.structures(profile.acpi.bios_version, profile.acpi.bios_date, "American Megatrends Inc.")
    layout.put(0xF_9420, table)
    return layout.put(0xF_93D0, smbios.entry_point_2(0xF_9420, len(table), count))


def _smbios_3(layout: _Layout, profile: HostProfile, address: int) -> int:
    table, _ = smbios.structures(profile.acpi.uefi_version, profile.acpi.uefi_date, "Microsoft Corporation")
    layout.put(address + _PAGE, table)
    return layout.put(address, smbios.entry_point_3(address + _PAGE, len(table)))


def _uefi_map(top: int, base: int) -> tuple[tuple[int, int, int], ...]:
    reserved = base - 0x5_8000
    return (
        (0, 0xA_0000, RAM),
        (0xC_0000, 0x4_0000, RESERVED),
        (_1M, reserved - _1M, RAM),
        (reserved, 0x5_8000, RESERVED),
        (base, top - 0x5000 - base, ACPI_DATA),
        (top - 0x5000, 0x4000, ACPI_NVS),
        (top - _PAGE, _PAGE, RAM),
    )


def _bios_map(top: int, base: int) -> tuple[tuple[int, int, int], ...]:
    return (
        (0, 0x9_FC00, RAM),
        (0x9_FC00, 0x400, RESERVED),
        (0xE_0000, 0x2_0000, RESERVED),
        (_1M, base - _1M, RAM),
        (base, top - _PAGE - base, ACPI_DATA),
        (top - _PAGE, _PAGE, ACPI_NVS),
    )


def _direct_map(top: int) -> tuple[tuple[int, int, int], ...]:
    return (
        (0, 0xA_0000, RAM),
        (0xE_0000, _PAGE, RESERVED),
        (_1M, _1M, ACPI_DATA),
        (2 * _1M, top - 2 * _1M, RAM),
    )
