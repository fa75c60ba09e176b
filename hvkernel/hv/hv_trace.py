"""``drivers/hv/hv_trace.h``: the tracepoints of ``hv_vmbus``.

A caller asks first whether anybody watches (``v.machine.tracer is not None``): that is all a boot without a trace pays.
The functions take what the kernel's take, so a call stands where the kernel's stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.tracing import TraceEvent, trace_event

if TYPE_CHECKING:
    from hvkernel.abi.vmbus import (
        VmbusChannelCloseChannel,
        VmbusChannelGpadlBody,
        VmbusChannelGpadlCreated,
        VmbusChannelGpadlHeader,
        VmbusChannelGpadlTeardown,
        VmbusChannelGpadlTorndown,
        VmbusChannelInitiateContact,
        VmbusChannelModifychannel,
        VmbusChannelModifychannelResponse,
        VmbusChannelOfferChannel,
        VmbusChannelOpenChannel,
        VmbusChannelOpenResult,
        VmbusChannelRelidReleased,
        VmbusChannelRescindOffer,
        VmbusChannelTlConnectRequest,
        VmbusChannelVersionResponse,
    )
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus

__all__ = ["HV_TRACE"]

TRACE_SYSTEM: Final = "hyperv"

HV_TRACE: Final[tuple[TraceEvent, ...]] = tuple(
    trace_event(TRACE_SYSTEM, name, fields, line, source)
    for name, fields, line, source in (
        (
            "vmbus_on_msg_dpc",
            "unsigned int msgtype",
            "msgtype={msgtype:u}",
            "drivers/hv/vmbus_drv.c:vmbus_on_msg_dpc",
        ),
        (
            "vmbus_on_message",
            "unsigned int msgtype",
            "msgtype={msgtype:u}",
            "drivers/hv/channel_mgmt.c:vmbus_onmessage",
        ),
        (
            "vmbus_onoffer",
            "u32 child_relid; u8 monitorid; u16 is_ddc_int; u32 connection_id; char if_type[16]; char if_instance[16];"
            "u16 chn_flags; u16 mmio_mb; u16 sub_idx",
            "child_relid 0x{child_relid:x}, monitorid 0x{monitorid:x}, is_dedicated {is_ddc_int:d}, "
            "connection_id 0x{connection_id:x}, if_type {if_type:pUl}, if_instance {if_instance:pUl}, "
            "chn_flags 0x{chn_flags:x}, mmio_megabytes {mmio_mb:d}, sub_channel_index {sub_idx:d}",
            "drivers/hv/channel_mgmt.c:vmbus_onoffer",
        ),
        (
            "vmbus_onoffer_rescind",
            "u32 child_relid",
            "child_relid 0x{child_relid:x}",
            "drivers/hv/channel_mgmt.c:vmbus_onoffer_rescind",
        ),
        (
            "vmbus_onopen_result",
            "u32 child_relid; u32 openid; u32 status",
            "child_relid 0x{child_relid:x}, openid {openid:d}, status {status:d}",
            "drivers/hv/channel_mgmt.c:vmbus_onopen_result",
        ),
        (
            "vmbus_ongpadl_created",
            "u32 child_relid; u32 gpadl; u32 status",
            "child_relid 0x{child_relid:x}, gpadl 0x{gpadl:x}, creation_status {status:d}",
            "drivers/hv/channel_mgmt.c:vmbus_ongpadl_created",
        ),
        (
            "vmbus_onmodifychannel_response",
            "u32 child_relid; u32 status",
            "child_relid 0x{child_relid:x}, status {status:d}",
            "drivers/hv/channel_mgmt.c:vmbus_onmodifychannel_response",
        ),
        (
            "vmbus_ongpadl_torndown",
            "u32 gpadl",
            "gpadl 0x{gpadl:x}",
            "drivers/hv/channel_mgmt.c:vmbus_ongpadl_torndown",
        ),
        (
            "vmbus_onversion_response",
            "u8 ver",
            "version_supported {ver:d}",
            "drivers/hv/channel_mgmt.c:vmbus_onversion_response",
        ),
        (
            "vmbus_request_offers",
            "int ret",
            "sending ret {ret:d}",
            "drivers/hv/channel_mgmt.c:vmbus_request_offers",
        ),
        (
            "vmbus_open",
            "u32 child_relid; u32 openid; u32 gpadlhandle; u32 target_vp; u32 offset; int ret",
            "sending child_relid 0x{child_relid:x}, openid {openid:d}, gpadlhandle 0x{gpadlhandle:x}, "
            "target_vp 0x{target_vp:x}, offset 0x{offset:x}, ret {ret:d}",
            "drivers/hv/channel.c:__vmbus_open",
        ),
        (
            "vmbus_close_internal",
            "u32 child_relid; int ret",
            "sending child_relid 0x{child_relid:x}, ret {ret:d}",
            "drivers/hv/channel.c:vmbus_close_internal",
        ),
        (
            "vmbus_establish_gpadl_header",
            "u32 child_relid; u32 gpadl; u16 range_buflen; u16 rangecount; int ret",
            "sending child_relid 0x{child_relid:x}, gpadl 0x{gpadl:x}, range_buflen {range_buflen:d} "
            "rangecount {rangecount:d}, ret {ret:d}",
            "drivers/hv/channel.c:__vmbus_establish_gpadl",
        ),
        (
            "vmbus_establish_gpadl_body",
            "u32 msgnumber; u32 gpadl; int ret",
            "sending msgnumber {msgnumber:d}, gpadl 0x{gpadl:x}, ret {ret:d}",
            "drivers/hv/channel.c:__vmbus_establish_gpadl",
        ),
        (
            "vmbus_teardown_gpadl",
            "u32 child_relid; u32 gpadl; int ret",
            "sending child_relid 0x{child_relid:x}, gpadl 0x{gpadl:x}, ret {ret:d}",
            "drivers/hv/channel.c:vmbus_teardown_gpadl",
        ),
        (
            "vmbus_negotiate_version",
            "u32 ver; u32 target_vcpu; int ret; u64 int_page; u64 mon_page1; u64 mon_page2",
            "sending vmbus_version_requested {ver:d}, target_vcpu 0x{target_vcpu:x}, "
            "pages {int_page:llx}:{mon_page1:llx}:{mon_page2:llx}, ret {ret:d}",
            "drivers/hv/connection.c:vmbus_negotiate_version",
        ),
        (
            "vmbus_release_relid",
            "u32 child_relid; int ret",
            "sending child_relid 0x{child_relid:x}, ret {ret:d}",
            "drivers/hv/channel_mgmt.c:vmbus_release_relid",
        ),
        (
            "vmbus_send_tl_connect_request",
            "char guest_id[16]; char host_id[16]; int ret",
            "sending guest_endpoint_id {guest_id:pUl}, host_service_id {host_id:pUl}, ret {ret:d}",
            "drivers/hv/channel.c:vmbus_send_tl_connect_request",
        ),
        (
            "vmbus_send_modifychannel",
            "u32 child_relid; u32 target_vp; int ret",
            "binding child_relid 0x{child_relid:x} to target_vp 0x{target_vp:x}, ret {ret:d}",
            "drivers/hv/channel.c:send_modifychannel_without_ack, send_modifychannel_with_ack",
        ),
        (
            "vmbus_chan_sched",
            "u32 relid",
            "relid 0x{relid:x}",
            "drivers/hv/vmbus_drv.c:vmbus_chan_sched",
        ),
        (
            "vmbus_setevent",
            "u32 relid",
            "relid 0x{relid:x}",
            "drivers/hv/channel.c:vmbus_setevent",
        ),
        (
            "vmbus_on_event",
            "u32 relid",
            "relid 0x{relid:x}",
            "drivers/hv/connection.c:vmbus_on_event",
        ),
    )
)
"""One row per tracepoint, in the header's order; the last column says where 6.1 passes it."""

