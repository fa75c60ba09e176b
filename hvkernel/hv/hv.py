"""``drivers/hv/hv.c``: the synthetic interrupt controller of each CPU, and posting messages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_HYP_PAGE_SHIFT,
    HV_MESSAGE_PAYLOAD_BYTE_COUNT,
    HV_SYNIC_CONTROL_ENABLE,
    HV_SYNIC_SIEFP_ENABLE,
    HV_SYNIC_SIMP_ENABLE,
    HV_SYNIC_SINT_AUTO_EOI,
    HV_SYNIC_SINT_MASKED,
    HV_SYNIC_SINT_VECTOR_MASK,
    HVCALL_POST_MESSAGE,
)
from hvkernel.abi.vmbus import HV_MAX_TRIES, VERSION_WIN10_V4_1, VMBUS_CONNECT_CPU, VMBUS_MESSAGE_SINT
from hvkernel.api.guest.errno import EBUSY, EMSGSIZE, ENOMEM
from hvkernel.api.guest.mshyperv import hv_result
from hvkernel.api.guest.sched import Tasklet
from hvkernel.hv import vmbus_isr
from hvkernel.hv.connection_state import State
from hvkernel.hv.hyperv_vmbus import HvPerCpuContext

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import HvVmbus

LOW_BITS: Final = (1 << HV_HYP_PAGE_SHIFT) - 1
POST_MESSAGE: Final = struct.Struct("<IIII")
"""connectionid, reserved, message_type, payload_size of ``struct hv_input_post_message``."""


def hv_init(v: HvVmbus) -> int:
    """Make the per-CPU contexts; call before anything else of this file."""
    v.cpu_context = v.percpu.alloc_percpu(HvPerCpuContext)
    return 0


def hv_post_message(v: HvVmbus, connection_id: int, message_type: int, payload: bytes) -> int:
    """Post one message with HVCALL_POST_MESSAGE.

    :param connection_id: of the host's port; 1 or 4 for the VMBus.
    :param payload: at most 240 bytes.
    :return: the HV_STATUS of the hypercall, or -EMSGSIZE.
    """
    if len(payload) > HV_MESSAGE_PAYLOAD_BYTE_COUNT:
        return -EMSGSIZE
    # Preemption stays off until the hypercall is done: the page belongs to the CPU, not to the caller.
    cpu = v.cpus.get_cpu()
    page = v.cpu_context[cpu].post_msg_page
    assert page is not None, "hv_synic_alloc() did not run"
    v.memory.write(page.gpa, POST_MESSAGE.pack(connection_id, 0, message_type, len(payload)) + payload)
    status = v.arch.hv_do_hypercall(HVCALL_POST_MESSAGE, page.gpa, None)
    v.cpus.put_cpu()
    return hv_result(status)


def hv_synic_alloc(v: HvVmbus) -> int:
    """Allocate the message, event and post pages of every present CPU; 0 or -ENOMEM (free with hv_synic_free)."""
    v.hv_numa_map = [0] * v.cpus.nr_node_ids()
    contexts = v.cpu_context
    for cpu in v.cpus.for_each_present_cpu():
        hv_cpu = contexts[cpu]
        hv_cpu.synic_message_page = hv_cpu.synic_event_page = hv_cpu.post_msg_page = None
    for cpu in v.cpus.for_each_present_cpu():
        hv_cpu = contexts[cpu]
        hv_cpu.msg_dpc = Tasklet(lambda data: vmbus_isr.vmbus_on_msg_dpc(v, data), hv_cpu, "vmbus_on_msg_dpc")
        hv_cpu.synic_message_page = v.mm.get_zeroed_page(atomic=True)
        if hv_cpu.synic_message_page is None:
            v.pr.pr_err("Unable to allocate SYNIC message page")
            return -ENOMEM
        hv_cpu.synic_event_page = v.mm.get_zeroed_page(atomic=True)
        if hv_cpu.synic_event_page is None:
            v.pr.pr_err("Unable to allocate SYNIC event page")
            return -ENOMEM
        hv_cpu.post_msg_page = v.mm.get_zeroed_page(atomic=True)
        if hv_cpu.post_msg_page is None:
            v.pr.pr_err("Unable to allocate post msg page")
            return -ENOMEM
    return 0


def hv_synic_free(v: HvVmbus) -> None:
    """Free what hv_synic_alloc got, complete or not."""
    contexts = v.cpu_context
    for cpu in v.cpus.for_each_present_cpu():
        hv_cpu = contexts[cpu]
        for page in (hv_cpu.synic_event_page, hv_cpu.synic_message_page, hv_cpu.post_msg_page):
            if page is not None:
                v.mm.free_pages(page)
        hv_cpu.synic_event_page = hv_cpu.synic_message_page = hv_cpu.post_msg_page = None
    v.hv_numa_map = []


def hv_synic_enable_regs(v: HvVmbus, cpu: int) -> None:
    """Tell the hypervisor this CPU's pages and SINT, then switch its SynIC on. Reserved bits are preserved."""
    hv_cpu = v.cpu_context[cpu]
    arch, regs = v.arch, v.arch.regs
    assert hv_cpu.synic_message_page is not None
    assert hv_cpu.synic_event_page is not None
    simp = arch.hv_get_register(regs.HV_REGISTER_SIMP) & LOW_BITS | HV_SYNIC_SIMP_ENABLE
    arch.hv_set_register(regs.HV_REGISTER_SIMP, simp | hv_cpu.synic_message_page.gpa & ~LOW_BITS)
    siefp = arch.hv_get_register(regs.HV_REGISTER_SIEFP) & LOW_BITS | HV_SYNIC_SIEFP_ENABLE
    arch.hv_set_register(regs.HV_REGISTER_SIEFP, siefp | hv_cpu.synic_event_page.gpa & ~LOW_BITS)
    if v.vmbus_irq != -1:
        v.kernel.irq.enable_percpu_irq(v.vmbus_irq)
    sint = arch.hv_get_register(regs.HV_REGISTER_SINT0 + VMBUS_MESSAGE_SINT)
    sint &= ~(HV_SYNIC_SINT_VECTOR_MASK | HV_SYNIC_SINT_MASKED | HV_SYNIC_SINT_AUTO_EOI)
    sint |= v.vmbus_interrupt & HV_SYNIC_SINT_VECTOR_MASK
    if arch.hv_auto_eoi():
        sint |= HV_SYNIC_SINT_AUTO_EOI
    arch.hv_set_register(regs.HV_REGISTER_SINT0 + VMBUS_MESSAGE_SINT, sint)
    scontrol = arch.hv_get_register(regs.HV_REGISTER_SCONTROL) | HV_SYNIC_CONTROL_ENABLE
    arch.hv_set_register(regs.HV_REGISTER_SCONTROL, scontrol)


