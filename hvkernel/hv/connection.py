"""``drivers/hv/connection.c``: connecting to the host, posting channel messages, channel interrupts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_STATUS_INSUFFICIENT_BUFFERS,
    HV_STATUS_INSUFFICIENT_MEMORY,
    HV_STATUS_INVALID_CONNECTION_ID,
    HV_STATUS_SUCCESS,
    HVCALL_SIGNAL_EVENT,
)
from hvkernel.abi.vmbus import (
    MAX_CHANNEL_RELIDS,
    VERSION_WIN7,
    VERSION_WIN8,
    VERSION_WIN8_1,
    VERSION_WIN10,
    VERSION_WIN10_V4_1,
    VERSION_WIN10_V5,
    VERSION_WIN10_V5_1,
    VERSION_WIN10_V5_2,
    VERSION_WIN10_V5_3,
    VERSION_WS2008,
    VMBUS_CONNECT_CPU,
    VMBUS_MESSAGE_CONNECTION_ID,
    VMBUS_MESSAGE_CONNECTION_ID_4,
    VMBUS_MESSAGE_SINT,
    HvCallbackMode,
    VmbusChannelInitiateContact,
    VmbusChannelMessageHeader,
    VmbusChannelMessageType,
)
from hvkernel.api.guest.errno import EAGAIN, ECONNREFUSED, EDOM, EINVAL, ENOBUFS, ENOMEM, ETIMEDOUT
from hvkernel.hv import channel_mgmt, hv_trace, warn
from hvkernel.hv import hv as hv_c
from hvkernel.hv.connection_state import Event, State, step
from hvkernel.hv.hyperv_vmbus import MsgInfo, as_int

if TYPE_CHECKING:
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

VMBUS_VERSIONS: Final = (
    VERSION_WIN10_V5_3,
    VERSION_WIN10_V5_2,
    VERSION_WIN10_V5_1,
    VERSION_WIN10_V5,
    VERSION_WIN10_V4_1,
    VERSION_WIN10,
    VERSION_WIN8_1,
    VERSION_WIN8,
)
"""What the guest asks for, in order (drivers/hv/connection.c:vmbus_versions)."""

PRE_WIN8_VERSIONS: Final = (VERSION_WIN7, VERSION_WS2008)
"""What kernels before 5.19 ask for after these (capability ``vmbus_win7``)."""

POST_RETRIES: Final = 100
DOUBLING_RETRIES: Final = 22
"""The delay between posts doubles until this try, from 1 us to 4.2 s (drivers/hv/connection.c:vmbus_post_msg)."""
MAX_UDELAY_MS: Final = 5
"""include/linux/delay.h."""
NO_CHANNELS: Final = warn.Place("drivers/hv/connection.c", 380, "relid2channel")
"""A pr_warn_once, no WARN."""


def vmbus_negotiate_version(v: HvVmbus, version: int) -> int:
    """Ask the host for one version: 0, -ECONNREFUSED, or what posting failed with.

    From 5.0 on the request goes to message connection 4 and names the SINT; the host's answer says which connection to
    use afterwards. Older requests carry the interrupt page and use connection 1.
    """
    connection = v.connection
    interrupt_page = 0
    if version >= VERSION_WIN10_V5:
        interrupt_page = VMBUS_MESSAGE_SINT  # msg_sint lies over the low byte of interrupt_page
        connection.msg_conn_id = VMBUS_MESSAGE_CONNECTION_ID_4
    else:
        assert connection.int_page is not None
        interrupt_page = connection.int_page.gpa
        connection.msg_conn_id = VMBUS_MESSAGE_CONNECTION_ID
    first, second = connection.monitor_pages
    assert first is not None
    assert second is not None
    boundary = v.arch.ms_hyperv.shared_gpa_boundary
    msg = VmbusChannelInitiateContact(
        header=header(VmbusChannelMessageType.CHANNELMSG_INITIATE_CONTACT),
        vmbus_version_requested=version,
        target_vcpu=v.hv_common.hv_cpu_number_to_vp_number(VMBUS_CONNECT_CPU),
        interrupt_page=interrupt_page,
        monitor_page1=first.gpa | boundary,
        monitor_page2=second.gpa | boundary,
    )
    info = MsgInfo(msg, VmbusChannelMessageType.CHANNELMSG_INITIATE_CONTACT)
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.append(info)
    ret = vmbus_post_msg(v, msg.pack(), True)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_negotiate_version(v, msg, ret)
    if ret:
        with connection.msg_lock().irqsave():
            connection.chn_msg_list.remove(info)
        return ret
    v.sched.wait_for_completion(info.waitevent)
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.remove(info)
    if not info.response.version_supported:
        set_state(v, Event.VERSION_REFUSED)
        return -ECONNREFUSED
    set_state(v, Event.VERSION_ACCEPTED)
    if version >= VERSION_WIN10_V5:
        connection.msg_conn_id = info.response.msg_conn_id
    return 0


def vmbus_connect(v: HvVmbus) -> int:
    """Make the connection's queues and pages and walk down the versions; 0 or a negative errno (all undone)."""
    ret = _connect(v)
    if ret:
        v.pr.pr_err("Unable to connect to host")
        vmbus_disconnect(v)
    return ret


