"""acpi.h: the tables in guest memory, the CPUs they name, and the devices of the namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.abi import acpi as abi
from hvkernel.api.guest.device import AcpiDevice as AcpiDeviceProto
from hvkernel.api.guest.device import AcpiDriver, BusType, Device, DeviceDriver, Resource
from hvkernel.api.guest.errno import EBUSY, ENODEV
from hvkernel.linux import aml
from hvkernel.linux.acpi_files import ACPI_GROUPS
from hvkernel.machine import Fault

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

MAX_TABLE: Final = 1 << 24
"""Largest table that is read. A limit of this model against damaged lengths."""


class AcpiDevice(Device):
    """A device object of the namespace, as the kernel's acpi_device."""

    parent: AcpiDevice | None

    def __init__(
        self, name: str, bus: BusType, parent: AcpiDevice | None, node: aml.Node | None, hid: str | None
    ) -> None:
        super().__init__(name, bus=bus, parent=parent)
        self.node_object = node
        self.hid = hid
        self.cids: tuple[str, ...] = ()
        self.crs: tuple[Resource, ...] = ()
        self.crs_irqs: tuple[int, ...] = ()
        self.cca: int | None = None

    @property
    def path(self) -> str:
        """As ``\\_SB.VMOD.VMBS``."""
        return self.node_object.path if self.node_object is not None else "\\"

    @property
    def present(self) -> bool:
        """Present or functional, as _STA says. Source: scan.c:acpi_device_is_present."""
        sta = self.node_object.objects.get("_STA", 0xF) if self.node_object is not None else 0xF
        return not isinstance(sta, int) or bool(sta & 0x9)


class _Driver(DeviceDriver):
    def __init__(self, drv: AcpiDriver, bus: BusType) -> None:
        super().__init__(drv.name, bus=bus)
        self.acpi = drv
        self.pm = drv.pm


