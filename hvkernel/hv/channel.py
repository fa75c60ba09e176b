"""``drivers/hv/channel.c``: opening and closing channels, sharing buffers.

Its functions that send and receive packets are in :mod:`hvkernel.hv.channel_packets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi.monitor import HvMonitorPage
from hvkernel.abi.ring import VMBUS_DEFAULT_MAX_PKT_SIZE
from hvkernel.abi.vmbus import (
    MAX_USER_DEFINED_BYTES,
    VERSION_WIN10_V5_3,
    HvGpadlType,
    VmbusChannelCloseChannel,
    VmbusChannelGpadlBody,
    VmbusChannelGpadlHeader,
    VmbusChannelGpadlTeardown,
    VmbusChannelMessageType,
    VmbusChannelModifychannel,
    VmbusChannelOpenChannel,
    VmbusChannelTlConnectRequest,
)
from hvkernel.abi.wire import Guid
from hvkernel.api.guest.errno import EAGAIN, EDQUOT, EINVAL, ENODEV, ENOMEM
from hvkernel.api.guest.hyperv import VmbusGpadl
from hvkernel.hv import channel_mgmt, channel_packets, hv_trace
from hvkernel.hv import connection as connection_c
from hvkernel.hv.channel_state import Event, State, step
from hvkernel.hv.gpadl import create_gpadl_header, hv_ring_gpadl_send_hvpgoffset
from hvkernel.hv.hyperv_vmbus import MsgInfo

if TYPE_CHECKING:
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

TRIGGER_GROUP: Final = HvMonitorPage.offset_of("trigger_group")
"""Each group is 8 bytes, ``pending`` first."""


def set_state(channel: VmbusChannel, event: Event) -> None:
    """Move ``channel.state`` along its table."""
    channel.state = step(channel.state, event)


def vmbus_setevent(v: HvVmbus, channel: VmbusChannel) -> None:
    """Tell the host that the outbound ring has data: by the monitor page where the offer has one, else by hypercall."""
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_setevent(v, channel)
    if channel.offermsg.monitor_allocated and not channel.low_latency:
        connection_c.vmbus_send_interrupt(v, channel.offermsg.child_relid)
        page = v.connection.monitor_pages[1]
        assert page is not None
        v.memory.sync_set_bit(page.gpa + TRIGGER_GROUP + 8 * channel.monitor_grp, channel.monitor_bit)
    else:
        connection_c.vmbus_set_event(v, channel)


# rings ---------------------------------------------------------------------------------------------------------


def get_order(size: int, page_size: int) -> int:
    """Return the allocation order that holds ``size`` bytes."""
    return max((size + page_size - 1) // page_size - 1, 0).bit_length()


def vmbus_alloc_ring(v: HvVmbus, channel: VmbusChannel, send_size: int, recv_size: int) -> int:
    """Allocate both rings in one piece, near the channel's CPU if possible; 0, -EINVAL or -ENOMEM."""
    if send_size % v.PAGE_SIZE or recv_size % v.PAGE_SIZE:
        return -EINVAL
    order = get_order(send_size + recv_size, v.PAGE_SIZE)
    node = v.cpus.cpu_to_node(channel.target_cpu)
    page = v.mm.alloc_pages(order, zero=True, lowmem=True, node=node)
    if page is None:
        page = v.mm.alloc_pages(order, zero=True, lowmem=True)
    if page is None:
        return -ENOMEM
    channel.ringbuffer_page = page
    channel.ringbuffer_pagecount = (send_size + recv_size) >> v.PAGE_SHIFT
    channel.ringbuffer_send_offset = send_size >> v.PAGE_SHIFT
    return 0


def vmbus_free_ring(v: HvVmbus, channel: VmbusChannel) -> None:
    """Unmap both rings and free their pages."""
    ring = v.rings
    ring.hv_ringbuffer_cleanup(channel.outbound)
    ring.hv_ringbuffer_cleanup(channel.inbound)
    if channel.ringbuffer_page is not None:
        if not channel.ringbuffer_gpadlhandle.decrypted:
            v.mm.free_pages(channel.ringbuffer_page)
        channel.ringbuffer_page = None


# GPADLs --------------------------------------------------------------------------------------------------------


