"""The faults of 6.1 that random runs reach seldom, brought about on purpose."""

from __future__ import annotations

from typing import Any


def test_a_close_that_waits_for_an_unopened_sub_channel(loom: Any, interleave: Any) -> None:
    from interleavings import known
    from interleavings.watch import Watch

    guest = loom(looms=[{"subchannels": 0}])
    (one,) = guest.looms
    kernel, machine = guest.session.kernel, guest.session.machine
    one.dev.channel.sc_creation_callback = None
    guest.session.server.offer_subchannels("loom0", 1)
    guest.settle()
    (sub,) = one.dev.channel.sc_list
    # As if the driver's callback, which did not open it, had not returned yet.
    sub.probe_done = False
    guest.session.server.rescind("loom0")
    machine.run(lambda: sub.rescind, limit=1_000_000)
    close = kernel.spawn(guest.driver.vmbus.vmbus_close, one.dev.channel, name="close")
    machine.run(limit=1_000_000)
    sub.probe_done = True
    machine.run(limit=100_000_000)
    assert not close.done
    assert one.dev.channel.sc_list == []
    assert known.explain_wait(close, Watch()) == "close waits for an unopened sub-channel"


def test_every_fault_says_how_it_is_recognised_and_where_it_is(interleave: Any) -> None:
    from interleavings import known

    assert len({one.name for one in known.KNOWN}) == len(known.KNOWN)
    for one in known.KNOWN:
        assert one.source.startswith("drivers/hv/")
        assert one.waits or one.finding or one.raised or one.name == known.TARGET_CHANGE_OF_A_REMOVED_CHANNEL
