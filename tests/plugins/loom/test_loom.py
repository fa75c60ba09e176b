"""The loom plugin: a device with sub-channels, driven in every way that VMBus has, on every kind of guest."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.abi.vmbus import HvCallbackMode, VmbusChannelState

AMD64 = "debian12-6.1.192-cloud-amd64"
ARM64 = "debian12-6.1.192-cloud-arm64"
GUESTS = [
    (AMD64, {}),
    (AMD64, {"host": "ws2022", "generation": 1}),
    (AMD64, {"host": "ws2016", "generation": 2, "cpus": 2}),
    (ARM64, {}),
    ("azurelinux3-64k-aarch64", {}),
    ("alpine-virt.x86", {"host": "ws2016", "generation": 1}),
]


def exercise(guest: Any, loom: Any, channel: Any) -> dict[str, int]:
    """Use every function that sends on one channel; the result of each."""
    driver = guest.driver
    data = bytes(range(256)) * 7
    work = {
        "note": lambda: driver.loom_note(loom, channel),
        "sum": lambda: driver.loom_sum(loom, channel, data),
        "getid": lambda: driver.loom_sum_getid(loom, channel, b"odd"),
        "pagebuffer": lambda: driver.loom_gather(loom, channel, data * 3),
        "mpb_desc": lambda: driver.loom_scatter(loom, channel, 9001, 77),
        "in-band": lambda: driver.loom_tick(loom, channel, 40),
        "transfer pages": lambda: driver.loom_deliver(loom, channel, 25, 3000),
    }
    return {name: guest.call(fn) for name, fn in work.items()}


@pytest.mark.parametrize(("config", "vm"), GUESTS)
@pytest.mark.parametrize("parameters", [{}, {"monitored": True, "monitor_latency": 500}, {"answer_latency": 20_000}])
def test_every_send_function_on_every_channel(config: str, vm: dict[str, Any], parameters: Any, loom: Any) -> None:
    guest = loom(config, vm, looms=[parameters])
    (one,) = guest.looms
    cpus = vm.get("cpus", 4)
    assert [channel.offermsg.sub_channel_index for channel in one.channels] == list(range(cpus))
    for channel in one.channels:
        assert not any(exercise(guest, one, channel).values())
        state = channel.per_channel_state
        assert (state.events, state.bad, state.notes) == (65, 0, 1)
        assert channel.offermsg.monitor_allocated == parameters.get("monitored", False)
        assert channel.requestor.req_bitmap.count(1) == 0
    assert guest.findings == []


def test_channels_are_spread_and_each_has_its_callback_mode(loom: Any) -> None:
    guest = loom(vm={"cpus": 8, "numa": [{"cpus": 4, "memory": "512M"}] * 2}, looms=[{"subchannels": 7}])
    (one,) = guest.looms
    assert sorted(channel.target_cpu for channel in one.channels) == list(range(8))
    assert [channel.target_cpu // 4 for channel in one.channels] == [0, 1] * 4 or [1, 0] * 4
    modes = [channel.callback_mode for channel in one.channels]
    assert modes[:4] == [*HvCallbackMode, HvCallbackMode.HV_CALL_BATCHED]
    assert {channel.state for channel in one.channels} == {VmbusChannelState.CHANNEL_OPENED_STATE}


def test_reopen_brings_new_sub_channels(loom: Any) -> None:
    guest = loom()
    (one,) = guest.looms
    before = [channel.offermsg.child_relid for channel in one.channels]
    assert guest.call(guest.driver.loom_reopen, one) == 0
    guest.settle()
    after = [channel.offermsg.child_relid for channel in one.channels]
    assert len(after) == 4
    assert after[0] == before[0]
    for channel in one.channels:
        assert not any(exercise(guest, one, channel).values())
    assert guest.findings == []


def test_what_is_taken_back_when_the_driver_goes(loom: Any) -> None:
    """Not a page stays shared or allocated, and no channel open, after the driver let go of its device."""
    guest = loom(looms=[])
    session = guest.session
    free, shared = session.kernel.mm.nr_free_pages(), session.machine.ledger.entries()
    guest.offer(0)
    guest.settle()
    (one,) = guest.looms
    for channel in one.channels:
        exercise(guest, one, channel)
    assert session.kernel.mm.nr_free_pages() < free
    guest.call(session.kernel.driver.device_release_driver, one.dev)
    guest.settle()
    assert session.kernel.mm.nr_free_pages() == free
    assert session.machine.ledger.entries() == shared
    assert [channel.state.name for channel in guest.channels if channel.device_obj is one.dev] == ["CHANNEL_OPEN_STATE"]
    assert one.dev.channel.sc_list == []
    assert guest.call(session.kernel.driver.device_driver_attach, guest.driver.driver, one.dev) == 0
    guest.settle()
    assert len(guest.looms[0].channels) == 4


def test_a_refused_open_fails_the_probe(loom: Any) -> None:
    guest = loom(looms=[{"refused_opens": 1}])
    assert guest.looms == []
    texts = [line.text for line in guest.session.report().dmesg]
    assert any(text.endswith("unable to open channel: -11") for text in texts)


def test_the_plugin_shows_in_abi_and_report(loom: Any, loom_plugins: Any) -> None:
    report = loom().session.report()
    device = next(device for device in report.devices if device.driver == "hv_loom")
    assert (device.module, device.built, device.state, device.protocol) == ("hv_loom", "m", "bound", "1.0")
    (wires,) = [modules for info, modules in loom_plugins.call("hv_abi") if info.name == "hv_loom"]
    assert wires[0].LoomMessage.SIZE == 32


@pytest.mark.parametrize("config", [AMD64, ARM64])
def test_a_cpu_goes_and_comes_back(config: str, loom: Any) -> None:
    guest = loom(config, {"cpus": 8}, looms=[{"subchannels": 1}])
    (one,) = guest.looms
    cpuhp = guest.session.kernel.cpuhp
    bound = {channel.target_cpu for channel in guest.channels}
    free = next(cpu for cpu in range(1, 8) if cpu not in bound)
    for _ in range(3):
        assert guest.call(cpuhp.cpu_down, max(bound)) == -16
        assert guest.call(cpuhp.cpu_down, free) == 0
        assert free not in list(guest.session.kernel.cpus.for_each_online_cpu())
        assert guest.call(cpuhp.cpu_up, free) == 0
    assert not any(exercise(guest, one, one.channels[1]).values())
    assert guest.findings == []


def test_an_offer_of_a_device_that_the_guest_still_has_is_lost(loom: Any) -> None:
    """6.1 takes it for one after hibernation (vmbus_onoffer): the old channel gets the new relid, the old one leaks."""
    guest = loom(looms=[{"subchannels": 0}])
    server = guest.session.server
    old = guest.looms[0].dev.channel.offermsg.child_relid
    server.reoffer("loom0", at_once=True)
    guest.settle()
    relids = [channel.offermsg.child_relid for channel in guest.channels]
    assert old not in relids
    assert [str(channel.state) for relid, channel in server.by_relid.items() if relid == old] == ["rescinded"]
    texts = [line.text for line in guest.session.report().dmesg]
    assert any("WARNING" in text and "vmbus_onoffer" in text for text in texts)


def test_an_offer_behind_the_release_is_a_new_device(loom: Any) -> None:
    guest = loom(looms=[{"subchannels": 2}])
    before = guest.looms[0]
    guest.session.server.reoffer("loom0")
    guest.settle()
    (after,) = guest.looms
    assert after is not before
    assert len(after.channels) == 3
    assert not any(exercise(guest, after, after.channels[2]).values())
