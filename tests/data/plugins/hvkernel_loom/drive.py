"""How ``hvkernel matrix`` uses looms: every way to send, on every open channel, two processors on each."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest import VmbusChannel
from hvkernel.api.matrix import Drive, Driven, Driving
from hvkernel_loom.wire import CLASS

if TYPE_CHECKING:
    from hvkernel_loom.vsc import Loom, LoomDriver

SIZES: Final = (1, 600, 4096, 9001)
"""Bytes of data: within a packet, a page of 4 KiB, and more than two of them."""


def drive(driving: Driving) -> Iterator[str]:
    for device in driving.devices:
        loom: Loom = device.guest.driver_data
        bound: Any = device.guest.driver
        driver: LoomDriver = bound.probe.__self__
        cpus = driving.cpus
        for number, channel in enumerate(loom.channels):
            for cpu in dict.fromkeys((cpus[number % len(cpus)], cpus[(number + 1) % len(cpus)])):
                seed = driving.rng.getrandbits(32)
                driving.spawn(device, use, driver, device, loom, channel, Random(seed), cpu=cpu)
    yield from ()


def use(driver: LoomDriver, device: Driven, loom: Loom, channel: VmbusChannel, rng: Random) -> Iterator[str]:
    """A kernel thread."""
    data = rng.randbytes(rng.choice(SIZES[:2]))
    bulk = rng.randbytes(rng.choice(SIZES))
    done = {
        "note": driver.loom_note(loom, channel),
        "sum": driver.loom_sum(loom, channel, data),
        "sum_getid": driver.loom_sum_getid(loom, channel, data),
        "gather": driver.loom_gather(loom, channel, bulk),
        "scatter": driver.loom_scatter(loom, channel, len(bulk), rng.getrandbits(32)),
        "tick": driver.loom_tick(loom, channel, rng.randrange(1, 5)),
        "deliver": driver.loom_deliver(loom, channel, rng.randrange(1, 5), rng.randrange(1, 4096)),
        "lend": driver.loom_lend(loom, channel, rng.choice((4096, 65536))),
    }
    for what, ret in done.items():
        if ret:
            yield f"{device.name}: relid {channel.offermsg.child_relid}: {what}: {ret}"


DRIVES: Final = (Drive("loom", (CLASS,), drive, "Every request is answered as it should be, on every channel."),)
