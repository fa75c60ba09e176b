"""``drivers/hv/channel_mgmt.c``: offers, rescinds, unloading, message dispatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from hvkernel.abi.tlfs import HV_MESSAGE_SIZE, HvMessageType
from hvkernel.abi.vmbus import (
    CHANNEL_MESSAGES,
    INVALID_RELID,
    MAX_CHANNEL_RELIDS,
    UNLOAD_DELAY_UNIT_MS,
    UNLOAD_MSG_LOOPS,
    UNLOAD_WAIT_LOOPS,
    VERSION_WIN8_1,
    VERSION_WS2008,
    VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER,
    VMBUS_EVENT_CONNECTION_ID,
    VMBUS_MESSAGE_SINT,
    VmbusChannelMessageHeader,
    VmbusChannelMessageType,
    VmbusChannelOfferChannel,
    VmbusChannelRelidReleased,
    VmbusChannelRescindOffer,
    VmbusDeviceType,
)
from hvkernel.api.guest.hyperv import VmbusChannel, VmbusOffer, pUl
from hvkernel.api.guest.sched import Tasklet, Work
from hvkernel.hv import channel as channel_c
from hvkernel.hv import channel_answers, channel_cpus, hv_trace, vmbus_drv, vmbus_isr, warn
from hvkernel.hv import connection as connection_c
from hvkernel.hv.channel_state import Event as ChannelEvent
from hvkernel.hv.channel_state import State as ChannelState
from hvkernel.hv.connection_state import Event, State
from hvkernel.hv.hyperv_vmbus import as_int
from hvkernel.hv.ring_buffer import HvRingBufferInfo
from hvkernel.hv.vmbus_devs import VMBUS_DEVS, VMBUS_UNSUPPORTED_DEVS, device_type_of
from hvkernel.machine.faults import PageFault

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import HvVmbus

ALL_OFFERS_SECONDS: Final = 60
OFFER_SIZE: Final = VmbusChannelOfferChannel.SIZE
RELID: Final = VmbusChannelOfferChannel.offset_of("child_relid")
MESSAGE_PAYLOAD: Final = 16
"""Offset of the payload in ``struct hv_message``."""


# kinds of channel ----------------------------------------------------------------------------------------------


def is_hvsock_channel(channel: VmbusChannel) -> bool:
    """Say whether the offer stands for an hv_sock connection, not for a device."""
    return bool(channel.offermsg.chn_flags & VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER)


def is_sub_channel(channel: VmbusChannel) -> bool:
    """Say whether the offer is a further channel of a device offered before."""
    return channel.offermsg.sub_channel_index != 0


def hv_get_dev_type(v: HvVmbus, if_type: bytes, chn_flags: int) -> int:
    """Return the ``enum vmbus_device_type`` of an offer, HV_UNKNOWN for what the guest does not know.

    An unknown class is printed, an unsupported one (AVMA, RDV, IMC) and hv_sock are not.
    """
    if chn_flags & VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER or if_type in VMBUS_UNSUPPORTED_DEVS:
        return VmbusDeviceType.HV_UNKNOWN
    found = device_type_of(if_type)
    if found is None:
        v.pr.pr_info(f"Unknown GUID: {pUl(if_type)}")
        return VmbusDeviceType.HV_UNKNOWN
    return found


# life of a channel ---------------------------------------------------------------------------------------------


def vmbus_rescind_cleanup(v: HvVmbus, channel: VmbusChannel) -> None:
    """Mark the channel rescinded and wake whoever waits for the host on its behalf."""
    with v.connection.msg_lock().irqsave():
        channel.rescind = True
        for info in v.connection.chn_msg_list:
            if info.waiting_channel is channel:
                v.sched.complete(info.waitevent)
                break


def alloc_channel(v: HvVmbus, offer: VmbusOffer) -> VmbusChannel:
    """Make a channel object for an offer."""
    tasklet = Tasklet(partial(connection_c.vmbus_on_event, v), name="vmbus_on_event")
    lock = v.kernel.locking.spin_lock_init("vmbus_channel.sched_lock")
    channel = VmbusChannel(offer, lock, tasklet, HvRingBufferInfo(), HvRingBufferInfo())
    tasklet.data = channel
    v.rings.hv_ringbuffer_pre_init(channel)
    return channel


def free_channel(v: HvVmbus, channel: VmbusChannel) -> None:
    """Stop the channel's tasklet and take it out of its device's ``channels`` directory."""
    v.softirq.tasklet_kill(channel.callback_event)
    primary = channel.primary_channel or channel
    device = primary.device_obj
    if device is not None and device.channels_kset is not None and channel in device.channels_kset:
        device.channels_kset.remove(channel)


def vmbus_channel_map_relid(v: HvVmbus, channel: VmbusChannel) -> None:
    """Make interrupts of the channel's relid find it; a relid of 2048 or more is a WARN."""
    _store_relid(v, channel, channel, warn.MAP_RELID)


