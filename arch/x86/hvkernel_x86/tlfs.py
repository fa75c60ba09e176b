"""x86: CPUID leaves, feature bits C and D, recommendations, MSR numbers. Counterpart of asm/hyperv-tlfs.h.

Its structs are defined in `hvkernel_x86.tlfs_structs` and available here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from hvkernel_x86.tlfs_structs import *

HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS: Final = 0x4000_0000
"""CPUID leaf: highest leaf (EAX), "Microsoft Hv" (EBX, ECX, EDX). (arch/x86/include/asm/hyperv-tlfs.h:18 @6.1.192)"""
HYPERV_CPUID_INTERFACE: Final = 0x4000_0001
"""CPUID leaf: "Hv#1" (EAX). (arch/x86/include/asm/hyperv-tlfs.h:19 @6.1.192)"""
HYPERV_CPUID_VERSION: Final = 0x4000_0002
"""CPUID leaf: build (EAX), version (EBX), service pack (ECX), service branch and number (EDX).

Source: arch/x86/include/asm/hyperv-tlfs.h:20 @6.1.192
"""
HYPERV_CPUID_FEATURES: Final = 0x4000_0003
"""CPUID leaf: features A (EAX), B (EBX), C (ECX), D (EDX). (arch/x86/include/asm/hyperv-tlfs.h:21 @6.1.192)"""
HYPERV_CPUID_ENLIGHTMENT_INFO: Final = 0x4000_0004
"""CPUID leaf: recommendations (EAX), spin count (EBX). (arch/x86/include/asm/hyperv-tlfs.h:22 @6.1.192)"""
HYPERV_CPUID_IMPLEMENT_LIMITS: Final = 0x4000_0005
"""CPUID leaf: most virtual processors (EAX), logical processors (EBX).

Source: arch/x86/include/asm/hyperv-tlfs.h:23 @6.1.192
"""
HYPERV_CPUID_CPU_MANAGEMENT_FEATURES: Final = 0x4000_0007
"""CPUID leaf: processor management (EAX); root partition. (arch/x86/include/asm/hyperv-tlfs.h:24 @6.1.192)"""
HYPERV_CPUID_NESTED_FEATURES: Final = 0x4000_000A
"""CPUID leaf: nested virtualisation (EAX, EBX). (arch/x86/include/asm/hyperv-tlfs.h:25 @6.1.192)"""
HYPERV_CPUID_ISOLATION_CONFIG: Final = 0x4000_000C
"""CPUID leaf: isolation (EAX, EBX). (arch/x86/include/asm/hyperv-tlfs.h:26 @6.1.192)"""
HYPERV_CPUID_VIRT_STACK_INTERFACE: Final = 0x4000_0081
"""CPUID leaf: "VS#1" (EAX) if the virtualisation stack has leaves. (arch/x86/include/asm/hyperv-tlfs.h:28 @6.1.192)"""
HYPERV_VS_INTERFACE_EAX_SIGNATURE: Final = 0x3123_5356
""""VS#1". (arch/x86/include/asm/hyperv-tlfs.h:29 @6.1.192)"""
HYPERV_CPUID_VIRT_STACK_PROPERTIES: Final = 0x4000_0082
"""CPUID leaf: properties of the virtualisation stack (EAX). (arch/x86/include/asm/hyperv-tlfs.h:31 @6.1.192)"""
HYPERV_VS_PROPERTIES_EAX_EXTENDED_IOAPIC_RTE: Final = 1 << 2
"""Virtualisation stack: I/O APIC entries take 15-bit APIC ids. (arch/x86/include/asm/hyperv-tlfs.h:33 @6.1.192)"""
HYPERV_HYPERVISOR_PRESENT_BIT: Final = 0x8000_0000
"""CPUID leaf 1, ECX bit 31: there is a hypervisor. (arch/x86/include/asm/hyperv-tlfs.h:35 @6.1.192)"""
HYPERV_CPUID_MIN: Final = 0x4000_0005
"""Lowest highest leaf with which Linux takes the hypervisor for Hyper-V.