def hv_synic_init(v: HvVmbus, cpu: int) -> int:
    """Start callback of the cpuhp state ``hyperv/vmbus:online``; runs on the CPU itself."""
    hv_synic_enable_regs(v, cpu)
    if v.hv_timer is not None:
        v.hv_timer.hv_stimer_legacy_init(cpu, VMBUS_MESSAGE_SINT)
    return 0


def hv_synic_disable_regs(v: HvVmbus, cpu: int) -> None:
    """Mask the SINT, take the pages back, switch the SynIC of this CPU off."""
    arch, regs = v.arch, v.arch.regs
    sint = arch.hv_get_register(regs.HV_REGISTER_SINT0 + VMBUS_MESSAGE_SINT) | HV_SYNIC_SINT_MASKED
    arch.hv_set_register(regs.HV_REGISTER_SINT0 + VMBUS_MESSAGE_SINT, sint)
    simp = arch.hv_get_register(regs.HV_REGISTER_SIMP) & LOW_BITS & ~HV_SYNIC_SIMP_ENABLE
    arch.hv_set_register(regs.HV_REGISTER_SIMP, simp)
    siefp = arch.hv_get_register(regs.HV_REGISTER_SIEFP) & LOW_BITS & ~HV_SYNIC_SIEFP_ENABLE
    arch.hv_set_register(regs.HV_REGISTER_SIEFP, siefp)
    scontrol = arch.hv_get_register(regs.HV_REGISTER_SCONTROL) & ~HV_SYNIC_CONTROL_ENABLE
    arch.hv_set_register(regs.HV_REGISTER_SCONTROL, scontrol)
    if v.vmbus_irq != -1:
        v.kernel.irq.disable_percpu_irq(v.vmbus_irq)


def hv_synic_event_pending(v: HvVmbus) -> bool:
    """Say whether a channel interrupt of this CPU stays unhandled through three waits of 10 to 20 ms."""
    hv_cpu = v.percpu.this_cpu_ptr(v.cpu_context)
    assert hv_cpu.synic_event_page is not None
    flags_gpa = hv_cpu.synic_event_page.gpa + VMBUS_MESSAGE_SINT * vmbus_isr.EVENT_FLAGS_BYTES
    tries = 0
    while True:
        flags = int.from_bytes(v.memory.read(flags_gpa, vmbus_isr.EVENT_FLAGS_BYTES), "little")
        pending = bool(flags & ~1)  # bit 0 stands for protocol messages
        if not pending or tries >= HV_MAX_TRIES:
            return pending
        tries += 1
        v.sched.usleep_range(10000, 20000)


def hv_synic_cleanup(v: HvVmbus, cpu: int) -> int:
    """Stop callback of ``hyperv/vmbus:online``: 0, or -EBUSY while the connection needs this CPU."""
    connection = v.connection
    if connection.conn_state == State.CONNECTED:
        if cpu == VMBUS_CONNECT_CPU:
            return -EBUSY
        with connection.chn_mutex():
            found = any(
                channel.target_cpu == cpu or any(sc.target_cpu == cpu for sc in channel.sc_list)
                for channel in connection.chn_list
            )
        if found:
            return -EBUSY
        if v.vmbus_proto_version >= VERSION_WIN10_V4_1 and hv_synic_event_pending(v):
            return -EBUSY
    if v.hv_timer is not None:
        v.hv_timer.hv_stimer_legacy_cleanup(cpu)
    hv_synic_disable_regs(v, cpu)
    return 0
