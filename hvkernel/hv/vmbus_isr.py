"""The interrupt of ``drivers/hv/vmbus_drv.c``: channel events, and channel messages with their dispatch."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import HV_EVENT_FLAGS_COUNT, HV_MESSAGE_PAYLOAD_BYTE_COUNT, HV_MESSAGE_SIZE, HvMessageType
from hvkernel.abi.vmbus import (
    MAX_NUM_CHANNELS_SUPPORTED,
    VERSION_WIN8,
    VMBUS_MESSAGE_SINT,
    HvCallbackMode,
    VmbusChannelMessageType,
    VmbusConnectState,
)
from hvkernel.api.guest.sched import Work
from hvkernel.hv import channel_mgmt, hv_trace, warn
from hvkernel.hv import connection as connection_c
from hvkernel.hv.hyperv_vmbus import OnmessageWork, as_int

if TYPE_CHECKING:
    from hvkernel.api.guest.sched import Workqueue
    from hvkernel.hv.hyperv_vmbus import HvPerCpuContext, HvVmbus

MESSAGE_HEADER: Final = struct.Struct("<IBBxxQ")
"""message_type, payload_size, message_flags, sender of ``struct hv_message_header``."""
MSG_PENDING_OFFSET: Final = 5
EVENT_FLAGS_BYTES: Final = HV_EVENT_FLAGS_COUNT // 8
CHANNELMSG_COUNT: Final = int(VmbusChannelMessageType.CHANNELMSG_COUNT)
OFFER: Final = int(VmbusChannelMessageType.CHANNELMSG_OFFERCHANNEL)
RESCIND: Final = int(VmbusChannelMessageType.CHANNELMSG_RESCIND_CHANNELOFFER)
HV_CALL_BATCHED: Final = HvCallbackMode.HV_CALL_BATCHED
HV_CALL_ISR: Final = HvCallbackMode.HV_CALL_ISR
HVMSG_NONE: Final = HvMessageType.HVMSG_NONE


def vmbus_signal_eom(v: HvVmbus, slot: int, old_msg_type: int) -> None:
    """Free a message slot and, if more messages wait for it, say so to the hypervisor.

    :param slot: guest physical address of the message.
    :param old_msg_type: what the caller handled: a message that came into the slot since then is left alone.
    """
    if v.memory.cmpxchg32(slot, old_msg_type, HvMessageType.HVMSG_NONE) != old_msg_type:
        return
    if v.memory.load8(slot + MSG_PENDING_OFFSET) & 1:
        v.arch.hv_set_register(v.arch.regs.HV_REGISTER_EOM, 0)


def vmbus_onmessage_work(v: HvVmbus, context: OnmessageWork) -> None:
    """Handle a message in a worker, unless the connection is gone."""
    if v.connection.conn_state != VmbusConnectState.DISCONNECTED:
        channel_mgmt.vmbus_onmessage(v, context.msgtype, context.payload)


def vmbus_on_msg_dpc(v: HvVmbus, hv_cpu: HvPerCpuContext) -> None:
    """Tasklet of a CPU: take the message out of its slot and handle or queue it.

    The message is copied first: the slot is shared with the host. An unknown type, a payload of more than 240 bytes and
    a message shorter than its kind are dropped with a warning, each printed once.
    """
    assert hv_cpu.synic_message_page is not None
    slot = hv_cpu.synic_message_page.gpa + VMBUS_MESSAGE_SINT * HV_MESSAGE_SIZE
    copy = v.memory.read(slot, HV_MESSAGE_SIZE)
    message_type, payload_size, _, _ = MESSAGE_HEADER.unpack_from(copy)
    if message_type == HvMessageType.HVMSG_NONE:
        return
    if _dispatch(v, copy, payload_size):
        vmbus_signal_eom(v, slot, message_type)


def _dispatch(v: HvVmbus, copy: bytes, payload_size: int) -> bool:
    """Return False when the slot must stay as it is (never: the model's small allocations do not fail)."""
    msgtype = int.from_bytes(copy[16:20], "little")
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_on_msg_dpc(v, msgtype)
    if msgtype >= CHANNELMSG_COUNT:
        v.WARN_ONCE(warn.UNKNOWN_MSGTYPE, f"unknown msgtype={as_int(msgtype)}")
        return True
    if payload_size > HV_MESSAGE_PAYLOAD_BYTE_COUNT:
        v.WARN_ONCE(warn.PAYLOAD_SIZE, f"payload size is too large ({payload_size})")
        return True
    entry = channel_mgmt.channel_message_table.get(msgtype)
    if entry is None:
        return True
    if payload_size < entry.min_payload_len:
        v.WARN_ONCE(warn.TOO_SHORT, f"message too short: msgtype={msgtype} len={payload_size}")
        return True
    payload = copy[16 : 16 + payload_size]
    if not entry.blocking:
        entry.message_handler(v, payload)
        return True
    connection = v.connection
    if connection.ignore_any_offer_msg and msgtype in (OFFER, RESCIND):
        return True
    if msgtype == OFFER:
        connection.offer_in_progress += 1
    # Rescinds have a queue of their own: an offer's handler may wait for an answer that a rescind makes impossible.
    queue = connection.rescind_work_queue if msgtype == RESCIND else connection.work_queue
    assert queue is not None
    queue_message(v, queue, msgtype, payload)
    return True


def queue_message(v: HvVmbus, queue: Workqueue, msgtype: int, payload: bytes) -> None:
    """Have a worker of ``queue`` handle a message."""
    work = Work(lambda w: vmbus_onmessage_work(v, w.data))
    work.data = OnmessageWork(work, msgtype, payload)
    v.workqueue.queue_work(queue, work)


def vmbus_chan_sched(v: HvVmbus, flags_gpa: int, size: int) -> None:
    """Run or schedule the callbacks of all channels whose bit is set in the ``size`` bytes at ``flags_gpa``.

    They are the event flags of this CPU, or on hosts before Windows 8 the receive half of the interrupt page.
    """
    flags = int.from_bytes(v.memory.read(flags_gpa, size).rstrip(b"\0"), "little")
    while flags:
        relid = (flags & -flags).bit_length() - 1
        flags &= flags - 1
        if not v.memory.sync_test_and_clear_bit(flags_gpa, relid) or relid == 0:
            continue
        channel = connection_c.relid2channel(v, relid)
        if channel is None or channel.rescind:
            continue
        with channel.sched_lock:
            callback = channel.onchannel_callback
            if callback is None:
                continue
            if v.machine.tracer is not None:
                hv_trace.trace_vmbus_chan_sched(v, channel)
            channel.interrupts += 1
            mode = channel.callback_mode
            if mode == HV_CALL_ISR:
                callback(channel.channel_callback_context)
                continue
            if mode == HV_CALL_BATCHED:
                v.rings.hv_begin_read(channel.inbound)
            v.softirq.tasklet_schedule(channel.callback_event)


def vmbus_isr(v: HvVmbus) -> None:
    """Interrupt of the VMBus SINT on this CPU: channel events first, then the message slot."""
    hv_cpu = v.percpu.this_cpu_ptr(v.cpu_context)
    assert hv_cpu.synic_event_page is not None
    assert hv_cpu.synic_message_page is not None
    event = hv_cpu.synic_event_page.gpa + VMBUS_MESSAGE_SINT * EVENT_FLAGS_BYTES
    page = v.connection.int_page
    if v.vmbus_proto_version >= VERSION_WIN8 or page is None or not v.kernel.release.has("vmbus_win7"):
        vmbus_chan_sched(v, event, EVENT_FLAGS_BYTES)
    elif v.memory.sync_test_and_clear_bit(event, 0):
        # Before Windows 8 flag 0 says that the interrupt page has bits (vmbus_isr of 5.15).
        vmbus_chan_sched(v, page.gpa, MAX_NUM_CHANNELS_SUPPORTED // 8)
    slot = hv_cpu.synic_message_page.gpa + VMBUS_MESSAGE_SINT * HV_MESSAGE_SIZE
    message_type = v.memory.load32(slot)
    if message_type == HVMSG_NONE:
        return
    if message_type == HvMessageType.HVMSG_TIMER_EXPIRED:
        if v.hv_timer is not None:
            v.hv_timer.hv_stimer0_isr()
        vmbus_signal_eom(v, slot, HvMessageType.HVMSG_TIMER_EXPIRED)
    else:
        assert hv_cpu.msg_dpc is not None
        v.softirq.tasklet_schedule(hv_cpu.msg_dpc)