Source: arch/x86/include/asm/hyperv-tlfs.h:36 @6.1.192
"""
HYPERV_CPUID_MAX: Final = 0x4000_FFFF
"""Highest highest leaf with which it does. (arch/x86/include/asm/hyperv-tlfs.h:37 @6.1.192)"""
HV_X64_MWAIT_AVAILABLE: Final = 1 << 0
"""Features D: MWAIT. (arch/x86/include/asm/hyperv-tlfs.h:44 @6.1.192)"""
HV_X64_GUEST_DEBUGGING_AVAILABLE: Final = 1 << 1
"""Features D: guest debugging. (arch/x86/include/asm/hyperv-tlfs.h:46 @6.1.192)"""
HV_X64_PERF_MONITOR_AVAILABLE: Final = 1 << 2
"""Features D: performance monitor. (arch/x86/include/asm/hyperv-tlfs.h:48 @6.1.192)"""
HV_X64_CPU_DYNAMIC_PARTITIONING_AVAILABLE: Final = 1 << 3
"""Features D: physical CPUs may come and go. (arch/x86/include/asm/hyperv-tlfs.h:50 @6.1.192)"""
HV_X64_HYPERCALL_XMM_INPUT_AVAILABLE: Final = 1 << 4
"""Features D: fast hypercalls may use XMM registers for input. (arch/x86/include/asm/hyperv-tlfs.h:55 @6.1.192)"""
HV_X64_GUEST_IDLE_STATE_AVAILABLE: Final = 1 << 5
"""Features D: virtual idle state. (arch/x86/include/asm/hyperv-tlfs.h:57 @6.1.192)"""
HV_FEATURE_FREQUENCY_MSRS_AVAILABLE: Final = 1 << 8
"""Features D: TSC and APIC frequency registers. (arch/x86/include/asm/hyperv-tlfs.h:59 @6.1.192)"""
HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE: Final = 1 << 10
"""Features: the crash registers; features D on x86, C on arm64. (arch/x86/include/asm/hyperv-tlfs.h:61 @6.1.192)"""
HV_FEATURE_DEBUG_MSRS_AVAILABLE: Final = 1 << 11
"""Features D: debug registers. (arch/x86/include/asm/hyperv-tlfs.h:63 @6.1.192)"""
HV_X64_HYPERCALL_XMM_OUTPUT_AVAILABLE: Final = 1 << 15
"""Features D: fast hypercalls may return output in XMM registers. (arch/x86/include/asm/hyperv-tlfs.h:68 @6.1.192)"""
HV_STIMER_DIRECT_MODE_AVAILABLE: Final = 1 << 19
"""Features: synthetic timers may raise a vector directly; features D on x86, C on arm64.

Source: arch/x86/include/asm/hyperv-tlfs.h:70 @6.1.192
"""
HV_X64_AS_SWITCH_RECOMMENDED: Final = 1 << 0
"""Recommendation: switch address space by hypercall. (arch/x86/include/asm/hyperv-tlfs.h:81 @6.1.192)"""
HV_X64_LOCAL_TLB_FLUSH_RECOMMENDED: Final = 1 << 1
"""Recommendation: flush the local TLB by hypercall. (arch/x86/include/asm/hyperv-tlfs.h:84 @6.1.192)"""
HV_X64_REMOTE_TLB_FLUSH_RECOMMENDED: Final = 1 << 2
"""Recommendation: flush remote TLBs by hypercall. (arch/x86/include/asm/hyperv-tlfs.h:89 @6.1.192)"""
HV_X64_APIC_ACCESS_RECOMMENDED: Final = 1 << 3
"""Recommendation: reach EOI, ICR and TPR through registers. (arch/x86/include/asm/hyperv-tlfs.h:94 @6.1.192)"""
HV_X64_SYSTEM_RESET_RECOMMENDED: Final = 1 << 4
"""Recommendation: reset through the reset register. (arch/x86/include/asm/hyperv-tlfs.h:96 @6.1.192)"""
HV_X64_RELAXED_TIMING_RECOMMENDED: Final = 1 << 5
"""Recommendation: no watchdogs that rely on timely interrupts. (arch/x86/include/asm/hyperv-tlfs.h:102 @6.1.192)"""
HV_DEPRECATING_AEOI_RECOMMENDED: Final = 1 << 9
"""Recommendation: do not use auto-EOI. (arch/x86/include/asm/hyperv-tlfs.h:107 @6.1.192)"""
HV_X64_CLUSTER_IPI_RECOMMENDED: Final = 1 << 10
"""Recommendation: send IPIs by hypercall. (arch/x86/include/asm/hyperv-tlfs.h:112 @6.1.192)"""
HV_X64_EX_PROCESSOR_MASKS_RECOMMENDED: Final = 1 << 11
"""Recommendation: name VPs by sets instead of masks. (arch/x86/include/asm/hyperv-tlfs.h:115 @6.1.192)"""
HV_X64_ENLIGHTENED_VMCS_RECOMMENDED: Final = 1 << 14
"""Recommendation: nested hypervisors should use the enlightened VMCS.

