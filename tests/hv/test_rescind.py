"""Rescind at any moment, and what comes after it: the relid goes back once, and the device may come again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER, VmbusChannelState
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.guest.hyperv import HvDriver, HvVmbusDeviceId
from hvkernel.api.guest.sched import Work
from hvkernel.hv import vmbus_drv

INSTANCE = bytes(range(16))
OPEN = Type.CHANNELMSG_OPENCHANNEL
HEADER = Type.CHANNELMSG_GPADL_HEADER
TEARDOWN = Type.CHANNELMSG_GPADL_TEARDOWN
CLOSE = Type.CHANNELMSG_CLOSECHANNEL
RELEASED = Type.CHANNELMSG_RELID_RELEASED
MODIFY = Type.CHANNELMSG_MODIFYCHANNEL


@pytest.fixture
def b(between: Callable[..., Any]) -> Any:
    """A guest with a second KVP-class device of a host of the test's own, relid 99."""
    made = between(cpus=4, host="ws2022").boot()
    assert made.offer(99, instance=INSTANCE) is made.channel
    made.sent.clear()
    return made


def gone(b: Any, relid: int = 99) -> None:
    """No trace of the channel is left, and its relid went back once."""
    assert b.released() == [relid]
    assert b.v.connection.channels[relid] is None
    assert all(one.offermsg.child_relid != relid for one in b.v.connection.chn_list)
    assert not [line for line in b.lines if "WARNING: " in line]


def test_never_opened(b: Any) -> None:
    device = b.devices[-1]
    b.rescind(b.channel)
    assert b.kinds() == [RELEASED]
    assert b.removed == [device]
    gone(b)


def test_twice(b: Any) -> None:
    channel = b.channel
    b.rescind(channel)
    b.rescind(channel)
    gone(b)


def test_twice_while_nobody_takes_the_device_away(b: Any) -> None:
    """The second does nothing: somebody has the channel already (rescind_ref)."""
    channel, told = b.channel, list[Any]()
    channel.chn_rescind_callback = told.append
    b.rescind(channel)
    b.rescind(channel)
    assert told == [channel]
    assert b.released() == [], "whoever set the callback takes the device away"


def test_a_rescind_waits_for_the_offer_before_it(b: Any) -> None:
    """Offers have a queue of their own, which may lag behind (offer_in_progress)."""
    gate = b.kernel.sched.init_completion()
    held = Work(lambda work: b.kernel.sched.wait_for_completion(gate))
    b.call(b.kernel.workqueue.queue_work_on, 0, b.v.connection.work_queue, held)
    assert b.offer(98, instance=bytes(range(1, 17))) is None
    b.post(Type.CHANNELMSG_RESCIND_CHANNELOFFER, 98)
    assert b.v.connection.offer_in_progress == 1
    b.call(b.kernel.sched.complete, gate)
    b.run(50)
    gone(b, 98)


def test_an_offer_does_not_wait_for_the_rescind_before_it(b: Any) -> None:
    """A rescind may hang on its driver: it has its own queue."""
    b.channel.chn_rescind_callback = lambda channel: b.kernel.sched.msleep(500)
    b.rescind(b.channel)
    assert b.offer(98, instance=bytes(range(1, 17))) is not None


def test_open(b: Any) -> None:
    """The driver's remove closes the channel; the message goes out although nobody listens, and no GPADL comes back."""
    assert b.open() == 0
    channel = b.channel

    def remove(dev: Any) -> None:
        b.exports.vmbus_close(dev.channel)

    b.devices[-1].driver.remove = remove
    b.sent.clear()
    b.rescind(channel)
    assert b.kinds() == [CLOSE, RELEASED]
    assert channel.ringbuffer_page is None
    gone(b)


def test_open_and_never_closed(b: Any) -> None:
    """A driver that forgets to close: the channel goes with its device all the same."""
    assert b.open() == 0
    b.sent.clear()
    b.rescind(b.channel)
    assert b.kinds() == [RELEASED]
    gone(b)


