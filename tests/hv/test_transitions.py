"""Every transition of the two state tables, and every pair that they do not have, in a running guest.

A row without a driver here fails the first test; a driver that does not take its row fails by what the guest recorded.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.hv import channel as channel_c
from hvkernel.hv import channel_mgmt, channel_state, connection_state, vmbus_pm
from hvkernel.hv import connection as connection_c
from hvkernel.hv.channel_state import Event as On
from hvkernel.hv.channel_state import State as Channel
from hvkernel.hv.connection_state import Event as Does
from hvkernel.hv.connection_state import State as Connection
from hvkernel.hv.protocol_error import LocalProtocolError

Driver = Callable[..., None]
EINVAL = -22


def steps(monkeypatch: pytest.MonkeyPatch, module: ModuleType, table: ModuleType) -> list[tuple[Any, Any, Any]]:
    """Record (state, event, next state) of every step that the guest takes."""
    taken: list[tuple[Any, Any, Any]] = []

    def step(state: Any, event: Any) -> Any:
        following = table.step(state, event)
        taken.append((state, event, following))
        return following

    monkeypatch.setattr(module, "step", step)
    return taken


# connection: legal ---------------------------------------------------------------------------------------------


def boots(b: Any) -> None:
    b.boot()
    assert b.lines.count(f"hv_vmbus: Vmbus version:{b.v.vmbus_proto_version >> 16}.{b.v.vmbus_proto_version & 15}") == 1


def host_refuses_all(b: Any) -> None:
    b.server._accepts = Refusing()
    b.session.boot()
    assert "hv_vmbus: Unable to connect to host" in b.lines
    assert b.v.connection.conn_state is Connection.DISCONNECTED


class Refusing:
    versions = ()
    message_connection_4 = True
    gpadl_total_mb = 384
    features = 0


def unloads(b: Any) -> None:
    b.boot()
    b.call(channel_mgmt.vmbus_initiate_unload, b.v, False)
    assert b.kinds() == [Type.CHANNELMSG_UNLOAD]


def unloads_twice(b: Any) -> None:
    unloads(b)
    b.call(channel_mgmt.vmbus_initiate_unload, b.v, False)
    assert b.kinds() == [Type.CHANNELMSG_UNLOAD], "the second time nothing is said"


def resumes(b: Any) -> None:
    b.boot()
    assert b.call(vmbus_pm.vmbus_bus_suspend, b.v) == 0
    b.sent.clear()
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0
    assert b.kinds()[:2] == [Type.CHANNELMSG_INITIATE_CONTACT, Type.CHANNELMSG_REQUESTOFFERS]


def resumes_on_another_host(b: Any) -> None:
    b.boot()
    assert b.call(vmbus_pm.vmbus_bus_suspend, b.v) == 0
    b.server._accepts = Refusing()
    b.sent.clear()
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == -111
    assert b.kinds() == [Type.CHANNELMSG_INITIATE_CONTACT], "the version in use before, and no other"
    assert b.v.connection.conn_state is Connection.DISCONNECTED


CONNECTION: Mapping[tuple[Connection, Does], Driver] = {
    (Connection.DISCONNECTED, Does.CONNECT): boots,
    (Connection.CONNECTING, Does.VERSION_ACCEPTED): boots,
    (Connection.CONNECTING, Does.VERSION_REFUSED): host_refuses_all,
    (Connection.CONNECTING, Does.UNLOAD): host_refuses_all,
    (Connection.CONNECTED, Does.UNLOAD): unloads,
    (Connection.DISCONNECTED, Does.UNLOAD): unloads_twice,
    (Connection.DISCONNECTED, Does.RESUME): resumes,
    (Connection.DISCONNECTED, Does.VERSION_ACCEPTED): resumes,
    (Connection.DISCONNECTED, Does.VERSION_REFUSED): resumes_on_another_host,
}


# connection: illegal -------------------------------------------------------------------------------------------


def connecting(b: Any) -> None:
    """Stop in the middle of the negotiation: nobody answers."""
    b.keep_kinds(Type.CHANNELMSG_INITIATE_CONTACT)
    b.kernel.boot(limit=100_000_000)
    assert b.v.connection.conn_state is Connection.CONNECTING


def connected(b: Any) -> None:
    b.boot()
    assert b.v.connection.conn_state is Connection.CONNECTED


def refused_locally(reach: Driver, fn: Callable[[Any], Any]) -> Driver:
    def drive(b: Any) -> None:
        reach(b)
        before = b.v.connection.conn_state
        with pytest.raises(LocalProtocolError, match=f" while {before.name}; expected one of: "):
            fn(b.v)
        assert b.v.connection.conn_state is before

    return drive


def version_response_ignored(supported: int) -> Driver:
    def drive(b: Any) -> None:
        connected(b)
        before = (b.lines, b.v.connection.msg_conn_id, b.v.vmbus_proto_version)
        b.post(Type.CHANNELMSG_VERSION_RESPONSE, supported, 9)
        assert (b.lines, b.v.connection.msg_conn_id, b.v.vmbus_proto_version) == before
        assert b.v.connection.conn_state is Connection.CONNECTED
        assert b.open() == 0

    return drive


CONNECTION_ILLEGAL: Mapping[tuple[Connection, Does], Driver] = {
    (Connection.CONNECTING, Does.CONNECT): refused_locally(connecting, connection_c.vmbus_connect),
    (Connection.CONNECTING, Does.RESUME): refused_locally(connecting, vmbus_pm.resume_connection),
    (Connection.CONNECTED, Does.CONNECT): refused_locally(connected, connection_c.vmbus_connect),
    (Connection.CONNECTED, Does.RESUME): refused_locally(connected, vmbus_pm.resume_connection),
    (Connection.CONNECTED, Does.VERSION_ACCEPTED): version_response_ignored(1),
    (Connection.CONNECTED, Does.VERSION_REFUSED): version_response_ignored(0),
}


# channel: legal ------------------------------------------------------------------------------------------------


def opens_and_closes(b: Any) -> None:
    b.boot()
    assert b.open() == 0
    assert b.channel.state is Channel.CHANNEL_OPENED_STATE
    b.sent.clear()
    b.call(b.exports.vmbus_close, b.channel)
    assert b.kinds() == [Type.CHANNELMSG_CLOSECHANNEL, Type.CHANNELMSG_GPADL_TEARDOWN]


def open_is_refused(b: Any) -> None:
    b.boot()
    before = b.gpadls()
    b.keep_kinds(Type.CHANNELMSG_OPENCHANNEL)
    opening = b.start_open()
    assert b.channel.state is Channel.CHANNEL_OPENING_STATE
    b.post(Type.CHANNELMSG_OPENCHANNEL_RESULT, b.relid, b.relid, 0xC0000001)
    assert opening.value == -11
    assert b.kinds()[-1] == Type.CHANNELMSG_GPADL_TEARDOWN
    assert b.gpadls() == before


CHANNEL: Mapping[tuple[Channel, On], Driver] = {
    (Channel.CHANNEL_OFFER_STATE, On.ADDED): boots,
    (Channel.CHANNEL_OPEN_STATE, On.OPEN): opens_and_closes,
    (Channel.CHANNEL_OPENING_STATE, On.OPEN_RESULT_OK): opens_and_closes,
    (Channel.CHANNEL_OPENING_STATE, On.OPEN_FAILED): open_is_refused,
    (Channel.CHANNEL_OPENED_STATE, On.CLOSE): opens_and_closes,
}


# channel: illegal ----------------------------------------------------------------------------------------------


def offered(b: Any) -> Any:
    """A channel whose work has not run: offered while the queue's worker is kept busy."""
    b.boot()
    b.hold = True
    gate = b.kernel.sched.init_completion()
    from hvkernel.api.guest.sched import Work

    b.call(b.kernel.workqueue.queue_work_on, 0, b.v.connection.handle_primary_chan_wq, Work(
        lambda work: b.kernel.sched.wait_for_completion(gate)
    ))  # fmt: skip
    message = bytearray(next(iter(b.v.connection.chn_list)).offermsg.raw)
    message[24:40] = bytes(range(16))
    message[184:188] = (99).to_bytes(4, "little")
    b.session.host.synic.post_message(b.machine.boot_vp.vp_index, 2, 1, 1, bytes(message))
    b.run(20)
    channel = b.v.connection.channels[99]
    assert channel.state is Channel.CHANNEL_OFFER_STATE
    return channel


