"""Unnecessary signals: counted where they happen, and paid for in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.tlfs_hypercall import HVCALL_SIGNAL_EVENT

MS = 10_000


@dataclass(frozen=True)
class Limits:
    budget: int = 5
    interval: int = 1000 * MS
    pause: int = 200 * MS


def opened(raw: Any, version: int = abi.VERSION_WIN10, **server: Any) -> tuple[Any, Any, Any]:
    guest = raw(**server)
    guest.connect(version)
    ring = guest.open(1)
    channel = guest.server.by_relid[1]
    guest.machine.run()
    return guest, ring, channel


def storm(guest: Any, connection: int, count: int) -> None:
    """Signals in one go, without a moment for the host's tasks."""
    vp = guest.machine.boot_vp

    def signals() -> None:
        for _ in range(count):
            vp.hypercall(guest.opcode, (HVCALL_SIGNAL_EVENT | 1 << 16, connection, 0))

    guest.machine.call(signals, vp=vp)


def test_a_signal_for_each_packet_is_necessary(raw: Any) -> None:
    guest, ring, channel = opened(raw, throttle=Limits(budget=1))
    for number in range(50):
        ring.write(raw.inband(b"12345678", number, 1))
        assert guest.signal(0x2001)
        assert len(ring.read_all()) == 1
    assert (channel.signals, channel.unnecessary, guest.server.throttle.total) == (50, 0, 0)
    assert guest.findings() == []


def test_a_signal_with_nothing_new_is_not(raw: Any) -> None:
    guest, ring, channel = opened(raw)
    guest.signal(0x2001)
    ring.write(raw.inband(b"12345678", 1, 1))
    guest.signal(0x2001)
    guest.signal(0x2001)
    assert (channel.signals, channel.unnecessary) == (3, 2)
    # Two for one packet, before the host had its turn.
    ring.write(raw.inband(b"12345678", 2, 1))
    storm(guest, 0x2001, 2)
    assert channel.unnecessary == 3
    assert guest.findings() == []


def test_a_signal_for_room_that_the_host_waits_for_is_necessary(raw: Any) -> None:
    guest, ring, channel = opened(raw)
    device = guest.echoes[0].opened[0]
    for _ in range(20):
        device.send_packet(6, bytes(1000))
    assert channel.queue
    ring.read()
    guest.signal(0x2001)
    assert channel.unnecessary == 0
    while ring.read_all():
        guest.signal(0x2001)
    assert not channel.queue


def test_the_guest_stands_still_when_it_exceeds_the_budget(raw: Any) -> None:
    guest, _, channel = opened(raw, throttle=Limits())
    before = guest.machine.clock.now
    storm(guest, 0x2001, 5)
    assert guest.machine.clock.now - before < MS
    assert guest.findings() == []
    before = guest.machine.clock.now
    storm(guest, 0x2001, 1)
    assert 200 * MS <= guest.machine.clock.now - before < 201 * MS
    assert guest.findings() == [
        "throttled: vmbus: more than 5 unnecessary signals within 1000 ms, the last one for relid 1 (echo0); "
        "the guest is paused for 200 ms"
    ]
    assert (channel.unnecessary, guest.server.throttle.pauses) == (6, 1)
    # It begins anew: the sixth of the next batch pays again.
    storm(guest, 0x2001, 5)
    assert guest.server.throttle.pauses == 1
    storm(guest, 0x2001, 1)
    assert guest.server.throttle.pauses == 2


def test_a_budget_is_per_interval(raw: Any) -> None:
    guest, _, _ = opened(raw, throttle=Limits())
    for _ in range(4):
        storm(guest, 0x2001, 5)
        guest.machine.call(lambda: guest.machine.delay(1000 * MS), vp=guest.machine.boot_vp)
    assert guest.server.throttle.pauses == 0
    assert guest.server.throttle.total == 20


def test_the_budget_is_the_guests_not_the_channels(raw: Any) -> None:
    guest, _, first = opened(raw, slots=2, throttle=Limits())
    guest.open(2, first=0x200)
    second = guest.server.by_relid[2]
    guest.machine.run()
    storm(guest, 0x2001, 3)
    storm(guest, 0x2002, 3)
    assert (first.unnecessary, second.unnecessary, guest.server.throttle.pauses) == (3, 3, 1)


@pytest.mark.parametrize("bits", [0, 2])
def test_the_interrupt_page(raw: Any, bits: int) -> None:
    """Version 0.13 signals by a page and connection 2: no bit, no reason."""
    guest, ring, channel = opened(raw, abi.VERSION_WS2008, throttle=Limits())
    if bits:
        ring.write(raw.inband(b"12345678", 1, 1))
        guest.machine.memory.guest.sync_set_bit(0x5000 + 2048, 1)
    assert guest.signal(2)
    assert guest.server.throttle.total == (0 if bits else 1)
    assert channel.signals == (1 if bits else 0)


def test_one_seed_one_moment(raw: Any) -> None:
    ends = []
    for _ in range(2):
        guest, _, _ = opened(raw, throttle=Limits())
        storm(guest, 0x2001, 40)
        ends.append((guest.machine.clock.now, guest.server.throttle.pauses))
    assert ends[0] == ends[1]
    assert ends[0][1] == 6