(
    _ON_MSG_DPC, _ON_MESSAGE, _ONOFFER, _ONOFFER_RESCIND, _ONOPEN_RESULT, _ONGPADL_CREATED, _ONMODIFYCHANNEL_RESPONSE,
    _ONGPADL_TORNDOWN, _ONVERSION_RESPONSE, _REQUEST_OFFERS, _OPEN, _CLOSE_INTERNAL, _ESTABLISH_GPADL_HEADER,
    _ESTABLISH_GPADL_BODY, _TEARDOWN_GPADL, _NEGOTIATE_VERSION, _RELEASE_RELID, _SEND_TL_CONNECT_REQUEST,
    _SEND_MODIFYCHANNEL, _CHAN_SCHED, _SETEVENT, _ON_EVENT,
) = HV_TRACE  # fmt: skip


# from the host -------------------------------------------------------------------------------------------------


def trace_vmbus_on_msg_dpc(v: HvVmbus, msgtype: int) -> None:
    """A message was found in the slot of a CPU."""
    v.kernel.tracing.event(_ON_MSG_DPC, msgtype)


def trace_vmbus_on_message(v: HvVmbus, msgtype: int) -> None:
    """A message's handler is about to run in a worker."""
    v.kernel.tracing.event(_ON_MESSAGE, msgtype)


def trace_vmbus_onoffer(v: HvVmbus, msg: VmbusChannelOfferChannel) -> None:
    """OFFERCHANNEL."""
    offer = msg.offer
    v.kernel.tracing.event(
        _ONOFFER,
        msg.child_relid,
        msg.monitorid,
        msg.is_dedicated_interrupt,
        msg.connection_id,
        bytes(offer.if_type),
        bytes(offer.if_instance),
        offer.chn_flags,
        offer.mmio_megabytes,
        offer.sub_channel_index,
    )


def trace_vmbus_onoffer_rescind(v: HvVmbus, msg: VmbusChannelRescindOffer) -> None:
    """RESCIND_CHANNELOFFER."""
    v.kernel.tracing.event(_ONOFFER_RESCIND, msg.child_relid)


def trace_vmbus_onopen_result(v: HvVmbus, msg: VmbusChannelOpenResult) -> None:
    """OPENCHANNEL_RESULT."""
    v.kernel.tracing.event(_ONOPEN_RESULT, msg.child_relid, msg.openid, msg.status)


