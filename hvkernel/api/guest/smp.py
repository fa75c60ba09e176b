"""smp.h, percpu.h, cpumask.h, cpuhotplug.h, interrupt.h: CPUs and their interrupts.

A CPU number, the hardware id (APIC id, MPIDR) and the VP index are three different numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class VirtualProcessor(Protocol):
    """The processor a CPU runs on: its interrupt flag and its traps (contract of ``machine``).

    Traps are taken on the processor that runs the caller: use ``kernel.cpus.this_cpu().vp``.
    """

    irq_enabled: bool

    @property
    def vp_index(self) -> int: ...
    @property
    def hw_id(self) -> int: ...
    @property
    def node(self) -> int: ...
    def cpuid(self, leaf: int, subleaf: int = 0, /) -> tuple[int, int, int, int]: ...
    def rdmsr(self, n: int, /) -> int: ...
    def wrmsr(self, n: int, v: int, /) -> None: ...
    def hypercall(self, opcode: bytes, regs: tuple[int, ...], /) -> tuple[int, ...]: ...
    def mmio_read(self, gpa: int, size: int, /) -> int: ...
    def mmio_write(self, gpa: int, size: int, v: int, /) -> None: ...
    def io_in(self, port: int, size: int, /) -> int: ...
    def io_out(self, port: int, size: int, v: int, /) -> None: ...
    def start(self) -> object: ...
    def set_local_timer(self, deadline: int | None, vector: int, /) -> None: ...


class Cpu(Protocol):
    """One possible CPU of the guest."""

    @property
    def cpu(self) -> int:
        """CPU number."""
        ...

    @property
    def hw_id(self) -> int:
        """APIC id or MPIDR, from the MADT."""
        ...

    @property
    def node(self) -> int:
        """NUMA node, from the SRAT; 0 without one."""
        ...

    @property
    def vp(self) -> VirtualProcessor:
        """The processor it runs on."""
        ...

    @property
    def exists(self) -> bool:
        """False for a CPU that the MADT names and the machine has not (hosts before 2022 name more than they have)."""
        ...


class PerCpu(Generic[T]):
    """A DEFINE_PER_CPU variable: ``var[cpu]`` is per_cpu(var, cpu). Made by :meth:`PerCpuApi.alloc_percpu`."""

    __slots__ = ("values",)

    def __init__(self, values: list[T]) -> None:
        self.values = values

    def __getitem__(self, cpu: int) -> T:
        return self.values[cpu]

    def __setitem__(self, cpu: int, value: T) -> None:
        self.values[cpu] = value

    def __len__(self) -> int:
        return len(self.values)


class PerCpuApi(Protocol):
    """``kernel.percpu``."""

    def alloc_percpu(self, make: Callable[[int], T]) -> PerCpu[T]:
        """A value per possible CPU, made by ``make(cpu)``."""
        ...

    def this_cpu_ptr(self, var: PerCpu[T]) -> T: ...
    def this_cpu_write(self, var: PerCpu[T], value: T) -> None: ...


class Cpus(Protocol):
    """``kernel.cpus``: which CPUs there are, the one we are on, calls to others."""

    nr_cpu_ids: int

    def smp_processor_id(self) -> int: ...
    def get_cpu(self) -> int:
        """preempt_disable() and the CPU number; pair with :meth:`put_cpu`."""
        ...

    def put_cpu(self) -> None: ...
    def this_cpu(self) -> Cpu: ...
    def cpu(self, cpu: int) -> Cpu: ...
    def num_present_cpus(self) -> int: ...
    def num_possible_cpus(self) -> int: ...
    def num_online_cpus(self) -> int: ...
    def cpu_online(self, cpu: int) -> bool: ...
    def for_each_possible_cpu(self) -> Iterator[int]: ...
    def for_each_present_cpu(self) -> Iterator[int]: ...
    def for_each_online_cpu(self) -> Iterator[int]: ...
    def cpu_to_node(self, cpu: int) -> int: ...
    def cpumask_of_node(self, node: int) -> Sequence[int]: ...
    def nr_node_ids(self) -> int: ...

    def smp_call_function_single(self, cpu: int, func: Callable[..., Any], *args: Any, wait: bool = True) -> int:
        """Run ``func(*args)`` in the call-function interrupt of ``cpu``; -ENXIO when it is offline."""
        ...

    def smp_call_function_many(
        self, cpus: Sequence[int], func: Callable[..., Any], *args: Any, wait: bool = True
    ) -> None: ...
    def on_each_cpu(self, func: Callable[..., Any], *args: Any) -> None: ...

    def generic_smp_call_function_interrupt(self) -> None:
        """What the arch's call-function vector runs."""
        ...

    def secondary_start(self, cpu: int) -> None:
        """What the arch's secondary entry runs, on the new CPU (start_secondary, secondary_start_kernel)."""
        ...