def __vmbus_establish_gpadl(
    v: HvVmbus,
    channel: VmbusChannel,
    type: HvGpadlType,
    buffer: int | Sequence[int],
    size: int,
    send_offset: int,
    gpadl: VmbusGpadl,
) -> int:
    connection = v.connection
    handle = connection.next_gpadl_handle
    connection.next_gpadl_handle = (handle + 1) & 0xFFFF_FFFF
    messages = create_gpadl_header(type, buffer, size, send_offset, v.PAGE_SIZE)
    # set_memory_decrypted() is empty in a guest without isolation.
    gpadl.decrypted = True
    relid = channel.offermsg.child_relid
    first = messages.header(relid, handle)
    info = MsgInfo(
        VmbusChannelGpadlHeader.unpack(first), VmbusChannelMessageType.CHANNELMSG_GPADL_HEADER, waiting_channel=channel
    )
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.append(info)
    ret = _post_gpadl(v, channel, info, [first, *messages.bodies(handle)])
    if ret == 0:
        gpadl.gpadl_handle = handle
        gpadl.buffer = buffer if isinstance(buffer, int) else buffer[0] << 12
        gpadl.size = size
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.remove(info)
    if ret:
        gpadl.decrypted = False
    return ret


def _post_gpadl(v: HvVmbus, channel: VmbusChannel, info: MsgInfo, messages: list[bytes]) -> int:
    if channel.rescind:
        return -ENODEV
    for message in messages:
        ret = connection_c.vmbus_post_msg(v, message, True)
        if v.machine.tracer is not None:
            _trace_gpadl(v, message, ret)
        if ret:
            return ret
    v.sched.wait_for_completion(info.waitevent)
    # A rescind also completes the wait, without an answer: the kernel then reads a zeroed response.
    status = info.response.creation_status if info.response is not None else 0
    if status:
        v.pr.pr_err(f"Failed to establish GPADL: err = 0x{status:x}")
        return -EDQUOT
    return -ENODEV if channel.rescind else 0


def _trace_gpadl(v: HvVmbus, message: bytes, ret: int) -> None:
    if message[0] == VmbusChannelMessageType.CHANNELMSG_GPADL_HEADER:
        hv_trace.trace_vmbus_establish_gpadl_header(v, VmbusChannelGpadlHeader.unpack(message), ret)
    else:
        hv_trace.trace_vmbus_establish_gpadl_body(v, VmbusChannelGpadlBody.unpack(message), ret)


def vmbus_establish_gpadl(
    v: HvVmbus, channel: VmbusChannel, buffer: int | Sequence[int], size: int, gpadl: VmbusGpadl
) -> int:
    """Share a buffer with the host; 0, -ENODEV (rescinded), -EDQUOT (the host refused) or a posting error.

    :param buffer: guest physical address, or the Hyper-V page numbers of memory that is not contiguous.
    """
    return __vmbus_establish_gpadl(v, channel, HvGpadlType.HV_GPADL_BUFFER, buffer, size, 0, gpadl)


def vmbus_teardown_gpadl(v: HvVmbus, channel: VmbusChannel, gpadl: VmbusGpadl) -> int:
    """Take a buffer back and wait for the host's answer. Always 0 in a guest without isolation, as in the kernel.

    A rescinded channel's GPADL is gone already: nothing is posted.
    """
    connection = v.connection
    msg = VmbusChannelGpadlTeardown(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_GPADL_TEARDOWN),
        child_relid=channel.offermsg.child_relid,
        gpadl=gpadl.gpadl_handle,
    )
    info = MsgInfo(msg, VmbusChannelMessageType.CHANNELMSG_GPADL_TEARDOWN, waiting_channel=channel)
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.append(info)
    if not channel.rescind:
        ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
        if v.machine.tracer is not None:
            hv_trace.trace_vmbus_teardown_gpadl(v, msg, ret)
        if ret == 0:
            v.sched.wait_for_completion(info.waitevent)
            gpadl.gpadl_handle = 0
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.remove(info)
    gpadl.decrypted = False
    return 0


# open and close ------------------------------------------------------------------------------------------------


