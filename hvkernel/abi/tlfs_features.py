"""Hypervisor features and privileges, page size and clock.

Features A and B are CPUID leaf 0x40000003 EAX and EBX on x86, HV_REGISTER_FEATURES on arm64; groups C and D
differ by architecture and are in its own ``tlfs`` module.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

HV_HYP_PAGE_SHIFT: Final = 12
"""log2 of the hypervisor's page; the same on every architecture and for every guest page size.

Source: include/asm-generic/hyperv-tlfs.h:22 @6.1.192
"""
HV_HYP_PAGE_SIZE: Final = 4096
"""Bytes of the hypervisor's page: the unit in which memory is shared, whatever the guest's own page is.

Source: include/asm-generic/hyperv-tlfs.h:23 @6.1.192
"""
HV_HYP_PAGE_MASK: Final = 0xFFFF_FFFF_FFFF_F000
"""Keeps the page number bits of a 64-bit address. (include/asm-generic/hyperv-tlfs.h:24 @6.1.192)"""
HV_MSR_VP_RUNTIME_AVAILABLE: Final = 1 << 0
"""Features A: the VP run time register. (include/asm-generic/hyperv-tlfs.h:50 @6.1.192)"""
HV_MSR_TIME_REF_COUNT_AVAILABLE: Final = 1 << 1
"""Features A: the partition reference counter. (include/asm-generic/hyperv-tlfs.h:52 @6.1.192)"""
HV_MSR_SYNIC_AVAILABLE: Final = 1 << 2
"""Features A: the SynIC registers SCONTROL to SINT15. (include/asm-generic/hyperv-tlfs.h:54 @6.1.192)"""
HV_MSR_SYNTIMER_AVAILABLE: Final = 1 << 3
"""Features A: the synthetic timer registers. (include/asm-generic/hyperv-tlfs.h:56 @6.1.192)"""
HV_MSR_APIC_ACCESS_AVAILABLE: Final = 1 << 4
"""Features A: EOI, ICR, TPR and the VP assist page registers. (include/asm-generic/hyperv-tlfs.h:58 @6.1.192)"""
HV_MSR_HYPERCALL_AVAILABLE: Final = 1 << 5
"""Features A: the guest OS id and hypercall registers. (include/asm-generic/hyperv-tlfs.h:60 @6.1.192)"""
HV_MSR_VP_INDEX_AVAILABLE: Final = 1 << 6
"""Features A: the VP index register. (include/asm-generic/hyperv-tlfs.h:62 @6.1.192)"""
HV_MSR_RESET_AVAILABLE: Final = 1 << 7
"""Features A: the reset register. (include/asm-generic/hyperv-tlfs.h:64 @6.1.192)"""
HV_MSR_STAT_PAGES_AVAILABLE: Final = 1 << 8
"""Features A: the statistics page registers. (include/asm-generic/hyperv-tlfs.h:66 @6.1.192)"""
HV_MSR_REFERENCE_TSC_AVAILABLE: Final = 1 << 9
"""Features A: the reference TSC page register. (include/asm-generic/hyperv-tlfs.h:68 @6.1.192)"""
HV_MSR_GUEST_IDLE_AVAILABLE: Final = 1 << 10
"""Features A: the guest idle register. (include/asm-generic/hyperv-tlfs.h:70 @6.1.192)"""
HV_ACCESS_FREQUENCY_MSRS: Final = 1 << 11
"""Features A: the TSC and local APIC timer frequency registers. (include/asm-generic/hyperv-tlfs.h:72 @6.1.192)"""
HV_ACCESS_REENLIGHTENMENT: Final = 1 << 13
"""Features A: the reenlightenment (TSC emulation after migration) registers.

