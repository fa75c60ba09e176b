"""``arch/x86/hyperv/hv_apic.c``: the APIC through Hyper-V. 64-bit kernels only."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvkernel.abi.tlfs import HVCALL_SEND_IPI, HVCALL_SEND_IPI_EX, HvGenericSetFormat
from hvkernel.api.guest.mshyperv import VP_INVAL, cpumask_to_vpset, hv_result_success
from hvkernel_x86 import tlfs
from hvkernel_x86.guest.apic import APIC_EOI, APIC_TASKPRI, SET_XAPIC_DEST_FIELD, the_apic
from hvkernel_x86.guest.hypercall import hv_do_fast_hypercall16, rep_hypercall
from hvkernel_x86.guest.trace import HYPERV_SEND_IPI_MASK, HYPERV_SEND_IPI_ONE

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State


def hv_apic_icr_write(a: X86State, low: int, apicid: int) -> None:
    """Write the interrupt command register in one go."""
    a.wrmsr(tlfs.HV_X64_MSR_ICR, SET_XAPIC_DEST_FIELD(apicid) << 32 | low)


def hv_apic_read(a: X86State, reg: int) -> int:
    """Read EOI and TPR as synthetic registers, the others natively."""
    if reg == APIC_EOI:
        return a.rdmsr(tlfs.HV_X64_MSR_EOI) & 0xFFFF_FFFF
    if reg == APIC_TASKPRI:
        return a.rdmsr(tlfs.HV_X64_MSR_TPR) & 0xFFFF_FFFF
    return the_apic(a).native_read(reg)


def hv_apic_write(a: X86State, reg: int, value: int) -> None:
    """Write EOI and TPR as synthetic registers, the others natively."""
    if reg == APIC_EOI:
        a.wrmsr(tlfs.HV_X64_MSR_EOI, value)
    elif reg == APIC_TASKPRI:
        a.wrmsr(tlfs.HV_X64_MSR_TPR, value)
    else:
        the_apic(a).native_write(reg, value)


def hv_apic_eoi_write(a: X86State) -> None:
    """End an interrupt; for free when the hypervisor says in the VP assist page that it needs no EOI."""
    pages = a.hv_vp_assist_page
    page = pages[a.kernel.cpus.smp_processor_id()] if pages is not None else None
    if page is not None and a.kernel.mm.memory.xchg32(page.gpa, 0) & 1:
        return
    a.wrmsr(tlfs.HV_X64_MSR_EOI, 0)


def send_ipi_mask_ex(a: X86State, cpus: Sequence[int], vector: int, exclude: int | None) -> bool:
    """Send with a sparse VP set; false when that cannot be done."""
    if not a.ms_hyperv.hints & tlfs.HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED:
        return False
    irq = a.kernel.irq
    flags = irq.local_irq_save()
    try:
        common = a.hv_common
        arg = common.hyperv_pcpu_input_arg(a.kernel.cpus.smp_processor_id())
        if arg is None:
            return False
        nr_bank = 0
        mask = 0
        contents: list[int] = []
        form = HvGenericSetFormat.HV_GENERIC_SET_ALL
        if exclude is not None or tuple(cpus) != tuple(a.kernel.cpus.for_each_present_cpu()):
            form = HvGenericSetFormat.HV_GENERIC_SET_SPARSE_4K
            vpset = cpumask_to_vpset(cpus, common.hv_vp_index, common.hv_max_vp_index, exclude)
            nr_bank, mask, contents = vpset.nr_bank, vpset.valid_bank_mask, vpset.bank_contents
            if nr_bank <= 0:
                return False
        data = struct.pack(f"<IIQQ{len(contents)}Q", vector, 0, form, mask, *contents)
        a.kernel.mm.memory.write(arg, data)
        return hv_result_success(rep_hypercall(a, HVCALL_SEND_IPI_EX, 0, nr_bank, arg))
    finally:
        irq.local_irq_restore(flags)


def send_ipi_mask(a: X86State, cpus: Sequence[int], vector: int, exclude_self: bool = False) -> bool:
    """Send a vector to CPUs by hypercall; false when the native way must be taken.

    The plain call names VPs below 64 and goes in registers; a higher VP index needs the sparse set.
    """
    if a.kernel.tracing.enabled:
        a.kernel.tracing.event(HYPERV_SEND_IPI_MASK, len(cpus), vector)
    this_cpu = a.kernel.cpus.smp_processor_id()
    if not cpus or (exclude_self and tuple(cpus) == (this_cpu,)):
        return True
    if a.hv_hypercall_pg is None or not tlfs.HV_IPI_LOW_VECTOR <= vector <= tlfs.HV_IPI_HIGH_VECTOR:
        return False
    exclude = this_cpu if exclude_self else None
    vp_index = a.hv_common.hv_vp_index
    if vp_index[max(cpus)] >= 64:
        return send_ipi_mask_ex(a, cpus, vector, exclude)
    mask = 0
    for cpu in cpus:
        if cpu == exclude:
            continue
        vp = vp_index[cpu]
        if vp == VP_INVAL:
            return False
        if vp >= 64:
            return send_ipi_mask_ex(a, cpus, vector, exclude)
        mask |= 1 << vp
    return hv_result_success(hv_do_fast_hypercall16(a, HVCALL_SEND_IPI, vector, mask))


def send_ipi_one(a: X86State, cpu: int, vector: int) -> bool:
    """Send a vector to one CPU by hypercall; false when the native way must be taken."""
    if a.kernel.tracing.enabled:
        a.kernel.tracing.event(HYPERV_SEND_IPI_ONE, cpu, vector)
    vp = a.hv_common.hv_vp_index[cpu]
    if a.hv_hypercall_pg is None or vp == VP_INVAL:
        return False
    if not tlfs.HV_IPI_LOW_VECTOR <= vector <= tlfs.HV_IPI_HIGH_VECTOR:
        return False
    if vp >= 64:
        return send_ipi_mask_ex(a, (cpu,), vector, None)
    return hv_result_success(hv_do_fast_hypercall16(a, HVCALL_SEND_IPI, vector, 1 << vp))


def hv_send_ipi(a: X86State, cpu: int, vector: int) -> None:
    """Send a vector to one CPU: by hypercall, else natively."""
    if not send_ipi_one(a, cpu, vector):
        the_apic(a).native_send_IPI(cpu, vector)


def hv_send_ipi_allbutself(a: X86State, vector: int) -> None:
    """Send a vector to all other online CPUs: by hypercall, else natively."""
    if not send_ipi_mask(a, tuple(a.kernel.cpus.for_each_online_cpu()), vector, True):
        the_apic(a).native_send_IPI_allbutself(vector)


def hv_send_ipi_mask(a: X86State, cpus: Sequence[int], vector: int) -> None:
    """Send a vector to CPUs: by hypercall, else natively."""
    if not send_ipi_mask(a, cpus, vector):
        the_apic(a).native_send_IPI_mask(cpus, vector)


def hv_apic_init(a: X86State) -> None:
    """Replace the APIC's entry points as far as the hypervisor recommends it, and say so."""
    apic = the_apic(a)
    pr_info = a.kernel.printk.pr_info
    if a.ms_hyperv.hints & tlfs.HV_X64_CLUSTER_IPI_RECOMMENDED:
        pr_info("Hyper-V: Using IPI hypercalls")
        apic.send_IPI = lambda cpu, vector: hv_send_ipi(a, cpu, vector)
        apic.send_IPI_mask = lambda cpus, vector: hv_send_ipi_mask(a, cpus, vector)
        apic.send_IPI_allbutself = lambda vector: hv_send_ipi_allbutself(a, vector)
    if a.ms_hyperv.hints & tlfs.HV_X64_APIC_ACCESS_RECOMMENDED:
        pr_info(f"Hyper-V: Using enlightened APIC ({'x2apic' if apic.x2apic_mode else 'xapic'} mode)")
        apic.eoi = lambda: hv_apic_eoi_write(a)
        if not apic.x2apic_mode:
            apic.read = lambda reg: hv_apic_read(a, reg)
            apic.write = lambda reg, value: hv_apic_write(a, reg, value)
            apic.icr_write = lambda low, apicid: hv_apic_icr_write(a, low, apicid)
