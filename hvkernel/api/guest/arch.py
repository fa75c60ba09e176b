"""What an architecture's plugin gives to the kernel: the counterpart of ``arch/<name>`` and of ``asm/mshyperv.h``.

:class:`Arch` is the whole of it. ``hvkernel.linux`` calls the boot hooks in the kernel's order, ``hvkernel.hv`` the
Hyper-V primitives; neither ever asks which architecture it has. Boot order, with the caller's function:

1. :meth:`Arch.attach` when the kernel object is composed (nothing runs yet);
2. :meth:`Arch.setup_arch` (init/main.c:start_kernel -> setup_arch, before memory and ACPI are read);
3. :meth:`Arch.setup_arch_late` (end of setup_arch: CPUs are known, the allocator works);
4. :meth:`Arch.smp_prepare_boot_cpu`, :meth:`Arch.init_IRQ`, :meth:`Arch.time_init`, :meth:`Arch.late_time_init`;
5. :meth:`Arch.smp_prepare_cpus`, before the early initcalls; then initcalls of level "early";
6. for each secondary CPU :meth:`Arch.cpu_up` on the boot CPU and :meth:`Arch.start_secondary` on the new one;
7. :meth:`Arch.smp_cpus_done`, and the initcalls of the other levels.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hvkernel.api.guest.kernel import Kernel, Reboot
from hvkernel.api.guest.mshyperv import MsHypervInfo

if TYPE_CHECKING:
    from hvkernel.api.guest.kernel import Build

__all__ = ["Arch", "ArchBug", "ArchKernel", "ArchReboot", "CommandLine", "HvRegisters", "IpiKind", "Power", "TlbFlush"]


class ArchBug(Exception):
    """``BUG()`` in architecture code: the kernel cannot go on and panics with this text."""


class IpiKind(enum.Enum):
    """What an inter-processor interrupt asks of its target; the architecture maps it to a vector."""

    RESCHEDULE = "reschedule"
    CALL_FUNCTION = "call function"
    CALL_FUNCTION_SINGLE = "call function single"
    CPU_STOP = "cpu stop"


class CommandLine(Protocol):
    """``kernel.cmdline``: the kernel's parameters by name; ``-`` and ``_`` are one in names."""

    def get(self, name: str, default: str = "") -> str:
        """Return the value of the last ``name=value``."""
        ...

    def has(self, name: str) -> bool:
        """Whether the parameter is there, with or without a value."""
        ...


class Power(Protocol):
    """``kernel.power``: what hibernation calls last and first, on one processor with interrupts off."""

    def register_syscore_ops(self, suspend: Callable[[], int], resume: Callable[[], None]) -> Any:
        """Have ``suspend`` (0 or a negative errno) called, the last registered first; ``resume`` the other way."""
        ...

    def unregister_syscore_ops(self, ops: Any) -> None: ...


class ArchReboot(Reboot, Protocol):
    """``kernel.reboot`` with what only architecture code asks."""

    @property
    def panic_on_oops(self) -> bool:
        """Whether an oops ends the kernel (``oops=panic``, PANIC_ON_OOPS)."""
        ...


class ArchKernel(Kernel, Protocol):
    """The kernel as its architecture sees it: with the parameters and the processors' own counter."""

    @property
    def cmdline(self) -> CommandLine: ...
    @property
    def power(self) -> Power: ...
    @property
    def reboot(self) -> ArchReboot: ...
    @property
    def counter_hz(self) -> int:
        """Frequency of the processors' counter as the firmware set it, in Hz; 0 where it did not."""
        ...

    def counter_time(self) -> int:
        """Return the time that the processors' counter and local timers go by, in 100 ns units."""
        ...


