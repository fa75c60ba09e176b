"""``arch/x86/kernel/cpu/mshyperv.c``: finding Hyper-V and reading what it says of itself.

Built whenever HYPERVISOR_GUEST is y, also without HYPERV: detection and the lines about privileges, host build and APIC
frequency do not need it.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_ACCESS_FREQUENCY_MSRS,
    HV_ACCESS_REENLIGHTENMENT,
    HV_ACCESS_TSC_INVARIANT,
    HV_ISOLATION,
    HV_MSR_HYPERCALL_AVAILABLE,
    HV_MSR_VP_INDEX_AVAILABLE,
)
from hvkernel.api.guest.mshyperv import host_build_line
from hvkernel_x86 import tlfs
from hvkernel_x86.guest import hv_init, mmu, tsc
from hvkernel_x86.guest.apic import (
    HYPERV_REENLIGHTENMENT_VECTOR,
    HYPERV_STIMER0_VECTOR,
    HYPERVISOR_CALLBACK_VECTOR,
    the_apic,
)
from hvkernel_x86.guest.hv_spinlock import hv_init_spinlocks
from hvkernel_x86.guest.state import X86_FEATURE_HYPERVISOR

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State

NAME: Final = "Microsoft Hyper-V"
HV_X64_HYPERV_NESTED: Final = 1 << 12
"""Recommendation bit of kernels from 6.3 on (arch/x86/include/asm/hyperv-tlfs.h)."""


def ms_hyperv_platform(a: X86State) -> bool:
    """Say whether this is Hyper-V with the registers that everything else needs."""
    if not a.boot_cpu_has(X86_FEATURE_HYPERVISOR):
        return False
    eax, ebx, ecx, edx = a.vp.cpuid(tlfs.HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS)
    if not tlfs.HYPERV_CPUID_MIN <= eax <= tlfs.HYPERV_CPUID_MAX:
        return False
    if struct.pack("<III", ebx, ecx, edx) != b"Microsoft Hv":
        return False
    features = a.vp.cpuid(tlfs.HYPERV_CPUID_FEATURES)[0]
    if not features & HV_MSR_HYPERCALL_AVAILABLE:
        a.kernel.printk.pr_warn("x86/hyperv: HYPERCALL MSR not available.")
        return False
    if not features & HV_MSR_VP_INDEX_AVAILABLE:
        a.kernel.printk.pr_warn("x86/hyperv: VP_INDEX MSR not available.")
        return False
    return True


def init_hypervisor_platform(a: X86State) -> None:
    """Detect the hypervisor and let it set the platform up (arch/x86/kernel/cpu/hypervisor.c)."""
    if not a.kernel.config.y("HYPERVISOR_GUEST") or not ms_hyperv_platform(a):
        return
    a.x86_hyper_type = NAME
    a.kernel.printk.pr_info(f"Hypervisor detected: {NAME}")
    ms_hyperv_init_platform(a)


def hv_get_tsc_khz(a: X86State) -> int:
    """Return the TSC frequency that the hypervisor states, in kHz."""
    return a.rdmsr(tlfs.HV_X64_MSR_TSC_FREQUENCY) // 1000


def alternate_hex(value: int) -> str:
    """Format as printk's ``%#x``: zero has no prefix."""
    return f"{value:#x}" if value else "0"


def hv_get_hypervisor_version(a: X86State) -> tuple[int, int, int, int] | None:
    """Return the four version words, ``None`` on a hypervisor without that leaf."""
    if a.vp.cpuid(tlfs.HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS)[0] < tlfs.HYPERV_CPUID_VERSION:
        return None
    return a.vp.cpuid(tlfs.HYPERV_CPUID_VERSION)


