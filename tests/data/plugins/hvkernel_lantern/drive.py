"""How ``hvkernel matrix`` uses lanterns: the guest asks on several processors at a time, and the device flashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hvkernel.api.matrix import Drive, Driven, Driving
from hvkernel_lantern.wire import CLASS

PAGE: Final = 4096
FLASHES: Final = 3
PATIENCE: Final = 1000
"""Milliseconds until what was said must have been heard."""


def drive(driving: Driving) -> Iterator[str]:
    for device in driving.devices:
        driving.spawn(device, flash, driving, device)
        for number, cpu in enumerate(driving.cpus):
            driving.spawn(device, ask, driving, device, number, driving.rng.randbytes(PAGE), cpu=cpu)
    yield from ()


def flash(driving: Driving, device: Driven) -> Iterator[str]:
    """A kernel thread: wait for what the host is told to send."""
    lantern: Any = device.guest.driver_data
    before = lantern.flashes
    driving.host(device.host.flash, FLASHES)
    for _ in range(PATIENCE):
        if lantern.flashes == before + FLASHES:
            return
        driving.kernel.sched.msleep(1)
    yield f"{device.name} flashed {FLASHES} times, and the driver saw {lantern.flashes - before}"


def ask(driving: Driving, device: Driven, number: int, data: bytes) -> Iterator[str]:
    """A kernel thread: change one page of the buffer, and ask for its checksum."""
    lantern: Any = device.guest.driver_data
    driving.kernel.mm.memory.write(lantern.page.gpa + number * PAGE, data)
    ret = lantern.driver.check(device.guest, number, PAGE)
    if ret:
        yield f"{device.name}: page {number} was asked for: {ret}"


DRIVES: Final = (Drive("lantern", (CLASS,), drive, "The device reads what the guest wrote, and is heard."),)