def vmbus_channel_unmap_relid(v: HvVmbus, channel: VmbusChannel) -> None:
    """Undo :func:`vmbus_channel_map_relid`."""
    _store_relid(v, channel, None, warn.UNMAP_RELID)


def _store_relid(v: HvVmbus, channel: VmbusChannel, value: VmbusChannel | None, place: warn.Place) -> None:
    relid = channel.offermsg.child_relid
    if relid >= MAX_CHANNEL_RELIDS:
        v.WARN_ON(place)
        return
    channels = v.connection.channels
    if channels is None:
        # An offer before the version was agreed on: the kernel stores through a null pointer.
        raise PageFault(relid * v.arch.bits // 8, True, "vmbus_connection.channels is null")
    channels[relid] = value


def vmbus_release_relid(v: HvVmbus, relid: int) -> None:
    """Tell the host that the guest is done with a relid."""
    msg = VmbusChannelRelidReleased(
        header=connection_c.header(VmbusChannelMessageType.CHANNELMSG_RELID_RELEASED), child_relid=relid
    )
    ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_release_relid(v, msg, ret)


def siblings_of(v: HvVmbus, channel: VmbusChannel) -> list[VmbusChannel]:
    """Return the list that a channel is in: all primary channels, or the sub-channels of its primary."""
    return v.connection.chn_list if channel.primary_channel is None else channel.primary_channel.sc_list


def hv_process_channel_removal(v: HvVmbus, channel: VmbusChannel) -> None:
    """Forget a rescinded channel and give its relid back; call with ``channel_mutex`` held."""
    if not channel.rescind:
        v.BUG(warn.REMOVAL_NOT_RESCINDED)
    relid = channel.offermsg.child_relid
    siblings = siblings_of(v, channel)
    if channel not in siblings:
        # A close that sees the rescind removes its sub-channel (vmbus_disconnect_ring), and the rescind, which had the
        # channel in hand and waited for the mutex, removes it again. What 6.1 does with the freed channel is anybody's
        # guess; here it stays removed.
        v.kernel.machine.report("use-after-free", "guest", f"BUG: channel of relid {as_int(relid)} removed twice")
        return
    if relid == INVALID_RELID and not is_hvsock_channel(channel):
        v.WARN_ON(warn.REMOVAL_INVALID_RELID)
    if relid != INVALID_RELID:
        vmbus_channel_unmap_relid(v, channel)
    siblings.remove(channel)
    if channel_cpus.hv_is_perf_channel(channel):
        channel_cpus.hv_clear_allocated_cpu(v, channel.target_cpu)
    if relid != INVALID_RELID:
        vmbus_release_relid(v, relid)
    free_channel(v, channel)


def vmbus_free_channels(v: HvVmbus) -> None:
    """Unregister every device (module exit)."""
    for channel in tuple(v.connection.chn_list):
        channel.rescind = True
        if channel.device_obj is not None:
            vmbus_drv.vmbus_device_unregister(v, channel.device_obj)


def vmbus_add_channel_work(v: HvVmbus, channel: VmbusChannel) -> None:
    """Give a new primary channel a device, or tell the primary's driver of a new sub-channel. May run for several."""
    channel_c.set_state(channel, ChannelEvent.ADDED)
    primary = channel.primary_channel
    if primary is not None:
        if primary.device_obj is None:
            # The work of the primary has not run yet: the kernel looks for channels_kset in a null device.
            raise PageFault(0, False, "vmbus_add_channel_work: the primary channel has no device yet")
        if vmbus_drv.vmbus_add_channel_kobj(v, primary.device_obj, channel) == 0:
            if primary.sc_creation_callback is not None:
                primary.sc_creation_callback(channel)
            channel.probe_done = True
            return
    else:
        device = vmbus_drv.vmbus_device_create(channel)
        channel.device_obj = device
        device.device_id = channel.device_id
        if vmbus_drv.vmbus_device_register(v, device) == 0:
            channel.probe_done = True
            return
        v.pr.pr_err(f"unable to add child device object (relid {as_int(channel.offermsg.child_relid)})")
    with v.connection.chn_mutex():
        channel.probe_done = True  # a rescind may be waiting for it
        siblings_of(v, channel).remove(channel)
        vmbus_channel_unmap_relid(v, channel)
    vmbus_release_relid(v, channel.offermsg.child_relid)
    free_channel(v, channel)


def vmbus_process_offer(v: HvVmbus, channel: VmbusChannel) -> None:
    """Enter a new channel under its device (or as a new one) and queue the rest of the work."""
    connection = v.connection
    offer = channel.offermsg
    v.kernel.cpuhp.cpus_read_lock()
    with connection.chn_mutex():
        for other in connection.chn_list:
            if other.offermsg.if_type == offer.if_type and other.offermsg.if_instance == offer.if_instance:
                channel.primary_channel = other
                break
        primary = channel.primary_channel
        channel_cpus.init_vp_index(v, channel)
        if is_hvsock_channel(channel) or is_sub_channel(channel):
            connection.nr_chan_close_on_suspend += 1
        connection.offer_in_progress -= 1
        duplicate = primary is not None and offer.sub_channel_index == 0
        if not duplicate:
            if primary is None:
                connection.chn_list.append(channel)
            else:
                primary.sc_list.append(channel)
            vmbus_channel_map_relid(v, channel)
    v.kernel.cpuhp.cpus_read_unlock()
    if duplicate:
        v.WARN_ONCE(warn.OFFERED_TWICE)
        return
    work = Work(lambda w: vmbus_add_channel_work(v, w.data), channel)
    channel.add_channel_work = work
    queue = connection.handle_primary_chan_wq if primary is None else connection.handle_sub_chan_wq
    assert queue is not None
    v.workqueue.queue_work(queue, work)


# unload --------------------------------------------------------------------------------------------------------


def vmbus_wait_for_unload(v: HvVmbus) -> None:
    """Poll every CPU's message page for UNLOAD_RESPONSE: the panic path cannot sleep or rely on interrupts."""
    connection = v.connection
    slots = [
        context.synic_message_page.gpa + VMBUS_MESSAGE_SINT * HV_MESSAGE_SIZE
        for context in (v.cpu_context[cpu] for cpu in v.cpus.for_each_present_cpu())
        if context.synic_message_page is not None
    ]
    for i in range(1, UNLOAD_WAIT_LOOPS + 1):
        if v.sched.completion_done(connection.unload_event):
            break
        for slot in slots:
            message_type = v.memory.load32(slot)
            if message_type == HvMessageType.HVMSG_NONE:
                continue
            if v.memory.load32(slot + MESSAGE_PAYLOAD) == VmbusChannelMessageType.CHANNELMSG_UNLOAD_RESPONSE:
                v.sched.complete(connection.unload_event)
            vmbus_isr.vmbus_signal_eom(v, slot, message_type)
        if not i % UNLOAD_MSG_LOOPS:
            v.pr.pr_notice("Waiting for VMBus UNLOAD to complete")
        v.sched.mdelay(UNLOAD_DELAY_UNIT_MS)
    else:
        v.pr.pr_err("Continuing even though VMBus UNLOAD did not complete")
    for slot in slots:
        v.memory.store32(slot, HvMessageType.HVMSG_NONE)


def vmbus_initiate_unload(v: HvVmbus, crash: bool) -> None:
    """Take leave of the host, once. Hosts before 3.0 do not know UNLOAD and are not told.

    :param crash: on the panic path: post without sleeping and poll for the answer.
    """
    connection = v.connection
    before = connection.conn_state
    connection_c.set_state(v, Event.UNLOAD)
    if before == State.DISCONNECTED or v.vmbus_proto_version < VERSION_WIN8_1:
        return
    v.sched.reinit_completion(connection.unload_event)
    connection_c.vmbus_post_msg(v, connection_c.header(VmbusChannelMessageType.CHANNELMSG_UNLOAD).pack(), not crash)
    if crash:
        vmbus_wait_for_unload(v)
    else:
        v.sched.wait_for_completion(connection.unload_event)


# message handlers ----------------------------------------------------------------------------------------------


def vmbus_setup_channel_state(v: HvVmbus, channel: VmbusChannel, offer: VmbusOffer) -> None:
    """Keep what the offer says about signalling and the kind of device."""
    # Windows Server 2008 has one event connection for all channels.
    shared = v.vmbus_proto_version == VERSION_WS2008
    channel.is_dedicated_interrupt = not shared and offer.is_dedicated_interrupt
    channel.sig_event = VMBUS_EVENT_CONNECTION_ID if shared else offer.connection_id
    channel.offermsg = offer
    channel.monitor_grp = offer.monitorid // 32
    channel.monitor_bit = offer.monitorid % 32
    channel.device_id = hv_get_dev_type(v, offer.if_type, offer.chn_flags)


def find_primary_channel_by_offer(v: HvVmbus, offer: VmbusOffer) -> VmbusChannel | None:
    """Return the channel that a primary offer was for before hibernation."""
    if offer.sub_channel_index:
        return None
    with v.connection.chn_mutex():
        for channel in v.connection.chn_list:
            if channel.offermsg.if_instance == offer.if_instance:
                return channel
    return None


def parse_offer(payload: bytes) -> VmbusOffer:
    """Flatten an OFFERCHANNEL message."""
    msg = VmbusChannelOfferChannel.unpack(payload)
    offer = msg.offer
    return VmbusOffer(
        if_type=bytes(offer.if_type),
        if_instance=bytes(offer.if_instance),
        chn_flags=offer.chn_flags,
        mmio_megabytes=offer.mmio_megabytes,
        user_def=offer.u.std.user_def,
        sub_channel_index=offer.sub_channel_index,
        child_relid=msg.child_relid,
        monitorid=msg.monitorid,
        monitor_allocated=bool(msg.monitor_allocated),
        is_dedicated_interrupt=bool(msg.is_dedicated_interrupt),
        connection_id=msg.connection_id,
        raw=payload[:OFFER_SIZE],
    )


def same_offer(one: VmbusOffer, other: VmbusOffer) -> bool:
    """Compare all bytes of two offers but the relid, reserved ones too, as a memcmp() does."""
    return one.raw[:RELID] == other.raw[:RELID] and one.raw[RELID + 4 :] == other.raw[RELID + 4 :]


def vmbus_is_valid_offer(v: HvVmbus, offer: VmbusOffer) -> bool:
    """Say whether an isolated guest accepts the class; others accept all."""
    if not v.arch.hv_is_isolation_supported():
        return True
    if offer.chn_flags & VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER:
        return True
    found = device_type_of(offer.if_type)
    return found is not None and VMBUS_DEVS[found].allowed_in_isolated


def vmbus_onoffer(v: HvVmbus, payload: bytes) -> None:
    """OFFERCHANNEL, in a worker."""
    connection = v.connection
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_onoffer(v, VmbusChannelOfferChannel.unpack(payload))
    offer = parse_offer(payload)
    if not vmbus_is_valid_offer(v, offer):
        v.pr_err_ratelimited(
            warn.INVALID_OFFER, f"Invalid offer {as_int(offer.child_relid)} from the host supporting isolation"
        )
        connection.offer_in_progress -= 1
        return
    old = find_primary_channel_by_offer(v, offer)
    if old is not None:
        # Resuming: the host offers again what there was before.
        with connection.chn_mutex():
            connection.offer_in_progress -= 1
            if old.offermsg.child_relid != INVALID_RELID:
                v.WARN_ON(warn.OFFERED_IN_USE)
            old.offermsg.child_relid = offer.child_relid
            if not same_offer(offer, old.offermsg):
                v.pr.pr_debug(f"vmbus offer changed: relid={as_int(offer.child_relid)}")
                vmbus_setup_channel_state(v, old, offer)
            vmbus_channel_map_relid(v, old)
            connection.nr_chan_fixup_on_resume -= 1
            if connection.nr_chan_fixup_on_resume == 0:
                v.sched.complete(connection.ready_for_resume_event)
        return
    channel = alloc_channel(v, offer)
    vmbus_setup_channel_state(v, channel, offer)
    vmbus_process_offer(v, channel)


def _check_ready_for_suspend_event(v: HvVmbus) -> None:
    v.connection.nr_chan_close_on_suspend -= 1
    if v.connection.nr_chan_close_on_suspend == 0:
        v.sched.complete(v.connection.ready_for_suspend_event)


def vmbus_onoffer_rescind(v: HvVmbus, payload: bytes) -> None:
    """RESCIND_CHANNELOFFER, in a worker: wait for offers in work, then take the device away."""
    connection = v.connection
    rescind = VmbusChannelRescindOffer.unpack(payload)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_onoffer_rescind(v, rescind)
    relid = rescind.child_relid
    while connection.offer_in_progress != 0:
        v.sched.msleep(1)
    with connection.chn_mutex():
        channel = connection_c.relid2channel(v, relid)
        if channel is not None:
            if channel.rescind_ref:
                return
            channel.rescind_ref = True
    if channel is None:
        return
    clean_up_for_suspend = is_hvsock_channel(channel) or is_sub_channel(channel)
    channel_c.vmbus_reset_channel_cb(v, channel)
    vmbus_rescind_cleanup(v, channel)
    while not channel.probe_done:
        v.sched.msleep(1)
    if channel.device_obj is not None:
        if channel.chn_rescind_callback is not None:
            channel.chn_rescind_callback(channel)
        else:
            vmbus_drv.vmbus_device_unregister(v, channel.device_obj)
    elif channel.primary_channel is not None:
        with connection.chn_mutex():
            if channel.state == ChannelState.CHANNEL_OPEN_STATE:
                hv_process_channel_removal(v, channel)
            else:
                v.sched.complete(channel.rescind_event)
    if clean_up_for_suspend:
        _check_ready_for_suspend_event(v)


def vmbus_hvsock_device_unregister(v: HvVmbus, channel: VmbusChannel) -> None:
    """hv_sock: give up the device of a connection that ends; waits for its rescind, which always comes."""
    if not is_hvsock_channel(channel):
        v.BUG(warn.NO_HVSOCK)
    while not channel.probe_done or not channel.rescind:
        v.sched.msleep(1)
    assert channel.device_obj is not None
    vmbus_drv.vmbus_device_unregister(v, channel.device_obj)


def vmbus_onoffers_delivered(v: HvVmbus, payload: bytes) -> None:
    """ALLOFFERS_DELIVERED: newer kernels wait for it."""
    v.sched.complete(v.connection.all_offers_delivered_event)


def vmbus_unload_response(v: HvVmbus, payload: bytes) -> None:
    """UNLOAD_RESPONSE: whoever unloads may go on."""
    v.sched.complete(v.connection.unload_event)


class MessageTableEntry(NamedTuple):
    """``struct vmbus_channel_message_table_entry``."""

    message_handler: Callable[[HvVmbus, bytes], None]
    blocking: bool
    """Handled in a worker, because the handler may sleep."""
    min_payload_len: int
    """Shorter messages are dropped with a warning."""


_HANDLERS: Final[tuple[tuple[VmbusChannelMessageType, Callable[[HvVmbus, bytes], None]], ...]] = (
    (VmbusChannelMessageType.CHANNELMSG_OFFERCHANNEL, vmbus_onoffer),
    (VmbusChannelMessageType.CHANNELMSG_RESCIND_CHANNELOFFER, vmbus_onoffer_rescind),
    (VmbusChannelMessageType.CHANNELMSG_ALLOFFERS_DELIVERED, vmbus_onoffers_delivered),
    (VmbusChannelMessageType.CHANNELMSG_OPENCHANNEL_RESULT, channel_answers.vmbus_onopen_result),
    (VmbusChannelMessageType.CHANNELMSG_GPADL_CREATED, channel_answers.vmbus_ongpadl_created),
    (VmbusChannelMessageType.CHANNELMSG_GPADL_TORNDOWN, channel_answers.vmbus_ongpadl_torndown),
    (VmbusChannelMessageType.CHANNELMSG_VERSION_RESPONSE, channel_answers.vmbus_onversion_response),
    (VmbusChannelMessageType.CHANNELMSG_UNLOAD_RESPONSE, vmbus_unload_response),
    (VmbusChannelMessageType.CHANNELMSG_MODIFYCHANNEL_RESPONSE, channel_answers.vmbus_onmodifychannel_response),
)


def _table() -> Mapping[int, MessageTableEntry]:
    rows = {int(row.number): row for row in CHANNEL_MESSAGES}
    return MappingProxyType(
        {
            int(number): MessageTableEntry(handler, rows[number].blocking, rows[number].min_payload_len or 0)
            for number, handler in _HANDLERS
        }
    )


channel_message_table: Final = _table()
"""Message number to handler; a number that is not here is ignored. Lengths and kinds come from the protocol's table."""


def vmbus_onmessage(v: HvVmbus, msgtype: int, payload: bytes) -> None:
    """Run the handler of a message that the dispatcher has checked."""
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_on_message(v, msgtype)
    channel_message_table[msgtype].message_handler(v, payload)


def vmbus_request_offers(v: HvVmbus) -> int:
    """Ask for all offers; 0 or a negative errno."""
    msg = VmbusChannelMessageHeader(msgtype=VmbusChannelMessageType.CHANNELMSG_REQUESTOFFERS, padding=0)
    ret = connection_c.vmbus_post_msg(v, msg.pack(), True)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_request_offers(v, ret)
    if ret:
        v.pr.pr_err(f"Unable to request offers - {ret}")
    elif v.kernel.release.has("vmbus_waits_for_offers"):
        _wait_for_offers(v)
    return ret


def _wait_for_offers(v: HvVmbus) -> None:
    """Let the boot go on only when all offers came, at most a minute, and their devices were added."""
    connection = v.connection
    timeout = ALL_OFFERS_SECONDS * v.kernel.timers.HZ
    if not v.sched.wait_for_completion_timeout(connection.all_offers_delivered_event, timeout):
        v.pr.pr_warn("timed out waiting for all boot-time offers to be delivered.")
    for queue in (connection.work_queue, connection.handle_primary_chan_wq):
        if queue is not None:
            v.workqueue.flush_workqueue(queue)
