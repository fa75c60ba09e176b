"""The budget of a guest's life: what spins in it is stopped, however it spins, long before any watchdog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hvkernel.matrix import cell as cell_module


@pytest.mark.parametrize(
    "once",
    [
        lambda sched: sched.cond_resched(),
        lambda sched: sched.usleep_range(1, 2),
        lambda sched: sched.udelay(1),
    ],
    ids=["preemption points", "sleeps", "delays"],
)
def test_a_thread_that_spins_is_over_budget(
    make_runner: Any, make_cell: Any, monkeypatch: pytest.MonkeyPatch, once: Callable[[Any], None]
) -> None:
    def spin(guest: Any) -> Iterator[str]:
        def work() -> None:
            while True:
                once(guest.session.kernel.sched)

        guest.call(work)
        yield ""

    monkeypatch.setattr(cell_module, "EVENTS", {"rescind": spin})
    runner = make_runner(budget={"steps": 50_000, "seconds": 100})
    result = runner.run(make_cell(runner, "arch=x86,events=rescind"))
    assert (result.status, result.phase) == ("over-budget", "events")
    assert 50_000 <= result.steps < 51_000
