"""The machine as a whole: traps, interrupts, a secondary processor and timers in one small run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.machine import Machine


@pytest.mark.parametrize("policy", ["fifo", "random:3"])
def test_traps_interrupts_timers_and_a_second_processor(make: Callable[..., Machine], host: Any, policy: str) -> None:
    machine = make(started=False, policy=policy)
    machine.set_trap_handler(host)
    out: list[object] = []
    host.on["wrmsr"] = lambda vp, n, v: machine.vps[vp].raise_irq(v)
    machine.set_secondary_entry(lambda vp: out.append(("secondary", vp.vp_index, vp.irq_enabled)))

    def main() -> str:
        vp = machine.current_vp
        assert vp is machine.vps[0]
        vp.set_entry(lambda vector: out.append(("irq", vector, vp.irq_enabled)))
        assert vp.cpuid(1, 2) == (1, 2, 0, 0)
        assert machine.vps[1].start()
        assert not machine.vps[1].start()
        vp.wrmsr(5, 77)
        out.append("after the write")
        machine.delay(100)
        vp.set_local_timer(machine.clock.now + 30, 9)
        assert machine.block(machine.clock.now + 1000) is False
        return "done"

    assert machine.call(main) == "done"
    assert out == [("irq", 77, False), "after the write", ("secondary", 1, False), ("irq", 9, False)]
    assert machine.run() == "idle"
    assert machine.close() == ()
