"""A small guest for the tests of the kernel slice: an architecture and a host without any Hyper-V."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from hvkernel.api.guest.arch import IpiKind
from hvkernel.linux.kernel import Kernel
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
        self.kernel = Kernel(
            self.machine,
            Config(config or {}),
            Release(),
            self.arch,  # type: ignore[arg-type]
            page_size=page_size,
            core=core,
            initrd=initrd,
        )
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
