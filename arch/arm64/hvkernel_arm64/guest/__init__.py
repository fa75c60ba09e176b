"""The arm64 guest: :class:`Arm64Guest` is what the kernel calls, the other modules are the kernel's files.

``state`` has the variables; ``hv_core`` and ``mshyperv`` are the files of that name; ``arch_timer`` and ``psci`` are as
much of the architecture as those stand on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.arch import HvRegisters, IpiKind, TlbFlush
from hvkernel.api.guest.hyperv import HvCommon
from hvkernel.api.guest.kernel import Import, KernelObject
from hvkernel.api.guest.mshyperv import MsHypervInfo
from hvkernel_arm64 import tlfs
from hvkernel_arm64.guest import arch_timer, hv_core, mshyperv, psci
from hvkernel_arm64.guest.state import Arm64State

if TYPE_CHECKING:
    from hvkernel.api.guest.arch import ArchKernel
    from hvkernel.api.guest.kernel import Build

__all__ = ["Arm64Guest", "make_guest"]

SGIS: Final[Mapping[IpiKind, int]] = MappingProxyType(
    {
        IpiKind.RESCHEDULE: 0,
        IpiKind.CALL_FUNCTION: 1,
        IpiKind.CALL_FUNCTION_SINGLE: 1,
        IpiKind.CPU_STOP: 2,
    }
)
"""``enum ipi_msg_type`` (arch/arm64/kernel/smp.c): software generated interrupts 0 to 15."""
PAGE_CONFIGS: Final = (("ARM64_64K_PAGES", 16), ("ARM64_16K_PAGES", 14))


class Arm64Guest:
    """Implements :class:`hvkernel.api.guest.arch.Arch` for one guest.

    :param bits: 64.
    :raises ValueError: another word size.
    """

    name = "arm64"
    page_sizes = (4096, 16384, 65536)
    acpi_cca_required = True
    hypervisor_callback_vector = None
    stimer0_vector = 31
    """INTID of PPI 15 (arch/arm64/include/asm/mshyperv.h has none in 6.1: HYPERV_TIMER is not built there)."""

    def __init__(self, bits: int) -> None:
        if bits != 64:
            raise ValueError(f"arm64 guest of {bits} bits; it has 64")
        self.bits = bits
        self.state = Arm64State()
        self.regs: HvRegisters = tlfs
        self.ms_hyperv: MsHypervInfo = self.state.ms_hyperv

    def page_shift(self, config: Build) -> int:
        return next((shift for name, shift in PAGE_CONFIGS if config.y(name)), 12)

    def page_fault_text(self, address: int, page_size: int) -> str:
        what = "NULL pointer dereference" if address < page_size else "paging request"
        return f"Unable to handle kernel {what} at virtual address {address:016x}"

    def hw_id_valid(self, hw_id: int) -> bool:
        return True

    # boot ------------------------------------------------------------------------------------------------------

    def attach(self, kernel: ArchKernel) -> None:
        self.state.attach(kernel)
        if kernel.config.value("HYPERV") in ("y", "m"):
            kernel.register_object(
                KernelObject(
                    "hyperv_arm64",
                    "",
                    "arch/arm64/hyperv/mshyperv.o",
                    lambda k: mshyperv.hyperv_init(self.state),
                    level="early",
                    imports=(Import(HvCommon, ("hv_common_init", "hv_common_cpu_init", "hv_common_free")),),
                    function="hyperv_init",
                )
            )

    def setup_arch(self) -> None:
        """Nothing: ACPI is read first."""

    def setup_arch_late(self) -> None:
        psci.psci_acpi_init(self.state)

    def smp_prepare_boot_cpu(self) -> None:
        """Nothing that is modelled."""

    def init_IRQ(self) -> None:
        """Nothing: the interrupt controller is the machine's."""

    def time_init(self) -> None:
        arch_timer.arch_timer_init(self.state)

    def late_time_init(self) -> None:
        """Nothing."""

    def smp_prepare_cpus(self, max_cpus: int) -> None:
        """Nothing that is modelled."""

    def cpu_up(self, cpu: int) -> int:
        return psci.cpu_psci_cpu_boot(self.state, self.state.kernel.cpus.cpu(cpu).hw_id)

    def start_secondary(self, cpu: int) -> None:
        """Nothing: the timer starts from its cpuhp state."""

    def smp_cpus_done(self, max_cpus: int) -> None:
        """Nothing that is modelled."""

    # interrupts ------------------------------------------------------------------------------------------------

    def ipi_vector(self, kind: IpiKind) -> int:
        return SGIS[kind]

    def send_ipi(self, cpus: Sequence[int], kind: IpiKind) -> None:
        """Raise an SGI. The GIC's CPU interface is the machine's: writing ICC_SGI1R_EL1 is no trap of the model."""
        for cpu in cpus:
            vp: Any = self.state.kernel.cpus.cpu(cpu).vp
            vp.raise_irq(SGIS[kind])

    def ack_irq(self, vector: int) -> None:
        """Nothing: ICC_EOIR1_EL1 does not leave the processor."""

    def enable_percpu_irq(self, vector: int) -> None:
        """Nothing: the redistributor's enable bits are not modelled."""

    def disable_percpu_irq(self, vector: int) -> None:
        """Nothing: the redistributor's enable bits are not modelled."""

    def acpi_register_gsi(self, gsi: int) -> int:
        return self.state.kernel.irq.irq_create_mapping(gsi, percpu=gsi < 32)

    def flush_tlb_multi(self, cpus: Sequence[int], info: TlbFlush) -> None:
        """Nothing: TLBI is broadcast by the hardware."""

    # Hyper-V ---------------------------------------------------------------------------------------------------

    def hv_do_hypercall(self, control: int, input_gpa: int | None, output_gpa: int | None) -> int:
        return hv_core.hv_do_hypercall(self.state, control, input_gpa, output_gpa)

    def hv_do_fast_hypercall8(self, code: int, input1: int) -> int:
        return hv_core.hv_do_fast_hypercall8(self.state, code, input1)

    def hv_get_register(self, reg: int) -> int:
        return hv_core.hv_get_vpreg(self.state, reg)

    def hv_set_register(self, reg: int, value: int) -> None:
        hv_core.hv_set_vpreg(self.state, reg, value)

    def hv_get_raw_timer(self) -> int:
        return self.state.cntvct()

    def hv_auto_eoi(self) -> bool:
        """Never: the hypervisor does not support it here."""
        return False

    def hv_get_hypervisor_version(self) -> tuple[int, int, int, int] | None:
        return mshyperv.hv_get_hypervisor_version(self.state)

    def hv_is_hyperv_initialized(self) -> bool:
        return self.state.hyperv_initialized

    def hv_is_isolation_supported(self) -> bool:
        return False

    def hv_setup_vmbus_handler(self, handler: Callable[[], None]) -> None:
        """Nothing: the VMBus interrupt is a per-CPU one."""

    def hv_remove_vmbus_handler(self) -> None:
        """Nothing."""

    def hv_setup_stimer0_handler(self, handler: Callable[[], None]) -> None:
        """Nothing: synthetic timers are not used."""

    def hv_remove_stimer0_handler(self) -> None:
        """Nothing."""

    def hv_setup_kexec_handler(self, handler: Callable[[], None]) -> None:
        """Nothing: the weak function of hv_common.c is all that 6.1 has here."""

    def hv_remove_kexec_handler(self) -> None:
        """Nothing."""

    def hv_setup_crash_handler(self, handler: Callable[[], None]) -> None:
        """Nothing: as for kexec."""

    def hv_remove_crash_handler(self) -> None:
        """Nothing."""

    def hv_setup_sched_clock(self, read: Callable[[], int]) -> None:
        self.state.kernel.clocksource.set_sched_clock(read)

    def hyperv_report_panic(self, err: int, in_die: bool) -> None:
        hv_core.hyperv_report_panic(self.state, err, in_die)

    def machine_shutdown(self, kexec: bool) -> None:
        """Nothing: arm64 takes nothing back from Hyper-V in this release."""

    def machine_crash_shutdown(self) -> None:
        """Nothing: arm64 takes nothing back from Hyper-V in this release."""


def make_guest(bits: int) -> Arm64Guest:
    """Make the guest's half for a word size (``ArchPlugin.guest``)."""
    return Arm64Guest(bits)