Source: arch/x86/include/asm/hyperv-tlfs.h:118 @6.1.192
"""
HV_X64_START_LOGICAL_PROCESSOR: Final = 1 << 0
"""Processor management: may start logical processors. (arch/x86/include/asm/hyperv-tlfs.h:124 @6.1.192)"""
HV_X64_CREATE_ROOT_VIRTUAL_PROCESSOR: Final = 1 << 1
"""Processor management: may create root VPs. (arch/x86/include/asm/hyperv-tlfs.h:125 @6.1.192)"""
HV_X64_PERFORMANCE_COUNTER_SYNC: Final = 1 << 2
"""Processor management: performance counters are in step. (arch/x86/include/asm/hyperv-tlfs.h:126 @6.1.192)"""
HV_X64_RESERVED_IDENTITY_BIT: Final = 1 << 31
"""Processor management: reserved. (arch/x86/include/asm/hyperv-tlfs.h:127 @6.1.192)"""
HV_X64_NO_NONARCH_CORESHARING: Final = 1 << 18
"""Recommendation: a VP shares its core only with those shown as its SMT siblings.

Source: arch/x86/include/asm/hyperv-tlfs.h:134 @6.1.192
"""
HV_X64_NESTED_DIRECT_FLUSH: Final = 1 << 17
"""Nested: virtual TLB flush hypercalls go straight to the outer hypervisor.

Source: arch/x86/include/asm/hyperv-tlfs.h:137 @6.1.192
"""
HV_X64_NESTED_GUEST_MAPPING_FLUSH: Final = 1 << 18
"""Nested: flush guest mappings by hypercall. (arch/x86/include/asm/hyperv-tlfs.h:138 @6.1.192)"""
HV_X64_NESTED_MSR_BITMAP: Final = 1 << 19
"""Nested: enlightened MSR bitmap. (arch/x86/include/asm/hyperv-tlfs.h:139 @6.1.192)"""
HV_X64_NESTED_EVMCS1_PERF_GLOBAL_CTRL: Final = 1 << 0
"""Nested: PERF_GLOBAL_CTRL in the enlightened VMCS. (arch/x86/include/asm/hyperv-tlfs.h:142 @6.1.192)"""
HV_X64_NESTED_ENLIGHTENED_TLB: Final = 1 << 22
"""Nested, AMD: an ASID flush leaves nested page table entries alone.

Source: arch/x86/include/asm/hyperv-tlfs.h:151 @6.1.192
"""
HV_PARAVISOR_PRESENT: Final = 1 << 0
"""Isolation, EAX: a paravisor runs below the guest. (arch/x86/include/asm/hyperv-tlfs.h:154 @6.1.192)"""
HV_ISOLATION_TYPE: Final = 15
"""Isolation, EBX: mask of the `HvIsolationType`. (arch/x86/include/asm/hyperv-tlfs.h:157 @6.1.192)"""
HV_SHARED_GPA_BOUNDARY_ACTIVE: Final = 1 << 5
"""Isolation, EBX: addresses above the boundary are shared with the host.

Source: arch/x86/include/asm/hyperv-tlfs.h:158 @6.1.192
"""
HV_SHARED_GPA_BOUNDARY_BITS: Final = 4032
"""Isolation, EBX: mask of the address bit at which the boundary lies.