class HvRegisters(Protocol):
    """Numbers of the synthetic registers, under the kernel's names (``asm/hyperv-tlfs.h``).

    They are MSRs on x86 and VP register names on arm64; generic code only hands them to :meth:`Arch.hv_get_register`
    and :meth:`Arch.hv_set_register`. ``HV_REGISTER_SINT0 + n`` is SINT *n* on both.
    """

    @property
    def HV_REGISTER_VP_INDEX(self) -> int: ...
    @property
    def HV_REGISTER_TIME_REF_COUNT(self) -> int: ...
    @property
    def HV_REGISTER_REFERENCE_TSC(self) -> int: ...
    @property
    def HV_REGISTER_SIMP(self) -> int: ...
    @property
    def HV_REGISTER_SIEFP(self) -> int: ...
    @property
    def HV_REGISTER_SINT0(self) -> int: ...
    @property
    def HV_REGISTER_SCONTROL(self) -> int: ...
    @property
    def HV_REGISTER_EOM(self) -> int: ...
    @property
    def HV_REGISTER_STIMER0_CONFIG(self) -> int: ...
    @property
    def HV_REGISTER_STIMER0_COUNT(self) -> int: ...
    @property
    def HV_REGISTER_CRASH_P0(self) -> int: ...
    @property
    def HV_REGISTER_CRASH_P1(self) -> int: ...
    @property
    def HV_REGISTER_CRASH_P2(self) -> int: ...
    @property
    def HV_REGISTER_CRASH_P3(self) -> int: ...
    @property
    def HV_REGISTER_CRASH_P4(self) -> int: ...
    @property
    def HV_REGISTER_CRASH_CTL(self) -> int: ...
    @property
    def HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE(self) -> int: ...
    @property
    def HV_STIMER_DIRECT_MODE_AVAILABLE(self) -> int: ...