def trace_vmbus_ongpadl_created(v: HvVmbus, msg: VmbusChannelGpadlCreated) -> None:
    """GPADL_CREATED."""
    v.kernel.tracing.event(_ONGPADL_CREATED, msg.child_relid, msg.gpadl, msg.creation_status)


def trace_vmbus_onmodifychannel_response(v: HvVmbus, msg: VmbusChannelModifychannelResponse) -> None:
    """MODIFYCHANNEL_RESPONSE."""
    v.kernel.tracing.event(_ONMODIFYCHANNEL_RESPONSE, msg.child_relid, msg.status)


def trace_vmbus_ongpadl_torndown(v: HvVmbus, msg: VmbusChannelGpadlTorndown) -> None:
    """GPADL_TORNDOWN."""
    v.kernel.tracing.event(_ONGPADL_TORNDOWN, msg.gpadl)


def trace_vmbus_onversion_response(v: HvVmbus, msg: VmbusChannelVersionResponse) -> None:
    """VERSION_RESPONSE."""
    v.kernel.tracing.event(_ONVERSION_RESPONSE, msg.version_supported)


def trace_vmbus_chan_sched(v: HvVmbus, channel: VmbusChannel) -> None:
    """The interrupt handler found a channel's bit."""
    v.kernel.tracing.event(_CHAN_SCHED, channel.offermsg.child_relid)


def trace_vmbus_on_event(v: HvVmbus, channel: VmbusChannel) -> None:
    """A channel's tasklet runs."""
    v.kernel.tracing.event(_ON_EVENT, channel.offermsg.child_relid)


# to the host: the message as it was posted, and what posting it returned -----------------------------------------


def trace_vmbus_request_offers(v: HvVmbus, ret: int) -> None:
    """REQUESTOFFERS."""
    v.kernel.tracing.event(_REQUEST_OFFERS, ret)


def trace_vmbus_open(v: HvVmbus, msg: VmbusChannelOpenChannel, ret: int) -> None:
    """OPENCHANNEL."""
    v.kernel.tracing.event(
        _OPEN,
        msg.child_relid,
        msg.openid,
        msg.ringbuffer_gpadlhandle,
        msg.target_vp,
        msg.downstream_ringbuffer_pageoffset,
        ret,
    )


def trace_vmbus_close_internal(v: HvVmbus, msg: VmbusChannelCloseChannel, ret: int) -> None:
    """CLOSECHANNEL."""
    v.kernel.tracing.event(_CLOSE_INTERNAL, msg.child_relid, ret)


def trace_vmbus_establish_gpadl_header(v: HvVmbus, msg: VmbusChannelGpadlHeader, ret: int) -> None:
    """GPADL_HEADER."""
    v.kernel.tracing.event(_ESTABLISH_GPADL_HEADER, msg.child_relid, msg.gpadl, msg.range_buflen, msg.rangecount, ret)


def trace_vmbus_establish_gpadl_body(v: HvVmbus, msg: VmbusChannelGpadlBody, ret: int) -> None:
    """GPADL_BODY."""
    v.kernel.tracing.event(_ESTABLISH_GPADL_BODY, msg.msgnumber, msg.gpadl, ret)


def trace_vmbus_teardown_gpadl(v: HvVmbus, msg: VmbusChannelGpadlTeardown, ret: int) -> None:
    """GPADL_TEARDOWN."""
    v.kernel.tracing.event(_TEARDOWN_GPADL, msg.child_relid, msg.gpadl, ret)


def trace_vmbus_negotiate_version(v: HvVmbus, msg: VmbusChannelInitiateContact, ret: int) -> None:
    """INITIATE_CONTACT."""
    v.kernel.tracing.event(
        _NEGOTIATE_VERSION,
        msg.vmbus_version_requested,
        msg.target_vcpu,
        ret,
        msg.interrupt_page,
        msg.monitor_page1,
        msg.monitor_page2,
    )


def trace_vmbus_release_relid(v: HvVmbus, msg: VmbusChannelRelidReleased, ret: int) -> None:
    """RELID_RELEASED."""
    v.kernel.tracing.event(_RELEASE_RELID, msg.child_relid, ret)


def trace_vmbus_send_tl_connect_request(v: HvVmbus, msg: VmbusChannelTlConnectRequest, ret: int) -> None:
    """TL_CONNECT_REQUEST."""
    v.kernel.tracing.event(_SEND_TL_CONNECT_REQUEST, bytes(msg.guest_endpoint_id), bytes(msg.host_service_id), ret)


def trace_vmbus_send_modifychannel(v: HvVmbus, msg: VmbusChannelModifychannel, ret: int) -> None:
    """MODIFYCHANNEL."""
    v.kernel.tracing.event(_SEND_MODIFYCHANNEL, msg.child_relid, msg.target_vp, ret)


def trace_vmbus_setevent(v: HvVmbus, channel: VmbusChannel) -> None:
    """The host is about to be told of data in a ring."""
    v.kernel.tracing.event(_SETEVENT, channel.offermsg.child_relid)