Source: arch/x86/include/asm/hyperv-tlfs.h:159 @6.1.192
"""
HV_X64_MSR_GUEST_OS_ID: Final = 0x4000_0000
"""Register: who the guest is; 0 turns the hypercall page off. (arch/x86/include/asm/hyperv-tlfs.h:170 @6.1.192)"""
HV_X64_MSR_HYPERCALL: Final = 0x4000_0001
"""Register: where the guest wants the hypercall page. (arch/x86/include/asm/hyperv-tlfs.h:173 @6.1.192)"""
HV_REGISTER_VP_INDEX: Final = 0x4000_0002
"""Register: the VP's index. (arch/x86/include/asm/hyperv-tlfs.h:176 @6.1.192)"""
HV_X64_MSR_RESET: Final = 0x4000_0003
"""Register: writing 1 resets the partition. (arch/x86/include/asm/hyperv-tlfs.h:179 @6.1.192)"""
HV_X64_MSR_VP_RUNTIME: Final = 0x4000_0010
"""Register: time that the VP has run, in 100 ns. (arch/x86/include/asm/hyperv-tlfs.h:182 @6.1.192)"""
HV_REGISTER_TIME_REF_COUNT: Final = 0x4000_0020
"""Register: reference time in 100 ns. (arch/x86/include/asm/hyperv-tlfs.h:185 @6.1.192)"""
HV_REGISTER_REFERENCE_TSC: Final = 0x4000_0021
"""Register: where the guest wants the reference TSC page. (arch/x86/include/asm/hyperv-tlfs.h:188 @6.1.192)"""
HV_X64_MSR_TSC_FREQUENCY: Final = 0x4000_0022
"""Register: TSC frequency in Hz. (arch/x86/include/asm/hyperv-tlfs.h:191 @6.1.192)"""
HV_X64_MSR_APIC_FREQUENCY: Final = 0x4000_0023
"""Register: local APIC timer frequency in Hz. (arch/x86/include/asm/hyperv-tlfs.h:194 @6.1.192)"""
HV_X64_MSR_EOI: Final = 0x4000_0070
"""Register: local APIC EOI. (arch/x86/include/asm/hyperv-tlfs.h:197 @6.1.192)"""
HV_X64_MSR_ICR: Final = 0x4000_0071
"""Register: local APIC ICR. (arch/x86/include/asm/hyperv-tlfs.h:198 @6.1.192)"""
HV_X64_MSR_TPR: Final = 0x4000_0072
"""Register: local APIC TPR. (arch/x86/include/asm/hyperv-tlfs.h:199 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE: Final = 0x4000_0073
"""Register: where the guest wants the VP assist page. (arch/x86/include/asm/hyperv-tlfs.h:200 @6.1.192)"""
HV_REGISTER_SCONTROL: Final = 0x4000_0080
"""Register: SynIC control. (arch/x86/include/asm/hyperv-tlfs.h:203 @6.1.192)"""
HV_REGISTER_SVERSION: Final = 0x4000_0081
"""Register: SynIC version; reads as HV_SYNIC_VERSION_1. (arch/x86/include/asm/hyperv-tlfs.h:204 @6.1.192)"""
HV_REGISTER_SIEFP: Final = 0x4000_0082
"""Register: where the guest wants the event flags page. (arch/x86/include/asm/hyperv-tlfs.h:205 @6.1.192)"""
HV_REGISTER_SIMP: Final = 0x4000_0083
"""Register: where the guest wants the message page. (arch/x86/include/asm/hyperv-tlfs.h:206 @6.1.192)"""
HV_REGISTER_EOM: Final = 0x4000_0084
"""Register: writing it says that a message slot was freed while msg_pending was set.