class TlbFlush(Protocol):
    """``struct flush_tlb_info``: one request to drop translations on other CPUs."""

    @property
    def pgd(self) -> int | None:
        """Physical address of the address space's top table; ``None`` for the kernel's mappings."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int:
        """End of the range in bytes, or ``2**64 - 1`` (TLB_FLUSH_ALL)."""


class Arch(Protocol):
    """One guest's architecture. Made per guest by ``ArchPlugin.guest(bits)``; all its state belongs to that guest."""

    @property
    def name(self) -> str:
        """The kernel's directory name under ``arch/``; only for display."""

    @property
    def bits(self) -> int: ...
    @property
    def page_sizes(self) -> tuple[int, ...]:
        """Guest page sizes that the architecture can be built for, the default first."""

    def page_shift(self, config: Build) -> int:
        """Return log2 of the PAGE_SIZE that the configuration asks for."""

    def page_fault_text(self, address: int, page_size: int) -> str:
        """Return what the kernel prints of a fault at an address that it cannot reach (``arch/*/mm/fault.c``)."""

    @property
    def regs(self) -> HvRegisters: ...
    @property
    def ms_hyperv(self) -> MsHypervInfo:
        """The feature record; filled by :meth:`setup_arch` or an early initcall."""

    # boot, in calling order ------------------------------------------------------------------------------------

    def hw_id_valid(self, hw_id: int) -> bool:
        """Say whether a processor with this APIC id or MPIDR can be used at all; called before the CPUs are set up."""

    def attach(self, kernel: ArchKernel) -> None:
        """Bind the architecture to its kernel and declare its kernel objects; nothing of the guest runs yet."""

    def setup_arch(self) -> None:
        """Detect the hypervisor and the counter frequency (start of the kernel's ``setup_arch``)."""

    def setup_arch_late(self) -> None:
        """Do what the end of ``setup_arch`` does once memory and CPUs are known."""

    def smp_prepare_boot_cpu(self) -> None: ...
    def init_IRQ(self) -> None: ...
    def time_init(self) -> None: ...
    def late_time_init(self) -> None: ...
    def smp_prepare_cpus(self, max_cpus: int) -> None: ...
    def cpu_up(self, cpu: int) -> int:
        """Start a secondary CPU from the boot CPU; return 0 or a negative errno. Does not wait for it."""

    def start_secondary(self, cpu: int) -> None:
        """Run on a secondary CPU before its cpuhp STARTING callbacks: its own interrupt controller and timer."""

    def smp_cpus_done(self, max_cpus: int) -> None: ...

    # interrupts ------------------------------------------------------------------------------------------------

    def ipi_vector(self, kind: IpiKind) -> int:
        """Return the vector (x86) or INTID (arm64) that :meth:`send_ipi` raises for ``kind``."""

    def send_ipi(self, cpus: Sequence[int], kind: IpiKind) -> None: ...
    def ack_irq(self, vector: int) -> None:
        """End-of-interrupt to the local interrupt controller."""

    def enable_percpu_irq(self, vector: int) -> None:
        """Unmask a per-CPU interrupt on the calling CPU; nothing where vectors have no mask."""

    def disable_percpu_irq(self, vector: int) -> None: ...
    def acpi_register_gsi(self, gsi: int) -> int:
        """Return the Linux IRQ number of an ACPI interrupt, or a negative errno."""

    def flush_tlb_multi(self, cpus: Sequence[int], info: TlbFlush) -> None: ...

    # Hyper-V primitives: asm/mshyperv.h ---------------------------------------------------------------------------

    @property
    def acpi_cca_required(self) -> bool:
        """CONFIG_ACPI_CCA_REQUIRED: whether a device without _CCA counts as not coherent (a Kconfig select)."""

    @property
    def hypervisor_callback_vector(self) -> int | None:
        """HYPERVISOR_CALLBACK_VECTOR where the vector is fixed; ``None`` where ACPI names a per-CPU interrupt."""

    @property
    def stimer0_vector(self) -> int:
        """HYPERV_STIMER0_VECTOR: vector or INTID of the direct-mode synthetic timer."""

    def hv_do_hypercall(self, control: int, input_gpa: int | None, output_gpa: int | None) -> int:
        """Make a memory-based hypercall; return its 64-bit result."""

    def hv_do_fast_hypercall8(self, code: int, input1: int) -> int: ...
    def hv_get_register(self, reg: int) -> int: ...
    def hv_set_register(self, reg: int, value: int) -> None: ...
    def hv_get_raw_timer(self) -> int:
        """Read the counter that the reference TSC page scales."""

    def hv_auto_eoi(self) -> bool:
        """Say whether the VMBus SINT shall be auto-EOI (never where the hypervisor does not support it)."""

    def hv_get_hypervisor_version(self) -> tuple[int, int, int, int] | None:
        """The four version words (CPUID 0x40000002 or HvRegisterHypervisorVersion), ``None`` without them."""

    def hv_is_hyperv_initialized(self) -> bool: ...
    def hv_is_isolation_supported(self) -> bool: ...
    def hv_setup_vmbus_handler(self, handler: Callable[[], None]) -> None: ...
    def hv_remove_vmbus_handler(self) -> None: ...
    def hv_setup_stimer0_handler(self, handler: Callable[[], None]) -> None: ...
    def hv_remove_stimer0_handler(self) -> None: ...
    def hv_setup_kexec_handler(self, handler: Callable[[], None]) -> None: ...
    def hv_remove_kexec_handler(self) -> None: ...
    def hv_setup_crash_handler(self, handler: Callable[[], None]) -> None: ...
    def hv_remove_crash_handler(self) -> None: ...
    def hv_setup_sched_clock(self, read: Callable[[], int]) -> None:
        """Make ``read`` (nanoseconds) the scheduler clock, as ``hv_setup_sched_clock`` of hyperv_timer.c."""

    def hyperv_report_panic(self, err: int, in_die: bool) -> None:
        """Report a panic through the crash registers, once per guest."""

    def machine_shutdown(self, kexec: bool) -> None:
        """Take Hyper-V back before a reboot or, with ``kexec``, before a new kernel."""

    def machine_crash_shutdown(self) -> None:
        """Take Hyper-V back on the panicking CPU before a crash kernel."""