class Acpi:
    """``kernel.acpi``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._tables: dict[str, tuple[int, bytes]] = {}
        self._devices: list[AcpiDevice] = []
        self._drivers: dict[str, _Driver] = {}
        self._root: AcpiDevice | None = None
        self.bus = BusType(
            "acpi",
            match=self._match,
            probe=self._probe,
            remove=self._remove,
            uevent=self._uevent,
            dev_groups=ACPI_GROUPS,
        )
        self.available = False
        self.fadt: abi.AcpiTableFadt | None = None

    # tables ----------------------------------------------------------------------------------------------------

    def boot_table_init(self) -> bool:
        """Find and check the tables. False (and ACPI stays off) without a valid root pointer.

        Source: drivers/acpi/tables.c, acpica/tbutils.c:acpi_tb_parse_root_table.
        """
        kernel = self._kernel
        at = kernel.firmware.tables.rsdp
        if not at or kernel.cmdline.get("acpi") == "off":
            return False
        try:
            return self._parse_root(at)
        except Fault as fault:
            kernel.printk.pr_err(f"ACPI Error: {fault}")
            return False

    def _parse_root(self, at: int) -> bool:
        pr = self._kernel.printk
        memory = self._kernel.mm.memory
        rsdp = abi.AcpiTableRsdp.unpack(memory.read(at, abi.AcpiTableRsdp.SIZE))
        raw = memory.read(at, 20)
        if rsdp.signature != abi.ACPI_SIG_RSDP or sum(raw) & 0xFF:
            pr.pr_err("ACPI BIOS Error (bug): A valid RSDP was not found")
            return False
        pr.pr_info("ACPI: Early table checksum verification enabled")
        if rsdp.revision >= 2 and rsdp.xsdt_physical_address:
            root, width = rsdp.xsdt_physical_address, 8
        else:
            root, width = rsdp.rsdt_physical_address, 4
        size = rsdp.length if rsdp.revision >= 2 else 20
        pr.pr_info(f"ACPI: RSDP 0x{at:016X} {size:06X} (v{rsdp.revision:02d} {_text(rsdp.oem_id):6})")
        table = self._read_table(root)
        if table is None:
            return False
        entries = table[36:]
        for n in range(len(entries) // width):
            address = int.from_bytes(entries[width * n : width * (n + 1)], "little")
            found = self._read_table(address)
            if found is None:
                continue
            signature = _text(found[:4])
            if signature == "FACP":
                self._facp(found)
        self.available = True
        return True

    def _facp(self, table: bytes) -> None:
        fadt = abi.AcpiTableFadt.unpack(table[: abi.AcpiTableFadt.SIZE].ljust(abi.AcpiTableFadt.SIZE, b"\0"))
        self.fadt = fadt
        dsdt = fadt.Xdsdt or fadt.dsdt
        if dsdt:
            self._read_table(dsdt)

    def _read_table(self, at: int) -> bytes | None:
        memory, pr = self._kernel.mm.memory, self._kernel.printk
        head = abi.AcpiTableHeader.unpack(memory.read(at, 36))
        signature = _text(head.signature)
        if not 36 <= head.length <= MAX_TABLE:
            pr.pr_err(f"ACPI BIOS Error (bug): Invalid length 0x{head.length:X} in table [{signature}]")
            return None
        table = memory.read(at, head.length)
        if sum(table) & 0xFF:
            wrong, right = head.checksum, (head.checksum - sum(table)) & 0xFF
            pr.pr_warn(
                f"ACPI BIOS Warning (bug): Incorrect checksum in table [{signature}] - "
                f"0x{wrong:02X}, should be 0x{right:02X}"
            )
        ids = f"{_text(head.oem_id):6} {_text(head.oem_table_id):8} {head.oem_revision:08X} "
        ids += f"{_text(head.asl_compiler_id):4} {head.asl_compiler_revision:08X}"
        pr.pr_info(f"ACPI: {signature:4} 0x{at:016X} {head.length:06X} (v{head.revision:02d} {ids})")
        self._tables.setdefault(signature, (at, table))
        return table

    def get_table(self, signature: str) -> bytes | None:
        """The first table of that signature, header included; None when there is none."""
        entry = self._tables.get(signature)
        return entry[1] if entry else None

    def _entries(self, signature: str, head: int) -> list[tuple[int, bytes]]:
        """(type, bytes) of a table's entries; a damaged length ends the list, as in acpi_parse_entries_array()."""
        table = self.get_table(signature)
        out: list[tuple[int, bytes]] = []
        at = head
        while table is not None and at + 2 <= len(table):
            kind, length = table[at], table[at + 1]
            if length < 2 or at + length > len(table):
                self._kernel.printk.pr_warn(f"ACPI: [{signature}:0x{kind:02x}] Invalid length")
                break
            out.append((kind, table[at : at + length]))
            at += length
        return out

    def madt_cpus(self) -> list[tuple[int, bool, int]]:
        """(hardware id, enabled, ACPI processor uid) in the order of the MADT."""
        kinds = abi.AcpiMadtType
        cpus: list[tuple[int, bool, int]] = []
        for kind, raw in self._entries("APIC", abi.AcpiTableMadt.SIZE):
            if kind == kinds.ACPI_MADT_TYPE_LOCAL_APIC and len(raw) >= abi.AcpiMadtLocalApic.SIZE:
                lapic = abi.AcpiMadtLocalApic.unpack(raw)
                if lapic.id != 0xFF:
                    cpus.append((lapic.id, bool(lapic.lapic_flags & abi.ACPI_MADT_ENABLED), lapic.processor_id))
            elif kind == kinds.ACPI_MADT_TYPE_LOCAL_X2APIC and len(raw) >= abi.AcpiMadtLocalX2apic.SIZE:
                x2 = abi.AcpiMadtLocalX2apic.unpack(raw)
                cpus.append((x2.local_apic_id, bool(x2.lapic_flags & abi.ACPI_MADT_ENABLED), x2.uid))
            elif kind == kinds.ACPI_MADT_TYPE_GENERIC_INTERRUPT and len(raw) >= abi.AcpiMadtGenericInterrupt.SIZE:
                gicc = abi.AcpiMadtGenericInterrupt.unpack(raw)
                cpus.append((gicc.arm_mpidr, bool(gicc.flags & abi.ACPI_MADT_ENABLED), gicc.uid))
        return cpus

    def srat_nodes(self) -> dict[int, int]:
        """Hardware id to NUMA node, from the SRAT's enabled entries."""
        kinds = abi.AcpiSratType
        by_uid = {uid: hw_id for hw_id, _, uid in self.madt_cpus()}
        domains: dict[int, int] = {}
        for kind, raw in self._entries("SRAT", abi.AcpiTableSrat.SIZE):
            if kind == kinds.ACPI_SRAT_TYPE_CPU_AFFINITY and len(raw) >= abi.AcpiSratCpuAffinity.SIZE:
                cpu = abi.AcpiSratCpuAffinity.unpack(raw)
                if cpu.flags & abi.ACPI_SRAT_CPU_ENABLED:
                    high = int.from_bytes(cpu.proximity_domain_hi, "little")
                    domains[cpu.apic_id] = cpu.proximity_domain_lo | high << 8
            elif kind == kinds.ACPI_SRAT_TYPE_X2APIC_CPU_AFFINITY and len(raw) >= abi.AcpiSratX2apicCpuAffinity.SIZE:
                x2 = abi.AcpiSratX2apicCpuAffinity.unpack(raw)
                if x2.flags & abi.ACPI_SRAT_CPU_ENABLED:
                    domains[x2.apic_id] = x2.proximity_domain
            elif kind == kinds.ACPI_SRAT_TYPE_GICC_AFFINITY and len(raw) >= abi.AcpiSratGiccAffinity.SIZE:
                gicc = abi.AcpiSratGiccAffinity.unpack(raw)
                if gicc.flags & abi.ACPI_SRAT_GICC_ENABLED and gicc.acpi_processor_uid in by_uid:
                    domains[by_uid[gicc.acpi_processor_uid]] = gicc.proximity_domain
        nodes = {domain: node for node, domain in enumerate(dict.fromkeys(domains.values()))}
        return {hw_id: nodes[domain] for hw_id, domain in domains.items()}

    # the namespace ---------------------------------------------------------------------------------------------

    def acpi_init(self) -> int:
        """subsys_initcall: load the namespace and register its devices. Source: drivers/acpi/bus.c, scan.c."""
        if not self.available:
            return -ENODEV
        kernel = self._kernel
        kernel.driver.bus_register(self.bus)
        root = aml.Node("\\", "scope")
        for name in ("_SB", "_GPE", "_PR", "_SI", "_TZ"):
            root.children.append(aml.Node(name, "scope", root))
        dsdt = self.get_table("DSDT")
        if dsdt is not None:
            try:
                aml.Reader(dsdt[36:], root).read()
            except aml.AmlError as error:
                kernel.printk.pr_err(f"ACPI Error: {error}")
                kernel.finding("acpi", f"DSDT: {error}")
        kernel.printk.pr_info("ACPI: Interpreter enabled")
        counts: dict[str, int] = {}
        top = self._add("LNXSYSTM", counts, None, root)
        self._root = top
        for child in root.children:
            if child.name == "_SB":
                self._scan(child, self._add("LNXSYBUS", counts, top, child), counts)
        return 0

    def _add(self, hid: str | None, counts: dict[str, int], parent: AcpiDevice | None, node: aml.Node) -> AcpiDevice:
        base = hid or "device"
        number = counts.get(base, 0)
        counts[base] = number + 1
        dev = AcpiDevice(f"{base}:{number:02x}", self.bus, parent, node, hid)
        self._fill(dev, node)
        self._devices.append(dev)
        self._kernel.driver.device_register(dev)
        return dev

    def _scan(self, node: aml.Node, parent: AcpiDevice, counts: dict[str, int]) -> None:
        for child in node.children:
            if child.kind not in ("device", "processor"):
                continue
            hid = child.objects.get("_HID")
            if child.kind == "processor":
                hid = "LNXCPU"
            dev = self._add(_id(hid), counts, parent, child)
            self._scan(child, dev, counts)

    def _fill(self, dev: AcpiDevice, node: aml.Node) -> None:
        cid = node.objects.get("_CID")
        items = cid if isinstance(cid, list) else [cid]
        dev.cids = tuple(i for i in (_id(item) for item in items) if i)
        cca = node.objects.get("_CCA")
        dev.cca = cca if isinstance(cca, int) else None
        crs = node.objects.get("_CRS")
        if isinstance(crs, bytes):
            try:
                found = aml.resources(crs)
            except aml.AmlError as error:
                self._kernel.finding("acpi", f"{node.path}._CRS: {error}")
                return
            windows = (aml.ADDRESS32, aml.ADDRESS64)
            dev.crs = tuple(Resource(i.start, i.end, dev.name) for i in found if i.kind == "mem" and i.tag in windows)
            dev.crs_irqs = tuple(i.start for i in found if i.tag == aml.EXTENDED_IRQ and not i.index)

    def devices(self) -> Sequence[AcpiDeviceProto]:
        """The devices of the namespace, parents first."""
        return tuple(self._devices)

    # drivers ---------------------------------------------------------------------------------------------------

    def acpi_bus_register_driver(self, drv: AcpiDriver) -> int:
        """-ENODEV without ACPI, -EBUSY for a second driver of that name."""
        if not self.available:
            return -ENODEV
        if drv.name in self._drivers:
            return -EBUSY
        entry = _Driver(drv, self.bus)
        self._drivers[drv.name] = entry
        return self._kernel.driver.driver_register(entry)

    def acpi_bus_unregister_driver(self, drv: AcpiDriver) -> None:
        entry = self._drivers.pop(drv.name, None)
        if entry is not None:
            self._kernel.driver.driver_unregister(entry)

    def acpi_sleep_state_supported(self, sleep_state: int) -> bool:
        """Whether the namespace has ``\\_S<n>`` and, on reduced hardware, the FADT the sleep registers.

        Source: drivers/acpi/sleep.c:acpi_sleep_state_supported.
        """
        top = self._root.node_object if self._root is not None else None
        if top is None or self.fadt is None or f"_S{sleep_state}" not in top.objects:
            return False
        fadt = self.fadt
        reduced = fadt.flags & abi.ACPI_FADT_HW_REDUCED
        return not reduced or bool(fadt.sleep_control.address and fadt.sleep_status.address)

    @staticmethod
    def _match(dev: AcpiDevice, drv: _Driver) -> bool:
        """No driver fits a device that is not present. Source: scan.c:acpi_bus_attach."""
        if not dev.present:
            return False
        ids = (dev.hid, *dev.cids)
        return any(i in ids for i in drv.acpi.ids)

    @staticmethod
    def _probe(dev: AcpiDevice) -> int:
        drv = dev.driver
        return drv.acpi.add(dev) if isinstance(drv, _Driver) else -ENODEV

    @staticmethod
    def _remove(dev: AcpiDevice) -> None:
        drv = dev.driver
        if isinstance(drv, _Driver) and drv.acpi.remove is not None:
            drv.acpi.remove(dev)

    @staticmethod
    def _uevent(dev: AcpiDevice, env: dict[str, str]) -> int:
        ids = [i for i in (dev.hid, *dev.cids) if i]
        if ids:
            env["MODALIAS"] = "acpi:" + "".join(f"{i}:" for i in ids) if dev.present else ""
        return 0


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").rstrip("\0 ")


def _id(value: object) -> str | None:
    if isinstance(value, int):
        return aml.eisa_id(value)
    return value if isinstance(value, str) and value else None