Source: arch/x86/include/asm/hyperv-tlfs.h:207 @6.1.192
"""
HV_REGISTER_SINT0: Final = 0x4000_0090
"""Register: synthetic interrupt source 0. (arch/x86/include/asm/hyperv-tlfs.h:208 @6.1.192)"""
HV_REGISTER_SINT1: Final = 0x4000_0091
"""Register: synthetic interrupt source 1. (arch/x86/include/asm/hyperv-tlfs.h:209 @6.1.192)"""
HV_REGISTER_SINT2: Final = 0x4000_0092
"""Register: synthetic interrupt source 2. (arch/x86/include/asm/hyperv-tlfs.h:210 @6.1.192)"""
HV_REGISTER_SINT3: Final = 0x4000_0093
"""Register: synthetic interrupt source 3. (arch/x86/include/asm/hyperv-tlfs.h:211 @6.1.192)"""
HV_REGISTER_SINT4: Final = 0x4000_0094
"""Register: synthetic interrupt source 4. (arch/x86/include/asm/hyperv-tlfs.h:212 @6.1.192)"""
HV_REGISTER_SINT5: Final = 0x4000_0095
"""Register: synthetic interrupt source 5. (arch/x86/include/asm/hyperv-tlfs.h:213 @6.1.192)"""
HV_REGISTER_SINT6: Final = 0x4000_0096
"""Register: synthetic interrupt source 6. (arch/x86/include/asm/hyperv-tlfs.h:214 @6.1.192)"""
HV_REGISTER_SINT7: Final = 0x4000_0097
"""Register: synthetic interrupt source 7. (arch/x86/include/asm/hyperv-tlfs.h:215 @6.1.192)"""
HV_REGISTER_SINT8: Final = 0x4000_0098
"""Register: synthetic interrupt source 8. (arch/x86/include/asm/hyperv-tlfs.h:216 @6.1.192)"""
HV_REGISTER_SINT9: Final = 0x4000_0099
"""Register: synthetic interrupt source 9. (arch/x86/include/asm/hyperv-tlfs.h:217 @6.1.192)"""
HV_REGISTER_SINT10: Final = 0x4000_009A
"""Register: synthetic interrupt source 10. (arch/x86/include/asm/hyperv-tlfs.h:218 @6.1.192)"""
HV_REGISTER_SINT11: Final = 0x4000_009B
"""Register: synthetic interrupt source 11. (arch/x86/include/asm/hyperv-tlfs.h:219 @6.1.192)"""
HV_REGISTER_SINT12: Final = 0x4000_009C
"""Register: synthetic interrupt source 12. (arch/x86/include/asm/hyperv-tlfs.h:220 @6.1.192)"""
HV_REGISTER_SINT13: Final = 0x4000_009D
"""Register: synthetic interrupt source 13. (arch/x86/include/asm/hyperv-tlfs.h:221 @6.1.192)"""
HV_REGISTER_SINT14: Final = 0x4000_009E
"""Register: synthetic interrupt source 14. (arch/x86/include/asm/hyperv-tlfs.h:222 @6.1.192)"""
HV_REGISTER_SINT15: Final = 0x4000_009F
"""Register: synthetic interrupt source 15. (arch/x86/include/asm/hyperv-tlfs.h:223 @6.1.192)"""
HV_REGISTER_STIMER0_CONFIG: Final = 0x4000_00B0
"""Register: configuration of synthetic timer 0. (arch/x86/include/asm/hyperv-tlfs.h:228 @6.1.192)"""
HV_REGISTER_STIMER0_COUNT: Final = 0x4000_00B1
"""Register: expiry or period of synthetic timer 0, in 100 ns. (arch/x86/include/asm/hyperv-tlfs.h:229 @6.1.192)"""
HV_REGISTER_STIMER1_CONFIG: Final = 0x4000_00B2
"""Register: configuration of synthetic timer 1. (arch/x86/include/asm/hyperv-tlfs.h:230 @6.1.192)"""
HV_REGISTER_STIMER1_COUNT: Final = 0x4000_00B3
"""Register: expiry or period of synthetic timer 1, in 100 ns. (arch/x86/include/asm/hyperv-tlfs.h:231 @6.1.192)"""
HV_REGISTER_STIMER2_CONFIG: Final = 0x4000_00B4
"""Register: configuration of synthetic timer 2. (arch/x86/include/asm/hyperv-tlfs.h:232 @6.1.192)"""
HV_REGISTER_STIMER2_COUNT: Final = 0x4000_00B5
"""Register: expiry or period of synthetic timer 2, in 100 ns. (arch/x86/include/asm/hyperv-tlfs.h:233 @6.1.192)"""
HV_REGISTER_STIMER3_CONFIG: Final = 0x4000_00B6
"""Register: configuration of synthetic timer 3. (arch/x86/include/asm/hyperv-tlfs.h:234 @6.1.192)"""
HV_REGISTER_STIMER3_COUNT: Final = 0x4000_00B7
"""Register: expiry or period of synthetic timer 3, in 100 ns. (arch/x86/include/asm/hyperv-tlfs.h:235 @6.1.192)"""
HV_X64_MSR_GUEST_IDLE: Final = 0x4000_00F0
"""Register: reading it idles the VP. (arch/x86/include/asm/hyperv-tlfs.h:238 @6.1.192)"""
HV_REGISTER_CRASH_P0: Final = 0x4000_0100
"""Register: crash parameter 0. (arch/x86/include/asm/hyperv-tlfs.h:241 @6.1.192)"""
HV_REGISTER_CRASH_P1: Final = 0x4000_0101
"""Register: crash parameter 1. (arch/x86/include/asm/hyperv-tlfs.h:242 @6.1.192)"""
HV_REGISTER_CRASH_P2: Final = 0x4000_0102
"""Register: crash parameter 2. (arch/x86/include/asm/hyperv-tlfs.h:243 @6.1.192)"""
HV_REGISTER_CRASH_P3: Final = 0x4000_0103
"""Register: crash parameter 3. (arch/x86/include/asm/hyperv-tlfs.h:244 @6.1.192)"""
HV_REGISTER_CRASH_P4: Final = 0x4000_0104
"""Register: crash parameter 4. (arch/x86/include/asm/hyperv-tlfs.h:245 @6.1.192)"""
HV_REGISTER_CRASH_CTL: Final = 0x4000_0105
"""Register: crash control. (arch/x86/include/asm/hyperv-tlfs.h:246 @6.1.192)"""
HV_X64_MSR_REENLIGHTENMENT_CONTROL: Final = 0x4000_0106
"""Register: which interrupt tells of a TSC frequency change after migration.

