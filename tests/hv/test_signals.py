"""How a guest's signal reaches the host: hypercall, monitor page, and the driver's word that it cannot wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CONFIGS = [
    pytest.param("debian12-6.1.192-cloud-amd64", id="4K"),
    pytest.param("debian12bpo-6.12.117-arm64-16k", id="16K"),
    pytest.param("azurelinux3-64k-aarch64", id="64K"),
]
LATENCY = 5000
"""0.5 ms in 100 ns units."""

Loom = Callable[..., Any]


def ask(guest: Any, channel: Any) -> int:
    """One request and its answer; the time it took, in 100 ns units."""
    (one,) = guest.looms
    machine = guest.session.machine
    start = machine.clock.now
    assert guest.call(guest.driver.loom_sum, one, channel, b"data") == 0
    return int(machine.clock.now - start)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_monitored_channel_makes_no_hypercall(loom: Loom, config: str) -> None:
    guest = loom(config, looms=[{"monitored": True, "monitor_latency": LATENCY}])
    (one,) = guest.looms
    assert len(one.channels) == 4
    for channel in one.channels:
        assert channel.offermsg.monitor_allocated
        before = channel.intr_out_empty
        assert ask(guest, channel) >= LATENCY
        assert channel.intr_out_empty == before + 1
        assert channel.sig_events == 0


def test_low_latency_goes_by_hypercall(loom: Loom) -> None:
    guest = loom(looms=[{"monitored": True, "monitor_latency": LATENCY}])
    channel = guest.looms[0].channels[1]
    slow = ask(guest, channel)
    channel.low_latency = True
    assert ask(guest, channel) < slow - LATENCY // 2
    assert channel.sig_events == 1
    channel.low_latency = False
    assert ask(guest, channel) >= LATENCY
    assert channel.sig_events == 1


def test_a_channel_without_monitor_makes_one_hypercall_for_an_empty_ring(loom: Loom) -> None:
    guest = loom()
    (channel, *_) = guest.looms[0].channels
    before = channel.sig_events
    ask(guest, channel)
    assert channel.sig_events == before + 1


def test_a_masked_ring_is_not_signalled(loom: Loom) -> None:
    """The host masks while it works through a ring: notes that follow each other closely make one signal."""
    guest = loom()
    (one,) = guest.looms
    channel = one.channels[0]
    before = channel.sig_events
    driver = guest.driver

    def notes() -> None:
        for _ in range(20):
            assert driver.loom_note(one, channel) == 0

    guest.call(notes)
    assert 1 <= channel.sig_events - before < 20
    assert guest.call(driver.loom_sum, one, channel, b"and all have come") == 0
