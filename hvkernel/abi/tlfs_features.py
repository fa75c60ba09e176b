"""FEATDOC"""

from __future__ import annotations

from typing import Final

HV_HYP_PAGE_SHIFT: Final = 0xC
"""HV_HYP_PAGE_SHIFT. (include/asm-generic/hyperv-tlfs.h:22 @6.1.192)"""
HV_HYP_PAGE_SIZE: Final = 0x1000
"""HV_HYP_PAGE_SIZE. (include/asm-generic/hyperv-tlfs.h:23 @6.1.192)"""
HV_HYP_PAGE_MASK: Final = 0xFFFF_FFFF_FFFF_F000
"""HV_HYP_PAGE_MASK. (include/asm-generic/hyperv-tlfs.h:24 @6.1.192)"""
HV_MSR_VP_RUNTIME_AVAILABLE: Final = 1 << 0
"""HV_MSR_VP_RUNTIME_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:50 @6.1.192)"""
HV_MSR_TIME_REF_COUNT_AVAILABLE: Final = 1 << 1
"""HV_MSR_TIME_REF_COUNT_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:52 @6.1.192)"""
HV_MSR_SYNIC_AVAILABLE: Final = 1 << 2
"""HV_MSR_SYNIC_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:54 @6.1.192)"""
HV_MSR_SYNTIMER_AVAILABLE: Final = 1 << 3
"""HV_MSR_SYNTIMER_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:56 @6.1.192)"""
HV_MSR_APIC_ACCESS_AVAILABLE: Final = 1 << 4
"""HV_MSR_APIC_ACCESS_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:58 @6.1.192)"""
HV_MSR_HYPERCALL_AVAILABLE: Final = 1 << 5
"""HV_MSR_HYPERCALL_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:60 @6.1.192)"""
HV_MSR_VP_INDEX_AVAILABLE: Final = 1 << 6
"""HV_MSR_VP_INDEX_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:62 @6.1.192)"""
HV_MSR_RESET_AVAILABLE: Final = 1 << 7
"""HV_MSR_RESET_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:64 @6.1.192)"""
HV_MSR_STAT_PAGES_AVAILABLE: Final = 1 << 8
"""HV_MSR_STAT_PAGES_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:66 @6.1.192)"""
HV_MSR_REFERENCE_TSC_AVAILABLE: Final = 1 << 9
"""HV_MSR_REFERENCE_TSC_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:68 @6.1.192)"""
HV_MSR_GUEST_IDLE_AVAILABLE: Final = 1 << 10
"""HV_MSR_GUEST_IDLE_AVAILABLE. (include/asm-generic/hyperv-tlfs.h:70 @6.1.192)"""
HV_ACCESS_FREQUENCY_MSRS: Final = 1 << 11
"""HV_ACCESS_FREQUENCY_MSRS. (include/asm-generic/hyperv-tlfs.h:72 @6.1.192)"""
HV_ACCESS_REENLIGHTENMENT: Final = 1 << 13
"""HV_ACCESS_REENLIGHTENMENT. (include/asm-generic/hyperv-tlfs.h:74 @6.1.192)"""
HV_ACCESS_TSC_INVARIANT: Final = 1 << 15
"""HV_ACCESS_TSC_INVARIANT. (include/asm-generic/hyperv-tlfs.h:76 @6.1.192)"""
HV_CREATE_PARTITIONS: Final = 1 << 0
"""HV_CREATE_PARTITIONS. (include/asm-generic/hyperv-tlfs.h:81 @6.1.192)"""
HV_ACCESS_PARTITION_ID: Final = 1 << 1
"""HV_ACCESS_PARTITION_ID. (include/asm-generic/hyperv-tlfs.h:82 @6.1.192)"""
HV_ACCESS_MEMORY_POOL: Final = 1 << 2
"""HV_ACCESS_MEMORY_POOL. (include/asm-generic/hyperv-tlfs.h:83 @6.1.192)"""
HV_ADJUST_MESSAGE_BUFFERS: Final = 1 << 3
"""HV_ADJUST_MESSAGE_BUFFERS. (include/asm-generic/hyperv-tlfs.h:84 @6.1.192)"""
HV_POST_MESSAGES: Final = 1 << 4
"""HV_POST_MESSAGES. (include/asm-generic/hyperv-tlfs.h:85 @6.1.192)"""
HV_SIGNAL_EVENTS: Final = 1 << 5
"""HV_SIGNAL_EVENTS. (include/asm-generic/hyperv-tlfs.h:86 @6.1.192)"""
HV_CREATE_PORT: Final = 1 << 6
"""HV_CREATE_PORT. (include/asm-generic/hyperv-tlfs.h:87 @6.1.192)"""
HV_CONNECT_PORT: Final = 1 << 7
"""HV_CONNECT_PORT. (include/asm-generic/hyperv-tlfs.h:88 @6.1.192)"""
HV_ACCESS_STATS: Final = 1 << 8
"""HV_ACCESS_STATS. (include/asm-generic/hyperv-tlfs.h:89 @6.1.192)"""
HV_DEBUGGING: Final = 1 << 11
"""HV_DEBUGGING. (include/asm-generic/hyperv-tlfs.h:90 @6.1.192)"""
HV_CPU_MANAGEMENT: Final = 1 << 12
"""HV_CPU_MANAGEMENT. (include/asm-generic/hyperv-tlfs.h:91 @6.1.192)"""
HV_ENABLE_EXTENDED_HYPERCALLS: Final = 1 << 20
"""HV_ENABLE_EXTENDED_HYPERCALLS. (include/asm-generic/hyperv-tlfs.h:92 @6.1.192)"""
HV_ISOLATION: Final = 1 << 22
"""HV_ISOLATION. (include/asm-generic/hyperv-tlfs.h:93 @6.1.192)"""
HV_LINUX_VENDOR_ID: Final = 0x8100
"""HV_LINUX_VENDOR_ID. (include/asm-generic/hyperv-tlfs.h:138 @6.1.192)"""
HV_CRASH_CTL_CRASH_NOTIFY_MSG: Final = 1 << 62
"""HV_CRASH_CTL_CRASH_NOTIFY_MSG. (include/asm-generic/hyperv-tlfs.h:143 @6.1.192)"""
HV_CRASH_CTL_CRASH_NOTIFY: Final = 1 << 63
"""HV_CRASH_CTL_CRASH_NOTIFY. (include/asm-generic/hyperv-tlfs.h:144 @6.1.192)"""
HV_CLOCK_HZ: Final = 0x0098_9680
"""HV_CLOCK_HZ. (include/asm-generic/hyperv-tlfs.h:225 @6.1.192)"""
