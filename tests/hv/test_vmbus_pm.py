"""Hibernation: the bus before the image and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import INVALID_RELID, VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.synic import Synic
from hvkernel.hv import channel_mgmt, vmbus_pm
from hvkernel.hv.connection_state import State

OFFER = Type.CHANNELMSG_OFFERCHANNEL


def drivers(b: Any, log: list[str]) -> None:
    """Give the driver of the KVP device a suspend and a resume that close and open the channel."""
    ring = b.exports.VMBUS_RING_SIZE(16384)
    drv = b.devices[-1].driver

    def suspend(dev: Any) -> int:
        log.append("suspend")
        b.exports.vmbus_close(dev.channel)
        return 0

    def resume(dev: Any) -> int:
        log.append("resume")
        return int(b.exports.vmbus_open(dev.channel, ring, ring, b"", lambda context: None, None))

    drv.suspend, drv.resume = suspend, resume


@pytest.mark.parametrize("host", ["azure-gen2", "ws2022", "ws2012r2"])
def test_there_and_back(between: Callable[..., Any], host: str) -> None:
    b = between(host=host, cpus=4).boot()
    log: list[str] = []
    drivers(b, log)
    assert b.open() == 0
    channels = list(b.v.connection.chn_list)
    version, lines = b.v.vmbus_proto_version, len(b.lines)
    b.sent.clear()
    assert b.call(b.kernel.power.create_image) == 0
    b.run(100)
    assert log == ["suspend", "resume"]
    assert (b.v.connection.conn_state, b.v.vmbus_proto_version) == (State.CONNECTED, version)
    assert b.v.connection.chn_list == channels, "the same channels, found by their instances"
    for channel in channels:
        assert b.v.connection.channels[channel.offermsg.child_relid] is channel
    kinds = [kind for kind in b.kinds() if kind not in (Type.CHANNELMSG_GPADL_BODY,)]
    unload = kinds.index(Type.CHANNELMSG_UNLOAD)
    assert Type.CHANNELMSG_CLOSECHANNEL in kinds[:unload], "devices first, then the bus"
    assert kinds[unload + 1 : unload + 3] == [Type.CHANNELMSG_INITIATE_CONTACT, Type.CHANNELMSG_REQUESTOFFERS]
    assert Type.CHANNELMSG_OPENCHANNEL in kinds[unload:], "and after the bus the devices"
    said = [line for line in b.lines[lines:] if "CPU" in line or "vmbus" in line or "PM:" in line]
    up = [f"CPU{cpu} is up" for cpu in (1, 2, 3)]
    assert said == ["Disabling non-boot CPUs ...", "Enabling non-boot CPUs ...", *up]
    assert b.channel.state.name == "CHANNEL_OPENED_STATE"
    assert b.v.connection.nr_chan_fixup_on_resume == 0
    assert b.call(b.kernel.power.create_image) == 0, "and again"


def test_a_driver_without_suspend_keeps_the_system_awake(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    b.sent.clear()
    assert b.call(b.kernel.power.create_image) == -95
    assert f"probe {b.devices[-1].name}: PM: failed to freeze noirq: error -95" in b.lines
    assert b.lines[-1] == "PM: hibernation: Some devices failed to power down, aborting"
    assert Type.CHANNELMSG_UNLOAD not in b.kinds()
    assert b.v.connection.conn_state is State.CONNECTED


def suspended(b: Any) -> None:
    assert b.call(vmbus_pm.vmbus_bus_suspend, b.v) == 0
    b.sent.clear()


def test_between_the_two_nothing_has_a_relid(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    suspended(b)
    connection = b.v.connection
    assert {one.offermsg.child_relid for one in connection.chn_list} == {INVALID_RELID}
    assert not any(connection.channels)
    assert connection.conn_state is State.DISCONNECTED
    assert connection.nr_chan_fixup_on_resume == len(connection.chn_list)
    assert connection.ignore_any_offer_msg
    b.post(Type.CHANNELMSG_RESCIND_CHANNELOFFER, 3)
    assert connection.offer_in_progress == 0


def test_other_relids_and_other_fields(between: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The host numbers anew, and changed the connection id of one offer: both are taken over in silence."""
    b = between(host="ws2022").boot()
    old = b.channel.offermsg
    before = b.relid
    suspended(b)
    lines = len(b.lines)
    real = Synic.post_message

    def post(synic: Synic, vp: int, sint: int, message_type: int, port: int, payload: bytes) -> int:
        if payload[0] == OFFER and payload[24:40] == old.if_instance:
            changed = bytearray(payload)
            changed[184:188] = (1234).to_bytes(4, "little")
            changed[192:196] = (0x4321).to_bytes(4, "little")
            payload = bytes(changed)
        return real(synic, vp, sint, message_type, port, payload)

    monkeypatch.setattr(Synic, "post_message", post)
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0
    assert b.lines[lines:] == []
    assert (b.relid, b.channel.sig_event) == (1234, 0x4321)
    assert b.v.connection.channels[1234] is b.channel
    assert before != 1234


