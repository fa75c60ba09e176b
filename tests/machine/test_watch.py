from __future__ import annotations

import pytest

from hvkernel.machine import HvPfn, Machine, VpTopology


def test_a_watcher_hears_of_bits_that_the_guest_sets() -> None:
    heard: list[str] = []
    with Machine(ram=[(0, 1 << 20)], vps=[VpTopology(0, 0)]) as machine:
        memory = machine.memory
        memory.watch(HvPfn(3), lambda: heard.append(f"{memory.guest.load8(0x3004)}"))
        memory.guest.sync_set_bit(0x3000, 33)
        memory.guest.vmap([HvPfn(2), HvPfn(3)]).sync_set_bit(0x1004, 0)
        memory.guest.sync_set_bit(0x4000, 0)
        memory.host.sync_set_bit(0x3000, 34)
        assert heard == ["2", "3"]
        memory.unwatch(HvPfn(3))
        memory.unwatch(HvPfn(3))
        memory.guest.sync_set_bit(0x3000, 0)
        assert len(heard) == 2
        with pytest.raises(ValueError, match="outside the address space"):
            memory.watch(HvPfn(0x100), lambda: None)
