"""The variables of the x86 files, one set per guest: what is static in the kernel's ``arch/x86``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.hyperv import HvCommon, HvTimer
from hvkernel.api.guest.mshyperv import MsHypervInfo

if TYPE_CHECKING:
    from hvkernel.api.guest.arch import ArchKernel, TlbFlush
    from hvkernel.api.guest.mm import Page
    from hvkernel.api.guest.sched import DelayedWork
    from hvkernel.api.guest.smp import VirtualProcessor
    from hvkernel.api.guest.time import ClockEventDevice, Clocksource
    from hvkernel_x86.guest.apic import Apic

__all__ = ["X86State"]

CPUID_FEATURES: Final = 1
X86_FEATURE_HYPERVISOR: Final = 1 << 31
X86_FEATURE_X2APIC: Final = 1 << 21
"""Bits of CPUID 1 ECX (arch/x86/include/asm/cpufeatures.h)."""


class X86State:
    """Everything that the x86 functions keep between calls."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._kernel: ArchKernel | None = None
        self.ms_hyperv = MsHypervInfo()
        self.x86_hyper_type = ""
        """``"Microsoft Hyper-V"`` once detected."""
        self.pv_info_name = "bare hardware"
        # x86_platform and x86_init hooks that Hyper-V replaces
        self.calibrate_tsc: Callable[[], int] | None = None
        self.apic_post_init: Callable[[], None] | None = None
        self.setup_percpu_clockev: Callable[[], None] | None = None
        self.smp_prepare_boot_cpu: Callable[[], None] | None = None
        self.hyperv_flush: Callable[[Sequence[int], TlbFlush], bool] | None = None
        """pv_ops.mmu.flush_tlb_multi; ``None`` is the native one. False when the native way must be taken."""
        # tsc.c
        self.tsc_khz = 0
        self.tsc_unstable = False
        self.tsc_known_freq = False
        self.tsc_reliable = False
        self.clocksource_tsc_early: Clocksource | None = None
        self.clocksource_tsc: Clocksource | None = None
        self.pv_sched_clock = False
        # apic.c
        self.apic: Apic | None = None
        self.lapic_timer_period = 0
        """APIC timer ticks per jiffy; 0 until known."""
        self.lapic_clockevents: dict[int, ClockEventDevice] = {}
        # hv_init.c
        self.hyperv_init_cpuhp = 0
        self.hv_hypercall_pg: Page | None = None
        self.hv_hypercall_pg_saved: Page | None = None
        self.hv_vp_assist_page: list[Page | None] | None = None
        self.hv_current_partition_id = 0xFFFF_FFFF_FFFF_FFFF
        self.hv_reenlightenment_cb: Callable[[], None] | None = None
        self.hv_reenlightenment_work: DelayedWork | None = None
        self.panic_reported = False
        # mshyperv.c
        self.vmbus_handler: Callable[[], None] | None = None
        self.hv_stimer0_handler: Callable[[], None] | None = None
        self.hv_kexec_handler: Callable[[], None] | None = None
        self.hv_crash_handler: Callable[[], None] | None = None
        self._unchecked_seen: set[str] = set()
        # hv_spinlock.c
        self.pv_spinlocks = False
        self.hypercalls = 0
        """Hypercalls made, for the tests."""

    @property
    def kernel(self) -> ArchKernel:
        """The kernel that this belongs to."""
        assert self._kernel is not None, "Arch.attach() did not run"
        return self._kernel

    @property
    def vp(self) -> VirtualProcessor:
        """The processor that runs the caller."""
        return self.kernel.cpus.this_cpu().vp

    @property
    def hyperv_enabled(self) -> bool:
        """IS_ENABLED(CONFIG_HYPERV)."""
        return self.kernel.config.value("HYPERV") in ("y", "m")

    @property
    def hv_common(self) -> HvCommon:
        """drivers/hv/hv_common.c; only where HYPERV is built."""
        return self.kernel.symbol(HvCommon)

    @property
    def hv_timer(self) -> HvTimer:
        """drivers/clocksource/hyperv_timer.c; only where HYPERV is built."""
        return self.kernel.symbol(HvTimer)

    def attach(self, kernel: ArchKernel) -> None:
        """Bind to the kernel, once."""
        assert self._kernel is None, "an x86 guest half belongs to one kernel"
        self._kernel = kernel

    # register access -------------------------------------------------------------------------------------------

    def rdmsr(self, n: int) -> int:
        """Read an MSR. One that the processor refuses reads as zero, after a warning (rdmsrl, ex_handler_msr)."""
        try:
            return self.vp.rdmsr(n)
        except Exception as fault:
            self._unchecked(fault, f"unchecked MSR access error: RDMSR from 0x{n:x}")
            return 0

    def wrmsr(self, n: int, value: int) -> None:
        """Write an MSR. A write that the processor refuses is dropped, after a warning (wrmsrl, ex_handler_msr)."""
        try:
            self.vp.wrmsr(n, value)
        except Exception as fault:
            text = f"unchecked MSR access error: WRMSR to 0x{n:x} (tried to write 0x{value:016x})"
            self._unchecked(fault, text)

    def _unchecked(self, fault: Exception, text: str) -> None:
        # A general protection fault is the one that names a register (an arch may not import the machine's classes).
        if not hasattr(fault, "register"):
            raise fault
        if text not in self._unchecked_seen:
            self._unchecked_seen.add(text)
            self.kernel.printk.pr_warn(text)

    def boot_cpu_has(self, feature: int) -> bool:
        """Say whether CPUID 1 ECX of the running processor has a bit."""
        return bool(self.vp.cpuid(CPUID_FEATURES)[2] & feature)