def ms_hyperv_init_platform(a: X86State) -> None:
    """Read the feature words, print them in the kernel's order, and set the platform's hooks."""
    kernel, vp, info = a.kernel, a.vp, a.ms_hyperv
    pr_info = kernel.printk.pr_info
    if kernel.config.y("PARAVIRT"):
        a.pv_info_name = "Hyper-V"
    info.features, info.priv_high, ext_features, info.misc_features = vp.cpuid(tlfs.HYPERV_CPUID_FEATURES)
    info.hints = vp.cpuid(tlfs.HYPERV_CPUID_ENLIGHTMENT_INFO)[0]
    max_leaf = vp.cpuid(tlfs.HYPERV_CPUID_VENDOR_AND_MAX_FUNCTIONS)[0]
    if kernel.release.has("x86_privilege_flags_ext"):
        words = (info.features, info.priv_high, ext_features, info.hints, info.misc_features)
        names = ("low", "high", "ext", "hints", "misc")
        pr_info(
            "Hyper-V: privilege flags "
            + ", ".join(f"{n} {alternate_hex(w)}" for n, w in zip(names, words, strict=True))
        )
    else:
        pr_info(
            f"Hyper-V: privilege flags low 0x{info.features:x}, high 0x{info.priv_high:x}, "
            f"hints 0x{info.hints:x}, misc 0x{info.misc_features:x}"
        )
    info.max_vp_index, info.max_lp_index, _, _ = vp.cpuid(tlfs.HYPERV_CPUID_IMPLEMENT_LIMITS)
    kernel.printk.pr_debug(
        f"Hyper-V: max {info.max_vp_index} virtual processors, {info.max_lp_index} logical processors"
    )
    if kernel.release.has("nested_hypervisor_line") and info.hints & HV_X64_HYPERV_NESTED:
        pr_info("Hyper-V: running on a nested hypervisor")
    version = hv_get_hypervisor_version(a)
    if version is not None and not kernel.release.has("hv_common_prints_build"):
        if kernel.release.has("x86_host_build_as_version"):
            pr_info(host_build_line(version))
        else:
            eax, ebx, ecx, edx = version
            pr_info(f"Hyper-V Host Build:{eax}-{ebx >> 16}.{ebx & 0xFFFF}-{ecx}-{edx >> 24}.{edx & 0xFFFFFF}")
    frequency_msrs = bool(
        info.features & HV_ACCESS_FREQUENCY_MSRS and info.misc_features & tlfs.HV_FEATURE_FREQUENCY_MSRS_AVAILABLE
    )
    if frequency_msrs:
        a.calibrate_tsc = lambda: hv_get_tsc_khz(a)
        a.tsc_known_freq = True
    if info.priv_high & HV_ISOLATION:
        info.isolation_config_a, info.isolation_config_b, _, _ = vp.cpuid(tlfs.HYPERV_CPUID_ISOLATION_CONFIG)
        info.shared_gpa_boundary = 1 << (info.isolation_config_b >> 6 & 0x3F)
        pr_info(
            f"Hyper-V: Isolation Config: Group A 0x{info.isolation_config_a:x}, Group B 0x{info.isolation_config_b:x}"
        )
    if max_leaf >= tlfs.HYPERV_CPUID_NESTED_FEATURES:
        info.nested_features = vp.cpuid(tlfs.HYPERV_CPUID_NESTED_FEATURES)[0]
        pr_info(f"Hyper-V: Nested features: 0x{info.nested_features:x}")
    if frequency_msrs:
        a.lapic_timer_period = a.rdmsr(tlfs.HV_X64_MSR_APIC_FREQUENCY) // kernel.timers.HZ
        pr_info(f"Hyper-V: LAPIC Timer Frequency: {alternate_hex(a.lapic_timer_period)}")
    if info.features & HV_ACCESS_TSC_INVARIANT:
        a.wrmsr(tlfs.HV_X64_MSR_TSC_INVARIANT_CONTROL, 1)
        a.tsc_reliable = True
    if a.hyperv_enabled:
        _init_hyperv(a)
    if not info.features & HV_ACCESS_TSC_INVARIANT:
        tsc.mark_tsc_unstable(a, "running on Hyper-V")


def _init_hyperv(a: X86State) -> None:
    """The part of ms_hyperv_init_platform that needs CONFIG_HYPERV."""
    kernel, info = a.kernel, a.ms_hyperv
    a.apic_post_init = lambda: hv_init.hyperv_init(a)
    mmu.hyperv_setup_mmu_ops(a)
    install = kernel.irq.sysvec_install
    install(HYPERVISOR_CALLBACK_VECTOR, partial(sysvec_hyperv_callback, a), "Hypervisor callback interrupts")
    if info.features & HV_ACCESS_REENLIGHTENMENT:
        install(
            HYPERV_REENLIGHTENMENT_VECTOR,
            lambda: hv_init.sysvec_hyperv_reenlightenment(a),
            "Hyper-V reenlightenment interrupts",
        )
    if info.misc_features & tlfs.HV_STIMER_DIRECT_MODE_AVAILABLE:
        install(HYPERV_STIMER0_VECTOR, partial(sysvec_hyperv_stimer0, a), "Hyper-V stimer0 interrupts")
    if kernel.config.y("SMP") and a.bits == 64 and kernel.config.y("PARAVIRT_SPINLOCKS"):
        a.smp_prepare_boot_cpu = lambda: hv_init_spinlocks(a)
    a.hv_timer.hv_init_clocksource()


def sysvec_hyperv_callback(a: X86State) -> None:
    """Interrupt of the VMBus SINT. Only without auto-EOI does it need an end of interrupt."""
    if a.vmbus_handler is not None:
        a.vmbus_handler()
    if a.ms_hyperv.hints & tlfs.HV_DEPRECATING_AEOI_RECOMMENDED:
        the_apic(a).eoi()


def sysvec_hyperv_stimer0(a: X86State) -> None:
    """Interrupt of synthetic timer 0 in direct mode."""
    if a.hv_stimer0_handler is not None:
        a.hv_stimer0_handler()
    the_apic(a).eoi()


def hv_machine_shutdown(a: X86State, kexec: bool) -> None:
    """machine_ops.shutdown: before another kernel everything that is shared goes back."""
    if kexec and a.hv_kexec_handler is not None:
        a.hv_kexec_handler()
    if kexec and a.hyperv_init_cpuhp > 0:
        a.kernel.cpuhp.cpuhp_remove_state(a.hyperv_init_cpuhp)
    if kexec:
        hv_init.hyperv_cleanup(a)


def hv_machine_crash_shutdown(a: X86State) -> None:
    """machine_ops.crash_shutdown: what the panicking CPU can give back."""
    if a.hv_crash_handler is not None:
        a.hv_crash_handler()
    hv_init.hyperv_cleanup(a)
