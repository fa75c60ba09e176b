"""The host's answers to requests of the guest: finding who waits for one (``drivers/hv/channel_mgmt.c``).

An answer that nobody waits for is dropped without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.abi.vmbus import (
    VmbusChannelGpadlCreated,
    VmbusChannelGpadlTorndown,
    VmbusChannelMessageType,
    VmbusChannelModifychannelResponse,
    VmbusChannelOpenResult,
    VmbusChannelVersionResponse,
)
from hvkernel.hv import hv_trace

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import HvVmbus, MsgInfo

__all__ = [
    "vmbus_ongpadl_created",
    "vmbus_ongpadl_torndown",
    "vmbus_onmodifychannel_response",
    "vmbus_onopen_result",
    "vmbus_onversion_response",
]


def _answer(v: HvVmbus, info: MsgInfo, response: object) -> None:
    info.response = response
    v.sched.complete(info.waitevent)


def vmbus_onopen_result(v: HvVmbus, payload: bytes) -> None:
    """OPENCHANNEL_RESULT: matched by relid and open id."""
    result = VmbusChannelOpenResult.unpack(payload)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_onopen_result(v, result)
    with v.connection.msg_lock().irqsave():
        for info in v.connection.chn_msg_list:
            if info.msgtype == VmbusChannelMessageType.CHANNELMSG_OPENCHANNEL and info.matches(
                child_relid=result.child_relid, openid=result.openid
            ):
                _answer(v, info, result)
                break


def vmbus_ongpadl_created(v: HvVmbus, payload: bytes) -> None:
    """GPADL_CREATED: matched by relid and handle."""
    created = VmbusChannelGpadlCreated.unpack(payload)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_ongpadl_created(v, created)
    with v.connection.msg_lock().irqsave():
        for info in v.connection.chn_msg_list:
            if info.msgtype == VmbusChannelMessageType.CHANNELMSG_GPADL_HEADER and info.matches(
                child_relid=created.child_relid, gpadl=created.gpadl
            ):
                _answer(v, info, created)
                break


def vmbus_onmodifychannel_response(v: HvVmbus, payload: bytes) -> None:
    """MODIFYCHANNEL_RESPONSE: matched by relid."""
    response = VmbusChannelModifychannelResponse.unpack(payload)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_onmodifychannel_response(v, response)
    with v.connection.msg_lock().irqsave():
        for info in v.connection.chn_msg_list:
            if info.msgtype == VmbusChannelMessageType.CHANNELMSG_MODIFYCHANNEL and info.matches(
                child_relid=response.child_relid
            ):
                _answer(v, info, response)
                break


def vmbus_ongpadl_torndown(v: HvVmbus, payload: bytes) -> None:
    """GPADL_TORNDOWN: matched by handle."""
    torndown = VmbusChannelGpadlTorndown.unpack(payload)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_ongpadl_torndown(v, torndown)
    with v.connection.msg_lock().irqsave():
        for info in v.connection.chn_msg_list:
            if info.msgtype == VmbusChannelMessageType.CHANNELMSG_GPADL_TEARDOWN and info.matches(gpadl=torndown.gpadl):
                _answer(v, info, torndown)
                break


def vmbus_onversion_response(v: HvVmbus, payload: bytes) -> None:
    """VERSION_RESPONSE: answers every INITIATE_CONTACT that waits."""
    response = VmbusChannelVersionResponse.unpack(payload)
    if v.machine.tracer is not None:
        hv_trace.trace_vmbus_onversion_response(v, response)
    with v.connection.msg_lock().irqsave():
        for info in v.connection.chn_msg_list:
            if info.msgtype == VmbusChannelMessageType.CHANNELMSG_INITIATE_CONTACT:
                _answer(v, info, response)
