"""The x86 guest: :class:`X86Guest` is what the kernel calls, the other modules are the kernel's files.

``state`` has the variables; ``mshyperv``, ``hv_init``, ``hv_apic``, ``mmu``, ``nested`` and ``hv_spinlock`` are the
files of that name; ``apic`` and ``tsc`` are as much of the architecture as those stand on; ``hypercall`` is
asm/mshyperv.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.arch import HvRegisters, IpiKind, TlbFlush
from hvkernel.api.guest.kernel import KernelObject
from hvkernel.api.guest.mshyperv import MsHypervInfo
from hvkernel_x86 import tlfs
from hvkernel_x86.guest import apic, hv_init, hypercall, mshyperv, tsc
from hvkernel_x86.guest.state import X86State
from hvkernel_x86.guest.trace import HYPERV_TRACE

if TYPE_CHECKING:
    from hvkernel.api.guest.arch import ArchKernel
    from hvkernel.api.guest.kernel import Build

__all__ = ["X86Guest", "make_guest"]

VECTORS: Final[Mapping[IpiKind, int]] = MappingProxyType(
    {
        IpiKind.RESCHEDULE: apic.RESCHEDULE_VECTOR,
        IpiKind.CALL_FUNCTION: apic.CALL_FUNCTION_VECTOR,
        IpiKind.CALL_FUNCTION_SINGLE: apic.CALL_FUNCTION_SINGLE_VECTOR,
        IpiKind.CPU_STOP: apic.REBOOT_VECTOR,
    }
)


class X86Guest:
    """Implements :class:`hvkernel.api.guest.arch.Arch` for one guest.

    :param bits: 64 or 32.
    :raises ValueError: another word size.
    """

    name = "x86"
    page_sizes = (4096,)
    acpi_cca_required = False
    hypervisor_callback_vector = apic.HYPERVISOR_CALLBACK_VECTOR
    stimer0_vector = apic.HYPERV_STIMER0_VECTOR

    def __init__(self, bits: int) -> None:
        if bits not in (32, 64):
            raise ValueError(f"x86 guest of {bits} bits; it has 32 or 64")
        self.bits = bits
        self.state = X86State(bits)
        self.regs: HvRegisters = tlfs
        self.ms_hyperv: MsHypervInfo = self.state.ms_hyperv

    def page_shift(self, config: Build) -> int:
        return 12

    def page_fault_text(self, address: int, page_size: int) -> str:
        what = "kernel NULL pointer dereference," if address < page_size else "unable to handle page fault for"
        return f"BUG: {what} address: {address:0{self.bits // 4}x}"

    def hw_id_valid(self, hw_id: int) -> bool:
        return apic.apic_id_valid(self.state, hw_id)

    # boot ------------------------------------------------------------------------------------------------------

    def attach(self, kernel: ArchKernel) -> None:
        self.state.attach(kernel)
        if self.state.hyperv_enabled:
            kernel.tracing.register(HYPERV_TRACE)
        kernel.register_object(
            KernelObject(
                "tsc",
                "",
                "arch/x86/kernel/tsc.o",
                lambda k: tsc.init_tsc_clocksource(self.state),
                level="device",
                function="init_tsc_clocksource",
            )
        )

    def setup_arch(self) -> None:
        mshyperv.init_hypervisor_platform(self.state)
        tsc.tsc_early_init(self.state)

    def setup_arch_late(self) -> None:
        a = self.state
        apic.generic_apic_probe(a)
        if a.kernel.config.y("PARAVIRT"):
            a.kernel.printk.pr_info(f"Booting paravirtualized kernel on {a.pv_info_name}")
        a.kernel.clocksource.register_refined_jiffies()

    def smp_prepare_boot_cpu(self) -> None:
        if self.state.smp_prepare_boot_cpu is not None:
            self.state.smp_prepare_boot_cpu()

    def init_IRQ(self) -> None:
        a = self.state
        a.kernel.irq.sysvec_install(
            apic.LOCAL_TIMER_VECTOR, lambda: apic.local_apic_timer_interrupt(a), "Local timer interrupts"
        )
        a.kernel.irq.sysvec_install(apic.X86_PLATFORM_IPI_VECTOR, lambda: apic.the_apic(a).eoi(), "Platform interrupts")

    def time_init(self) -> None:
        """Nothing: x86 waits for late_time_init."""

    def late_time_init(self) -> None:
        a = self.state
        a.kernel.printk.pr_info("APIC: Switch to symmetric I/O mode setup")
        if a.apic_post_init is not None:
            a.apic_post_init()
        tsc.tsc_init(a)

    def smp_prepare_cpus(self, max_cpus: int) -> None:
        a = self.state
        if a.setup_percpu_clockev is not None:
            a.setup_percpu_clockev()
        else:
            apic.setup_APIC_timer(a, a.kernel.cpus.smp_processor_id())

    def cpu_up(self, cpu: int) -> int:
        a = self.state
        return apic.wakeup_secondary_cpu_via_init(a, a.kernel.cpus.cpu(cpu).hw_id)

    def start_secondary(self, cpu: int) -> None:
        apic.setup_local_APIC(self.state)
        apic.setup_APIC_timer(self.state, cpu)

    def smp_cpus_done(self, max_cpus: int) -> None:
        """Nothing that is modelled."""

    # interrupts ------------------------------------------------------------------------------------------------

    def ipi_vector(self, kind: IpiKind) -> int:
        return VECTORS[kind]

    def send_ipi(self, cpus: Sequence[int], kind: IpiKind) -> None:
        """Through the entry point of ``struct apic`` that the kernel takes for it.

        Sources: arch/x86/kernel/apic/ipi.c:native_smp_send_reschedule, native_send_call_func_single_ipi,
        native_send_call_func_ipi (the shorthand is used while all present CPUs are online: apic_smt_update);
        arch/x86/kernel/smp.c:native_stop_other_cpus.
        """
        chosen, vector = apic.the_apic(self.state), VECTORS[kind]
        if kind is IpiKind.RESCHEDULE or kind is IpiKind.CALL_FUNCTION_SINGLE:
            for cpu in cpus:
                chosen.send_IPI(cpu, vector)
        elif kind is IpiKind.CPU_STOP or self._all_others(cpus):
            chosen.send_IPI_allbutself(vector)
        else:
            chosen.send_IPI_mask(cpus, vector)

    def _all_others(self, targets: Sequence[int]) -> bool:
        cpus = self.state.kernel.cpus
        me = cpus.smp_processor_id()
        online = tuple(cpus.for_each_online_cpu())
        return online == tuple(cpus.for_each_present_cpu()) and sorted((*targets, me)) == list(online)

    def ack_irq(self, vector: int) -> None:
        apic.the_apic(self.state).eoi()

    def enable_percpu_irq(self, vector: int) -> None:
        """Vectors have no mask."""

    def disable_percpu_irq(self, vector: int) -> None:
        """Vectors have no mask."""

    def acpi_register_gsi(self, gsi: int) -> int:
        return self.state.kernel.irq.irq_create_mapping(gsi)

    def flush_tlb_multi(self, cpus: Sequence[int], info: TlbFlush) -> None:
        flush = self.state.hyperv_flush
        if flush is None or not flush(cpus, info):
            self.state.kernel.cpus.smp_call_function_many(cpus, lambda: None)

    # Hyper-V ---------------------------------------------------------------------------------------------------

    def hv_do_hypercall(self, control: int, input_gpa: int | None, output_gpa: int | None) -> int:
        return hypercall.hv_do_hypercall(self.state, control, input_gpa, output_gpa)

    def hv_do_fast_hypercall8(self, code: int, input1: int) -> int:
        return hypercall.hv_do_fast_hypercall8(self.state, code, input1)

    def hv_get_register(self, reg: int) -> int:
        return self.state.rdmsr(reg)

    def hv_set_register(self, reg: int, value: int) -> None:
        self.state.wrmsr(reg, value)

    def hv_get_raw_timer(self) -> int:
        return tsc.rdtsc(self.state)

    def hv_auto_eoi(self) -> bool:
        return not self.ms_hyperv.hints & tlfs.HV_DEPRECATING_AEOI_RECOMMENDED

    def hv_get_hypervisor_version(self) -> tuple[int, int, int, int] | None:
        return mshyperv.hv_get_hypervisor_version(self.state)

    def hv_is_hyperv_initialized(self) -> bool:
        return hv_init.hv_is_hyperv_initialized(self.state)

    def hv_is_isolation_supported(self) -> bool:
        """Isolation is not modelled; a guest with it has another detection path."""
        return False

    def hv_setup_vmbus_handler(self, handler: Callable[[], None]) -> None:
        self.state.vmbus_handler = handler

    def hv_remove_vmbus_handler(self) -> None:
        self.state.vmbus_handler = None

    def hv_setup_stimer0_handler(self, handler: Callable[[], None]) -> None:
        self.state.hv_stimer0_handler = handler

    def hv_remove_stimer0_handler(self) -> None:
        self.state.hv_stimer0_handler = None

    def hv_setup_kexec_handler(self, handler: Callable[[], None]) -> None:
        self.state.hv_kexec_handler = handler

    def hv_remove_kexec_handler(self) -> None:
        self.state.hv_kexec_handler = None

    def hv_setup_crash_handler(self, handler: Callable[[], None]) -> None:
        self.state.hv_crash_handler = handler

    def hv_remove_crash_handler(self) -> None:
        self.state.hv_crash_handler = None

    def hv_setup_sched_clock(self, read: Callable[[], int]) -> None:
        """paravirt_set_sched_clock(); without PARAVIRT the TSC stays the scheduler's clock."""
        if self.state.kernel.config.y("PARAVIRT"):
            self.state.pv_sched_clock = True
            self.state.kernel.clocksource.set_sched_clock(read)

    def hyperv_report_panic(self, err: int, in_die: bool) -> None:
        hv_init.hyperv_report_panic(self.state, err, in_die)

    def machine_shutdown(self, kexec: bool) -> None:
        if self.state.hyperv_enabled:
            mshyperv.hv_machine_shutdown(self.state, kexec)

    def machine_crash_shutdown(self) -> None:
        if self.state.hyperv_enabled:
            mshyperv.hv_machine_crash_shutdown(self.state)


def make_guest(bits: int) -> X86Guest:
    """Make the guest's half for a word size (``ArchPlugin.guest``)."""
    return X86Guest(bits)