def __vmbus_open(
    v: HvVmbus,
    channel: VmbusChannel,
    userdata: bytes,
    onchannelcallback: Callable[[Any], None],
    context: Any,
) -> int:
    if len(userdata) > MAX_USER_DEFINED_BYTES:
        return -EINVAL
    if channel.state != State.CHANNEL_OPEN_STATE:
        return -EINVAL
    page = channel.ringbuffer_page
    assert page is not None, "vmbus_alloc_ring() did not run"
    if channel.rqstor_size:
        channel_packets.vmbus_alloc_requestor(v, channel.requestor, channel.rqstor_size)
    set_state(channel, Event.OPEN)
    channel.onchannel_callback = onchannelcallback
    channel.channel_callback_context = context
    if not channel.max_pkt_size:
        channel.max_pkt_size = VMBUS_DEFAULT_MAX_PKT_SIZE
    gpadl = channel.ringbuffer_gpadlhandle
    gpadl.gpadl_handle = 0
    send_bytes = channel.ringbuffer_send_offset << v.PAGE_SHIFT
    err = __vmbus_establish_gpadl(
        v,
        channel,
        HvGpadlType.HV_GPADL_RING,
        page.gpa,
        channel.ringbuffer_pagecount << v.PAGE_SHIFT,
        send_bytes,
        gpadl,
    )
    ring = v.rings
    if err == 0:
        recv_pages = channel.ringbuffer_pagecount - channel.ringbuffer_send_offset
        err = ring.hv_ringbuffer_init(channel.outbound, page.gpa, channel.ringbuffer_send_offset, 0)
        if err == 0:
            err = ring.hv_ringbuffer_init(channel.inbound, page.gpa + send_bytes, recv_pages, channel.max_pkt_size)
        if err == 0:
            err = _post_open(v, channel, userdata, send_bytes)
        if err:
            vmbus_teardown_gpadl(v, channel, gpadl)
    if err:
        ring.hv_ringbuffer_cleanup(channel.outbound)
        ring.hv_ringbuffer_cleanup(channel.inbound)
        channel_packets.vmbus_free_requestor(channel.requestor)
        set_state(channel, Event.OPEN_FAILED)
        return err
    set_state(channel, Event.OPEN_RESULT_OK)
    return 0


def _post_open(v: HvVmbus, channel: VmbusChannel, userdata: bytes, send_bytes: int) -> int:
    connection = v.connection
    relid = channel.offermsg.child_relid
    msg = VmbusChannelOpenChannel(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_OPENCHANNEL),
        child_relid=relid,
        openid=relid,
        ringbuffer_gpadlhandle=channel.ringbuffer_gpadlhandle.gpadl_handle,
        target_vp=v.hv_common.hv_cpu_number_to_vp_number(channel.target_cpu),
        downstream_ringbuffer_pageoffset=hv_ring_gpadl_send_hvpgoffset(send_bytes, v.PAGE_SIZE),
        userdata=userdata.ljust(MAX_USER_DEFINED_BYTES, b"\0"),
    )
    info = MsgInfo(msg, VmbusChannelMessageType.CHANNELMSG_OPENCHANNEL, waiting_channel=channel)
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.append(info)
    err = -ENODEV
    if not channel.rescind:
        err = connection_c.vmbus_post_msg(v, msg.pack(), True)
        if v.machine.tracer is not None:
            hv_trace.trace_vmbus_open(v, msg, err)
    if err == 0:
        v.sched.wait_for_completion(info.waitevent)
        if channel.rescind:
            err = -ENODEV
        elif info.response.status:
            err = -EAGAIN
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.remove(info)
    return err


def vmbus_connect_ring(
    v: HvVmbus, channel: VmbusChannel, onchannelcallback: Callable[[Any], None], context: Any
) -> int:
    """Open a channel on rings that are allocated already."""
    return __vmbus_open(v, channel, b"", onchannelcallback, context)


def vmbus_open(
    v: HvVmbus,
    channel: VmbusChannel,
    send_size: int,
    recv_size: int,
    userdata: bytes,
    onchannelcallback: Callable[[Any], None],
    context: Any,
) -> int:
    """Allocate the rings and open the channel; 0 or a negative errno with everything undone."""
    err = vmbus_alloc_ring(v, channel, send_size, recv_size)
    if err:
        return err
    err = __vmbus_open(v, channel, userdata, onchannelcallback, context)
    if err:
        vmbus_free_ring(v, channel)
    return err


