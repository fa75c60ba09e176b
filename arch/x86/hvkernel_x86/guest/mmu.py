"""``arch/x86/hyperv/mmu.c``: dropping translations on other CPUs by hypercall instead of by interrupting them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_FLUSH_ALL_PROCESSORS,
    HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES,
    HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY,
    HV_STATUS_INVALID_PARAMETER,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE,
    HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX,
    HvGenericSetFormat,
)
from hvkernel.api.guest.arch import TlbFlush
from hvkernel.api.guest.mshyperv import VP_INVAL, cpumask_to_vpset, hv_result_success
from hvkernel_x86 import tlfs
from hvkernel_x86.guest.hypercall import hv_do_hypercall, rep_hypercall
from hvkernel_x86.guest.trace import HYPERV_MMU_FLUSH_TLB_MULTI

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = ~(PAGE_SIZE - 1) & 0xFFFF_FFFF_FFFF_FFFF
TLB_FLUSH_ALL: Final = 0xFFFF_FFFF_FFFF_FFFF
CR3_ADDR_MASK: Final = 0x7FFF_FFFF_FFFF_F000
"""Address bits of CR3, without PCID (arch/x86/include/asm/processor-flags.h)."""
FLUSH_SIZE: Final = 24
"""``struct hv_tlb_flush``: address space, flags, processor mask."""
FLUSH_EX_SIZE: Final = 32
"""``struct hv_tlb_flush_ex``: address space, flags, format and valid banks of the VP set."""


def fill_gva_list(start: int, end: int) -> list[int]:
    """Describe a range of addresses, each entry a page and up to 4,095 more.

    ``start`` is taken to be page aligned; a range that is empty or runs backwards still gives one entry
    (arch/x86/hyperv/mmu.c:fill_gva_list).
    """
    unit = tlfs.HV_TLB_FLUSH_UNIT
    entries = []
    cur = start
    while True:
        diff = max(end - cur, 0)
        entry = cur & PAGE_MASK
        if diff >= unit:
            entry |= PAGE_SIZE - 1
            cur += unit
        elif diff:
            entry |= (diff - 1) >> PAGE_SHIFT
            cur = end
        entries.append(entry)
        if cur >= end:
            return entries


def _space(info: TlbFlush) -> tuple[int, int]:
    if info.pgd is None:
        return 0, HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES
    return info.pgd & CR3_ADDR_MASK, 0


def hyperv_flush_tlb_multi(a: X86State, cpus: Sequence[int], info: TlbFlush) -> bool:
    """Drop translations on other CPUs by hypercall; false when the native way must be taken.

    A trace shows an address space by the address of its ``struct mm_struct``, which the model does not have; it shows
    that of the top table instead (*unspecified*; both are hashed before they are printed).
    """
    if a.kernel.tracing.enabled:
        a.kernel.tracing.event(HYPERV_MMU_FLUSH_TLB_MULTI, len(cpus), info.pgd or 0, info.start, info.end)
    if a.hv_hypercall_pg is None:
        return False
    irq = a.kernel.irq
    irq_flags = irq.local_irq_save()
    try:
        common = a.hv_common
        page = common.hyperv_pcpu_input_arg(a.kernel.cpus.smp_processor_id())
        if page is None:
            return False
        address_space, flags = _space(info)
        mask = 0
        if tuple(cpus) == tuple(a.kernel.cpus.for_each_present_cpu()):
            flags |= HV_FLUSH_ALL_PROCESSORS
        else:
            if cpus and common.hv_vp_index[max(cpus)] >= 64:
                return hv_result_success(hyperv_flush_tlb_others_ex(a, page, cpus, info))
            for cpu in cpus:
                vp = common.hv_vp_index[cpu]
                if vp == VP_INVAL:
                    return False
                if vp >= 64:
                    return hv_result_success(hyperv_flush_tlb_others_ex(a, page, cpus, info))
                mask |= 1 << vp
            if not mask:
                return True
        max_gvas = (PAGE_SIZE - FLUSH_SIZE) // 8
        memory = a.kernel.mm.memory
        if info.end == TLB_FLUSH_ALL:
            flags |= HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY
        if info.end == TLB_FLUSH_ALL or (info.end and (info.end - info.start) // tlfs.HV_TLB_FLUSH_UNIT > max_gvas):
            memory.write(page, struct.pack("<QQQ", address_space, flags, mask))
            status = hv_do_hypercall(a, HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE, page, None)
        else:
            gvas = fill_gva_list(info.start, info.end)
            memory.write(page, struct.pack(f"<QQQ{len(gvas)}Q", address_space, flags, mask, *gvas))
            status = rep_hypercall(a, HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST, len(gvas), 0, page)
        return hv_result_success(status)
    finally:
        irq.local_irq_restore(irq_flags)


def hyperv_flush_tlb_others_ex(a: X86State, page: int, cpus: Sequence[int], info: TlbFlush) -> int:
    """Drop translations on CPUs whose VP index may be 64 or more; return the hypercall's result."""
    if not a.ms_hyperv.hints & tlfs.HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED:
        return HV_STATUS_INVALID_PARAMETER
    address_space, flags = _space(info)
    common = a.hv_common
    vpset = cpumask_to_vpset(cpus, common.hv_vp_index, common.hv_max_vp_index)
    nr_bank = vpset.nr_bank
    if nr_bank < 0:
        return HV_STATUS_INVALID_PARAMETER
    banks = vpset.bank_contents[:nr_bank]
    max_gvas = (PAGE_SIZE - FLUSH_EX_SIZE - 8 * nr_bank) // 8
    whole = info.end == TLB_FLUSH_ALL
    if whole:
        flags |= HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY
    whole = whole or bool(info.end and (info.end - info.start) // tlfs.HV_TLB_FLUSH_UNIT > max_gvas)
    gvas = [] if whole else fill_gva_list(info.start, info.end)
    words = (
        address_space, flags, HvGenericSetFormat.HV_GENERIC_SET_SPARSE_4K, vpset.valid_bank_mask, *banks, *gvas
    )  # fmt: skip
    a.kernel.mm.memory.write(page, struct.pack(f"<{len(words)}Q", *words))
    code = HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX if whole else HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX
    return rep_hypercall(a, code, len(gvas), nr_bank, page)


def hyperv_setup_mmu_ops(a: X86State) -> None:
    """Use the hypercalls if the hypervisor recommends them, and say so."""
    if not a.ms_hyperv.hints & tlfs.HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED:
        return
    a.kernel.printk.pr_info("Hyper-V: Using hypercall for remote TLB flush")
    a.hyperv_flush = lambda cpus, info: hyperv_flush_tlb_multi(a, cpus, info)
