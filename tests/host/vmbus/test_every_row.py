"""Every row of the server's state tables is driven in a running server, and every step that they do not have.

Nothing here calls ``step()``: a raw guest posts messages, a device answers, the host has an event of its own. A row
without a driver fails, and so does a pair of state and event that is neither driven nor explained.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.vmbus import SlotSpec, channel, gpadl, server
from hvkernel.host.vmbus.steps import next_row
from hvkernel.host.vmbus.tables import (
    CHANNEL,
    CONNECTION,
    GPADL,
    ChannelEvent,
    ChannelState,
    ConnectionEvent,
    ConnectionState,
    GpadlEvent,
    GpadlState,
)

C, S, G = ConnectionState, ChannelState, GpadlState
CE, SE, GE = ConnectionEvent, ChannelEvent, GpadlEvent
HANDLE = 0x77
Driver = Callable[["Stage"], None]


class Stage:
    """A raw guest, and the steps that its server took."""

    def __init__(self, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.raw = raw
        self.taken: list[tuple[Any, Any]] = []
        self.refused: list[tuple[Any, Any]] = []
        self.guest: Any = None

        def recorded(table: Any, what: str, state: Any, event: Any) -> Any:
            self.refused.append((state, event))
            row = next_row(table, what, state, event)
            self.taken.append(self.refused.pop())
            return row

        for module in (server, channel, gpadl):
            monkeypatch.setattr(module, "next_row", recorded)

    def start(self, **kwargs: Any) -> Any:
        self.guest = self.raw(self.raw.NEWEST, **kwargs)
        return self.guest

    def connected(self, **kwargs: Any) -> Any:
        guest = self.start(**kwargs)
        guest.connect(abi.VERSION_WIN10_V5_3)
        return guest

    def opened(self) -> Any:
        guest = self.connected()
        guest.open(1)
        return guest

    def rescinded(self, *, was_open: bool = False) -> Any:
        guest = self.opened() if was_open else self.connected()
        guest.server.rescind("echo0")
        guest.run()
        guest.got()
        return guest

    def post(self, number: Type, *words: int) -> list[Any]:
        self.guest.post(struct.pack(f"<II{len(words)}I", number, 0, *words).ljust(16, b"\0"))
        return list(self.guest.got())

    def channel_state(self) -> ChannelState:
        state: ChannelState = self.guest.server.devices[0].channels[0].state
        return state

    def gpadl_state(self, handle: int = HANDLE) -> GpadlState | None:
        found = self.guest.server.gpadls.get(1, handle)
        return None if found is None else found.state

    # messages

    def close(self) -> list[Any]:
        return self.post(Type.CHANNELMSG_CLOSECHANNEL, 1)

    def modify(self, vp: int = 0) -> list[Any]:
        return self.post(Type.CHANNELMSG_MODIFYCHANNEL, 1, vp)

    def release(self) -> list[Any]:
        return self.post(Type.CHANNELMSG_RELID_RELEASED, 1)

    def unload(self) -> list[Any]:
        return self.post(Type.CHANNELMSG_UNLOAD)

    def open(self, handle: int) -> list[Any]:
        self.guest.post(self.guest.open_message(1, handle, 4))
        return list(self.guest.got())

    def teardown(self, handle: int = HANDLE) -> list[Any]:
        return self.post(Type.CHANNELMSG_GPADL_TEARDOWN, 1, handle)

    def gpadl_header(self, pages: int = 41) -> list[Any]:
        """The beginning of a list of ``pages`` page numbers."""
        head = abi.VmbusChannelGpadlHeader(self.raw.head(Type.CHANNELMSG_GPADL_HEADER), 1, HANDLE, 8 + 8 * pages, 1)
        numbers = range(0x100, 0x100 + min(26, pages))
        self.guest.post(head.pack() + struct.pack(f"<II{len(numbers)}Q", pages * 4096, 0, *numbers))
        return list(self.guest.got())

    def gpadl_body(self, *pfns: int) -> list[Any]:
        body = abi.VmbusChannelGpadlBody(self.raw.head(Type.CHANNELMSG_GPADL_BODY), 0, HANDLE)
        self.guest.post(body.pack() + struct.pack(f"<{len(pfns)}Q", *pfns))
        return list(self.guest.got())

    def findings(self) -> list[str]:
        return list(self.guest.findings())

    def names(self, messages: list[Any]) -> list[str]:
        found = []
        for message in messages:
            head = message if isinstance(message, abi.VmbusChannelMessageHeader) else message.header
            found.append(Type(head.msgtype).name.removeprefix("CHANNELMSG_"))
        return found


@pytest.fixture
def stage(raw: Any, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(raw, monkeypatch)


# connection -------------------------------------------------------------------------------------------------------


def contact(s: Stage, version: int, state: ConnectionState) -> None:
    s.guest.contact(version)
    assert [answer.version_supported for answer in s.guest.got()] == [int(version != 0x7_0000)]
    assert s.guest.server.state is state


def accepted(s: Stage) -> None:
    contact(s, abi.VERSION_WIN10, C.CONNECTED)


def turned_down(s: Stage) -> None:
    contact(s, 0x7_0000, C.DISCONNECTED)
    assert s.guest.shared() == []


def unloaded(s: Stage) -> None:
    assert s.names(s.unload()) == ["UNLOAD_RESPONSE"]
    assert s.guest.server.state is C.DISCONNECTED
    assert s.guest.shared() == []


def offers(s: Stage) -> None:
    assert s.names(s.post(Type.CHANNELMSG_REQUESTOFFERS)) == ["OFFERCHANNEL", "ALLOFFERS_DELIVERED"]


def on(prepare: Callable[[Stage], Any], *then: Driver) -> Driver:
    def drive(s: Stage) -> None:
        prepare(s)
        s.taken.clear()
        for each in then:
            each(s)

    return drive


def contacted(s: Stage) -> None:
    s.start()
    accepted(s)


CONNECTION_ROWS: Mapping[tuple[ConnectionState, ConnectionEvent], Driver] = MappingProxyType(
    {
        (C.DISCONNECTED, CE.CONTACT_ACCEPTED): on(Stage.start, accepted),
        (C.DISCONNECTED, CE.CONTACT_REFUSED): on(Stage.start, turned_down),
        (C.CONNECTED, CE.CONTACT_ACCEPTED): on(contacted, accepted),
        (C.CONNECTED, CE.CONTACT_REFUSED): on(contacted, turned_down),
        (C.CONNECTED, CE.REQUEST_OFFERS): on(contacted, offers),
        (C.CONNECTED, CE.UNLOAD): on(contacted, unloaded),
        (C.OFFERED, CE.CONTACT_ACCEPTED): on(Stage.opened, accepted),
        (C.OFFERED, CE.CONTACT_REFUSED): on(Stage.opened, turned_down),
        (C.OFFERED, CE.UNLOAD): on(Stage.opened, unloaded),
    }
)


def no_connection(number: Type, name: str) -> Driver:
    def drive(s: Stage) -> None:
        s.start()
        assert s.post(number) == []
        assert s.findings() == [f"ignored: vmbus: {name} without a connection"]
        assert s.guest.server.state is C.DISCONNECTED

    return drive


def offers_twice(s: Stage) -> None:
    s.connected()
    assert s.post(Type.CHANNELMSG_REQUESTOFFERS) == []
    assert s.refused == [(C.OFFERED, CE.REQUEST_OFFERS)]


CONNECTION_OTHERS: Mapping[tuple[ConnectionState, ConnectionEvent], Driver | str] = MappingProxyType(
    {
        (C.DISCONNECTED, CE.REQUEST_OFFERS): no_connection(Type.CHANNELMSG_REQUESTOFFERS, "REQUESTOFFERS"),
        (C.DISCONNECTED, CE.UNLOAD): no_connection(Type.CHANNELMSG_UNLOAD, "UNLOAD"),
        (C.OFFERED, CE.REQUEST_OFFERS): offers_twice,
    }
)


# channel ----------------------------------------------------------------------------------------------------------


def rescind(s: Stage) -> list[str]:
    s.guest.server.rescind(s.guest.server.devices[0])
    s.guest.run()
    return s.names(s.guest.got())


def late_offer(s: Stage) -> None:
    guest = s.connected(slots=0)
    guest.server.offer(SlotSpec("late", s.raw.guid(0xC1A55), s.raw.guid(9)))
    guest.run()
    assert s.names(guest.got()) == ["OFFERCHANNEL"]
    assert s.channel_state() is S.OFFERED


def rescind_before_the_offer(s: Stage) -> None:
    s.start()
    assert rescind(s) == []
    assert s.guest.server.devices == []


def unload_of_a_released_channel(s: Stage) -> None:
    s.connected()
    s.release()
    s.taken.clear()
    unloaded(s)
    assert s.channel_state() is S.UNOFFERED


def open_one(s: Stage) -> None:
    guest = s.connected()
    handle = guest.lend(1, 0x100, 8)
    assert [answer.status for answer in s.open(handle)] == [0]
    assert s.channel_state() is S.OPEN
    assert guest.signal(0x2001)


def open_refused_by_the_device(s: Stage) -> None:
    guest = s.connected()
    guest.echoes[0].status = 0xC000_0022
    handle = guest.lend(1, 0x100, 8)
    assert [answer.status for answer in s.open(handle)] == [0xC000_0022]
    assert s.channel_state() is S.OFFERED
    assert not guest.signal(0x2001)


def rescind_offered(s: Stage) -> None:
    s.connected()
    assert rescind(s) == ["RESCIND_CHANNELOFFER"]
    assert s.channel_state() is S.RESCINDED


def release_offered(s: Stage) -> None:
    guest = s.connected()
    guest.lend(1, 0x100, 4)
    assert s.release() == []
    assert s.channel_state() is S.UNOFFERED
    assert (len(guest.server.gpadls), guest.server.by_relid) == (0, {})


def end_offered(s: Stage) -> None:
    guest = s.connected()
    guest.lend(1, 0x100, 4)
    unloaded(s)
    assert s.channel_state() is S.UNOFFERED


def close_open(s: Stage) -> None:
    s.opened()
    assert s.close() == []
    assert s.channel_state() is S.OFFERED
    assert len(s.guest.echoes[0].closed) == 1


def modify_open(s: Stage) -> None:
    """From then on the new VP is interrupted; an event that was already set stays where it is."""
    guest = s.opened()
    device = guest.echoes[0].opened[0]
    device.send_packet(6, b"to VP 1")
    assert [answer.status for answer in s.modify(0)] == [0]
    device.send_packet(6, b"the ring is not empty: no signal")
    assert guest.events() == [(1, 1)]
    memory = guest.machine.memory.guest
    # The guest empties its ring, so that the next packet signals.
    memory.store32((0x104 << 12) + 4, memory.load32(0x104 << 12))
    device.send_packet(6, b"to VP 0")
    assert guest.events() == [(0, 1)]
    assert s.channel_state() is S.OPEN


def rescind_open(s: Stage) -> None:
    guest = s.opened()
    assert rescind(s) == ["RESCIND_CHANNELOFFER"]
    assert s.channel_state() is S.RESCINDED
    assert [entry for entry in guest.shared() if entry[2] != "monitor"] == []


def end_open(s: Stage) -> None:
    s.opened()
    unloaded(s)
    assert len(s.guest.echoes[0].closed) == 1


def open_rescinded(s: Stage) -> None:
    s.rescinded()
    assert s.open(0x1234) == [], "it crossed the rescind"
    assert s.channel_state() is S.RESCINDED
    assert s.findings() == []


def close_rescinded(s: Stage) -> None:
    s.rescinded(was_open=True)
    assert s.close() == []
    assert s.findings() == []


def release_rescinded(s: Stage) -> None:
    guest = s.rescinded(was_open=True)
    assert 1 in guest.server.by_relid, "the number is taken until now"
    assert s.release() == []
    assert (guest.server.devices, guest.server.by_relid, len(guest.server.gpadls)) == ([], {}, 0)


def end_rescinded(s: Stage) -> None:
    guest = s.rescinded(was_open=True)
    unloaded(s)
    assert (guest.server.devices, guest.server.by_relid, len(guest.server.gpadls)) == ([], {}, 0)


CHANNEL_ROWS: Mapping[tuple[ChannelState, ChannelEvent], Driver] = MappingProxyType(
    {
        (S.UNOFFERED, SE.OFFER): late_offer,
        (S.UNOFFERED, SE.RESCIND): rescind_before_the_offer,
        (S.UNOFFERED, SE.DISCONNECT): unload_of_a_released_channel,
        (S.OFFERED, SE.OPENCHANNEL): open_one,
        (S.OFFERED, SE.RESCIND): rescind_offered,
        (S.OFFERED, SE.RELID_RELEASED): release_offered,
        (S.OFFERED, SE.DISCONNECT): end_offered,
        (S.OPENING, SE.DEVICE_ACCEPTS): open_one,
        (S.OPENING, SE.DEVICE_REFUSES): open_refused_by_the_device,
        (S.OPEN, SE.CLOSECHANNEL): close_open,
        (S.OPEN, SE.MODIFYCHANNEL): modify_open,
        (S.OPEN, SE.RESCIND): rescind_open,
        (S.OPEN, SE.DISCONNECT): end_open,
        (S.RESCINDED, SE.OPENCHANNEL): open_rescinded,
        (S.RESCINDED, SE.CLOSECHANNEL): close_rescinded,
        (S.RESCINDED, SE.RELID_RELEASED): release_rescinded,
        (S.RESCINDED, SE.DISCONNECT): end_rescinded,
    }
)


def unknown_relid(prepare: Callable[[Stage], Any], act: Callable[[Stage], list[Any]], answers: list[str]) -> Driver:
    """Of a channel that is not offered, the message names nothing."""

    def drive(s: Stage) -> None:
        prepare(s)
        s.findings()
        assert s.names(act(s)) == answers
        assert "which is not offered" in s.findings()[0]

    return drive


def illegal(state: ChannelState, event: ChannelEvent, prepare: Any, act: Any, answers: list[str]) -> Driver:
    def drive(s: Stage) -> None:
        prepare(s)
        s.findings()
        before = s.guest.shared()
        assert s.names(act(s)) == answers
        assert s.refused == [(state, event)]
        assert s.channel_state() is state
        assert s.guest.shared() == before
        assert f"is in state '{state}', where '{event}' is not legal" in s.findings()[0]

    return drive


def released_once(s: Stage) -> None:
    s.connected()
    s.release()


def removed(s: Stage) -> None:
    s.rescinded()
    s.release()


def open_any(s: Stage) -> list[Any]:
    return s.open(0x1234)


def rescinded_twice(s: Stage) -> None:
    s.rescinded()
    assert rescind(s) == []
    assert s.refused == []
    assert s.channel_state() is S.RESCINDED


def rescind_while_opening(s: Stage) -> None:
    """A device that goes away in its own on_open(): the open is answered first."""
    guest = s.connected()
    echo = guest.echoes[0]
    was = echo.on_open

    def on_open(opened: Any) -> int:
        guest.server.rescind("echo0")
        guest.server._on_message_1(
            0, 1, abi.VmbusChannelCloseChannel(s.raw.head(Type.CHANNELMSG_CLOSECHANNEL), 1).pack()
        )
        return int(was(opened))

    echo.on_open = on_open
    handle = guest.lend(1, 0x100, 8)
    assert s.names(s.open(handle)) == ["OPENCHANNEL_RESULT", "RESCIND_CHANNELOFFER"]
    assert (s.channel_state(), s.refused) == (S.RESCINDED, [])


def repeated_offer(prepare: Callable[[Stage], Any], state: ChannelState, posted: list[str]) -> Driver:
    def drive(s: Stage) -> None:
        guest = prepare(s)
        guest.server.repeat_offer("echo0")
        guest.run()
        assert s.names(guest.got()) == posted
        assert (s.channel_state(), s.refused) == (state, [])

    return drive


_OPENING = "the server's task is in the device's on_open(); what the guest posts meanwhile waits its turn"
_GONE = "the server has forgotten the channel"
_DEVICE = "a device is asked only while its channel opens"
FAILED = ["MODIFYCHANNEL_RESPONSE"]
CHANNEL_OTHERS: Mapping[tuple[ChannelState, ChannelEvent], Driver | str] = MappingProxyType(
    {
        (S.UNOFFERED, SE.OPENCHANNEL): unknown_relid(released_once, open_any, ["OPENCHANNEL_RESULT"]),
        (S.UNOFFERED, SE.CLOSECHANNEL): unknown_relid(released_once, Stage.close, []),
        (S.UNOFFERED, SE.MODIFYCHANNEL): unknown_relid(released_once, Stage.modify, FAILED),
        (S.UNOFFERED, SE.RELID_RELEASED): unknown_relid(released_once, Stage.release, []),
        (S.OFFERED, SE.OFFER): repeated_offer(Stage.connected, S.OFFERED, ["OFFERCHANNEL"]),
        (S.OFFERED, SE.CLOSECHANNEL): illegal(S.OFFERED, SE.CLOSECHANNEL, Stage.connected, Stage.close, []),
        (S.OFFERED, SE.MODIFYCHANNEL): illegal(S.OFFERED, SE.MODIFYCHANNEL, Stage.connected, Stage.modify, FAILED),
        (S.OPEN, SE.OFFER): repeated_offer(Stage.opened, S.OPEN, ["OFFERCHANNEL"]),
        (S.OPEN, SE.OPENCHANNEL): illegal(S.OPEN, SE.OPENCHANNEL, Stage.opened, open_any, ["OPENCHANNEL_RESULT"]),
        (S.OPEN, SE.RELID_RELEASED): illegal(S.OPEN, SE.RELID_RELEASED, Stage.opened, Stage.release, []),
        (S.OPENING, SE.RESCIND): rescind_while_opening,
        (S.OPENING, SE.OFFER): "offers are the server's own task",
        (S.OPENING, SE.OPENCHANNEL): _OPENING,
        (S.OPENING, SE.CLOSECHANNEL): _OPENING,
        (S.OPENING, SE.MODIFYCHANNEL): _OPENING,
        (S.OPENING, SE.RELID_RELEASED): _OPENING,
        (S.OPENING, SE.DISCONNECT): _OPENING,
        (S.RESCINDED, SE.OFFER): repeated_offer(Stage.rescinded, S.RESCINDED, []),
        (S.RESCINDED, SE.MODIFYCHANNEL): illegal(
            S.RESCINDED, SE.MODIFYCHANNEL, Stage.rescinded, Stage.modify, FAILED
        ),
        (S.RESCINDED, SE.RESCIND): rescinded_twice,
        (S.REMOVED, SE.OPENCHANNEL): unknown_relid(removed, open_any, ["OPENCHANNEL_RESULT"]),
        (S.REMOVED, SE.CLOSECHANNEL): unknown_relid(removed, Stage.close, []),
        (S.REMOVED, SE.MODIFYCHANNEL): unknown_relid(removed, Stage.modify, FAILED),
        (S.REMOVED, SE.RELID_RELEASED): unknown_relid(removed, Stage.release, []),
        (S.REMOVED, SE.OFFER): _GONE,
        (S.REMOVED, SE.RESCIND): _GONE,
        (S.REMOVED, SE.DISCONNECT): _GONE,
        **{(state, event): _DEVICE for state in S if state is not S.OPENING
           for event in (SE.DEVICE_ACCEPTS, SE.DEVICE_REFUSES)},
    }
)  # fmt: skip


# GPADL ------------------------------------------------------------------------------------------------------------


def assembling(s: Stage) -> None:
    s.connected()
    assert s.gpadl_header() == []
    assert s.gpadl_state() is G.ASSEMBLING


def more_to_come(s: Stage) -> None:
    assembling(s)
    assert s.gpadl_body(0x200, 0x201) == []
    assert s.gpadl_state() is G.ASSEMBLING


def completed(s: Stage) -> None:
    assembling(s)
    assert [answer.creation_status for answer in s.gpadl_body(*range(0x200, 0x20F))] == [0]
    assert s.gpadl_state() is G.CREATED


def refused(s: Stage) -> None:
    assembling(s)
    assert [answer.creation_status for answer in s.gpadl_body(*range(0x4000, 0x400F))] == [0xC000_0001]
    assert s.gpadl_state() is None


def dropped(prepare: Driver, act: Callable[[Stage], list[Any]]) -> Driver:
    def drive(s: Stage) -> None:
        prepare(s)
        act(s)
        assert (s.gpadl_state(), len(s.guest.server.gpadls), s.guest.server.gpadls.total) == (None, 0, 0)
        assert all(via == "monitor" for _, _, via in s.guest.shared())

    return drive


def torn_down(s: Stage) -> None:
    completed(s)
    assert s.names(s.teardown()) == ["GPADL_TORNDOWN"]
    assert s.gpadl_state() is None


def ring(s: Stage) -> None:
    """A GPADL that is the ring of an open channel."""
    s.connected()
    s.gpadl_header(8)
    assert [answer.status for answer in s.open(HANDLE)] == [0]
    assert s.gpadl_state() is G.IN_RING


def ring_closed(s: Stage) -> None:
    ring(s)
    assert s.close() == []
    assert s.gpadl_state() is G.CREATED


def ring_torn_down_early(s: Stage) -> None:
    ring(s)
    assert s.teardown() == []
    assert s.gpadl_state() is G.TEARDOWN_WAITS


def late_close(s: Stage) -> None:
    ring_torn_down_early(s)
    assert s.names(s.close()) == ["GPADL_TORNDOWN"]
    assert s.gpadl_state() is None


GPADL_ROWS: Mapping[tuple[GpadlState, GpadlEvent], Driver] = MappingProxyType(
    {
        (G.ASSEMBLING, GE.BODY): more_to_come,
        (G.ASSEMBLING, GE.COMPLETE): completed,
        (G.ASSEMBLING, GE.REFUSE): refused,
        (G.ASSEMBLING, GE.DROP): dropped(assembling, Stage.release),
        (G.CREATED, GE.OPEN): ring,
        (G.CREATED, GE.TEARDOWN): torn_down,
        (G.CREATED, GE.DROP): dropped(completed, Stage.unload),
        (G.IN_RING, GE.CLOSE): ring_closed,
        (G.IN_RING, GE.TEARDOWN): ring_torn_down_early,
        (G.TEARDOWN_WAITS, GE.CLOSE): late_close,
    }
)


def not_taken(prepare: Driver, act: Callable[[Stage], list[Any]], state: GpadlState | None, text: str) -> Driver:
    """The server looks before it steps; nothing changes."""

    def drive(s: Stage) -> None:
        prepare(s)
        s.findings()
        before = s.guest.shared()
        act(s)
        assert s.gpadl_state() is state
        assert s.guest.shared() == before
        assert text in s.findings()[0]

    return drive


def body(s: Stage) -> list[Any]:
    return s.gpadl_body(1, 2)


def open_it(s: Stage) -> list[Any]:
    answers = s.open(HANDLE)
    assert [answer.status for answer in answers] == [0xC000_0001]
    return answers


def early_end(s: Stage) -> None:
    ring_torn_down_early(s)
    assert s.names(s.unload()) == ["GPADL_TORNDOWN", "UNLOAD_RESPONSE"], "the close comes first, and its answer"
    assert s.taken[-1] != (G.TEARDOWN_WAITS, GE.DROP)
    assert len(s.guest.server.gpadls) == 0


_LIST = "a list ends once: the server's own count of the bytes"
_CLOSE = "only the GPADL that a channel opened on hears of its close"
_WAITS = "which waits for none"
_HAS_NOT = "which the channel does not have"
GPADL_OTHERS: Mapping[tuple[GpadlState, GpadlEvent], Driver | str] = MappingProxyType(
    {
        (G.ASSEMBLING, GE.TEARDOWN): not_taken(assembling, Stage.teardown, G.ASSEMBLING, "is not legal"),
        (G.ASSEMBLING, GE.OPEN): not_taken(assembling, open_it, G.ASSEMBLING, "which the channel has only assembling"),
        (G.CREATED, GE.BODY): not_taken(completed, body, G.CREATED, _WAITS),
        (G.IN_RING, GE.BODY): not_taken(ring, body, G.IN_RING, _WAITS),
        (G.IN_RING, GE.OPEN): not_taken(ring, open_it, G.IN_RING, "where 'OPENCHANNEL' is not legal"),
        (G.IN_RING, GE.DROP): not_taken(ring, Stage.release, G.IN_RING, "where 'RELID_RELEASED' is not legal"),
        (G.TEARDOWN_WAITS, GE.BODY): not_taken(ring_torn_down_early, body, G.TEARDOWN_WAITS, _WAITS),
        (G.TEARDOWN_WAITS, GE.OPEN): not_taken(
            ring_torn_down_early, open_it, G.TEARDOWN_WAITS, "where 'OPENCHANNEL' is not legal"
        ),
        (G.TEARDOWN_WAITS, GE.TEARDOWN): not_taken(
            ring_torn_down_early, Stage.teardown, G.TEARDOWN_WAITS, "is not legal"
        ),
        (G.TEARDOWN_WAITS, GE.DROP): early_end,
        (G.GONE, GE.BODY): not_taken(torn_down, body, None, _WAITS),
        (G.GONE, GE.OPEN): not_taken(torn_down, open_it, None, _HAS_NOT),
        (G.GONE, GE.TEARDOWN): not_taken(torn_down, Stage.teardown, None, "which relid 1 does not have"),
        (G.GONE, GE.DROP): dropped(torn_down, Stage.unload),
        **{(state, event): _LIST for state in G if state is not G.ASSEMBLING for event in (GE.COMPLETE, GE.REFUSE)},
        **{(state, GE.CLOSE): _CLOSE for state in (G.ASSEMBLING, G.CREATED, G.GONE)},
    }
)


MACHINES = (
    pytest.param(CONNECTION, CE, CONNECTION_ROWS, CONNECTION_OTHERS, id="connection"),
    pytest.param(CHANNEL, SE, CHANNEL_ROWS, CHANNEL_OTHERS, id="channel"),
    pytest.param(GPADL, GE, GPADL_ROWS, GPADL_OTHERS, id="gpadl"),
)
ALL_ROWS: dict[tuple[Any, Any], Driver] = {**CONNECTION_ROWS, **CHANNEL_ROWS, **GPADL_ROWS}
ALL_OTHERS: dict[tuple[Any, Any], Driver | str] = {**CONNECTION_OTHERS, **CHANNEL_OTHERS, **GPADL_OTHERS}


@pytest.mark.parametrize(("table", "events", "rows", "others"), MACHINES)
def test_every_pair_has_a_driver_or_a_reason(table: Any, events: Any, rows: Any, others: Any) -> None:
    assert set(rows) == {(state, event) for state, legal in table.items() for event in legal}
    assert set(others) == {(state, event) for state in table for event in events} - set(rows)


@pytest.mark.parametrize("row", ALL_ROWS, ids="/".join)
def test_every_row_is_taken(stage: Stage, row: Any) -> None:
    ALL_ROWS[row](stage)
    assert row in stage.taken
    assert stage.refused == []


@pytest.mark.parametrize("pair", [pair for pair, how in ALL_OTHERS.items() if callable(how)], ids="/".join)
def test_every_other_step_changes_nothing(stage: Stage, pair: Any) -> None:
    drive = ALL_OTHERS[pair]
    assert callable(drive)
    drive(stage)
    assert pair not in stage.taken
