from __future__ import annotations

import struct
from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.vmbus import DeviceTable, SlotSpec, VmbusServer
from hvkernel.host.vmbus.channel import ServerChannel
from hvkernel.host.vmbus.steps import RemoteProtocolError
from hvkernel.host.vmbus.tables import CHANNEL, ChannelEvent, ChannelState

REFUSED = 0xC000_0001


def result(raw: Any, relid: int, status: int = 0, openid: int | None = None) -> abi.VmbusChannelOpenResult:
    openid = relid if openid is None else openid
    return abi.VmbusChannelOpenResult(raw.head(Type.CHANNELMSG_OPENCHANNEL_RESULT), relid, openid, status)


def close(raw: Any, relid: int) -> abi.VmbusChannelCloseChannel:
    return abi.VmbusChannelCloseChannel(raw.head(Type.CHANNELMSG_CLOSECHANNEL), relid)


def released(raw: Any, relid: int) -> abi.VmbusChannelRelidReleased:
    return abi.VmbusChannelRelidReleased(raw.head(Type.CHANNELMSG_RELID_RELEASED), relid)


def modify(raw: Any, relid: int, vp: int) -> abi.VmbusChannelModifychannel:
    return abi.VmbusChannelModifychannel(raw.head(Type.CHANNELMSG_MODIFYCHANNEL), relid, vp)


def teardown(raw: Any, relid: int, handle: int) -> abi.VmbusChannelGpadlTeardown:
    return abi.VmbusChannelGpadlTeardown(raw.head(Type.CHANNELMSG_GPADL_TEARDOWN), relid, handle)


def rescinded(raw: Any, relid: int) -> abi.VmbusChannelRescindOffer:
    return abi.VmbusChannelRescindOffer(raw.head(Type.CHANNELMSG_RESCIND_CHANNELOFFER), relid)


def test_offer_says_what_the_device_wants(raw: Any) -> None:
    def device(slot: Any) -> Any:
        echo = raw.Echo(slot)
        echo.offer_changes = {
            "chn_flags": abi.VMBUS_CHANNEL_NAMED_PIPE_MODE, "mmio_megabytes": 8, "pipe_mode": 4, "user_defined": b"pq",
            "monitored": True, "monitor_latency": 100,
        }  # fmt: skip
        return echo

    guest = raw(slots=2, device=device)
    first, second = guest.connect()
    assert first.offer.chn_flags == 0x10
    assert first.offer.mmio_megabytes == 8
    assert first.offer.u.pipe.pipe_mode == 4
    assert first.offer.u.pipe.user_def == b"pq" + bytes(114)
    assert (first.monitorid, first.monitor_allocated) == (0, 1)
    assert (second.monitorid, second.monitor_allocated) == (1, 1)
    assert (first.is_dedicated_interrupt, first.connection_id, second.connection_id) == (1, 0x2001, 0x2002)
    assert guest.server.status()[0].name == "echo0"


def test_no_monitor_without_monitor_pages(raw: Any) -> None:
    def device(slot: Any) -> Any:
        echo = raw.Echo(slot)
        echo.offer_changes = {"monitored": True}
        return echo

    guest = raw(device=device)
    guest.contact(abi.VERSION_WIN10, monitor=(0, 0))
    guest.got()
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    offer = guest.got()[0]
    assert (offer.monitorid, offer.monitor_allocated) == (0xFF, 0)


def test_open_close_reopen(raw: Any) -> None:
    guest = raw()
    guest.connect()
    echo = guest.echoes[0]
    for turn in range(3):
        ring = guest.open(1)
        channel = echo.opened[turn]
        assert channel.is_open
        assert channel.user_data == b"user data".ljust(120, b"\0")
        assert (channel.incoming_bytes, channel.outgoing_bytes, channel.target_vp) == (3 * 4096, 3 * 4096, 1)
        assert channel.version == abi.VERSION_WIN10
        assert ring.word(ring.down, 64) == 1, "feat_pending_send_sz"
        assert ring.write(raw.inband(b"%08d" % turn, turn, 1))
        assert guest.signal(0x2001)
        assert guest.events() == [(1, 1)]
        assert ring.read_all() == [raw.inband(b"%08d" % turn, turn, kind=11)]
        guest.post(close(raw, 1))
        assert guest.got() == []
        assert len(echo.closed) == turn + 1
        assert not channel.is_open
        assert not guest.signal(0x2001)
        guest.post(teardown(raw, 1, guest.gpadl))
        assert len(guest.got()) == 1
        guest.machine.memory.guest.write(0x100 << 12, bytes(8 * 4096))
    assert guest.server.status()[0].opens == 3
    assert guest.findings() == []


