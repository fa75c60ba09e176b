"""A small guest for the tests of the kernel slice: an architecture and a host without any Hyper-V."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from hvkernel.api.guest.arch import IpiKind
from hvkernel.api.guest.sched import Work
from hvkernel.api.guest.scsi import (
    BLIST_REPORTLUN2,
    BLIST_TRY_VPD_PAGES,
    SCSI_MLQUEUE_DEVICE_BUSY,
    HostByte,
    ScsiCmnd,
    ScsiDevice,
    ScsiHost,
    ScsiHostTemplate,
)
from hvkernel.linux.kernel import Kernel
from hvkernel.linux.scsi_proto import int_to_scsilun
from hvkernel.machine import Machine, VpTopology
from hvkernel.machine.firmware import FirmwareTables

MIB = 1 << 20

VECTORS = {
    IpiKind.RESCHEDULE: 0xFD,
    IpiKind.CALL_FUNCTION: 0xFC,
    IpiKind.CALL_FUNCTION_SINGLE: 0xFB,
    IpiKind.CPU_STOP: 0xF8,
}


class NoTraps:
    """A host that refuses everything but MMIO write, which raises an interrupt: (gpa = VP index, v = vector)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def cpuid(self, vp: int, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        raise AssertionError("CPUID")

    def rdmsr(self, vp: int, n: int) -> int:
        raise AssertionError("RDMSR")

    def wrmsr(self, vp: int, n: int, v: int) -> None:
        raise AssertionError("WRMSR")

    def hypercall(self, vp: int, opcode: bytes, regs: tuple[int, ...]) -> tuple[int, ...]:
        raise AssertionError("hypercall")

    def mmio_read(self, vp: int, gpa: int, size: int) -> int:
        return 0

    def mmio_write(self, vp: int, gpa: int, size: int, v: int) -> None:
        self.machine.vps[gpa].raise_irq(v)

    def io_in(self, vp: int, port: int, size: int) -> int:
        raise AssertionError("port")

    def io_out(self, vp: int, port: int, size: int, v: int) -> None:
        raise AssertionError("port")


class TestArch:
    """As little of an architecture as the slice needs; interrupts are sent by an MMIO write."""

    __test__ = False

    def __init__(self, bits: int = 64) -> None:
        self.name = "test"
        self.bits = bits
        self.calls: list[str] = []
        self.dead: set[int] = set()
        self.enabled: list[int] = []
        self.kernel: Any = None

    def attach(self, kernel: Any) -> None:
        self.kernel = kernel

    def page_fault_text(self, address: int, page_size: int) -> str:
        return f"test arch: no such address: {address:016x}"

    def setup_arch(self) -> None:
        self.calls.append("setup_arch")

    def setup_arch_late(self) -> None:
        self.calls.append("setup_arch_late")

    def smp_prepare_boot_cpu(self) -> None:
        self.calls.append("smp_prepare_boot_cpu")

    def init_IRQ(self) -> None:
        self.calls.append("init_IRQ")

    def time_init(self) -> None:
        self.calls.append("time_init")
        clock = self.kernel.machine.clock
        self.kernel.clocksource.set_sched_clock(lambda: clock.now * 100)

    def late_time_init(self) -> None:
        self.calls.append("late_time_init")

    def smp_prepare_cpus(self, max_cpus: int) -> None:
        self.calls.append(f"smp_prepare_cpus({max_cpus})")

    def cpu_up(self, cpu: int) -> int:
        this = self.kernel.cpus.cpu(cpu)
        if cpu in self.dead or not this.exists:
            return -5
        this.vp.start()
        return 0

    def start_secondary(self, cpu: int) -> None:
        self.calls.append(f"start_secondary({cpu})")

    def smp_cpus_done(self, max_cpus: int) -> None:
        self.calls.append("smp_cpus_done")

    def ipi_vector(self, kind: IpiKind) -> int:
        return VECTORS[kind]

    def send_ipi(self, cpus: Sequence[int], kind: IpiKind) -> None:
        me = self.kernel.cpus.this_cpu().vp
        for cpu in cpus:
            me.mmio_write(self.kernel.cpus.cpu(cpu).vp.vp_index, 4, VECTORS[kind])

    def ack_irq(self, vector: int) -> None:
        pass

    def enable_percpu_irq(self, vector: int) -> None:
        self.enabled.append(self.kernel.cpus.smp_processor_id())

    def disable_percpu_irq(self, vector: int) -> None:
        self.enabled.remove(self.kernel.cpus.smp_processor_id())


class Config:
    """A build with the values that are given; everything else is n."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = {"SMP": "y", "NR_CPUS": "64", "HZ": "250", "EFI_PARTITION": "y", "MSDOS_PARTITION": "y", **values}

    def value(self, name: str) -> str:
        return self.values.get(name, "n")

    def y(self, name: str) -> bool:
        return self.value(name) == "y"

    def m(self, name: str) -> bool:
        return self.value(name) == "m"


class Release:
    version = "6.1.192"

    def has(self, capability: str) -> bool:
        return True


class Guest:
    """A kernel that can be used at once: its CPUs are online, nothing of start_kernel() has run."""

    def __init__(
        self,
        cpus: int = 2,
        *,
        policy: str = "fifo",
        seed: int = 0,
        ram: int = 64 * MIB,
        page_size: int = 4096,
        config: Mapping[str, str] | None = None,
        bits: int = 64,
        command_line: bytes = b"",
        up: bool = True,
        memory_map: tuple[tuple[int, int, int], ...] | None = None,
        core: bool = True,
        initrd: Any = "all",
        rsdp: int = 0,
        prepare: Callable[[Machine], None] | None = None,
    ) -> None:
        # VP index, hardware id and CPU number all differ: CPU n has VP index cpus-1-n and hardware id 16+2n.
        vps = [VpTopology(cpus - 1 - n, 16 + 2 * n) for n in range(cpus)]
        mapped = memory_map or ((0, ram, 1),)
        self.machine = Machine([(s, n) for s, n, kind in mapped if kind != 99], vps, seed=seed, policy=policy)
        self.machine.set_trap_handler(NoTraps(self.machine))
        self.machine.firmware = FirmwareTables(memory_map=mapped, command_line=command_line, rsdp=rsdp)
        if prepare is not None:
            prepare(self.machine)
        self.arch = TestArch(bits)
        try:
            self.kernel = Kernel(
                self.machine,
                Config(config or {}),
                Release(),
                self.arch,  # type: ignore[arg-type]
                page_size=page_size,
                core=core,
                initrd=initrd,
            )
        except BaseException:
            self.machine.close()
            raise
        if up:
            self.bring_up(cpus)

    def bring_up(self, cpus: int) -> None:
        k = self.kernel
        k.cpus.setup([(16 + 2 * n, True) for n in range(cpus)], {}, 64)
        k.mm.mm_init()
        self.machine.set_secondary_entry(k.cpus.secondary_entry)

        def boot() -> None:
            k.irq.attach(k.cpus.cpus[0])
            k.cpuhp.boot_cpu_hotplug_init()
            k.irq.install_ipis()
            self.arch.time_init()
            k.scheduling = True
            for cpu in range(1, cpus):
                assert k.cpuhp.cpu_up(cpu) == 0

        self.machine.call(boot)

    def call(self, fn: Callable[..., Any], *args: Any, cpu: int = 0, limit: int | None = None) -> Any:
        """Run ``fn`` as a guest task on ``cpu`` to its end."""
        return self.machine.call(
            self.kernel.guard, fn, *args, vp=self.kernel.cpus.cpu(cpu).vp, name="test", limit=limit
        )

    @property
    def findings(self) -> list[str]:
        return [f.kind for f in self.machine.findings]

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.kernel.printk.log]


@pytest.fixture
def make_guest() -> Iterator[Callable[..., Guest]]:
    """Makes guests and closes their machines afterwards."""
    made: list[Guest] = []

    def make(*args: Any, **kwargs: Any) -> Guest:
        guest = Guest(*args, **kwargs)
        made.append(guest)
        return guest

    yield make
    for guest in made:
        guest.machine.close()


@pytest.fixture
def guest(make_guest: Callable[..., Guest]) -> Guest:
    """Two CPUs, fifo."""
    return make_guest()


class FakeHba:
    """A SCSI host adapter with disks in Python: commands are answered from a kernel work item, like a tasklet would."""

    def __init__(self, guest: Guest, disks: Mapping[tuple[int, int, int], bytearray], **options: Any) -> None:
        self.guest = guest
        self.disks = disks
        self.options = options
        self.log: list[tuple[str, bytes]] = []
        self.busy = 0
        self.fail: dict[int, tuple[int, bytes]] = {}
        """opcode to (result, sense) for every command with it"""
        self.swallow: set[int] = set()
        self.timed_out = 0
        k = guest.kernel
        self.template = ScsiHostTemplate(
            "fake_host_t",
            self.queuecommand,
            can_queue=options.get("can_queue", 16),
            sg_tablesize=options.get("sg_tablesize", 65),
            max_sectors=options.get("max_sectors", 512),
            slave_alloc=self.slave_alloc,
            eh_timed_out=self.eh_timed_out if options.get("eh") else None,
        )
        host = k.scsi.scsi_host_alloc(self.template)
        assert host is not None
        self.host = host
        self.host.max_id, self.host.max_channel, self.host.max_lun = 2, 0, 255
        self.host.max_cmd_len = 16

    def slave_alloc(self, sdev: ScsiDevice) -> int:
        sdev.sdev_bflags = BLIST_REPORTLUN2 | BLIST_TRY_VPD_PAGES
        return 0

    def eh_timed_out(self, cmd: ScsiCmnd) -> bool:
        self.timed_out += 1
        return True

    def queuecommand(self, host: ScsiHost, cmd: ScsiCmnd) -> int:
        if self.busy:
            self.busy -= 1
            return SCSI_MLQUEUE_DEVICE_BUSY
        self.log.append((cmd.device.name, cmd.cmnd))
        assert cmd.transfersize <= host.max_sectors * 512 or cmd.cmnd[0] in (0xA0, 0x12)
        assert len(cmd.sg) <= host.sg_tablesize
        if cmd.cmnd[0] in self.swallow:
            return 0
        self.guest.kernel.workqueue.schedule_work(Work(self.answer, cmd))
        return 0

    def answer(self, work: Work) -> None:
        cmd: ScsiCmnd = work.data
        cmd.result, cmd.sense_buffer, data = self.execute(cmd)
        memory = self.guest.kernel.mm.memory
        for segment in cmd.sg:
            if data:
                memory.write(segment.gpa, data[: segment.length])
                data = data[segment.length :]
        self.guest.kernel.scsi.scsi_done(cmd)

    def execute(self, cmd: ScsiCmnd) -> tuple[int, bytes, bytes]:
        sdev, cdb = cmd.device, cmd.cmnd
        disk = self.disks.get((sdev.channel, sdev.id, sdev.lun))
        if disk is None:
            return HostByte.DID_BAD_TARGET << 16, b"", b""
        if cdb[0] in self.fail:
            return (*self.fail[cdb[0]], b"")
        block = self.options.get("block", 512)
        if cdb[0] == 0x12 and not cdb[1]:
            kind = self.options.get("type", 0)
            ident = bytes([kind, 0, 5, 2, 31, 0, 0, 2]) + b"Msft    Virtual Disk    1.0 "
            return 0, b"", ident[: cdb[4]]
        if cdb[0] == 0x12:
            pages = {0: bytes([0, 0xB0]), 0xB0: bytes(60)}
            if cdb[2] not in pages:
                return 2, SENSE_INVALID, b""
            body = pages[cdb[2]]
            return 0, b"", (bytes([0, cdb[2]]) + len(body).to_bytes(2, "big") + body)[: int.from_bytes(cdb[3:5], "big")]
        if cdb[0] == 0xA0:
            luns = [lun for c, i, lun in sorted(self.disks) if (c, i) == (sdev.channel, sdev.id)]
            data = (8 * len(luns)).to_bytes(4, "big") + bytes(4)
            return 0, b"", data + b"".join(int_to_scsilun(lun) for lun in luns)
        if cdb[0] == 0x9E:
            last = len(disk) // block - 1
            answer = last.to_bytes(8, "big") + block.to_bytes(4, "big") + bytes([0, self.options.get("physical", 3)])
            return 0, b"", answer.ljust(32, b"\0")
        if cdb[0] == 0x1A:
            page = bytes([8, 10, 4]) + bytes(9)
            if cdb[2] == 0x2A:
                return 2, SENSE_INVALID, b""
            return 0, b"", (bytes([3 + len(page), 0, self.options.get("wp", 0x10), 0]) + page)[: cdb[4]]
        if cdb[0] in (0x28, 0x88):
            lba, count = span(cdb)
            return 0, b"", bytes(disk[lba * block : (lba + count) * block])
        if cdb[0] in (0x2A, 0x8A):
            lba, _ = span(cdb)
            memory = self.guest.kernel.mm.memory
            data = b"".join(memory.read(s.gpa, s.length) for s in cmd.sg)
            disk[lba * block : lba * block + len(data)] = data
            return 0, b"", b""
        if cdb[0] in (0x00, 0x35):
            return 0, b"", b""
        return 2, bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]), b""


SENSE_INVALID = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0, 0, 0])


def span(cdb: bytes) -> tuple[int, int]:
    """(first block, blocks) of a READ or WRITE."""
    if cdb[0] >= 0x80:
        return int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    return int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")


@pytest.fixture
def fake_hba() -> type[FakeHba]:
    return FakeHba