Source: include/asm-generic/hyperv-tlfs.h:74 @6.1.192
"""
HV_ACCESS_TSC_INVARIANT: Final = 1 << 15
"""Features A: the register that turns the invariant TSC on. (include/asm-generic/hyperv-tlfs.h:76 @6.1.192)"""
HV_CREATE_PARTITIONS: Final = 1 << 0
"""Features B: may create partitions; only the root partition has it. (include/asm-generic/hyperv-tlfs.h:81 @6.1.192)"""
HV_ACCESS_PARTITION_ID: Final = 1 << 1
"""Features B: may ask for its partition id. (include/asm-generic/hyperv-tlfs.h:82 @6.1.192)"""
HV_ACCESS_MEMORY_POOL: Final = 1 << 2
"""Features B: may deposit memory in its partition's pool. (include/asm-generic/hyperv-tlfs.h:83 @6.1.192)"""
HV_ADJUST_MESSAGE_BUFFERS: Final = 1 << 3
"""Features B: may adjust message buffers. (include/asm-generic/hyperv-tlfs.h:84 @6.1.192)"""
HV_POST_MESSAGES: Final = 1 << 4
"""Features B: may call HvCallPostMessage. (include/asm-generic/hyperv-tlfs.h:85 @6.1.192)"""
HV_SIGNAL_EVENTS: Final = 1 << 5
"""Features B: may call HvCallSignalEvent. (include/asm-generic/hyperv-tlfs.h:86 @6.1.192)"""
HV_CREATE_PORT: Final = 1 << 6
"""Features B: may create ports. (include/asm-generic/hyperv-tlfs.h:87 @6.1.192)"""
HV_CONNECT_PORT: Final = 1 << 7
"""Features B: may connect to ports. (include/asm-generic/hyperv-tlfs.h:88 @6.1.192)"""
HV_ACCESS_STATS: Final = 1 << 8
"""Features B: may map statistics pages. (include/asm-generic/hyperv-tlfs.h:89 @6.1.192)"""
HV_DEBUGGING: Final = 1 << 11
"""Features B: may use the debugging hypercalls. (include/asm-generic/hyperv-tlfs.h:90 @6.1.192)"""
HV_CPU_MANAGEMENT: Final = 1 << 12
"""Features B: may manage processors; Linux takes it as the sign of the root partition.

Source: include/asm-generic/hyperv-tlfs.h:91 @6.1.192
"""
HV_ENABLE_EXTENDED_HYPERCALLS: Final = 1 << 20
"""Features B: may ask for the extended hypercalls (0x8001 on). (include/asm-generic/hyperv-tlfs.h:92 @6.1.192)"""
HV_ISOLATION: Final = 1 << 22
"""Features B: the partition is isolated from the host; see the isolation configuration leaf.

Source: include/asm-generic/hyperv-tlfs.h:93 @6.1.192
"""
HV_LINUX_VENDOR_ID: Final = 0x8100
"""What Linux writes to the top 16 bits of its guest OS id: open source (bit 15), OS type 0x100.

Source: include/asm-generic/hyperv-tlfs.h:138 @6.1.192
"""
HV_CRASH_CTL_CRASH_NOTIFY_MSG: Final = 1 << 62
"""Crash control: P3 and P4 hold the address and length of a message.

Source: include/asm-generic/hyperv-tlfs.h:143 @6.1.192
"""
HV_CRASH_CTL_CRASH_NOTIFY: Final = 1 << 63
"""Crash control: writing it tells the host that the guest has crashed.

Source: include/asm-generic/hyperv-tlfs.h:144 @6.1.192
"""
HV_CLOCK_HZ: Final = 0x0098_9680
"""Ticks per second of the reference counter and of the scaled TSC page: one tick is 100 ns.

Source: include/asm-generic/hyperv-tlfs.h:225 @6.1.192
"""


def nr_hv_hyp_pages_in_page(page_size: int) -> int:
    """Return ``NR_HV_HYP_PAGES_IN_PAGE``: 4 KiB pages in one page of the guest.

    Source: include/linux/hyperv.h:NR_HV_HYP_PAGES_IN_PAGE @6.1.192
    """
    return page_size >> HV_HYP_PAGE_SHIFT


PAGE_SIZE_CONSTANTS: Final = MappingProxyType({"NR_HV_HYP_PAGES_IN_PAGE": nr_hv_hyp_pages_in_page})
"""Constants that depend on the guest's page size (include/linux/hyperv.h:NR_HV_HYP_PAGES_IN_PAGE @6.1.192)."""
