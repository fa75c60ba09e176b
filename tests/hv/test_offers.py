"""What the fields of an offer do to a channel: signalling, monitor, flags, kind of device."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER, VMBUS_EVENT_CONNECTION_ID
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.hv import channel as channel_c
from hvkernel.hv.vmbus_devs import VMBUS_DEVS

AT = {"flags": 56, "index": 180, "relid": 184, "monitorid": 188, "monitor": 189, "dedicated": 190, "connection": 192}
"""Offsets in struct vmbus_channel_offer_channel (include/linux/hyperv.h)."""


def offered(b: Any, relid: int = 99, **fields: int) -> Any:
    """Offer a device with these fields, and return its channel."""
    message = bytearray(b.channel.offermsg.raw)
    message[24:40] = bytes([relid] * 16)
    struct.pack_into("<I", message, AT["relid"], relid)
    for name, value in fields.items():
        size = {"monitorid": "B", "monitor": "B", "connection": "<I"}.get(name, "<H")
        struct.pack_into(size, message, AT[name], value)
    b.made.append(relid)
    b.keep = b._answer
    b.post(Type.CHANNELMSG_OFFERCHANNEL, raw=bytes(message[8:]))
    return b.v.connection.channels[relid]


def signals(b: Any, channel: Any) -> tuple[list[tuple[int, int]], bool, int, int]:
    """What vmbus_setevent() does: signalled (connection, flag), interrupt bit, monitor bits, sig_events."""
    ports: Any = b.session.host.ports
    seen: list[tuple[int, int]] = []
    original = type(ports).signal

    def signal(self: Any, connection: int, flag: int) -> int:
        seen.append((connection, flag))
        return 0

    type(ports).signal = signal
    try:
        b.call(channel_c.vmbus_setevent, b.v, channel)
    finally:
        type(ports).signal = original
    relid = channel.offermsg.child_relid
    page, monitor = b.v.connection.int_page, b.v.connection.monitor_pages[1]
    bit = bool(b.v.memory.load8(page.gpa + 2048 + relid // 8) >> relid % 8 & 1)
    return seen, bit, b.v.memory.load32(monitor.gpa + 8 + 8 * channel.monitor_grp), channel.sig_events


def test_a_dedicated_interrupt_is_one_hypercall(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    channel = offered(b, dedicated=1, connection=0x2345)
    assert signals(b, channel) == ([(0x2345, 0)], False, 0, 1)


def test_without_one_a_bit_says_which_channel(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    channel = offered(b, dedicated=0, connection=0x2345)
    assert not channel.is_dedicated_interrupt
    assert signals(b, channel) == ([(0x2345, 0)], True, 0, 1)


@pytest.mark.parametrize(("dedicated", "is_one"), [(0, False), (1, True), (0xFFFE, False), (0xFFFF, True)])
def test_only_the_lowest_bit_says_so(between: Callable[..., Any], dedicated: int, is_one: bool) -> None:
    b = between(host="ws2022").boot()
    assert offered(b, dedicated=dedicated).is_dedicated_interrupt is is_one


@pytest.mark.parametrize(("ident", "group", "bit"), [(0, 0, 0), (37, 1, 5), (127, 3, 31), (255, 7, 31)])
def test_a_monitored_channel(between: Callable[..., Any], ident: int, group: int, bit: int) -> None:
    b = between(host="ws2022").boot()
    channel = offered(b, monitorid=ident, monitor=1)
    assert (channel.monitor_grp, channel.monitor_bit) == (group, bit)
    b.v.memory.write(b.v.connection.monitor_pages[1].gpa, bytes(4096))
    if ident < 128:
        assert signals(b, channel) == ([], True, 1 << bit, 0), "no hypercall, and sig_events counts those"
    channel.low_latency = True
    assert signals(b, channel)[0] != [], "a channel in a hurry takes the hypercall"


def test_reserved_bits_beside_the_monitor_bit(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    assert not offered(b, monitorid=5, monitor=0xFE).offermsg.monitor_allocated
    assert offered(b, relid=98, monitorid=5, monitor=0xFF).offermsg.monitor_allocated


@pytest.mark.parametrize("flags", [1 << bit for bit in range(16)])
def test_flags_change_nothing_but_hv_sock(between: Callable[..., Any], flags: int) -> None:
    b = between(host="ws2022").boot()
    channel = offered(b, flags=flags)
    sock = flags == VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER
    assert channel.offermsg.chn_flags == flags
    assert (channel.device_obj.driver is None) is sock, "the KVP driver does not take a connection"
    assert b.v.connection.nr_chan_close_on_suspend == int(sock)


def test_the_oldest_hosts_have_one_event_connection(between: Callable[..., Any]) -> None:
    """5.15 on Windows Server 2008 (0.13): the offer's own numbers do not count yet."""
    b = between(host="ws2008r2", release="5.15").boot()
    b.v.vmbus_proto_version = 13
    channel = offered(b, dedicated=1, connection=0x2345)
    assert (channel.is_dedicated_interrupt, channel.sig_event) == (False, VMBUS_EVENT_CONNECTION_ID)


@pytest.mark.parametrize("row", VMBUS_DEVS[:-1], ids=lambda row: row.dev_type.name)
def test_every_class_gets_its_kind(between: Callable[..., Any], row: Any) -> None:
    """Performance devices are spread, others stay on CPU 0; the drivers that are there are sent away first."""
    b = between(host="ws2022", cpus=4).boot()
    for driver in tuple(b.v.hv_bus.drivers):
        b.call(b.exports.vmbus_driver_unregister, driver)
    lines = len(b.lines)
    targets = set()
    for n in range(4):
        channel = b.offer(200 + n, instance=bytes([n] * 16), kind=bytes(row.guid))
        assert channel.device_id == row.dev_type
        targets.add(channel.target_cpu)
    assert targets == ({0, 1, 2, 3} if row.perf_device else {0})
    assert b.lines[lines:] == []


@pytest.mark.parametrize("name", ["HV_AVMA1_GUID", "HV_AVMA2_GUID", "HV_RDV_GUID", "HV_IMC_GUID"])
def test_classes_that_are_passed_over_in_silence(between: Callable[..., Any], name: str) -> None:
    b = between(host="ws2022").boot()
    lines = len(b.lines)
    channel = b.offer(200, instance=bytes([7] * 16), kind=bytes(getattr(guids, name)))
    assert (channel.device_id, channel.device_obj.driver) == (16, None)
    assert b.lines[lines:] == []


def test_a_late_offer_is_handled_like_an_early_one(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    b.run(120_000)
    assert b.offer(200, instance=bytes([7] * 16)) is b.channel
    assert b.devices[-1].driver is not None
    assert b.open() == 0


def test_all_offers_delivered_is_no_news(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    before = b.lines
    for _ in range(2):
        b.post(Type.CHANNELMSG_ALLOFFERS_DELIVERED)
    assert (b.lines, b.sent) == (before, [])


def test_a_connect_request_of_hv_sock(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    ours, theirs = bytes(range(16)), bytes(range(16, 32))
    assert b.call(b.exports.vmbus_send_tl_connect_request, ours, theirs) == 0
    assert [message for _, _, message in b.sent] == [
        struct.pack("<II", Type.CHANNELMSG_TL_CONNECT_REQUEST, 0) + ours + theirs
    ]
