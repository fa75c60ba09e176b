"""Channel messages that a broken or hostile host sends: the guest says what 6.1 says, once, and goes on.

Cases come from the table of messages, so that none is forgotten.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import CHANNEL_MESSAGES, VmbusChannelState
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.guest.sched import Work
from hvkernel.hv.channel_mgmt import channel_message_table

COUNT = int(Type.CHANNELMSG_COUNT)
NUMBERS = (*range(COUNT), COUNT, COUNT + 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
OFFER = int(Type.CHANNELMSG_OFFERCHANNEL)


def said(b: Any, count: int) -> list[str]:
    """What was printed since there were ``count`` lines, without the frame of the warnings."""
    frame = ("------------[", "WARNING: CPU", "---[ end trace")
    return [line for line in b.lines[count:] if not line.startswith(frame)]


def signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def name(number: int) -> str:
    return Type(number).name if number < COUNT else f"{number:#x}"


def test_every_message_of_the_table_is_tried() -> None:
    assert {int(row.number) for row in CHANNEL_MESSAGES} <= set(NUMBERS)
    assert set(channel_message_table) <= set(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS, ids=name)
def test_every_type_at_every_length(between: Callable[..., Any], number: int) -> None:
    b = between().boot()
    entry = channel_message_table.get(number)
    minimum = entry.min_payload_len if entry is not None else 0
    start = len(b.lines)
    wanted: list[str] = []
    bodies = [bytes([fill]) * 232 for fill in (0, 0xFF)]
    for size in (0, 1, 7, 8, max(minimum - 1, 0), 241, 255):
        for body in bodies:
            b.post_raw(size, struct.pack("<II", number, 0) + body)
        if number >= COUNT:
            line = f"unknown msgtype={signed(number)}"
        elif size > 240:
            line = f"payload size is too large ({size})"
        elif entry is not None and size < minimum:
            line = f"message too short: msgtype={number} len={size}"
        else:
            continue
        if not any(line.split("=")[0].split("(")[0] == old.split("=")[0].split("(")[0] for old in wanted):
            wanted.append(line)
    assert said(b, start) == wanted
    devices = len(b.v.connection.chn_list)
    if number != OFFER:  # a whole offer makes a device, whatever it says
        for size in {minimum, 200, 240} - {0}:
            for body in (*bodies, *bodies):
                b.post_raw(size, struct.pack("<II", number, 0) + body)
        assert len(b.v.connection.chn_list) == devices
        assert said(b, start) == wanted
    assert b.open() == 0, "the guest goes on"
    assert b.channel.state is VmbusChannelState.CHANNEL_OPENED_STATE


@pytest.mark.parametrize("relid", [2048, 0x8000_0000, 0xFFFF_FFFF])
def test_a_rescind_of_a_relid_that_cannot_be(between: Callable[..., Any], relid: int) -> None:
    b = between().boot()
    place = "drivers/hv/connection.c:383 relid2channel"
    for count in (1, 2):
        b.post(Type.CHANNELMSG_RESCIND_CHANNELOFFER, relid)
        assert sum(line.endswith(place) for line in b.lines) == count, "WARN_ON says it every time"
    assert b.sent == []


@pytest.mark.parametrize("relid", [0, 77, 2047])
def test_a_rescind_of_a_relid_that_is_not_offered(between: Callable[..., Any], relid: int) -> None:
    b = between().boot()
    before = b.lines
    b.post(Type.CHANNELMSG_RESCIND_CHANNELOFFER, relid)
    assert (b.lines, b.sent) == (before, [])


def offer(
    b: Any, relid: int, instance: bytes, kind: bytes = guids.HV_KVP_GUID, index: int = 0, flags: int = 0
) -> bytes:
    """An offer like the KVP device's, for something else."""
    message = bytearray(b.channel.offermsg.raw)
    message[8:40] = kind + instance
    struct.pack_into("<H", message, 56, flags)
    struct.pack_into("<H", message, 180, index)
    struct.pack_into("<I", message, 184, relid)
    return bytes(message)


def test_an_offer_with_a_relid_that_cannot_be(between: Callable[..., Any]) -> None:
    b = between().boot()
    b.keep = lambda message: True
    b.post(OFFER, raw=offer(b, 5000, bytes(range(16)))[8:])
    assert [line for line in b.lines if line.endswith("channel_mgmt.c:386 vmbus_channel_map_relid")]
    assert b.devices[-1].name == "03020100-0504-0706-0809-0a0b0c0d0e0f", "a device that no interrupt finds"
    assert b.channel.state is VmbusChannelState.CHANNEL_OPEN_STATE