def test_a_host_before_2012_announces_no_flow_control(raw: Any) -> None:
    guest = raw()
    guest.connect(abi.VERSION_WIN7)
    ring = guest.open(1)
    assert ring.word(ring.down, 64) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ringbuffer_gpadlhandle": 5}, "ringbuffer_gpadlhandle 0x5, which the channel does not have"),
        ({"target_vp": 9}, "target_vp 9 is not a processor of this guest"),
        (
            {"downstream_ringbuffer_pageoffset": 1},
            "downstream_ringbuffer_pageoffset 1 does not split 8 pages into two rings of 2 or more",
        ),
        (
            {"downstream_ringbuffer_pageoffset": 7},
            "downstream_ringbuffer_pageoffset 7 does not split 8 pages into two rings of 2 or more",
        ),
    ],
)
def test_opens_that_are_refused(raw: Any, changes: dict[str, int], why: str) -> None:
    guest = raw()
    guest.connect()
    handle = guest.lend(1, 0x100, 8)
    guest.post(guest.open_message(1, handle, 4, **changes))
    assert guest.got() == [result(raw, 1, REFUSED)]
    assert guest.findings() == [f"refused: vmbus: OPENCHANNEL of relid 1 (echo0): {why}"]
    guest.post(guest.open_message(1, handle, 4))
    assert guest.got() == [result(raw, 1)]


@pytest.mark.parametrize(("byte_count", "offset"), [(8 * 4096 - 8, 0), (7 * 4096, 4088)])
def test_a_ring_is_whole_pages(raw: Any, byte_count: int, offset: int) -> None:
    guest = raw()
    guest.connect()
    guest.post_gpadl(1, 7, [(byte_count, offset, range(0x100, 0x108))])
    guest.got()
    guest.post(guest.open_message(1, 7, 4))
    assert guest.got() == [result(raw, 1, REFUSED)]
    assert guest.findings()[0].endswith("GPADL 0x7 is not one range of whole 4 KiB pages")


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0x100000, 3 * 4096, "write_index = 0x3000 is not a multiple of 8 below the ring's 0x3000 bytes"),
        (0x100004, 4, "read_index = 0x4 is not a multiple of 8 below the ring's 0x3000 bytes"),
        (0x104000, 0xFFFFFFF8, "write_index = 0xfffffff8 is not a multiple of 8 below the ring's 0x3000 bytes"),
        (0x104004, 1, "read_index = 0x1 is not a multiple of 8 below the ring's 0x3000 bytes"),
    ],
)
def test_open_with_broken_indices(raw: Any, at: int, value: int, why: str) -> None:
    guest = raw()
    guest.connect()
    handle = guest.lend(1, 0x100, 8)
    guest.machine.memory.guest.store32(at, value)
    guest.post(guest.open_message(1, handle, 4))
    assert guest.got() == [result(raw, 1, REFUSED)]
    assert guest.findings() == [f"refused: vmbus: OPENCHANNEL of relid 1 (echo0): {why}"]