def _connect(v: HvVmbus) -> int:
    connection = v.connection
    set_state(v, Event.CONNECT)
    connection.work_queue = v.workqueue.create_workqueue("hv_vmbus_con")
    connection.rescind_work_queue = v.workqueue.create_workqueue("hv_vmbus_rescind")
    connection.ignore_any_offer_msg = False
    connection.handle_primary_chan_wq = v.workqueue.create_workqueue("hv_pri_chan")
    connection.handle_sub_chan_wq = v.workqueue.create_workqueue("hv_sub_chan")
    connection.chn_msg_list.clear()
    connection.channelmsg_lock = v.kernel.locking.spin_lock_init("vmbus_connection.channelmsg_lock")
    connection.chn_list.clear()
    connection.channel_mutex = v.kernel.locking.mutex_init("vmbus_connection.channel_mutex")
    connection.int_page = v.mm.get_zeroed_page()
    if connection.int_page is None:
        return -ENOMEM
    connection.monitor_pages = [v.mm.get_zeroed_page(), v.mm.get_zeroed_page()]
    if None in connection.monitor_pages:
        return -ENOMEM
    versions = VMBUS_VERSIONS + (PRE_WIN8_VERSIONS if v.kernel.release.has("vmbus_win7") else ())
    for version in versions:
        if version > v.max_version:
            continue
        ret = vmbus_negotiate_version(v, version)
        if ret == -ETIMEDOUT:
            return ret
        if connection.conn_state == State.CONNECTED:
            break
    else:
        return -EDOM
    if v.arch.hv_is_isolation_supported() and version < VERSION_WIN10_V5_2:
        least = VERSION_WIN10_V5_2
        v.pr.pr_err(
            f"Invalid VMBus version {version >> 16}.{version & 0xFFFF} (expected >= {least >> 16}.{least & 0xFFFF})"
            " from the host supporting isolation"
        )
        return -EINVAL
    v.vmbus_proto_version = version
    v.pr.pr_info(f"Vmbus version:{version >> 16}.{version & 0xFFFF}")
    connection.alloc_channels()
    return 0


def vmbus_disconnect(v: HvVmbus) -> None:
    """Unload the connection, stop its queues and free its pages."""
    connection = v.connection
    channel_mgmt.vmbus_initiate_unload(v, False)
    for queue in (
        connection.handle_sub_chan_wq,
        connection.handle_primary_chan_wq,
        connection.rescind_work_queue,
        connection.work_queue,
    ):
        if queue is not None:
            v.workqueue.destroy_workqueue(queue)
    connection.handle_sub_chan_wq = connection.handle_primary_chan_wq = None
    connection.rescind_work_queue = connection.work_queue = None
    if connection.int_page is not None:
        v.mm.free_pages(connection.int_page)
        connection.int_page = None
    for page in connection.monitor_pages:
        if page is not None:
            v.mm.free_pages(page)
    connection.monitor_pages = [None, None]