def test_the_same_offer_twice(between: Callable[..., Any]) -> None:
    """6.1 takes the second for one of after hibernation: it warns, follows the relid, and cannot suspend any more."""
    from hvkernel.hv import vmbus_pm

    b = between().boot()
    channels, old = len(b.v.connection.chn_list), b.relid
    b.keep = lambda message: True
    for _ in range(2):
        b.post(OFFER, raw=offer(b, 99, b.channel.offermsg.if_instance)[8:])
    assert sum(line.endswith("channel_mgmt.c:1088 vmbus_onoffer") for line in b.lines) == 2
    assert (len(b.v.connection.chn_list), b.relid) == (channels, 99)
    assert b.v.connection.channels[99] is b.channel
    assert b.v.connection.channels[old] is b.channel, "nobody takes the old number out"
    assert b.v.connection.nr_chan_fixup_on_resume == -2
    b.keep = lambda message: False
    assert b.call(vmbus_pm.vmbus_bus_suspend, b.v) == -16
    assert b.lines[-1] == "hv_vmbus: Can not suspend due to a previous failed resuming"


def test_a_sub_channel_of_nothing_is_a_device(between: Callable[..., Any]) -> None:
    b = between().boot()
    b.keep = lambda message: True
    b.post(OFFER, raw=offer(b, 99, bytes(range(16)), index=3)[8:])
    assert b.devices[-1].channel.offermsg.sub_channel_index == 3
    assert b.channel.primary_channel is None
    assert b.v.connection.nr_chan_close_on_suspend == 1, "and it counts as one that goes before hibernation"


def test_an_unknown_class_is_named_and_stays_without_driver(between: Callable[..., Any]) -> None:
    b = between().boot()
    kind = bytes.fromhex("00112233445566778899aabbccddeeff")
    b.keep = lambda message: True
    b.post(OFFER, raw=offer(b, 99, bytes(range(16)), kind=kind)[8:])
    assert b.lines[-1] == "hv_vmbus: Unknown GUID: 33221100-5544-7766-8899-aabbccddeeff"
    channel = b.v.connection.channels[99]
    assert (channel.device_id, channel.target_cpu, channel.device_obj.driver) == (16, 0, None)


def test_an_offer_before_the_version_is_agreed_on(between: Callable[..., Any]) -> None:
    """channels[] is made after the negotiation: 6.1 stores through a null pointer in its worker."""
    b = between()
    b.keep_kinds(Type.CHANNELMSG_INITIATE_CONTACT)
    b.kernel.start()
    b.run(400)
    message = bytearray(196)
    message[0] = OFFER
    message[8:24] = guids.HV_KVP_GUID
    struct.pack_into("<I", message, 184, 9)
    b.post(OFFER, raw=bytes(message[8:]))
    assert "BUG: kernel NULL pointer dereference, address: 0000000000000048" in b.lines


def test_offers_after_the_end_are_dropped_and_never_counted_down(between: Callable[..., Any]) -> None:
    from hvkernel.hv import channel_mgmt

    b = between().boot()
    b.call(channel_mgmt.vmbus_initiate_unload, b.v, False)
    before = len(b.v.connection.chn_list)
    b.post(OFFER, raw=offer(b, 99, bytes(range(16)))[8:])
    assert len(b.v.connection.chn_list) == before
    assert b.v.connection.offer_in_progress == 1, "the work returns early: 6.1 leaves the counter up"


ANSWERS = (
    (Type.CHANNELMSG_OPENCHANNEL, Type.CHANNELMSG_OPENCHANNEL_RESULT, lambda b, m: (b.relid + 1, b.relid, 0)),
    (Type.CHANNELMSG_OPENCHANNEL, Type.CHANNELMSG_OPENCHANNEL_RESULT, lambda b, m: (b.relid, b.relid + 1, 0)),
    (Type.CHANNELMSG_GPADL_HEADER, Type.CHANNELMSG_GPADL_CREATED, lambda b, m: (b.relid + 1, handle(m), 0)),
    (Type.CHANNELMSG_GPADL_HEADER, Type.CHANNELMSG_GPADL_CREATED, lambda b, m: (b.relid, handle(m) + 1, 0)),
    (Type.CHANNELMSG_GPADL_HEADER, Type.CHANNELMSG_GPADL_TORNDOWN, lambda b, m: (handle(m),)),
    (Type.CHANNELMSG_OPENCHANNEL, Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE, lambda b, m: (b.relid, 0)),
)