def test_open_twice_and_of_nothing(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.open(1)
    guest.post(guest.open_message(1, guest.gpadl, 4, openid=77))
    assert guest.got() == [result(raw, 1, REFUSED, 77)]
    guest.post(guest.open_message(2, guest.gpadl, 4))
    assert guest.got() == [result(raw, 2, REFUSED)]
    assert guest.findings() == [
        "refused: vmbus: relid 1 (echo0) is in state 'open', where 'OPENCHANNEL' is not legal (legal: CLOSECHANNEL, "
        "MODIFYCHANNEL, device goes away, connection ends)",
        "ignored: vmbus: OPENCHANNEL for relid 2, which is not offered",
    ]


def test_the_device_may_refuse(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.echoes[0].status = 0xC000_0022
    handle = guest.lend(1, 0x100, 8)
    guest.post(guest.open_message(1, handle, 4))
    assert guest.got() == [result(raw, 1, 0xC000_0022)]
    assert guest.server.devices[0].channels[0].state is ChannelState.OFFERED
    assert not guest.signal(0x2001)
    guest.post(teardown(raw, 1, handle))
    assert len(guest.got()) == 1
    assert guest.findings() == []


def test_close_of_a_closed_channel(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.post(close(raw, 1))
    assert guest.got() == []
    assert guest.findings()[0].startswith(
        "refused: vmbus: relid 1 (echo0) is in state 'offered', where 'CLOSECHANNEL' is not legal"
    )


def test_relid_released(raw: Any) -> None:
    """A relid that the guest gives back is gone until the next connection, with the channel's GPADLs."""
    guest = raw(slots=2)
    guest.connect()
    guest.lend(1, 0x100, 8)
    guest.post(released(raw, 1))
    assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]
    guest.post(released(raw, 1))
    assert guest.got() == []
    assert guest.findings() == ["ignored: vmbus: RELID_RELEASED for relid 1, which is not offered"]
    guest.open(2)
    guest.post(released(raw, 2))
    assert guest.findings()[0].startswith(
        "refused: vmbus: relid 2 (echo1) is in state 'open', where 'RELID_RELEASED' is not legal"
    )


@pytest.mark.parametrize(("version", "answered"), [(0x4_0001, False), (0x5_0002, False), (0x5_0003, True)])
def test_modify_channel(raw: Any, version: int, answered: bool) -> None:
    guest = raw(raw.NEWEST)
    guest.connect(version)
    ring = guest.open(1)
    guest.post(modify(raw, 1, 0))
    answer = abi.VmbusChannelModifychannelResponse(raw.head(Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE), 1, 0)
    assert guest.got() == [answer] * answered
    ring.write(raw.inband(b"x", 1, 1))
    guest.signal(0x2001)
    assert guest.events() == [(0, 1)]
    guest.post(modify(raw, 1, 2))
    assert guest.got() == [answer.replace(status=REFUSED)] * answered
    guest.post(close(raw, 1))
    guest.post(modify(raw, 1, 0))
    assert guest.got() == [answer.replace(status=REFUSED)] * answered
    guest.post(modify(raw, 5, 0))
    assert guest.got() == [answer.replace(status=REFUSED, child_relid=5)] * answered
    findings = guest.findings()
    assert findings[0] == "refused: vmbus: MODIFYCHANNEL of relid 1 (echo0) to VP 2, which does not exist"
    assert len(findings) == 3


def test_rescind_of_an_open_device(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    guest.open(1)
    echo = guest.echoes[0]
    channel = echo.opened[0]
    echo.slot.services.rescind()
    guest.run()
    assert guest.got() == [rescinded(raw, 1)]
    assert echo.closed == [channel]
    assert not guest.signal(0x2001)
    # What the guest sent before it saw the rescind is dropped without an answer.
    guest.post(guest.open_message(1, guest.gpadl, 4))
    guest.post(close(raw, 1))
    assert guest.got() == []
    guest.post(teardown(raw, 1, guest.gpadl))
    assert len(guest.got()) == 1
    guest.post(released(raw, 1))
    assert [s.name for s in guest.server.status()] == ["echo1"]
    assert guest.findings() == []
    assert guest.shared() == [(3, 1, "monitor"), (4, 1, "monitor")]
    channel.send_packet(6, b"late")
    assert guest.findings() == ["tolerated: vmbus: relid 0 (echo0): the device sent 24 bytes after the close; dropped"]


def test_rescind_before_offers_and_twice(raw: Any) -> None:
    guest = raw(slots=2)
    guest.echoes[0].slot.services.rescind()
    guest.echoes[0].slot.services.rescind()
    guest.run()
    (offer,) = guest.connect()
    assert str(offer.offer.if_instance).startswith("00001001")
    assert guest.findings() == []


def test_a_rescinded_device_is_gone_after_unload(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    guest.echoes[0].slot.services.rescind()
    guest.run()
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    assert len(guest.connect()) == 1


def test_hot_add(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.server.offer(SlotSpec("late", raw.guid(0xC1A55), raw.guid(0x77)))
    guest.run()
    (offer,) = guest.got()
    assert offer.child_relid == 2
    guest.open(2)
    assert len(guest.echoes[1].opened) == 1


def test_sub_channels(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.open(1)
    primary = guest.echoes[0].opened[0]
    primary.offer_subchannels(2)
    first, second = guest.got()
    assert [(o.child_relid, o.offer.sub_channel_index, o.connection_id) for o in (first, second)] == [
        (2, 1, 0x2002), (3, 2, 0x2003)
    ]  # fmt: skip
    assert first.offer.if_instance == second.offer.if_instance == raw.guid(0x1000)
    ring = guest.open(2, first=0x200)
    sub = guest.echoes[0].opened[1]
    assert sub.primary is primary
    assert primary.primary is primary
    ring.write(raw.inband(b"on the sub", 5, 1))
    guest.signal(0x2002)
    assert len(ring.read_all()) == 1
    sub.offer_subchannels(1)
    assert guest.got()[0].offer.sub_channel_index == 3
    guest.post(close(raw, 1))
    assert guest.got() == [rescinded(raw, 2), rescinded(raw, 3), rescinded(raw, 4)]
    for relid in (2, 3, 4):
        guest.post(released(raw, relid))
    assert [c.relid for c in guest.server.devices[0].channels] == [1]
    assert guest.findings() == []


def test_no_more_sub_channels_than_relids(raw: Any) -> None:
    """A device that offers more keeps what fits, and the connection ends as any other."""
    guest = raw()
    guest.connect()
    guest.open(1)
    guest.echoes[0].opened[0].offer_subchannels(2045)
    guest.echoes[0].opened[0].offer_subchannels(3)
    assert [offer.child_relid for offer in guest.got()] == list(range(2, 2048))
    assert guest.findings() == ["refused: vmbus: echo0: 3 sub-channels; 1 of 2047 relids are free"]
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    assert len(guest.connect()) == 1


def test_sub_channels_end_with_the_connection(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.open(1)
    guest.echoes[0].opened[0].offer_subchannels(3)
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    assert len(guest.connect()) == 1


def test_no_sub_channels_before_2012(raw: Any) -> None:
    guest = raw()
    guest.connect(abi.VERSION_WIN7)
    guest.open(1)
    guest.echoes[0].opened[0].offer_subchannels(1)
    assert guest.got() == []
    assert guest.findings() == ["tolerated: vmbus: echo0: sub-channels do not exist before version 2.4; none offered"]


def test_a_class_without_a_plugin_opens_and_answers_nothing(raw: Any) -> None:
    guest = raw()
    specs = [SlotSpec("mystery", raw.guid(0xABC), raw.guid(1))]
    guest.serve(VmbusServer(guest.host, raw.Accepts(), specs, DeviceTable()))
    guest.connect()
    ring = guest.open(1)
    ring.write(raw.inband(b"hello?", 1, 1))
    guest.signal(0x2001)
    assert ring.read_all() == []
    assert ring.word(ring.up, 0) == ring.word(ring.up, 4), "the host reads"
    (status,) = guest.server.status()
    assert (status.modelled, status.owner, status.opens, status.state) == (False, "", 1, "open")
    assert guest.findings() == []


@pytest.mark.parametrize("state", list(ChannelState))
@pytest.mark.parametrize("event", list(ChannelEvent))
def test_every_illegal_step_changes_nothing(raw: Any, state: ChannelState, event: ChannelEvent) -> None:
    guest = raw()
    channel = guest.server.devices[0].channels[0]
    channel.state = state
    if event in CHANNEL[state]:
        assert channel.can(event)
        return
    before = guest.shared()
    with pytest.raises(RemoteProtocolError, match=f"is in state '{state}', where '{event}' is not legal"):
        channel.step(event)
    assert channel.state is state
    assert guest.shared() == before
    assert guest.got() == []


def test_signals_of_guests_before_2012(raw: Any) -> None:
    """0.13 both ways through the interrupt page; 1.1 its own connection up, the page down."""
    for version, connection in ((abi.VERSION_WS2008, 2), (abi.VERSION_WIN7, 0x2001)):
        guest = raw()
        guest.connect(version)
        assert (5, 1, "interrupt page") in guest.shared()
        ring = guest.open(1)
        ring.write(raw.inband(b"old", 1, 1))
        guest.machine.memory.guest.sync_set_bit(0x5000 + 2048, 1)
        assert guest.signal(connection)
        assert guest.events() == [(0, 0)]
        assert guest.machine.memory.guest.read(0x5000, 2) == b"\x02\x00"
        assert len(ring.read_all()) == 1
        if connection == 2:
            assert guest.machine.memory.guest.read(0x5000 + 2048, 1) == b"\0"


def test_a_bad_interrupt_page_is_not_used(raw: Any) -> None:
    guest = raw()
    guest.contact(abi.VERSION_WIN7, page=0x5001)
    assert guest.got()[0].version_supported == 1
    assert guest.findings() == [
        "tolerated: vmbus: interrupt page 0x5001 is not a page of this guest's memory; not used"
    ]


def test_a_channel_that_wants_no_interrupts(raw: Any) -> None:
    guest = raw(raw.NEWEST)
    guest.connect(0x5_0002)
    handle = guest.lend(1, 0x100, 8)
    guest.post(guest.open_message(1, handle, 4, target_vp=0xFFFF_FFFF))
    assert guest.got() == [result(raw, 1)]
    guest.echoes[0].opened[0].send_packet(6, b"quiet")
    assert guest.events() == []
    guest.post(modify(raw, 1, 0))
    guest.echoes[0].opened[0].send_packet(6, b"still quiet")
    assert guest.events() == []
    assert guest.findings() == ["refused: vmbus: MODIFYCHANNEL of relid 1 (echo0), which was opened without interrupts"]


def test_monitored_signals_arrive_one_latency_later(raw: Any) -> None:
    def device(slot: Any) -> Any:
        echo = raw.Echo(slot)
        echo.offer_changes = {"monitored": True, "monitor_latency": 500}
        return echo

    guest = raw(slots=2, device=device)
    guest.connect()
    ring = guest.open(1)
    guest.open(2, first=0x200)
    memory = guest.machine.memory.guest
    assert memory.load32(0x4000) == 1, "group 0 is enabled"
    assert struct.unpack("<HH", memory.read(0x4000 + 576, 4)) == (500, 500)
    assert struct.unpack("<IHHIHH", memory.read(0x4000 + 1088, 16)) == (0x2001, 0, 0, 0x2002, 0, 0)
    ring.write(raw.inband(b"by monitor", 1, 1))
    guest.run()
    assert ring.read_all() == [], "nobody told the host"
    start = guest.machine.clock.now
    memory.sync_set_bit(0x4008, 0)
    guest.run()
    assert guest.machine.clock.now >= start + 500
    assert len(ring.read_all()) == 1
    assert memory.load32(0x4008) == 0
    memory.sync_set_bit(0x4008, 31)
    guest.run()
    assert guest.findings() == ["ignored: vmbus: monitor bit 31 belongs to no open channel"]
    guest.post(close(raw, 1))
    guest.post(close(raw, 2))
    memory.sync_set_bit(0x4008, 0)
    assert guest.machine.run() == "idle"
    assert memory.load32(0x4008) == 1, "nobody looks any more"


def test_every_monitored_channel_has_its_own_latency(raw: Any) -> None:
    latencies = [400, 5000]

    def device(slot: Any) -> Any:
        echo = raw.Echo(slot)
        echo.offer_changes = {"monitored": True, "monitor_latency": latencies[len(made)]}
        made.append(echo)
        return echo

    made: list[Any] = []
    guest = raw(slots=2, device=device)
    guest.connect()
    rings = [guest.open(1), guest.open(2, first=0x200)]
    memory, machine = guest.machine.memory.guest, guest.machine
    for ring in rings:
        ring.write(raw.inband(b"by monitor", 1, 1))
    start = machine.clock.now
    memory.sync_set_bit(0x4008, 1)
    memory.sync_set_bit(0x4008, 0)
    taken: list[int] = []
    for echo in made:
        echo.on = lambda channel, packet: taken.append(machine.clock.now - start)
    machine.run(until=lambda: len(taken) == 1)
    assert 400 <= taken[0] < 1000
    assert memory.load32(0x4008) == 2, "the slow one has not been looked at"
    machine.run(until=lambda: len(taken) == 2)
    assert 5000 <= taken[1] < 6000
    assert memory.load32(0x4008) == 0


def test_a_bit_that_is_set_again_before_the_look_is_one_signal(raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def device(slot: Any) -> Any:
        echo = raw.Echo(slot)
        echo.offer_changes = {"monitored": True, "monitor_latency": 500}
        return echo

    guest = raw(slots=1, device=device)
    guest.connect()
    guest.open(1)
    kicks: list[object] = []
    monkeypatch.setattr(ServerChannel, "kick", lambda self: kicks.append(self))
    memory = guest.machine.memory.guest
    memory.sync_set_bit(0x4008, 0)
    memory.sync_set_bit(0x4008, 0)
    guest.run()
    assert len(kicks) == 1
    memory.sync_set_bit(0x4008, 0)
    guest.run()
    assert len(kicks) == 2
    memory.sync_set_bit(0x4008, 0)
    guest.post(close(raw, 1))
    guest.run()
    assert len(kicks) == 2
    assert guest.findings() == [], "a signal on its way to a channel that closes is nobody's fault"