def idle(b: Any) -> Any:
    b.boot()
    assert b.channel.state is Channel.CHANNEL_OPEN_STATE
    return b.channel


def opening(b: Any) -> Any:
    b.boot()
    b.keep_kinds(Type.CHANNELMSG_OPENCHANNEL)
    b.start_open()
    assert b.channel.state is Channel.CHANNEL_OPENING_STATE
    return b.channel


def opened(b: Any) -> Any:
    b.boot()
    assert b.open() == 0
    return b.channel


def open_einval(reach: Callable[[Any], Any]) -> Driver:
    def drive(b: Any) -> None:
        channel = reach(b)
        before = channel.state
        b.sent.clear()
        assert b.call(b.exports.vmbus_connect_ring, channel, lambda context: None, None) == EINVAL
        assert (channel.state, b.sent) == (before, [])

    return drive


def close_einval(reach: Callable[[Any], Any]) -> Driver:
    def drive(b: Any) -> None:
        channel = reach(b)
        before = channel.state
        b.sent.clear()
        assert b.call(b.exports.vmbus_disconnect_ring, channel) == EINVAL
        assert (channel.state, b.sent) == (before, [])

    return drive


def result_ignored(reach: Callable[[Any], Any], status: int) -> Driver:
    def drive(b: Any) -> None:
        channel = reach(b)
        before, lines = channel.state, b.lines
        b.sent.clear()
        relid = channel.offermsg.child_relid
        b.post(Type.CHANNELMSG_OPENCHANNEL_RESULT, relid, relid, status)
        assert (channel.state, b.lines, b.sent) == (before, lines, [])

    return drive