def handle(message: bytes) -> int:
    return int.from_bytes(message[12:16], "little")


@pytest.mark.parametrize(("asked", "answer", "fields"), ANSWERS)
def test_answers_to_something_else_do_not_wake_an_open(
    between: Callable[..., Any], asked: Type, answer: Type, fields: Callable[[Any, bytes], tuple[int, ...]]
) -> None:
    b = between().boot()
    b.keep_kinds(asked)
    opening = b.start_open()
    message = b.sent[-1][2]
    assert message[0] == asked
    b.post(answer, *fields(b, message))
    assert not opening.done
    b.keep = lambda one: False
    if asked == Type.CHANNELMSG_GPADL_HEADER:
        b.post(Type.CHANNELMSG_GPADL_CREATED, b.relid, handle(message), 0xC0000001)
        assert opening.value == -122
        assert b.lines[-1] == "hv_vmbus: Failed to establish GPADL: err = 0xc0000001"
    else:
        b.post(Type.CHANNELMSG_OPENCHANNEL_RESULT, b.relid, b.relid, 5)
        assert opening.value == -11


def test_the_same_answer_twice_counts_once(between: Callable[..., Any]) -> None:
    b = between().boot()
    b.keep_kinds(Type.CHANNELMSG_OPENCHANNEL)
    opening = b.start_open()
    payload = struct.pack("<IIIII", Type.CHANNELMSG_OPENCHANNEL_RESULT, 0, b.relid, b.relid, 1)
    for _ in range(2):
        b.session.host.synic.post_message(b.machine.boot_vp.vp_index, 2, 1, 1, payload)
    b.run(20)
    assert opening.value == -11
    b.keep = lambda one: False
    assert b.open() == 0, "nothing of the second answer is left"


def test_a_sub_channel_with_the_relid_of_another(between: Callable[..., Any]) -> None:
    """sysfs has one directory per relid: the second is given up, and takes the first one's number with it."""
    b = between().boot()
    assert b.open() == 0
    first = b.offer(99, index=1)
    b.sent.clear()
    assert b.offer(99, index=2) is None, "its mapping is undone"
    assert b.channel.sc_list == [first]
    assert b.released() == [99]
    path = b.kernel.driver.dev_path(b.devices[-1])
    assert b.lines[-2:] == [
        f"sysfs: cannot create duplicate filename '/{path}/channels/99'",
        "kobject_add_internal failed for 99 with -EEXIST, don't try to register things with the same name"
        " in the same directory.",
    ]


def test_a_second_device_of_the_same_name(between: Callable[..., Any]) -> None:
    """Another class, the same instance, and a sub-channel index that hides it: 6.1 ends in a BUG_ON."""
    b = between().boot()
    b.keep = lambda message: True
    b.post(OFFER, raw=offer(b, 99, b.channel.offermsg.if_instance, kind=guids.HV_TS_GUID, index=1)[8:])
    name = b.devices[0].name
    at = b.lines.index("hv_vmbus: Unable to register child device")
    assert b.lines[at - 1].startswith(f"kobject_add_internal failed for {name} with -EEXIST")
    assert b.lines[at + 1] == "kernel BUG at drivers/hv/channel_mgmt.c:444!"


def test_a_sub_channel_before_its_primary_has_a_device(between: Callable[..., Any]) -> None:
    b = between().boot()
    gate = b.kernel.sched.init_completion()
    queue = b.v.connection.handle_primary_chan_wq
    held = Work(lambda work: b.kernel.sched.wait_for_completion(gate))
    b.call(b.kernel.workqueue.queue_work_on, 0, queue, held)
    b.keep = lambda message: True
    b.post(OFFER, raw=offer(b, 98, bytes(range(16)))[8:])
    b.post(OFFER, raw=offer(b, 99, bytes(range(16)), index=1)[8:])
    assert "BUG: kernel NULL pointer dereference, address: 0000000000000000" in b.lines
