from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from hvkernel.host.vmbus import DeviceTable
from hvkernel.host.vmbus.offers import Numbers, user_defined


def test_a_class_has_one_maker(raw: Any) -> None:
    table = DeviceTable()
    table.register(raw.guid(1), raw.Echo, owner="hv_one")
    with pytest.raises(ValueError, match="already made by") as error:
        table.register(raw.guid(1), raw.Echo, owner="hv_two")
    assert str(error.value) == (
        "device class 00000001-0000-0000-0000-000000000000 is already made by hv_one; hv_two cannot make it too"
    )
    assert table.maker(raw.guid(2)) is None


def boom(*_: Any) -> Any:
    raise RuntimeError("boom")


def test_a_factory_that_raises(raw: Any) -> None:
    guest = raw(device=boom)
    guest.connect()
    handle = guest.lend(1, 0x100, 8)
    guest.post(guest.open_message(1, handle, 4))
    assert guest.got()[0].status == 0xC000_0001
    assert guest.findings() == ["plugin: vmbus: echo: its factory of echo0 raised RuntimeError: boom"]


def test_an_offer_that_raises_or_becomes_another_device(raw: Any) -> None:
    def device(slot: Any) -> Any:
        echo = raw.Echo(slot)
        if slot.name == "echo0":
            echo.offer = boom
        else:
            echo.offer = lambda offer: replace(offer, if_instance=raw.guid(5))
        return echo

    guest = raw(slots=2, device=device)
    assert [str(o.offer.if_instance)[:8] for o in guest.connect()] == ["00001000", "00001001"]
    assert guest.findings() == [
        "plugin: vmbus: echo: offer() of echo0 raised RuntimeError: boom",
        "plugin: vmbus: echo: offer() changed the device's class or instance",
    ]


def test_methods_that_raise(raw: Any) -> None:
    guest = raw()
    guest.connect()
    echo = guest.echoes[0]
    ring = guest.open(1)
    echo.on = boom
    ring.write(raw.inband(b"a", 1, 1))
    ring.write(raw.inband(b"b", 2, 1))
    guest.signal(0x2001)
    assert guest.findings() == ["plugin: vmbus: echo: on_packet() of echo0 raised RuntimeError: boom"] * 2
    echo.on_close = boom
    guest.post(struct.pack("<III", 7, 0, 1))
    assert guest.findings() == ["plugin: vmbus: echo: on_close() of echo0 raised RuntimeError: boom"]
    echo.on_open = boom
    guest.machine.memory.guest.write(0x100 << 12, bytes(0x8000))
    guest.post(guest.open_message(1, guest.gpadl, 4))
    assert guest.got()[0].status == 0xC000_0001


def test_services(raw: Any) -> None:
    guest = raw()
    services = guest.echoes[0].slot.services
    ran: list[int] = []
    start = services.now
    services.after(700, lambda: ran.append(services.now))
    services.after(900, boom).cancel()
    guest.run()
    assert len(ran) == 1
    assert ran[0] >= start + 700
    services.record("tolerated", "something")
    assert guest.findings() == ["tolerated: vmbus: echo0: something"]
    other = raw().echoes[0].slot.services
    assert [services.rng.random() for _ in range(3)] == [other.rng.random() for _ in range(3)]


def test_gpadls_of_a_device(raw: Any) -> None:
    """A sub-channel's device finds GPADLs of its primary too."""
    guest = raw()
    guest.connect()
    guest.open(1)
    channel = guest.echoes[0].opened[0]
    handle = guest.lend(1, 0x400, 2)
    channel.gpadl(handle).write(4090, b"across pages")
    assert guest.machine.memory.guest.read(0x400FFA, 12) == b"across pages"
    channel.offer_subchannels(1)
    guest.got()
    guest.open(2, first=0x200)
    sub = guest.echoes[0].opened[1]
    assert sub.gpadl(handle).read(4090, 6) == b"across"
    assert sub.gpadl(0x999) is None


def test_transfer_pages(raw: Any) -> None:
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    guest.echoes[0].opened[0].send_transfer_pages(0xABC, [(60, 0), (1500, 4096)], b"nvsp", 77, 1)
    (packet,) = ring.read_all()
    assert packet == (
        struct.pack("<HHHHQ", 7, 5, 6, 1, 77) + struct.pack("<HBBI", 0xABC, 0, 0, 2)
        + struct.pack("<IIII", 60, 0, 1500, 4096) + b"nvsp\0\0\0\0"
    )  # fmt: skip


def test_numbers() -> None:
    numbers = Numbers(1, 3)
    assert [numbers.take() for _ in range(4)] == [1, 2, 3, None]
    numbers.free(2)
    assert numbers.take() == 2


def test_user_defined() -> None:
    assert user_defined(None, b"abc", "x").pack() == b"abc".ljust(120, b"\0")
    assert user_defined(4, b"abc", "x").pack() == b"\4\0\0\0abc".ljust(120, b"\0")
    with pytest.raises(ValueError, match="has room for 116") as error:
        user_defined(4, bytes(117), "scsi0")
    assert str(error.value) == "scsi0: user_defined of 117 bytes; an offer of this kind has room for 116"