def added_again(reach: Callable[[Any], Any]) -> Driver:
    def drive(b: Any) -> None:
        channel = reach(b)
        before = channel.state
        with pytest.raises(LocalProtocolError, match=r"vmbus_add_channel_work\(\) while "):
            channel_c.set_state(channel, On.ADDED)
        assert channel.state is before

    return drive


CHANNEL_ILLEGAL: Mapping[tuple[Channel, On], Driver] = {
    (Channel.CHANNEL_OFFER_STATE, On.OPEN): open_einval(offered),
    (Channel.CHANNEL_OFFER_STATE, On.OPEN_RESULT_OK): result_ignored(offered, 0),
    (Channel.CHANNEL_OFFER_STATE, On.OPEN_FAILED): result_ignored(offered, 1),
    (Channel.CHANNEL_OFFER_STATE, On.CLOSE): close_einval(offered),
    (Channel.CHANNEL_OPEN_STATE, On.ADDED): added_again(idle),
    (Channel.CHANNEL_OPEN_STATE, On.OPEN_RESULT_OK): result_ignored(idle, 0),
    (Channel.CHANNEL_OPEN_STATE, On.OPEN_FAILED): result_ignored(idle, 1),
    (Channel.CHANNEL_OPEN_STATE, On.CLOSE): close_einval(idle),
    (Channel.CHANNEL_OPENING_STATE, On.ADDED): added_again(opening),
    (Channel.CHANNEL_OPENING_STATE, On.OPEN): open_einval(opening),
    (Channel.CHANNEL_OPENING_STATE, On.CLOSE): close_einval(opening),
    (Channel.CHANNEL_OPENED_STATE, On.ADDED): added_again(opened),
    (Channel.CHANNEL_OPENED_STATE, On.OPEN): open_einval(opened),
    (Channel.CHANNEL_OPENED_STATE, On.OPEN_RESULT_OK): result_ignored(opened, 0),
    (Channel.CHANNEL_OPENED_STATE, On.OPEN_FAILED): result_ignored(opened, 1),
}


# the tests -----------------------------------------------------------------------------------------------------


def rows(table: ModuleType) -> set[tuple[Any, Any]]:
    return {(state, event) for state, row in table.TRANSITIONS.items() for event in row}


def pairs(table: ModuleType) -> set[tuple[Any, Any]]:
    return {(state, event) for state in table.TRANSITIONS for event in table.Event}


def name(value: object) -> str:
    return value.name if isinstance(value, enum.Enum) else ""


def test_every_pair_has_a_driver() -> None:
    assert set(CONNECTION) == rows(connection_state)
    assert set(CHANNEL) == rows(channel_state)
    assert set(CONNECTION_ILLEGAL) == pairs(connection_state) - rows(connection_state)
    assert set(CHANNEL_ILLEGAL) == pairs(channel_state) - rows(channel_state)


@pytest.mark.parametrize(("state", "event"), CONNECTION, ids=name)
def test_connection(
    between: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, state: Connection, event: Does
) -> None:
    taken = steps(monkeypatch, connection_c, connection_state)
    CONNECTION[state, event](between())
    assert (state, event, connection_state.TRANSITIONS[state][event][0]) in taken


@pytest.mark.parametrize(("state", "event"), CHANNEL, ids=name)
def test_channel(between: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, state: Channel, event: On) -> None:
    taken = steps(monkeypatch, channel_c, channel_state)
    CHANNEL[state, event](between())
    assert (state, event, channel_state.TRANSITIONS[state][event][0]) in taken


@pytest.mark.parametrize(("state", "event"), CONNECTION_ILLEGAL, ids=name)
def test_connection_illegal(
    between: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, state: Connection, event: Does
) -> None:
    taken = steps(monkeypatch, connection_c, connection_state)
    CONNECTION_ILLEGAL[state, event](between())
    assert not [one for one in taken if one[:2] == (state, event)]


@pytest.mark.parametrize(("state", "event"), CHANNEL_ILLEGAL, ids=name)
def test_channel_illegal(
    between: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, state: Channel, event: On
) -> None:
    taken = steps(monkeypatch, channel_c, channel_state)
    CHANNEL_ILLEGAL[state, event](between())
    assert not [one for one in taken if one[:2] == (state, event)]
