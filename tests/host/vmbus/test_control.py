"""What a host does of its own accord: late offers, repeated ones, rescinds, devices that come back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.vmbus import SlotSpec, VmbusServer

SECOND = 10_000_000


def released(raw: Any, relid: int) -> abi.VmbusChannelRelidReleased:
    return abi.VmbusChannelRelidReleased(raw.head(Type.CHANNELMSG_RELID_RELEASED), relid)


def rescinded(raw: Any, relid: int) -> abi.VmbusChannelRescindOffer:
    return abi.VmbusChannelRescindOffer(raw.head(Type.CHANNELMSG_RESCIND_CHANNELOFFER), relid)


def late(raw: Any, name: str = "late", **more: Any) -> SlotSpec:
    return SlotSpec(name, raw.guid(0xC1A55), raw.guid(0x77), **more)


def relids(offers: list[Any]) -> list[int]:
    return [offer.child_relid for offer in offers]


def test_an_offer_before_the_connection_comes_with_the_others(raw: Any) -> None:
    guest = raw()
    guest.server.offer(late(raw))
    guest.run()
    assert relids(guest.connect()) == [1, 2]
    with pytest.raises(ValueError, match=r"^two devices of the VM are called 'late'$"):
        guest.server.offer(late(raw))


def test_an_offer_between_contact_and_request_comes_with_the_others(raw: Any) -> None:
    guest = raw()
    guest.contact(abi.VERSION_WIN10)
    guest.got()
    guest.server.offer(late(raw))
    guest.run()
    assert guest.got() == []
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert [type(message).__name__ for message in guest.got()] == [
        "VmbusChannelOfferChannel", "VmbusChannelOfferChannel", "VmbusChannelMessageHeader"
    ]  # fmt: skip


def test_a_device_is_not_offered_before_its_time(raw: Any) -> None:
    guest = raw(slots=0)
    specs = [late(raw, "now"), late(raw, "soon", offered_at=2 * SECOND), late(raw, "never", offered_at=3000 * SECOND)]
    guest.serve(VmbusServer(guest.host, raw.Accepts(), specs, guest.table))
    guest.run = lambda: guest.machine.run(limit=SECOND // 10)
    assert relids(guest.connect()) == [1]
    guest.machine.run(limit=SECOND)
    assert guest.got() == []
    guest.machine.run(limit=2 * SECOND)
    assert relids(guest.got()) == [2]
    assert [status.state for status in guest.server.status()] == ["offered", "offered", "not offered"]
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    assert guest.got() == [raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
    assert [status.state for status in guest.server.status()] == ["not offered"] * 3
    guest.machine.run()
    assert guest.got() == [], "no offer without a connection"
    assert relids(guest.connect()) == [1, 2, 3]


def test_an_offer_made_twice(raw: Any) -> None:
    guest = raw(slots=2)
    first, second = guest.connect()
    guest.server.repeat_offer("echo1")
    guest.run()
    assert guest.got() == [second]
    guest.open(1)
    guest.echoes[0].opened[0].offer_subchannels(1)
    (sub,) = guest.got()
    guest.server.repeat_offer("echo0")
    guest.run()
    assert guest.got() == [first, sub]
    guest.server.rescind("echo1")
    guest.server.repeat_offer("echo1")
    guest.run()
    assert guest.got() == [rescinded(raw, 2)]
    # One instance under two relids.
    guest.server.offer(replace(guest.server.device("echo0").spec, name="twin"))
    guest.run()
    (twin,) = guest.got()
    assert (twin.child_relid, twin.offer.if_instance) == (4, first.offer.if_instance)


def test_a_device_that_is_not_there(raw: Any) -> None:
    guest = raw(slots=2)
    for call in (guest.server.rescind, guest.server.reoffer, guest.server.repeat_offer, guest.server.change_offer):
        with pytest.raises(ValueError, match=r"^the VM has no device called 'x'; it has echo0, echo1$"):
            call("x")
    with pytest.raises(ValueError, match="no device called 'x'"):
        guest.server.reorder(["echo0", "x"])
    with pytest.raises(ValueError, match="no device called 'x'"):
        guest.server.offer_subchannels("x", 1)


def test_a_device_comes_back_once_its_relid_is_released(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    guest.open(1)
    guest.server.reoffer("echo0")
    guest.run()
    assert guest.got() == [rescinded(raw, 1)]
    assert [status.state for status in guest.server.status()] == ["rescinded", "offered"]
    guest.post(released(raw, 1))
    (offer,) = guest.got()
    assert (offer.child_relid, offer.offer.if_instance) == (1, raw.guid(0x1000))
    assert len(guest.echoes) == 3, "the device was made anew"
    guest.open(1)
    assert len(guest.echoes[2].opened) == 1
    assert [status.name for status in guest.server.status()] == ["echo1", "echo0"]
    assert guest.findings() == []


def test_a_device_comes_back_at_once_under_another_relid(raw: Any) -> None:
    """A relid is taken until the guest released it."""
    guest = raw(slots=2)
    guest.connect()
    for turn in range(3):
        guest.server.reoffer("echo0", at_once=True)
        guest.run()
        gone, back = guest.got()
        assert (gone.child_relid, back.child_relid) == ((1, 3, 4)[turn], 3 + turn)
    for relid in (1, 4, 3):
        guest.post(released(raw, relid))
    assert [(status.name, status.relid) for status in guest.server.status()] == [("echo1", 2), ("echo0", 5)]
    guest.server.offer(late(raw))
    guest.run()
    assert relids(guest.got()) == [1]
    assert guest.findings() == []


def test_a_device_that_waits_for_its_return_is_there_after_an_unload(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    guest.server.reoffer("echo0")
    guest.run()
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    assert sorted(str(offer.offer.if_instance)[:8] for offer in guest.connect()) == ["00001000", "00001001"]
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    guest.server.reoffer("echo1")
    guest.run()
    assert len(guest.connect()) == 2, "re-offered without a connection"


def test_a_device_that_waits_for_its_return_can_be_taken_away(raw: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    guest.server.reoffer("echo0")
    guest.server.rescind("echo0")
    guest.run()
    assert guest.got() == [rescinded(raw, 1)]
    guest.post(released(raw, 1))
    assert guest.got() == []
    assert [status.name for status in guest.server.status()] == ["echo1"]


def test_the_next_offer_says_something_else(raw: Any) -> None:
    guest = raw(slots=2)
    first, _ = guest.connect()
    guest.server.change_offer("echo0", chn_flags=0x2000, mmio_megabytes=7, user_defined=b"abc", monitored=True)
    guest.server.reorder(["echo1"])
    guest.run()
    assert guest.got() == []
    guest.server.repeat_offer("echo0")
    guest.run()
    assert guest.got()[0].offer.mmio_megabytes == 7
    guest.post(raw.head(Type.CHANNELMSG_UNLOAD))
    guest.got()
    _, changed = guest.connect()
    assert (changed.child_relid, changed.offer.chn_flags, changed.monitor_allocated) == (2, 0x2000, 1)
    assert changed.offer.if_instance == first.offer.if_instance
    with pytest.raises(ValueError, match=r"^an offer has no field 'relid'$"):
        guest.server.change_offer("echo0", relid=4)
    with pytest.raises(ValueError, match="user_defined of 121 bytes"):
        guest.server.change_offer("echo0", user_defined=bytes(121))


def test_sub_channels_of_a_device_that_asks_for_none(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.server.offer_subchannels("echo0", 2)
    guest.run()
    assert guest.got() == []
    assert guest.findings() == ["tolerated: vmbus: echo0: sub-channels of a channel that is not open; none offered"]
    guest.open(1)
    guest.server.offer_subchannels("echo0", 2)
    guest.run()
    assert [offer.offer.sub_channel_index for offer in guest.got()] == [1, 2]


def test_a_class_without_a_plugin_offers_its_sub_channels_behind_the_result(raw: Any) -> None:
    guest = raw()
    spec = SlotSpec("mystery", raw.guid(5), raw.guid(6), subchannels=2, monitored=True, monitor_latency=9,
                    user_defined=b"hello", chn_flags=0x8000)  # fmt: skip
    guest.serve(VmbusServer(guest.host, raw.Accepts(), [spec], guest.table))
    (offer,) = guest.connect()
    assert (offer.offer.chn_flags, offer.monitor_allocated, offer.offer.u.std.user_def[:6]) == (0x8000, 1, b"hello\0")
    handle = guest.lend(1, 0x100, 8)
    guest.post(guest.open_message(1, handle, 4))
    result, *subs = guest.got()
    assert result.status == 0
    assert [sub.offer.sub_channel_index for sub in subs] == [1, 2]


def test_more_devices_than_relids(raw: Any) -> None:
    """2047 are offered, and the rest as soon as there is another connection with room."""
    guest = raw(slots=2049)
    assert relids(guest.connect()) == list(range(1, 2048))
    assert guest.findings() == [
        "refused: vmbus: echo2047 is not offered: all 2047 relids are in use",
        "refused: vmbus: echo2048 is not offered: all 2047 relids are in use",
    ]
    # A rescinded one is taken until it is released.
    guest.server.rescind("echo5")
    guest.server.offer(late(raw, "after the rescind"))
    guest.run()
    assert guest.got() == [rescinded(raw, 6)]
    guest.post(released(raw, 6))
    guest.server.offer(late(raw, "after the release"))
    guest.run()
    assert relids(guest.got()) == [6]
    assert guest.findings() == ["refused: vmbus: after the rescind is not offered: all 2047 relids are in use"]


def test_a_host_that_does_not_act_on_a_message(raw: Any) -> None:
    guest = raw()
    guest.server.ignore(Type.CHANNELMSG_REQUESTOFFERS, Type.CHANNELMSG_UNLOAD)
    guest.contact(abi.VERSION_WIN10)
    guest.got()
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert (guest.got(), guest.findings()) == ([], [])
    guest.server.ignore()
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert len(guest.got()) == 2
