"""``arch/x86/hyperv/hv_spinlock.c``: whether a CPU that waits for a lock sleeps in the hypervisor. 64-bit only.

The decision and its line are the kernel's. What it switches has no counterpart: tasks of the model wait for a lock in
the scheduler, whoever owns the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.abi.tlfs import HV_MSR_GUEST_IDLE_AVAILABLE
from hvkernel_x86.tlfs import HV_X64_CLUSTER_IPI_RECOMMENDED

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State


def hv_init_spinlocks(a: X86State) -> None:
    """Decide, and say so; ``hv_nopvspin`` on the command line says no."""
    if (
        a.kernel.cmdline.has("hv_nopvspin")
        or a.apic is None
        or not a.ms_hyperv.hints & HV_X64_CLUSTER_IPI_RECOMMENDED
        or not a.ms_hyperv.features & HV_MSR_GUEST_IDLE_AVAILABLE
    ):
        a.kernel.printk.pr_info("Hyper-V: PV spinlocks disabled")
        return
    a.kernel.printk.pr_info("Hyper-V: PV spinlocks enabled")
    a.pv_spinlocks = True