def relid2channel(v: HvVmbus, relid: int) -> VmbusChannel | None:
    """Return the channel of a relid; a relid of 2048 or more is a WARN."""
    channels = v.connection.channels
    if channels is None:
        if NO_CHANNELS not in v.warned:  # pr_warn_once
            v.warned.add(NO_CHANNELS)
            v.pr.pr_warn(f"relid2channel: relid={as_int(relid)}: No channels mapped!")
        return None
    if relid >= MAX_CHANNEL_RELIDS:
        v.WARN_ON(warn.RELID2CHANNEL)
        return None
    return channels[relid]


def vmbus_on_event(v: HvVmbus, channel: VmbusChannel) -> None:
    """Tasklet of a channel: run its callback; in batched mode again until nothing came in meanwhile."""
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_on_event(v, channel)
    if v.debug is not None:
        v.debug.interrupt_delay(channel)
    callback = channel.onchannel_callback
    if callback is None:
        return
    callback(channel.channel_callback_context)
    if channel.callback_mode != HvCallbackMode.HV_CALL_BATCHED:
        return
    ring = v.rings
    if not ring.hv_end_read(channel.inbound):
        return
    ring.hv_begin_read(channel.inbound)
    v.softirq.tasklet_schedule(channel.callback_event)


def vmbus_post_msg(v: HvVmbus, buffer: bytes, can_sleep: bool) -> int:
    """Post a channel message; 0 or a negative errno.

    A host short of buffers, or one that answers "no such connection" to anything but INITIATE_CONTACT, is asked up to
    100 times with a growing delay; any other failure is final.
    """
    retries = 0
    usec = 1
    ret = 0
    while retries < POST_RETRIES:
        ret = hv_c.hv_post_message(v, v.connection.msg_conn_id, 1, buffer)
        if ret == HV_STATUS_SUCCESS:
            return 0
        if ret == HV_STATUS_INVALID_CONNECTION_ID:
            msgtype = int.from_bytes(buffer[:4], "little")
            if msgtype == VmbusChannelMessageType.CHANNELMSG_INITIATE_CONTACT:
                return -EINVAL
            ret = -EAGAIN
        elif ret in (HV_STATUS_INSUFFICIENT_MEMORY, HV_STATUS_INSUFFICIENT_BUFFERS):
            ret = -ENOBUFS
        else:
            v.pr.pr_err(f"hv_post_msg() failed; error code:{ret}")
            return -EINVAL
        retries += 1
        if can_sleep and usec > 1000:
            v.sched.msleep(usec // 1000)
        elif usec < MAX_UDELAY_MS * 1000:
            v.sched.udelay(usec)
        else:
            v.sched.mdelay(usec // 1000)
        if retries < DOUBLING_RETRIES:
            usec *= 2
    return ret


def vmbus_send_interrupt(v: HvVmbus, relid: int) -> None:
    """Set the channel's bit in the page that the host looks at."""
    v.memory.sync_set_bit(v.connection.send_int_page(), relid)


def vmbus_set_event(v: HvVmbus, channel: VmbusChannel) -> None:
    """Signal the host by hypercall that a channel's outbound ring has data."""
    if not channel.is_dedicated_interrupt:
        vmbus_send_interrupt(v, channel.offermsg.child_relid)
    channel.sig_events += 1
    v.arch.hv_do_fast_hypercall8(HVCALL_SIGNAL_EVENT, channel.sig_event)


def header(msgtype: int) -> VmbusChannelMessageHeader:
    """Return a message header of that type."""
    return VmbusChannelMessageHeader(msgtype=msgtype, padding=0)


def set_state(v: HvVmbus, event: Event) -> None:
    """Move ``conn_state`` along its table."""
    v.connection.conn_state = step(v.connection.conn_state, event)
