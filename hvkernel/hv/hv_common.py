"""``drivers/hv/hv_common.c``: what every architecture's Hyper-V start-up shares, always built in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hvkernel.abi.tlfs import (
    HV_CRASH_CTL_CRASH_NOTIFY,
    HV_CRASH_CTL_CRASH_NOTIFY_MSG,
    HV_ENABLE_EXTENDED_HYPERCALLS,
    HV_EXT_CALL_QUERY_CAPABILITIES,
    HV_HYP_PAGE_SIZE,
)
from hvkernel.api.guest.device import DIE_OOPS, KMSG_DUMP_PANIC, NOTIFY_DONE, NotifierBlock
from hvkernel.api.guest.errno import ENOMEM
from hvkernel.api.guest.mshyperv import VP_INVAL, host_build_line, hv_result_success
from hvkernel.hv.hyp_page import HypPage, HypPages

if TYPE_CHECKING:
    from hvkernel.api.guest.smp import PerCpu
    from hvkernel.hv.hyperv_vmbus import GuestKernel

__all__ = ["HvCommonObject"]


class HvCommonObject:
    """All variables and functions of hv_common.c for one guest; implements :class:`~hvkernel.api.guest.HvCommon`."""

    def __init__(self, kernel: GuestKernel) -> None:
        self.kernel = kernel
        self.arch = kernel.arch
        self.pr = kernel.printk
        self.pages = HypPages(kernel.mm)
        self.hv_vp_index: list[int] = []
        self.hv_max_vp_index = 0
        self.sysctl_record_panic_msg = 1
        """``/proc/sys/kernel/hyperv_record_panic_msg``."""
        self._input: PerCpu[HypPage | None] | None = None
        self._extended_cap = 0
        self._extended_cap_queried = False
        self._read_reference_counter: Callable[[], int] = self._read_time_ref_count
        self._panic_page: HypPage | None = None
        self._panic_block = NotifierBlock(lambda action, data: self._panic_notify(action, data))
        self._die_block = NotifierBlock(lambda action, data: self._die_notify(action, data))

    # start and end ---------------------------------------------------------------------------------------------

    def hv_common_init(self) -> int:
        """Register for panics, make the per-CPU pages' slots and the VP index table; 0 or -ENOMEM."""
        kernel, arch = self.kernel, self.arch
        version = arch.hv_get_hypervisor_version() if kernel.release.has("hv_common_prints_build") else None
        if version is not None:
            self.pr.pr_info(host_build_line(version))
        if arch.hv_is_isolation_supported():
            self.sysctl_record_panic_msg = 0
        if arch.ms_hyperv.misc_features & arch.regs.HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE:
            kernel.reboot.crash_kexec_post_notifiers = True
            self.pr.pr_info("Hyper-V: enabling crash_kexec_post_notifiers")
            if arch.hv_get_register(arch.regs.HV_REGISTER_CRASH_CTL) & HV_CRASH_CTL_CRASH_NOTIFY_MSG:
                self._panic_page = self.pages.alloc(zero=True)
                if self._panic_page is not None:
                    kernel.reboot.kmsg_dump_register(self.hv_kmsg_dump)
                else:
                    self.pr.pr_err("Hyper-V: panic message page memory allocation failed")
            kernel.notifier.die_chain.register(self._die_block)
            kernel.notifier.panic_notifier_list.register(self._panic_block)
        nothing: HypPage | None = None
        self._input = kernel.percpu.alloc_percpu(lambda cpu: nothing)
        self.hv_vp_index = [VP_INVAL] * kernel.cpus.num_possible_cpus()
        return 0

    def hv_common_free(self) -> None:
        """Undo :meth:`hv_common_init`."""
        if self.arch.ms_hyperv.misc_features & self.arch.regs.HV_FEATURE_GUEST_CRASH_MSR_AVAILABLE:
            self.kernel.notifier.die_chain.unregister(self._die_block)
            self.kernel.notifier.panic_notifier_list.unregister(self._panic_block)
            if self._panic_page is not None:
                self.kernel.reboot.kmsg_dump_unregister(self.hv_kmsg_dump)
                self.pages.free(self._panic_page)
                self._panic_page = None
        self.hv_vp_index = []
        self._input = None

    def hv_common_cpu_init(self, cpu: int) -> int:
        """Give this CPU its hypercall input page and learn its VP index; runs on the CPU itself."""
        assert self._input is not None, "hv_common_init() did not run"
        page = self.pages.alloc(atomic=self.kernel.irq.irqs_disabled())
        if page is None:
            return -ENOMEM
        self._input[cpu] = page
        vp_index = self.arch.hv_get_register(self.arch.regs.HV_REGISTER_VP_INDEX) & 0xFFFF_FFFF
        self.hv_vp_index[cpu] = vp_index
        self.hv_max_vp_index = max(self.hv_max_vp_index, vp_index)
        return 0

    def hv_common_cpu_die(self, cpu: int) -> int:
        """Take this CPU's hypercall input page back; its VP index stays known."""
        assert self._input is not None, "hv_common_init() did not run"
        irq = self.kernel.irq
        flags = irq.local_irq_save()
        page = self._input[cpu]
        self._input[cpu] = None
        irq.local_irq_restore(flags)
        if page is not None:
            self.pages.free(page)
        return 0

    def hyperv_pcpu_input_arg(self, cpu: int) -> int | None:
        """Guest physical address of the CPU's hypercall input page; ``None`` before and after its life."""
        page = self._input[cpu] if self._input is not None else None
        return None if page is None else page.gpa

    def hyperv_pcpu_output_arg(self, cpu: int) -> int | None:
        """Only a root partition has output pages; the model has none."""
        return None

    def hv_cpu_number_to_vp_number(self, cpu: int) -> int:
        """Return the VP index of a CPU, VP_INVAL for one that never ran."""
        return self.hv_vp_index[cpu]

    # services --------------------------------------------------------------------------------------------------

    def hv_query_ext_cap(self, cap_query: int) -> bool:
        """Say whether the hypervisor has the extended capabilities of the mask; asks it once."""
        if not self.arch.ms_hyperv.priv_high & HV_ENABLE_EXTENDED_HYPERCALLS:
            return False
        if self._extended_cap_queried:
            return bool(self._extended_cap & cap_query)
        output = self.pages.alloc(zero=True)
        if output is None:
            return False
        status = self.arch.hv_do_hypercall(HV_EXT_CALL_QUERY_CAPABILITIES, None, output.gpa)
        self._extended_cap_queried = True
        if hv_result_success(status):
            self._extended_cap = self.kernel.mm.memory.load64(output.gpa)
        else:
            self.pr.pr_err(f"Hyper-V: Extended query capabilities hypercall failed 0x{status:x}")
        self.pages.free(output)
        return bool(self._extended_cap & cap_query)

    def _read_time_ref_count(self) -> int:
        return self.arch.hv_get_register(self.arch.regs.HV_REGISTER_TIME_REF_COUNT)

    def hv_read_reference_counter(self) -> int:
        """Return the partition's reference time in 100 ns units."""
        return self._read_reference_counter()

    def set_hv_read_reference_counter(self, read: Callable[[], int]) -> None:
        """Let hyperv_timer.c replace the register read by something cheaper."""
        self._read_reference_counter = read

    # panic -----------------------------------------------------------------------------------------------------

    def _panic_notify(self, action: int, data: object) -> int:
        if not self.sysctl_record_panic_msg or self._panic_page is None:
            self.arch.hyperv_report_panic(action, False)
        return NOTIFY_DONE

    def _die_notify(self, action: int, data: object) -> int:
        if action == DIE_OOPS and (not self.sysctl_record_panic_msg or self._panic_page is None):
            self.arch.hyperv_report_panic(action, True)
        return NOTIFY_DONE

    def hv_kmsg_dump(self, reason: int) -> None:
        """Give the host the end of the log, as much as fits into one page, through the crash registers.

        Called by panic() after the panic notifiers, when the VMBus is unloaded already. The page's last byte stays
        free: the log is cut for a terminator that is never counted (kernel/printk/printk.c:kmsg_dump_get_buffer).
        """
        page = self._panic_page
        if page is None or reason != KMSG_DUMP_PANIC or not self.sysctl_record_panic_msg:
            return
        text = b""
        for line in reversed(self.kernel.printk.log):
            one = f"{line.render()}\n".encode()
            if len(text) + len(one) > HV_HYP_PAGE_SIZE - 1:
                break
            text = one + text
        if not text:
            return
        self.kernel.mm.memory.write(page.gpa, text)
        arch, regs = self.arch, self.arch.regs
        arch.hv_set_register(regs.HV_REGISTER_CRASH_P0, 0)
        arch.hv_set_register(regs.HV_REGISTER_CRASH_P1, 0)
        arch.hv_set_register(regs.HV_REGISTER_CRASH_P2, 0)
        arch.hv_set_register(regs.HV_REGISTER_CRASH_P3, page.gpa)
        arch.hv_set_register(regs.HV_REGISTER_CRASH_P4, len(text))
        arch.hv_set_register(regs.HV_REGISTER_CRASH_CTL, HV_CRASH_CTL_CRASH_NOTIFY | HV_CRASH_CTL_CRASH_NOTIFY_MSG)