def vmbus_reset_channel_cb(v: HvVmbus, channel: VmbusChannel) -> None:
    """Make sure that the channel's callback does not run and will not run again."""
    v.softirq.tasklet_disable(channel.callback_event)
    with channel.sched_lock.irqsave():
        channel.onchannel_callback = None
    channel.sc_creation_callback = None
    v.softirq.tasklet_enable(channel.callback_event)


def vmbus_close_internal(v: HvVmbus, channel: VmbusChannel) -> int:
    """Post CLOSECHANNEL and take the ring's GPADL back; -EINVAL if the channel was not open."""
    vmbus_reset_channel_cb(v, channel)
    if channel.state != State.CHANNEL_OPENED_STATE:
        return -EINVAL
    set_state(channel, Event.CLOSE)
    msg = VmbusChannelCloseChannel(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_CLOSECHANNEL),
        child_relid=channel.offermsg.child_relid,
    )
    ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_close_internal(v, msg, ret)
    if ret:
        v.pr.pr_err(f"Close failed: close post msg return is {ret}")
    elif channel.ringbuffer_gpadlhandle.gpadl_handle:
        ret = vmbus_teardown_gpadl(v, channel, channel.ringbuffer_gpadlhandle)
        if ret:
            v.pr.pr_err(f"Close failed: teardown gpadl return {ret}")
    if not ret:
        channel_packets.vmbus_free_requestor(channel.requestor)
    return ret


def vmbus_disconnect_ring(v: HvVmbus, channel: VmbusChannel) -> int:
    """Close a primary channel and, before it, all its sub-channels; -EINVAL for a sub-channel."""
    if channel.primary_channel is not None:
        return -EINVAL
    mutex = v.connection.chn_mutex()
    for sub in tuple(channel.sc_list):
        if sub.rescind:
            v.sched.wait_for_completion(sub.rescind_event)
        with mutex:
            if vmbus_close_internal(v, sub) == 0:
                vmbus_free_ring(v, sub)
                if sub.rescind:
                    channel_mgmt.hv_process_channel_removal(v, sub)
    with mutex:
        return vmbus_close_internal(v, channel)


def vmbus_close(v: HvVmbus, channel: VmbusChannel) -> None:
    """Close a channel and free its rings."""
    if vmbus_disconnect_ring(v, channel) == 0:
        vmbus_free_ring(v, channel)


# other requests ------------------------------------------------------------------------------------------------


def vmbus_send_tl_connect_request(v: HvVmbus, guest_endpoint_id: bytes, host_service_id: bytes) -> int:
    """hv_sock: ask the host for a connection; 0 or a negative errno."""
    msg = VmbusChannelTlConnectRequest(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_TL_CONNECT_REQUEST),
        guest_endpoint_id=Guid(guest_endpoint_id),
        host_service_id=Guid(host_service_id),
    )
    ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_send_tl_connect_request(v, msg, ret)
    return ret


def vmbus_send_modifychannel(v: HvVmbus, channel: VmbusChannel, target_vp: int) -> int:
    """Ask the host to interrupt another VP for a channel; call with ``channel_mutex`` held.

    From 5.3 on the host answers; before, nothing tells when it has done it.
    """
    connection = v.connection
    msg = VmbusChannelModifychannel(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_MODIFYCHANNEL),
        child_relid=channel.offermsg.child_relid,
        target_vp=target_vp,
    )
    if v.vmbus_proto_version < VERSION_WIN10_V5_3:
        ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
        if v.machine.tracer is not None:
            hv_trace.trace_vmbus_send_modifychannel(v, msg, ret)
        return ret
    info = MsgInfo(msg, VmbusChannelMessageType.CHANNELMSG_MODIFYCHANNEL, waiting_channel=channel)
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.append(info)
    ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_send_modifychannel(v, msg, ret)
    if ret == 0:
        # Without the mutex a rescind could not complete the wait.
        mutex = connection.chn_mutex()
        mutex.unlock()
        v.sched.wait_for_completion(info.waitevent)
        mutex.lock()
        if info.response is not None and info.response.status:
            ret = -EAGAIN
    with connection.msg_lock().irqsave():
        connection.chn_msg_list.remove(info)
    return ret