@pytest.mark.parametrize("waits_for", [HEADER, OPEN])
def test_while_it_opens(b: Any, waits_for: Type) -> None:
    b.silent = (waits_for,)
    channel = b.channel
    opening = b.start_open(channel)
    assert not opening.done
    asked = [HEADER] if waits_for == HEADER else [HEADER, OPEN]
    assert b.kinds() == asked
    b.rescind(channel)
    assert opening.value == -19, "ENODEV"
    assert b.kinds() == [*asked, RELEASED], "no teardown of what the host has dropped"
    assert channel.ringbuffer_page is None
    gone(b)


def test_while_its_driver_probes(b: Any) -> None:
    """The probe hangs in vmbus_open(); the rescind wakes it, and takes the device when the probe is over."""
    b.silent = (OPEN,)
    ring = b.exports.VMBUS_RING_SIZE(16384)
    results: list[int] = []

    def probe(dev: Any) -> int:
        results.append(b.exports.vmbus_open(dev.channel, ring, ring, b"", lambda context: None, None))
        return results[-1]

    b.on_probe = probe
    channel = b.offer(98, instance=bytes(range(1, 17)))
    assert results == []
    assert channel.state is VmbusChannelState.CHANNEL_OPENING_STATE
    b.sent.clear()
    b.rescind(channel)
    assert results == [-19]
    assert f"hv_vmbus: probe failed for device {channel.device_obj.name} (-19)" in b.lines
    gone(b, 98)


def test_while_it_closes(b: Any) -> None:
    """vmbus_disconnect_ring() holds channel_mutex while it waits for GPADL_TORNDOWN: the rescind has to wait for it."""
    assert b.open() == 0
    channel = b.channel
    b.silent = (TEARDOWN,)
    b.sent.clear()
    closing = b.start(b.exports.vmbus_close, channel)
    assert b.kinds() == [CLOSE, TEARDOWN]
    handle = channel.ringbuffer_gpadlhandle.gpadl_handle
    b.rescind(channel)
    assert not closing.done
    assert not channel.rescind, "a host that never says TORNDOWN hangs 6.1 here"
    b.post(Type.CHANNELMSG_GPADL_TORNDOWN, handle)
    assert closing.done
    b.run(50)
    gone(b)


def test_while_its_interrupt_moves(b: Any) -> None:
    """The wait for MODIFYCHANNEL_RESPONSE lets channel_mutex go, so that the rescind can end it."""
    assert b.open() == 0
    channel = b.channel
    b.silent = (MODIFY,)
    moving = b.start(vmbus_drv.target_cpu_store, b.v, channel, 1)
    assert not moving.done
    b.devices[-1].driver.remove = lambda dev: b.exports.vmbus_close(dev.channel)
    b.sent.clear()
    b.rescind(channel)
    assert moving.value == 0, "no answer reads as status 0"
    assert channel.target_cpu == 1
    gone(b)


def test_in_the_same_breath_as_its_offer(b: Any) -> None:
    """Offer and rescind are handled in different queues: the rescind waits while an offer is in work."""
    before = len(b.devices)
    message = bytearray(b.channel.offermsg.raw)
    message[24:40] = bytes(range(1, 17))
    message[184] = 98
    b.made.append(98)
    rescind = bytes([Type.CHANNELMSG_RESCIND_CHANNELOFFER, *bytes(7), 98, 0, 0, 0])
    for payload in (bytes(message), rescind):
        b.session.host.synic.post_message(b.machine.boot_vp.vp_index, 2, 1, 1, payload)
    b.run(50)
    assert b.removed == b.devices[before:], "probed and removed, or neither"
    gone(b, 98)


def test_offered_again_it_is_a_new_device(b: Any) -> None:
    old = b.channel
    b.rescind(old)
    b.sent.clear()
    new = b.offer(97, instance=INSTANCE)
    assert new is not old
    assert new is b.channel
    assert new.device_obj is not old.device_obj
    assert new.device_obj.name == old.device_obj.name
    assert b.open() == 0
    assert [line for line in b.lines if "WARNING" in line] == []


# sub-channels --------------------------------------------------------------------------------------------------


def sub_channels(b: Any, count: int) -> list[Any]:
    """Open the primary, then have sub-channels offered."""
    assert b.open() == 0
    created: list[Any] = []
    b.exports.vmbus_set_sc_create_callback(b.channel, created.append)
    made = [b.offer(100 + index, index=index) for index in range(1, count + 1)]
    assert created == made
    assert made == b.channel.sc_list
    assert b.v.connection.nr_chan_close_on_suspend == count
    b.sent.clear()
    return made