def test_the_same_offer_is_not_set_up_again(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    offers = [one.offermsg for one in b.v.connection.chn_list]
    suspended(b)
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0
    assert [one.offermsg is old for one, old in zip(b.v.connection.chn_list, offers, strict=True)] == [True] * len(
        offers
    ), "byte for byte the same but for the relid"


def test_an_unknown_class_that_changed_is_named_again(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    kind = bytes.fromhex("00112233445566778899aabbccddeeff")
    channel = b.offer(200, instance=bytes([5] * 16), kind=kind)
    line = "hv_vmbus: Unknown GUID: 33221100-5544-7766-8899-aabbccddeeff"
    assert b.lines.count(line) == 1
    suspended(b)
    message = bytearray(channel.offermsg.raw)
    message[60] ^= 0xFF  # a byte that the guest looks at nowhere else
    resuming = b.start(vmbus_pm.vmbus_bus_resume, b.v)
    assert not resuming.done
    b.session.host.synic.post_message(b.machine.boot_vp.vp_index, 2, 1, 1, bytes(message))
    b.run(50)
    assert resuming.value == 0
    assert b.lines.count(line) == 2


def test_a_device_that_does_not_come_back(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    channel = b.offer(200, instance=bytes([5] * 16))
    suspended(b)
    before = b.machine.clock.now
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0, "which is only reported"
    assert b.machine.clock.now - before >= 10 * 10_000_000
    assert b.lines[-1] == "hv_vmbus: Some vmbus device is missing after suspending?"
    assert channel.offermsg.child_relid == INVALID_RELID
    assert b.call(vmbus_pm.vmbus_bus_suspend, b.v) == -16
    assert b.lines[-1] == "hv_vmbus: Can not suspend due to a previous failed resuming"


def test_a_new_device_comes_with_the_old_ones(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    suspended(b)
    b.channel.offermsg.child_relid = INVALID_RELID
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0
    count = len(b.v.connection.chn_list)
    b.offer(200, instance=bytes([5] * 16))
    assert len(b.v.connection.chn_list) == count + 1


def test_a_host_of_another_version(between: Callable[..., Any]) -> None:
    """Only the version in use before is asked for."""
    b = between(host="ws2022").boot()
    suspended(b)
    b.v.vmbus_proto_version = 0x60000
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == -111
    assert b.kinds() == [Type.CHANNELMSG_INITIATE_CONTACT]
    b.v.vmbus_proto_version = 0
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == -22
    assert b.lines[-1] == "hv_vmbus: Invalid proto version = 0x0"


def test_sub_channels_have_to_go_first(between: Callable[..., Any]) -> None:
    """Suspending waits until the host has rescinded them; closing the primary makes a real host do so."""
    b = between(host="ws2022").boot()
    assert b.open() == 0
    sub = b.offer(200, index=1)
    suspending = b.start(vmbus_pm.vmbus_bus_suspend, b.v)
    b.run(5_000)
    assert not suspending.done
    # New offers and rescinds are ignored by now: 6.1 waits for ever, unless the rescind was queued before.
    b.rescind(sub)
    assert not suspending.done


def test_a_rescind_that_was_queued_in_time_ends_the_wait(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    assert b.open() == 0
    sub = b.offer(200, index=1)
    b.rescind(sub)
    b.call(b.exports.vmbus_close, b.channel)
    assert b.v.connection.nr_chan_close_on_suspend == 0
    suspended(b)
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0
    assert b.v.connection.ready_for_suspend_event.done == 0


def test_hv_sock_channels_are_rescinded_by_force(between: Callable[..., Any]) -> None:
    """User space may hold the connection: the channel stays, rescinded and without a relid."""
    b = between(host="ws2022").boot()
    told: list[Any] = []
    sock = b.offer(
        210, instance=bytes([6] * 16), kind=bytes(guids.HV_ND_GUID), flags=VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER
    )
    sock.chn_rescind_callback = told.append
    suspended(b)
    assert told == [sock]
    assert sock.rescind
    assert sock.offermsg.child_relid == INVALID_RELID
    assert sock in b.v.connection.chn_list
    assert b.call(vmbus_pm.vmbus_bus_resume, b.v) == 0, "it is not waited for"
    assert b.v.connection.nr_chan_close_on_suspend == 0
    b.sent.clear()
    b.call(b.exports.vmbus_hvsock_device_unregister, sock)
    assert b.released() == [], "the number may be another channel's by now"
    assert not [line for line in b.lines if "WARNING" in line]


def test_resuming_what_was_never_suspended_warns(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    b.call(channel_mgmt.vmbus_initiate_unload, b.v, False)
    b.start(vmbus_pm.vmbus_bus_resume, b.v)
    assert [line for line in b.lines if line.endswith("vmbus_drv.c:2464 vmbus_bus_resume")]


def test_the_last_processor_gets_the_same_pages_again(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    synic = b.session.host.synic.vps[b.machine.boot_vp.vp_index]
    before = (synic.simp, synic.siefp, synic.scontrol, list(synic.sints))

    def round_trip() -> None:
        flags = b.kernel.irq.local_irq_save()
        assert vmbus_pm.hv_synic_suspend(b.v) == 0
        assert not synic.simp & 1
        assert not synic.scontrol & 1
        vmbus_pm.hv_synic_resume(b.v)
        b.kernel.irq.local_irq_restore(flags)

    b.call(round_trip)
    assert (synic.simp, synic.siefp, synic.scontrol, list(synic.sints)) == before


def test_a_refusal_wakes_those_that_slept_already(between: Callable[..., Any]) -> None:
    """Youngest device first, and back in the other order (drivers/base/power/main.c)."""
    b = between(host="ws2022").boot()
    b.offer(200, instance=bytes([5] * 16))
    old, new = b.devices
    log: list[tuple[str, str]] = []
    answer = {old.name: -16, new.name: 0}

    def suspend(dev: Any) -> int:
        log.append(("suspend", dev.name))
        return answer[dev.name]

    def resume(dev: Any) -> int:
        log.append(("resume", dev.name))
        return -5

    old.driver.suspend, old.driver.resume = suspend, resume
    assert b.call(b.kernel.power.create_image) == -16
    assert log == [("suspend", new.name), ("suspend", old.name), ("resume", new.name)]
    assert f"probe {new.name}: PM: failed to thaw noirq: error -5" in b.lines
    assert b.v.connection.conn_state is State.CONNECTED


def test_a_core_that_refuses_brings_everything_back(between: Callable[..., Any]) -> None:
    b = between(host="ws2022", cpus=4).boot()
    drivers(b, [])
    assert b.open() == 0
    ops = b.kernel.power.register_syscore_ops(lambda: 0, lambda: undone.append(1))
    undone: list[int] = []
    first = b.kernel.power.register_syscore_ops(lambda: -16, lambda: undone.append(2))
    assert b.call(b.kernel.power.create_image) == -16
    assert undone == [], "the last registered is asked first, and nothing was done before it"
    assert "PM: hibernation: Some system devices failed to power down, aborting" in b.lines
    assert b.v.connection.conn_state is State.CONNECTED
    assert list(b.kernel.cpus.for_each_online_cpu()) == [0, 1, 2, 3]
    b.kernel.power.unregister_syscore_ops(first)
    assert b.call(b.kernel.power.create_image) == 0
    assert undone == [1]
    b.kernel.power.unregister_syscore_ops(ops)


def test_the_hypercall_page_goes_and_comes(between: Callable[..., Any]) -> None:
    """x86 only (arch/x86/hyperv/hv_init.c): the page and CPU 0's VP assist page are off while the image is made."""
    b = between(host="ws2022", arch="x86_64").boot()
    drivers(b, [])
    assert b.open() == 0

    def assist() -> int:
        return sum(entry.via == "vp assist" for entry in b.machine.ledger.entries())

    before, seen = assist(), list[tuple[int, bool]]()
    assert before

    def asleep() -> int:
        seen.append((before - assist(), b.kernel.arch.hv_is_hyperv_initialized()))
        return 0

    ops = b.kernel.power.register_syscore_ops(asleep, lambda: None)
    b.kernel.power._syscore.insert(0, b.kernel.power._syscore.pop())  # asked last, when all others sleep
    assert b.call(b.kernel.power.create_image) == 0
    assert len(seen) == 1
    assert seen[0][0] >= 1
    assert not seen[0][1]
    assert assist() == before
    assert b.call(b.kernel.arch.hv_is_hyperv_initialized)
    b.kernel.power.unregister_syscore_ops(ops)