Source: arch/x86/include/asm/hyperv-tlfs.h:249 @6.1.192
"""
HV_X64_MSR_TSC_EMULATION_CONTROL: Final = 0x4000_0107
"""Register: whether TSC accesses are emulated after migration. (arch/x86/include/asm/hyperv-tlfs.h:250 @6.1.192)"""
HV_X64_MSR_TSC_EMULATION_STATUS: Final = 0x4000_0108
"""Register: whether they are being emulated. (arch/x86/include/asm/hyperv-tlfs.h:251 @6.1.192)"""
HV_X64_REGISTER_VSM_VP_STATUS: Final = 0x000D_0003
"""VP register: the trust level in the low 4 bits, and more. (arch/x86/include/asm/hyperv-tlfs.h:309 @6.6.87)"""
HV_X64_VTL_MASK: Final = 0xF
"""Of it, the trust level. (arch/x86/include/asm/hyperv-tlfs.h:310 @6.6.87)"""
HV_X64_MSR_TSC_INVARIANT_CONTROL: Final = 0x4000_0118
"""Register: writing 1 makes CPUID show the invariant TSC. (arch/x86/include/asm/hyperv-tlfs.h:254 @6.1.192)"""
HV_X64_MSR_STIMER0_COUNT: Final = HV_REGISTER_STIMER0_COUNT
"""Older name of HV_REGISTER_STIMER0_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:257 @6.1.192)"""
HV_X64_MSR_STIMER0_CONFIG: Final = HV_REGISTER_STIMER0_CONFIG
"""Older name of HV_REGISTER_STIMER0_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:258 @6.1.192)"""
HV_X64_MSR_STIMER1_COUNT: Final = HV_REGISTER_STIMER1_COUNT
"""Older name of HV_REGISTER_STIMER1_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:259 @6.1.192)"""
HV_X64_MSR_STIMER1_CONFIG: Final = HV_REGISTER_STIMER1_CONFIG
"""Older name of HV_REGISTER_STIMER1_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:260 @6.1.192)"""
HV_X64_MSR_STIMER2_COUNT: Final = HV_REGISTER_STIMER2_COUNT
"""Older name of HV_REGISTER_STIMER2_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:261 @6.1.192)"""
HV_X64_MSR_STIMER2_CONFIG: Final = HV_REGISTER_STIMER2_CONFIG
"""Older name of HV_REGISTER_STIMER2_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:262 @6.1.192)"""
HV_X64_MSR_STIMER3_COUNT: Final = HV_REGISTER_STIMER3_COUNT
"""Older name of HV_REGISTER_STIMER3_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:263 @6.1.192)"""
HV_X64_MSR_STIMER3_CONFIG: Final = HV_REGISTER_STIMER3_CONFIG
"""Older name of HV_REGISTER_STIMER3_CONFIG. (arch/x86/include/asm/hyperv-tlfs.h:264 @6.1.192)"""
HV_X64_MSR_SCONTROL: Final = HV_REGISTER_SCONTROL
"""Older name of HV_REGISTER_SCONTROL. (arch/x86/include/asm/hyperv-tlfs.h:265 @6.1.192)"""
HV_X64_MSR_SVERSION: Final = HV_REGISTER_SVERSION
"""Older name of HV_REGISTER_SVERSION. (arch/x86/include/asm/hyperv-tlfs.h:266 @6.1.192)"""
HV_X64_MSR_SIMP: Final = HV_REGISTER_SIMP
"""Older name of HV_REGISTER_SIMP. (arch/x86/include/asm/hyperv-tlfs.h:267 @6.1.192)"""
HV_X64_MSR_SIEFP: Final = HV_REGISTER_SIEFP
"""Older name of HV_REGISTER_SIEFP. (arch/x86/include/asm/hyperv-tlfs.h:268 @6.1.192)"""
HV_X64_MSR_VP_INDEX: Final = HV_REGISTER_VP_INDEX
"""Older name of HV_REGISTER_VP_INDEX. (arch/x86/include/asm/hyperv-tlfs.h:269 @6.1.192)"""
HV_X64_MSR_EOM: Final = HV_REGISTER_EOM
"""Older name of HV_REGISTER_EOM. (arch/x86/include/asm/hyperv-tlfs.h:270 @6.1.192)"""
HV_X64_MSR_SINT0: Final = HV_REGISTER_SINT0
"""Older name of HV_REGISTER_SINT0. (arch/x86/include/asm/hyperv-tlfs.h:271 @6.1.192)"""
HV_X64_MSR_SINT15: Final = HV_REGISTER_SINT15
"""Older name of HV_REGISTER_SINT15. (arch/x86/include/asm/hyperv-tlfs.h:272 @6.1.192)"""
HV_X64_MSR_CRASH_P0: Final = HV_REGISTER_CRASH_P0
"""Older name of HV_REGISTER_CRASH_P0. (arch/x86/include/asm/hyperv-tlfs.h:273 @6.1.192)"""
HV_X64_MSR_CRASH_P1: Final = HV_REGISTER_CRASH_P1
"""Older name of HV_REGISTER_CRASH_P1. (arch/x86/include/asm/hyperv-tlfs.h:274 @6.1.192)"""
HV_X64_MSR_CRASH_P2: Final = HV_REGISTER_CRASH_P2
"""Older name of HV_REGISTER_CRASH_P2. (arch/x86/include/asm/hyperv-tlfs.h:275 @6.1.192)"""
HV_X64_MSR_CRASH_P3: Final = HV_REGISTER_CRASH_P3
"""Older name of HV_REGISTER_CRASH_P3. (arch/x86/include/asm/hyperv-tlfs.h:276 @6.1.192)"""
HV_X64_MSR_CRASH_P4: Final = HV_REGISTER_CRASH_P4
"""Older name of HV_REGISTER_CRASH_P4. (arch/x86/include/asm/hyperv-tlfs.h:277 @6.1.192)"""
HV_X64_MSR_CRASH_CTL: Final = HV_REGISTER_CRASH_CTL
"""Older name of HV_REGISTER_CRASH_CTL. (arch/x86/include/asm/hyperv-tlfs.h:278 @6.1.192)"""
HV_X64_MSR_TIME_REF_COUNT: Final = HV_REGISTER_TIME_REF_COUNT
"""Older name of HV_REGISTER_TIME_REF_COUNT. (arch/x86/include/asm/hyperv-tlfs.h:279 @6.1.192)"""
HV_X64_MSR_REFERENCE_TSC: Final = HV_REGISTER_REFERENCE_TSC
"""Older name of HV_REGISTER_REFERENCE_TSC. (arch/x86/include/asm/hyperv-tlfs.h:280 @6.1.192)"""
HV_MAX_MODIFY_GPA_REP_COUNT: Final = 510
"""Pages that fit in one input page of the visibility hypercall. (arch/x86/include/asm/hyperv-tlfs.h:290 @6.1.192)"""
HV_X64_MSR_HYPERCALL_ENABLE: Final = 0x1
"""Hypercall register: the page is mapped. (arch/x86/include/asm/hyperv-tlfs.h:338 @6.1.192)"""
HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_SHIFT: Final = 12
"""Hypercall register: lowest bit of the page number. (arch/x86/include/asm/hyperv-tlfs.h:339 @6.1.192)"""
HV_X64_MSR_HYPERCALL_PAGE_ADDRESS_MASK: Final = 0xFFFF_FFFF_FFFF_F000
"""Hypercall register: mask of the page's address. (arch/x86/include/asm/hyperv-tlfs.h:340 @6.1.192)"""
HV_X64_MSR_CRASH_PARAMS: Final = 5
"""Number of crash parameter registers. (arch/x86/include/asm/hyperv-tlfs.h:343 @6.1.192)"""
HV_IPI_LOW_VECTOR: Final = 0x10
"""Lowest vector that the IPI hypercalls take. (arch/x86/include/asm/hyperv-tlfs.h:346 @6.1.192)"""
HV_IPI_HIGH_VECTOR: Final = 0xFF
"""Highest vector that the IPI hypercalls take. (arch/x86/include/asm/hyperv-tlfs.h:347 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE_ENABLE: Final = 0x1
"""VP assist page register: the page is mapped. (arch/x86/include/asm/hyperv-tlfs.h:349 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_SHIFT: Final = 12
"""VP assist page register: lowest bit of the page number. (arch/x86/include/asm/hyperv-tlfs.h:350 @6.1.192)"""
HV_X64_MSR_VP_ASSIST_PAGE_ADDRESS_MASK: Final = 0xFFFF_FFFF_FFFF_F000
"""VP assist page register: mask of the page's address. (arch/x86/include/asm/hyperv-tlfs.h:351 @6.1.192)"""
HV_X64_ENLIGHTENED_VMCS_VERSION: Final = 0xFF
"""Nested features, EAX: mask of the lowest enlightened VMCS version.

Source: arch/x86/include/asm/hyperv-tlfs.h:355 @6.1.192
"""
HV_X64_MSR_TSC_REFERENCE_ENABLE: Final = 0x1
"""Reference TSC register: the page is mapped. (arch/x86/include/asm/hyperv-tlfs.h:357 @6.1.192)"""
HV_X64_MSR_TSC_REFERENCE_ADDRESS_SHIFT: Final = 12
"""Reference TSC register: lowest bit of the page number. (arch/x86/include/asm/hyperv-tlfs.h:358 @6.1.192)"""
HV_HYPERCALL_MAX_XMM_REGISTERS: Final = 6
"""XMM registers that a fast hypercall may use. (arch/x86/include/asm/hyperv-tlfs.h:361 @6.1.192)"""


GHCB_USAGE_HYPERV_CALL: Final = 1
"""GHCB usage field: the page holds a hypercall, not the standard protocol. (arch/x86/hyperv/ivm.c:21 @6.1.192)"""
HV_TLB_FLUSH_UNIT: Final = 0x0100_0000
"""Bytes that one entry of the virtual address list covers at most: 4096 pages. (arch/x86/hyperv/mmu.c:18 @6.1.192)"""
HV_DEPOSIT_MAX: Final = 511
"""Pages that one deposit hypercall takes at most. (arch/x86/hyperv/hv_proc.c:21 @6.1.192)"""
IOAPIC_REMAPPING_ENTRY: Final = 24
"""Entries of the I/O APIC remapping table. (drivers/iommu/hyperv-iommu.c:34 @6.1.192)"""


class HvIsolationType(IntEnum):
    """How the partition is isolated from the host.

    Source: arch/x86/include/asm/hyperv-tlfs.h:161 @6.1.192
    """

    HV_ISOLATION_TYPE_NONE = 0
    HV_ISOLATION_TYPE_VBS = 1
    HV_ISOLATION_TYPE_SNP = 2


class HvInterruptType(IntEnum):
    """Delivery mode in `HvDeviceInterruptDescriptor`.

    Source: arch/x86/include/asm/hyperv-tlfs.h:627 @6.1.192
    """

    HV_X64_INTERRUPT_TYPE_FIXED = 0
    HV_X64_INTERRUPT_TYPE_LOWESTPRIORITY = 1
    HV_X64_INTERRUPT_TYPE_SMI = 2
    HV_X64_INTERRUPT_TYPE_REMOTEREAD = 3
    HV_X64_INTERRUPT_TYPE_NMI = 4
    HV_X64_INTERRUPT_TYPE_INIT = 5
    HV_X64_INTERRUPT_TYPE_SIPI = 6
    HV_X64_INTERRUPT_TYPE_EXTINT = 7
    HV_X64_INTERRUPT_TYPE_LOCALINT0 = 8
    HV_X64_INTERRUPT_TYPE_LOCALINT1 = 9
    HV_X64_INTERRUPT_TYPE_MAXIMUM = 10


class HvMemHostVisibility(IntEnum):
    """What the host may do with a page of an isolated partition.

    Source: arch/x86/include/asm/hyperv-tlfs.h:283 @6.1.192
    """

    VMBUS_PAGE_NOT_VISIBLE = 0
    VMBUS_PAGE_VISIBLE_READ_ONLY = 1
    VMBUS_PAGE_VISIBLE_READ_WRITE = 3