def test_a_sub_channel_that_is_not_open(b: Any) -> None:
    (sub,) = sub_channels(b, 1)
    b.rescind(sub)
    assert b.kinds() == [RELEASED]
    assert b.channel.sc_list == []
    assert b.v.connection.nr_chan_close_on_suspend == 0
    gone(b, 101)


def test_an_open_sub_channel_waits_for_its_primary_to_close(b: Any) -> None:
    (sub,) = sub_channels(b, 1)
    assert b.open(sub) == 0
    b.sent.clear()
    b.rescind(sub)
    assert b.kinds() == []
    assert sub.rescind_event.done == 1
    b.call(b.exports.vmbus_close, b.channel)
    assert b.kinds() == [CLOSE, RELEASED, CLOSE, TEARDOWN], "the sub-channel first"
    gone(b, 101)


def test_closing_a_sub_channel_alone_is_refused(b: Any) -> None:
    (sub,) = sub_channels(b, 1)
    assert b.open(sub) == 0
    assert b.call(b.exports.vmbus_disconnect_ring, sub) == -22
    assert sub.state is VmbusChannelState.CHANNEL_OPENED_STATE


def test_a_device_with_sub_channels(b: Any) -> None:
    """The host rescinds them from the last to the primary; the driver's remove closes them all."""
    subs = sub_channels(b, 2)
    for sub in subs:
        assert b.open(sub) == 0
    primary = b.channel
    b.devices[-1].driver.remove = lambda dev: b.exports.vmbus_close(dev.channel)
    b.sent.clear()
    for channel in (*reversed(subs), primary):
        b.rescind(channel)
    assert b.released() == [101, 102, 99]
    assert b.kinds() == [CLOSE, RELEASED, CLOSE, RELEASED, CLOSE, RELEASED]
    assert b.v.connection.nr_chan_close_on_suspend == 0


def test_a_sub_channel_whose_driver_opens_it_in_the_callback(b: Any) -> None:
    """It hangs in OPENCHANNEL; the rescind handler is on a queue of its own and wakes it."""
    assert b.open() == 0
    ring = b.exports.VMBUS_RING_SIZE(16384)
    results: list[int] = []

    def created(channel: Any) -> None:
        results.append(b.exports.vmbus_open(channel, ring, ring, b"", lambda context: None, None))

    b.exports.vmbus_set_sc_create_callback(b.channel, created)
    b.silent = (OPEN,)
    sub = b.offer(101, index=1)
    assert results == []
    b.sent.clear()
    b.rescind(sub)
    assert results == [-19]
    gone(b, 101)


# hv_sock -------------------------------------------------------------------------------------------------------


def test_an_hvsock_offer_goes_to_the_hvsock_driver_only(b: Any) -> None:
    """Whatever its class; and the connection's end is the driver's business (vmbus_hvsock_device_unregister)."""
    probed: list[Any] = []
    closed: list[Any] = []

    def probe(dev: Any, dev_id: Any) -> int:
        probed.append(dev)
        b.exports.vmbus_set_chn_rescind_callback(dev.channel, closed.append)
        return 0

    driver = HvDriver("hv_sock", [HvVmbusDeviceId(bytes(16))], probe, hvsock=True)
    assert b.call(b.exports.vmbus_driver_register, driver, "hv_sock") == 0
    before = len(b.devices)
    sock = b.offer(110, instance=bytes(range(2, 18)), kind=guids.HV_KVP_GUID, flags=VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER)
    assert (len(probed), len(b.devices)) == (1, before), "not the KVP driver"
    assert (sock.device_id, sock.target_cpu) == (16, 0)
    assert b.v.connection.nr_chan_close_on_suspend == 1
    assert not [line for line in b.lines if line.startswith("hv_vmbus: Unknown GUID: 05040302")]
    b.sent.clear()
    leaving = b.start(b.exports.vmbus_hvsock_device_unregister, sock)
    assert not leaving.done, "we always get a rescind when a connection ends"
    b.rescind(sock)
    assert closed == [sock]
    assert leaving.done
    assert b.v.connection.nr_chan_close_on_suspend == 0
    gone(b, 110)
