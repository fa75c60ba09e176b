"""A channel costs no more than its ring and 64 KiB, also with the largest rings that the kernel's drivers ask for."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from hvkernel.abi import guids
from hvkernel.abi.wire import Guid
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus, VmbusChannel
from hvkernel.boot.session import Session
from hvkernel.host.vmbus.devices import SlotSpec

CHANNELS = 8
RING = 2 << 20
"""Bytes of each of the two rings: uio_hv_generic's."""


def test_a_channel_holds_its_ring_and_little_more(guest: Callable[..., Session]) -> None:
    session = guest()
    session.boot()
    vmbus: Vmbus = session.kernel.symbol(Vmbus)
    channels: list[VmbusChannel] = []

    def probe(dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        channels.append(dev.channel)
        return 0

    def open_all() -> None:
        for channel in channels:
            assert vmbus.vmbus_open(channel, RING, RING, b"", lambda context: None, None) == 0

    def close_all() -> None:
        for channel in channels:
            vmbus.vmbus_close(channel)

    driver = HvDriver("taker", [HvVmbusDeviceId(guids.HV_ND_GUID)], probe)
    assert session.call(vmbus.vmbus_driver_register, driver, "taker") == 0

    def offer(number: int) -> None:
        instance = Guid.parse(f"10040000-0000-4000-8000-{number:012x}")
        session.server.offer(SlotSpec(f"nd{number}", Guid(guids.HV_ND_GUID), instance))

    offer(0)  # what is made once, by the first channel, is none of the channels'
    session.machine.run(limit=10_000_000)
    session.call(open_all)
    session.call(close_all)
    channels.clear()
    free = session.kernel.mm.nr_free_pages()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, CHANNELS + 1):
            offer(number)
        session.machine.run(limit=10_000_000)
        assert len(channels) == CHANNELS
        session.call(open_all)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (free - session.kernel.mm.nr_free_pages()) * 4096 == CHANNELS * 2 * RING
    assert held <= CHANNELS * (64 << 10), f"{held // CHANNELS} bytes a channel"
    session.call(close_all)
    assert session.kernel.mm.nr_free_pages() == free