class CpuhpState(IntEnum):
    """enum cpuhp_state, the generic and the x86, arm64 and Hyper-V members that the model has callbacks for.

    The order is the kernel's; the values are not (the kernel's depend on nothing else either).
    Source: include/linux/cpuhotplug.h.
    """

    CPUHP_OFFLINE = 0
    CPUHP_CREATE_THREADS = 1
    CPUHP_WORKQUEUE_PREP = 2
    CPUHP_HRTIMERS_PREPARE = 3
    CPUHP_X2APIC_PREPARE = 4
    CPUHP_SMPCFD_PREPARE = 5
    CPUHP_TIMERS_PREPARE = 6
    CPUHP_BP_PREPARE_DYN = 7
    CPUHP_BP_PREPARE_DYN_END = 27
    CPUHP_BRINGUP_CPU = 28
    CPUHP_AP_IDLE_DEAD = 29
    CPUHP_AP_OFFLINE = 30
    CPUHP_AP_SCHED_STARTING = 31
    CPUHP_AP_IRQ_GIC_STARTING = 32
    CPUHP_AP_ARM_ARCH_TIMER_STARTING = 33
    CPUHP_AP_HYPERV_TIMER_STARTING = 34
    CPUHP_AP_DUMMY_TIMER_STARTING = 35
    CPUHP_AP_SMPCFD_DYING = 36
    CPUHP_AP_HRTIMERS_DYING = 37
    CPUHP_AP_ONLINE = 38
    CPUHP_TEARDOWN_CPU = 39
    CPUHP_AP_ONLINE_IDLE = 40
    CPUHP_AP_SMPBOOT_THREADS = 41
    CPUHP_AP_IRQ_AFFINITY_ONLINE = 42
    CPUHP_AP_BLK_MQ_ONLINE = 43
    CPUHP_AP_WORKQUEUE_ONLINE = 44
    CPUHP_AP_ONLINE_DYN = 45
    CPUHP_AP_ONLINE_DYN_END = 85
    CPUHP_AP_MM_DEMOTION_ONLINE = 86
    CPUHP_AP_X86_HPET_ONLINE = 87
    CPUHP_AP_X86_KVM_CLK_ONLINE = 88
    CPUHP_AP_ACTIVE = 89
    CPUHP_ONLINE = 90


class Cpuhp(Protocol):
    """``kernel.cpuhp``."""

    def cpuhp_setup_state(
        self,
        state: CpuhpState | int,
        name: str,
        startup: Callable[[int], int] | None,
        teardown: Callable[[int], int] | None,
        *,
        nocalls: bool = False,
    ) -> int:
        """Install callbacks and run ``startup`` on every CPU that has passed the state already.

        Returns 0, the allocated state for the ``_DYN`` states, or a negative errno (everything rolled back).
        Callbacks of states after CPUHP_AP_ONLINE_IDLE run in the ``cpuhp/N`` thread of their CPU and may sleep.
        """
        ...

    def cpuhp_remove_state(self, state: CpuhpState | int, *, nocalls: bool = False) -> None: ...
    def cpu_up(self, cpu: int) -> int: ...
    def cpu_down(self, cpu: int) -> int: ...
    def cpus_read_lock(self) -> None: ...
    def cpus_read_unlock(self) -> None: ...


class Irq(Protocol):
    """``kernel.irq``: what a vector does, and the interrupt flag."""

    def sysvec_install(self, vector: int, handler: Callable[[], None], name: str) -> None:
        """x86's alloc_intr_gate of a system vector: ``handler`` runs in hardirq context, accounted by the core."""
        ...

    def irq_create_mapping(self, vector: int, *, percpu: bool = False) -> int:
        """Give ``vector`` (a GSI, an arm64 INTID) a Linux irq number (acpi_register_gsi)."""
        ...

    def irq_dispose_mapping(self, irq: int) -> None: ...
    def request_irq(self, irq: int, handler: Callable[[int, Any], Any], name: str, dev_id: Any = None) -> int: ...
    def free_irq(self, irq: int, dev_id: Any = None) -> None: ...
    def request_percpu_irq(
        self, irq: int, handler: Callable[[int, Any], Any], name: str, dev_id: PerCpu[Any] | None = None
    ) -> int: ...
    def free_percpu_irq(self, irq: int) -> None: ...
    def enable_percpu_irq(self, irq: int) -> None: ...
    def disable_percpu_irq(self, irq: int) -> None: ...
    def local_irq_save(self) -> bool: ...
    def local_irq_restore(self, flags: bool) -> None: ...
    def local_irq_disable(self) -> None: ...
    def local_irq_enable(self) -> None: ...
    def irqs_disabled(self) -> bool: ...


__all__ = ["Cpu", "Cpuhp", "CpuhpState", "Cpus", "Irq", "PerCpu", "PerCpuApi", "VirtualProcessor"]
