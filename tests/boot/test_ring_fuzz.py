"""A host that writes anything anywhere into a guest's rings: whatever 6.1 then does, the model says so and ends."""

from __future__ import annotations

import random
from typing import Any

import pytest

SECOND = 10_000_000
STEPS = 40_000
"""Per poke: more than any walk round these rings takes, less than 10 ms of a reader without end."""
SEEDS = 40
KINDS = {
    "ring-length",
    "ring-loop",
    "ring-stuck",
    "oops",
    "panic",
    "refused",
    "tolerated",
    "ignored",
    "scsi-timeout",
    "sleep-in-atomic",
}
"""What such a host may bring about. An error of the model is an exception, and fails the test by itself."""

VALUES = (0, 1, 8, 16, 0xFFF8, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF8, 0xFFFF_FFFF)


def poke(rng: random.Random, channel: Any) -> None:
    """One store of the host into one of the rings' control pages, or into the packets."""
    rings = channel.rings
    ring = rng.choice((rings.outgoing, rings.outgoing, rings.outgoing, rings.incoming))
    kind = rng.random()
    at = ring._map.load32(rng.choice((0, 4))) % ring.size
    if kind < 0.5:
        offset = rng.choice((0, 0, 4, 8, 12, 64))
        ring._map.store32(offset, rng.choice((*VALUES, 8 * rng.randrange(ring.size // 8), rng.randrange(1 << 32))))
    elif kind < 0.8:
        for i, byte in enumerate(rng.randbytes(rng.choice((2, 8, 16, 64)))):
            ring._map.store8(4096 + (at + i) % ring.size, byte)
    else:
        ring._map.store32(0, (at + 8 * rng.randrange(1, 60)) % ring.size)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_host_that_scribbles_into_the_rings(loom: Any, seed: int) -> None:
    rng = random.Random(seed)
    guest = loom(vm={"seed": seed, "policy": f"random:{seed}"})
    session, machine = guest.session, guest.session.machine
    (one,) = guest.looms
    before = len(machine.findings)
    names = ("scsi0", "loom0") if seed % 2 else ("loom0",)
    channels = [channel for device in session.server.devices if device.name in names for channel in device.channels]
    driver = guest.driver
    for each in one.channels:
        session.kernel.spawn(driver.loom_tick, one, each, 50, name="traffic")
        session.kernel.spawn(driver.loom_sum, one, each, bytes(500), name="traffic")
    for _ in range(30):
        channel = rng.choice(channels)
        if channel.rings is None:
            # A page fault of the guest in an interrupt ends it: its last act is to unload the bus.
            assert "Fatal exception in interrupt" in session.kernel.printk.log[-1].render()
            break
        poke(rng, channel)
        if rng.random() < 0.7:
            channel.signal_guest()
        if rng.random() < 0.5:
            channel.kick()
        steps = machine.stats.steps
        machine.run(limit=SECOND // 100, steps=STEPS)
        assert machine.stats.steps - steps < STEPS, "something goes round for ever"
    found = {finding.kind for finding in machine.findings[before:]}
    assert found
    assert found <= KINDS
