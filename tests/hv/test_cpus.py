"""Channels and CPUs in a running guest: placement, moving an interrupt, CPUs that leave and come back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.hv import hv as hv_c
from hvkernel.hv import vmbus_drv
from hvkernel.machine import VpTopology

MODIFY = Type.CHANNELMSG_MODIFYCHANNEL
RESPONSE = Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE
EIO, EBUSY, EINVAL = -5, -16, -22
TWO_NODES = [VpTopology(vp, 2 * vp, vp // 4) for vp in range(8)]
"""Eight processors on two nodes; hardware ids with gaps."""


def store(b: Any, channel: Any, cpu: int) -> Any:
    return b.call(vmbus_drv.target_cpu_store, b.v, channel, cpu)


def moved(b: Any) -> list[tuple[int, int]]:
    """(relid, VP) of the MODIFYCHANNELs since ``sent`` was cleared."""
    return [struct.unpack_from("<II", message, 8) for _, _, message in b.sent if message[0] == MODIFY]


@pytest.fixture
def b(between: Callable[..., Any]) -> Any:
    made = between(cpus=4, host="ws2022").boot()
    assert made.open() == 0
    made.sent.clear()
    return made


# placement -----------------------------------------------------------------------------------------------------


def test_performance_channels_go_round_two_nodes(between: Callable[..., Any]) -> None:
    b = between(host="ws2022", cpus=8, vps=TWO_NODES).boot()
    homes = [b.offer(200 + n, instance=bytes([n] * 16), kind=bytes(guids.HV_ND_GUID)).target_cpu // 4 for n in range(8)]
    assert homes in ([0, 1] * 4, [1, 0] * 4), "one node after the other"
    targets = [b.v.connection.channels[200 + n].target_cpu for n in range(8)]
    assert len(set(targets)) >= 6, "and in a node no CPU twice while another is free"
    slow = b.offer(300, instance=bytes([77] * 16))
    assert slow.target_cpu == 0


def test_sub_channels_of_a_device_have_a_cpu_each_until_there_are_no_more(between: Callable[..., Any]) -> None:
    b = between(host="ws2022", cpus=8, vps=TWO_NODES).boot()
    kind = bytes(guids.HV_ND_GUID)
    primary = b.offer(200, instance=bytes([1] * 16), kind=kind)
    subs = [
        b.offer(200 + n, instance=primary.offermsg.if_instance, kind=kind, index=n).target_cpu for n in range(1, 12)
    ]
    assert sorted([primary.target_cpu, *subs[:7]]) == list(range(8))
    assert all(0 <= cpu < 8 for cpu in subs[7:])
    assert all(one.primary_channel is primary for one in primary.sc_list)


def test_the_open_message_names_the_vp_of_the_target_cpu(between: Callable[..., Any]) -> None:
    b = between(host="ws2022", cpus=8, vps=TWO_NODES).boot()
    channel = b.offer(200, instance=bytes([1] * 16), kind=bytes(guids.HV_ND_GUID))
    b.sent.clear()
    assert b.open(channel) == 0
    (message,) = [one for _, _, one in b.sent if one[0] == Type.CHANNELMSG_OPENCHANNEL]
    relid, openid, gpadl, target_vp, _ = struct.unpack_from("<IIIII", message, 8)
    assert (relid, openid, gpadl) == (200, 200, channel.ringbuffer_gpadlhandle.gpadl_handle)
    assert target_vp == b.v.hv_common.hv_cpu_number_to_vp_number(channel.target_cpu)


# moving --------------------------------------------------------------------------------------------------------


def test_where_it_may_not_go(b: Any) -> None:
    assert store(b, b.channel, 4) == EINVAL, "no such CPU"
    assert store(b, b.channel, 0xFFFF_FFFF) == EINVAL
    assert b.call(b.kernel.cpuhp.cpu_down, 3) in (0, EBUSY)
    if not b.kernel.cpus.cpu_online(3):
        assert store(b, b.channel, 3) == EINVAL
    assert store(b, b.channel, b.channel.target_cpu) == 0, "nothing to do, nothing to say"
    assert moved(b) == []
    b.call(b.exports.vmbus_close, b.channel)
    assert store(b, b.channel, 1) == EIO, "not open"


@pytest.mark.parametrize(("host", "version", "answers"), [("ws2019", 0x50002, False), ("ws2022", 0x50003, True)])
def test_the_answer_counts_from_5_3_on(between: Callable[..., Any], host: str, version: int, answers: bool) -> None:
    b = between(cpus=4, host=host).boot()
    assert b.v.vmbus_proto_version == version
    assert b.open() == 0
    b.keep_kinds(MODIFY)
    b.sent.clear()
    moving = b.start(vmbus_drv.target_cpu_store, b.v, b.channel, 2)
    assert moved(b) == [(b.relid, b.v.hv_common.hv_cpu_number_to_vp_number(2))]
    assert moving.done is not answers
    if answers:
        b.post(RESPONSE, b.relid, 0)
    assert (moving.value, b.channel.target_cpu) == (0, 2)


@pytest.mark.parametrize("version", [0x40001, 0x50000, 0x50001])
def test_versions_that_never_answer(between: Callable[..., Any], version: int) -> None:
    b = between(cpus=4, host="ws2022").boot()
    assert b.open() == 0
    b.v.vmbus_proto_version = version
    b.keep_kinds(MODIFY)
    assert store(b, b.channel, 2) == 0
    assert b.channel.target_cpu == 2


@pytest.mark.parametrize("host", ["ws2016", "ws2012r2"])
def test_versions_that_do_not_know_it(between: Callable[..., Any], host: str) -> None:
    b = between(cpus=4, host=host).boot()
    assert b.open() == 0
    b.sent.clear()
    assert store(b, b.channel, 2) == EIO
    assert (b.sent, b.channel.target_cpu) == ([], 0)


def test_a_refusal(b: Any) -> None:
    b.keep_kinds(MODIFY)
    moving = b.start(vmbus_drv.target_cpu_store, b.v, b.channel, 2)
    b.post(RESPONSE, b.relid, 0xC0000001)
    assert (moving.value, b.channel.target_cpu) == (EIO, 0)
    b.keep = lambda message: False
    assert store(b, b.channel, 2) == 0


def test_an_answer_that_never_comes(b: Any) -> None:
    """The writer waits for ever with the CPU lock held; other channels still open and close."""
    b.keep_kinds(MODIFY)
    moving = b.start(vmbus_drv.target_cpu_store, b.v, b.channel, 2)
    b.run(60_000)
    assert not moving.done
    assert b.channel.target_cpu == 0
    assert not b.v.connection.chn_mutex().locked(), "else no rescind could ever end the wait"
    leaving = b.start(b.kernel.cpuhp.cpu_down, 3)
    b.run(1000)
    assert not leaving.done, "no CPU comes or goes meanwhile"
    b.post(RESPONSE, b.relid, 0)
    b.run(1000)
    assert (moving.value, b.channel.target_cpu) == (0, 2)
    assert leaving.done


def test_the_map_of_cpus_follows_a_performance_channel(b: Any) -> None:
    channel = b.offer(200, instance=bytes([1] * 16), kind=bytes(guids.HV_ND_GUID))
    assert b.open(channel) == 0
    old = channel.target_cpu
    new = next(cpu for cpu in (1, 2, 3) if cpu != old)
    others = {one.target_cpu for one in b.v.connection.chn_list if one is not channel and one.device_id < 5}
    told: list[tuple[int, int]] = []
    channel.change_target_cpu_callback = lambda one, before, after: told.append((before, after))
    assert store(b, channel, new) == 0
    assert told == [(old, new)]
    assert b.v.hv_numa_map[0] >> new & 1
    assert b.v.hv_numa_map[0] >> old & 1 == int(old in others)


# interrupts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", [0, 1, 3])
def test_an_interrupt_on_any_cpu_finds_its_channel(b: Any, cpu: int) -> None:
    """The host may still signal the old VP after a move; the flags of every CPU lead to the same table."""
    assert store(b, b.channel, 2) == 0
    came: list[int] = []
    b.channel.onchannel_callback = lambda context: came.append(b.kernel.cpus.smp_processor_id())
    before = b.channel.interrupts
    vp = b.v.hv_common.hv_cpu_number_to_vp_number(cpu)
    b.session.host.synic.signal_event(vp, 2, b.relid)
    b.run(20)
    assert came == [cpu]
    assert b.channel.interrupts == before + 1


def test_an_interrupt_for_nobody(b: Any) -> None:
    lines = b.lines
    for relid in (0, 1500, 2047):
        b.session.host.synic.signal_event(b.machine.boot_vp.vp_index, 2, relid)
    b.run(20)
    assert b.lines == lines
    page = b.v.cpu_context[0].synic_event_page
    assert not any(b.v.memory.read(page.gpa + 2 * 256, 256)), "the bits are taken all the same"


# CPUs that leave -----------------------------------------------------------------------------------------------


def free_cpu(b: Any) -> int:
    used = {one.target_cpu for one in b.v.connection.chn_list}
    return int(next(cpu for cpu in range(b.kernel.cpus.num_present_cpus() - 1, 0, -1) if cpu not in used))


def test_the_connect_cpu_stays(b: Any) -> None:
    """Even when no channel targets it: it gets the channel messages."""
    for channel in b.v.connection.chn_list:
        channel.target_cpu = 1
    assert b.call(hv_c.hv_synic_cleanup, b.v, 0) == EBUSY
    assert b.call(b.kernel.cpuhp.cpu_down, 0) == EBUSY


def test_a_cpu_stays_while_a_channel_is_bound_to_it(between: Callable[..., Any]) -> None:
    b = between(cpus=8, host="ws2022").boot()
    assert b.open() == 0
    cpu = free_cpu(b)
    assert store(b, b.channel, cpu) == 0
    down, up = b.kernel.cpuhp.cpu_down, b.kernel.cpuhp.cpu_up
    assert b.call(down, cpu) == EBUSY
    assert b.kernel.cpus.cpu_online(cpu)
    assert store(b, b.channel, 0) == 0
    assert b.call(down, cpu) == 0
    assert not b.kernel.cpus.cpu_online(cpu)
    assert store(b, b.channel, cpu) == EINVAL, "offline"
    assert b.call(up, cpu) == 0
    assert store(b, b.channel, cpu) == 0
    b.session.host.synic.signal_event(b.v.hv_common.hv_cpu_number_to_vp_number(cpu), 2, b.relid)
    before = b.channel.interrupts
    b.run(20)
    assert b.channel.interrupts == before + 1, "its SynIC is on again"


def test_a_sub_channel_holds_its_cpu_too(between: Callable[..., Any]) -> None:
    b = between(cpus=8, host="ws2022").boot()
    assert b.open() == 0
    cpu = free_cpu(b)
    sub = b.offer(200, index=1)
    assert b.open(sub) == 0
    assert store(b, sub, cpu) == 0
    assert b.call(b.kernel.cpuhp.cpu_down, cpu) == EBUSY
    b.rescind(sub)
    b.call(b.exports.vmbus_close, b.channel)
    assert b.call(b.kernel.cpuhp.cpu_down, cpu) == 0


@pytest.mark.parametrize(("host", "looks"), [("ws2022", True), ("ws2016", False)])
def test_a_channel_interrupt_on_its_way_is_waited_for(between: Callable[..., Any], host: str, looks: bool) -> None:
    """A flag that stays set refuses the CPU after three waits of 10 to 20 ms; hosts before 4.1 move no interrupts."""
    b = between(cpus=8, host=host).boot()
    cpu = free_cpu(b)
    page = b.v.cpu_context[cpu].synic_event_page
    b.v.memory.sync_set_bit(page.gpa + 2 * 256, 5)
    before = b.machine.clock.now
    assert b.call(b.kernel.cpuhp.cpu_down, cpu) == (EBUSY if looks else 0)
    waited = (b.machine.clock.now - before) // 10_000
    assert (30 <= waited <= 70) is looks
    if looks:
        b.v.memory.sync_test_and_clear_bit(page.gpa + 2 * 256, 5)
        b.v.memory.sync_set_bit(page.gpa + 2 * 256, 0)
        assert b.call(b.kernel.cpuhp.cpu_down, cpu) == 0, "flag 0 belongs to the messages and counts for nothing"


def test_a_flag_that_is_handled_in_time(between: Callable[..., Any]) -> None:
    b = between(cpus=8, host="ws2022").boot()
    cpu = free_cpu(b)
    page = b.v.cpu_context[cpu].synic_event_page
    b.v.memory.sync_set_bit(page.gpa + 2 * 256, 5)
    b.machine.clock.at(b.machine.clock.now + 150_000, lambda: b.v.memory.sync_test_and_clear_bit(page.gpa + 2 * 256, 5))
    assert b.call(b.kernel.cpuhp.cpu_down, cpu) == 0


def test_without_a_connection_every_cpu_may_leave(b: Any) -> None:
    from hvkernel.hv import channel_mgmt

    assert store(b, b.channel, 2) == 0
    b.call(channel_mgmt.vmbus_initiate_unload, b.v, False)
    assert b.call(b.kernel.cpuhp.cpu_down, 2) == 0
