"""``arch/x86/hyperv/hv_init.c``: guest id, hypercall page, VP assist pages, partition id, and taking it all back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_ACCESS_FREQUENCY_MSRS,
    HV_ACCESS_PARTITION_ID,
    HV_ACCESS_REENLIGHTENMENT,
    HV_CRASH_CTL_CRASH_NOTIFY,
    HV_HYPERCALL_REP_COMP_1,
    HV_PARTITION_ID_SELF,
    HV_VP_INDEX_SELF,
    HVCALL_GET_PARTITION_ID,
    HVCALL_GET_VP_REGISTERS,
)
from hvkernel.api.guest.arch import ArchBug
from hvkernel.api.guest.mshyperv import hv_generate_guest_id, hv_result_success
from hvkernel.api.guest.sched import DelayedWork
from hvkernel.api.guest.smp import CpuhpState
from hvkernel_x86 import tlfs
from hvkernel_x86.guest.apic import HYPERV_REENLIGHTENMENT_VECTOR, setup_APIC_timer, the_apic
from hvkernel_x86.guest.hv_apic import hv_apic_init
from hvkernel_x86.guest.hypercall import hv_do_hypercall

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State

LOW_BITS: Final = 0xFFF
ENABLE: Final = 1
PAGE: Final = 4096
_GET_VP_REGISTER: Final = struct.Struct("<QIB3xI4x")
"""hv_get_vp_registers_input with one element. Source: include/asm-generic/hyperv-tlfs.h."""


def version_code(version: str) -> int:
    """Return LINUX_VERSION_CODE of a release name such as ``6.1.192-cloud``; a sublevel above 255 counts as 255."""
    parts = [int("".join(c for c in part if c.isdigit()) or 0) for part in version.split("-")[0].split(".")]
    major, minor, sub = [*parts, 0, 0][:3]
    return major << 16 | minor << 8 | min(sub, 255)


def hv_cpu_init(a: X86State, cpu: int) -> int:
    """Start callback of ``x86/hyperv_init:online``: input page, VP index, VP assist page; 0 or a negative errno."""
    ret = a.hv_common.hv_common_cpu_init(cpu)
    if ret:
        return ret
    pages = a.hv_vp_assist_page
    if pages is None:
        return 0
    if pages[cpu] is None:
        pages[cpu] = a.kernel.mm.get_zeroed_page()
    page = pages[cpu]
    if page is None:
        a.kernel.printk.pr_warn(f"WARNING: hv_cpu_init: no VP assist page for CPU {cpu}")
        return 0
    a.wrmsr(tlfs.HV_X64_MSR_VP_ASSIST_PAGE, page.gpa | ENABLE)
    return 0


def hv_cpu_die(a: X86State, cpu: int) -> int:
    """Stop callback: undo :func:`hv_cpu_init`, hand reenlightenment to another CPU; 0."""
    a.hv_common.hv_common_cpu_die(cpu)
    if a.hv_vp_assist_page is not None and a.hv_vp_assist_page[cpu] is not None:
        a.wrmsr(tlfs.HV_X64_MSR_VP_ASSIST_PAGE, 0)
    if a.hv_reenlightenment_cb is None:
        return 0
    control = tlfs.HvReenlightenmentControl.unpack(a.rdmsr(REENLIGHTENMENT).to_bytes(8, "little"))
    vp_index = a.hv_common.hv_vp_index
    if control.target_vp == vp_index[cpu]:
        others = [other for other in a.kernel.cpus.for_each_online_cpu() if other != cpu]
        value = HYPERV_REENLIGHTENMENT_VECTOR
        value |= (1 << 16 | vp_index[others[0]] << 32) if others else control.target_vp << 32
        a.wrmsr(REENLIGHTENMENT, value)
    return 0


REENLIGHTENMENT: Final = tlfs.HV_X64_MSR_REENLIGHTENMENT_CONTROL


def hv_reenlightenment_available(a: X86State) -> bool:
    """Say whether the hypervisor tells of TSC frequency changes."""
    info = a.ms_hyperv
    return bool(
        info.features & HV_ACCESS_FREQUENCY_MSRS
        and info.misc_features & tlfs.HV_FEATURE_FREQUENCY_MSRS_AVAILABLE
        and info.features & HV_ACCESS_REENLIGHTENMENT
    )


def sysvec_hyperv_reenlightenment(a: X86State) -> None:
    """Interrupt after a migration: look at it a tenth of a second later, once however many interrupts came by then."""
    the_apic(a).eoi()
    if a.hv_reenlightenment_work is None:
        a.hv_reenlightenment_work = DelayedWork(lambda work: hv_reenlightenment_notify(a))
    a.kernel.workqueue.schedule_delayed_work(a.hv_reenlightenment_work, a.kernel.timers.HZ // 10)


def hv_reenlightenment_notify(a: X86State) -> None:
    """Tell whoever asked, if the hypervisor does emulate the TSC at the moment."""
    in_progress = a.rdmsr(tlfs.HV_X64_MSR_TSC_EMULATION_STATUS) & 1
    if a.hv_reenlightenment_cb is not None and in_progress:
        a.hv_reenlightenment_cb()


def set_hv_tscchange_cb(a: X86State, callback: Callable[[], None]) -> None:
    """Ask to be told when the TSC frequency changed (KVM does)."""
    if not hv_reenlightenment_available(a):
        a.kernel.printk.pr_warn("Hyper-V: reenlightenment support is unavailable")
        return
    vp_index = a.hv_common.hv_vp_index
    if not vp_index:
        return
    a.hv_reenlightenment_cb = callback
    cpu = a.kernel.cpus.get_cpu()
    a.wrmsr(REENLIGHTENMENT, HYPERV_REENLIGHTENMENT_VECTOR | 1 << 16 | vp_index[cpu] << 32)
    a.wrmsr(tlfs.HV_X64_MSR_TSC_EMULATION_CONTROL, 1)
    a.kernel.cpus.put_cpu()


def clear_hv_tscchange_cb(a: X86State) -> None:
    """Undo :func:`set_hv_tscchange_cb`."""
    if hv_reenlightenment_available(a):
        a.wrmsr(REENLIGHTENMENT, a.rdmsr(REENLIGHTENMENT) & ~(1 << 16))
        a.hv_reenlightenment_cb = None


def hv_stimer_setup_percpu_clockev(a: X86State) -> None:
    """Clock events of the boot CPU: synthetic timer 0 if there is one, and the APIC timer always."""
    a.hv_timer.hv_stimer_alloc(False)
    setup_APIC_timer(a, a.kernel.cpus.smp_processor_id())


def hv_get_partition_id(a: X86State) -> None:
    """Ask for the partition's id; a refusal is a BUG.

    The kernel writes to the per-CPU *output* page here, which only a root partition has; the model uses the input page.
    """
    irq = a.kernel.irq
    flags = irq.local_irq_save()
    page = a.hv_common.hyperv_pcpu_input_arg(a.kernel.cpus.smp_processor_id())
    status = hv_do_hypercall(a, HVCALL_GET_PARTITION_ID, None, page)
    if not hv_result_success(status):
        a.kernel.printk.pr_err(f"Failed to get partition ID: {status}")
        raise ArchBug("arch/x86/hyperv/hv_init.c:391!")
    assert page is not None
    a.hv_current_partition_id = a.kernel.mm.memory.load64(page)
    irq.local_irq_restore(flags)


def get_vtl(a: X86State) -> int:
    """Ask for the trust level that the kernel runs at; a refusal is a BUG (6.6.87's place is given).

    Only a kernel with HYPERV_VTL_MODE does, which is not meant for ordinary guests. On level 0 it goes on here as any
    other, and above it hv_vtl_early_init() would follow, which is not modelled: no host here starts a guest there.
    """
    kernel = a.kernel
    if not kernel.config.y("HYPERV_VTL_MODE") or not kernel.release.has("x86_vtl_mode"):
        return 0
    flags = kernel.irq.local_irq_save()
    page = a.hv_common.hyperv_pcpu_input_arg(kernel.cpus.smp_processor_id())
    assert page is not None
    memory = kernel.mm.memory
    memory.write(
        page, _GET_VP_REGISTER.pack(HV_PARTITION_ID_SELF, HV_VP_INDEX_SELF, 0, tlfs.HV_X64_REGISTER_VSM_VP_STATUS)
    )
    status = hv_do_hypercall(a, HV_HYPERCALL_REP_COMP_1 | HVCALL_GET_VP_REGISTERS, page, page)
    if not hv_result_success(status):
        kernel.printk.pr_err(f"Hyper-V: Failed to get VTL(error: {status}) exiting...")
        raise ArchBug("arch/x86/hyperv/hv_init.c:439!")
    level = memory.load64(page) & tlfs.HV_X64_VTL_MASK
    kernel.irq.local_irq_restore(flags)
    return level


def hyperv_init(a: X86State) -> None:
    """Set Hyper-V up once the interrupt mode is chosen: per-CPU state, guest id, hypercall page, APIC."""
    kernel = a.kernel
    if not a.x86_hyper_type or a.hv_common.hv_common_init():
        return
    a.hv_vp_assist_page = [None] * kernel.cpus.num_possible_cpus()
    cpuhp = kernel.cpuhp.cpuhp_setup_state(
        CpuhpState.CPUHP_AP_ONLINE_DYN,
        "x86/hyperv_init:online",
        lambda cpu: hv_cpu_init(a, cpu),
        lambda cpu: hv_cpu_die(a, cpu),
    )
    if cpuhp < 0:
        a.hv_vp_assist_page = None
        a.hv_common.hv_common_free()
        return
    a.wrmsr(tlfs.HV_X64_MSR_GUEST_OS_ID, hv_generate_guest_id(version_code(kernel.release.version)))
    page = kernel.mm.get_zeroed_page(atomic=True)
    if page is None:
        a.wrmsr(tlfs.HV_X64_MSR_GUEST_OS_ID, 0)
        kernel.cpuhp.cpuhp_remove_state(cpuhp)
        a.hv_vp_assist_page = None
        a.hv_common.hv_common_free()
        return
    value = a.rdmsr(tlfs.HV_X64_MSR_HYPERCALL) & LOW_BITS
    a.wrmsr(tlfs.HV_X64_MSR_HYPERCALL, value | ENABLE | page.gpa)
    a.hv_hypercall_pg = page
    a.setup_percpu_clockev = lambda: hv_stimer_setup_percpu_clockev(a)
    if a.bits == 64:
        hv_apic_init(a)
    kernel.power.register_syscore_ops(lambda: hv_suspend(a), lambda: hv_resume(a))
    a.hyperv_init_cpuhp = cpuhp
    if a.ms_hyperv.priv_high & HV_ACCESS_PARTITION_ID:
        hv_get_partition_id(a)
    a.hv_common.hv_query_ext_cap(0)
    get_vtl(a)


def hv_suspend(a: X86State) -> int:
    """Syscore callback before hibernation's image is made: the hypercall page goes, and the boot CPU's pages; 0."""
    a.hv_hypercall_pg_saved, a.hv_hypercall_pg = a.hv_hypercall_pg, None
    a.wrmsr(tlfs.HV_X64_MSR_HYPERCALL, a.rdmsr(tlfs.HV_X64_MSR_HYPERCALL) & ~ENABLE)
    return hv_cpu_die(a, 0)


def hv_resume(a: X86State) -> None:
    """Syscore callback after it: undo :func:`hv_suspend`. hv_cpu_die() switched reenlightenment off."""
    hv_cpu_init(a, 0)
    page = a.hv_hypercall_pg_saved
    assert page is not None, "hv_suspend() did not run"
    value = a.rdmsr(tlfs.HV_X64_MSR_HYPERCALL) & LOW_BITS
    a.wrmsr(tlfs.HV_X64_MSR_HYPERCALL, value | ENABLE | page.gpa)
    a.hv_hypercall_pg, a.hv_hypercall_pg_saved = page, None
    if a.hv_reenlightenment_cb is not None:
        set_hv_tscchange_cb(a, a.hv_reenlightenment_cb)


def hyperv_cleanup(a: X86State) -> None:
    """Before a new kernel: guest id, hypercall page and reference TSC page go back to the hypervisor."""
    a.wrmsr(tlfs.HV_X64_MSR_GUEST_OS_ID, 0)
    a.hv_hypercall_pg = None
    for register in (tlfs.HV_X64_MSR_HYPERCALL, tlfs.HV_X64_MSR_REFERENCE_TSC):
        a.wrmsr(register, a.rdmsr(register) & ~ENABLE)


def hyperv_report_panic(a: X86State, err: int, in_die: bool) -> None:
    """Report a panic by the crash registers, once. Instruction and stack pointers are not modelled: zero."""
    if a.panic_reported or (in_die and not a.kernel.reboot.panic_on_oops):
        return
    a.panic_reported = True
    guest_id = a.rdmsr(tlfs.HV_X64_MSR_GUEST_OS_ID)
    a.wrmsr(tlfs.HV_X64_MSR_CRASH_P0, err)
    a.wrmsr(tlfs.HV_X64_MSR_CRASH_P1, guest_id)
    a.wrmsr(tlfs.HV_X64_MSR_CRASH_P2, 0)
    a.wrmsr(tlfs.HV_X64_MSR_CRASH_P3, 0)
    a.wrmsr(tlfs.HV_X64_MSR_CRASH_P4, 0)
    a.wrmsr(tlfs.HV_X64_MSR_CRASH_CTL, HV_CRASH_CTL_CRASH_NOTIFY)


def hv_is_hyperv_initialized(a: X86State) -> bool:
    """Say whether the hypercall page is enabled."""
    return bool(a.x86_hyper_type) and bool(a.rdmsr(tlfs.HV_X64_MSR_HYPERCALL) & ENABLE)
