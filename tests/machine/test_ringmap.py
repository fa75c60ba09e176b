"""Real contiguous mappings: control once, data twice, and no way to a SIGSEGV."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from hvkernel.machine import HvPfn, Machine, MachineError, Memory, PageFault, VpTopology

PAGE = 4096


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory([(0, 16 * PAGE), (32 * PAGE, PAGE)])
    yield memory
    assert memory.close()


def pages(*numbers: int) -> list[HvPfn]:
    return [HvPfn(n) for n in numbers]


def test_the_data_wraps_by_itself(memory: Memory) -> None:
    ring = memory.map_ring(pages(3), pages(8, 5, 6))
    assert ring.size == 7 * PAGE
    view = ring.view()
    assert (view.format, view.nbytes, view.readonly) == ("B", 7 * PAGE, False)
    view[4 * PAGE - 4 : 4 * PAGE + 4] = b"wrapping"
    assert memory.guest.read(6 * PAGE + PAGE - 4, 4) == b"wrap"
    assert memory.guest.read(8 * PAGE, 4) == b"ping"
    memory.guest.write(3 * PAGE, b"control")
    assert bytes(view[:7]) == b"control"
    assert ctypes.string_at(ring.address, 7) == b"control"
    view.release()
    ring.unmap()


def test_an_overlay_is_seen_through_the_mapping(memory: Memory) -> None:
    ring = memory.map_ring(pages(3), pages(4))
    memory.overlays.establish(HvPfn(4), b"\x55" * PAGE, readonly=False, name="o")
    with ring.view() as view:
        assert view[PAGE] == view[2 * PAGE] == 0x55
    ring.unmap()


def test_unmapping_is_refused_while_anything_made_from_a_view_lives(memory: Memory) -> None:
    ring = memory.map_ring(pages(0), pages(1))
    view = ring.view()
    with pytest.raises(BufferError, match=r"^ring mapping of 0x3000 bytes: a view of it is still alive$"):
        ring.unmap()
    part = view[10:20]
    view.release()
    with pytest.raises(BufferError):
        ring.unmap()
    array = np.frombuffer(part, np.uint8)
    part = memoryview(b"")
    with pytest.raises(BufferError):
        ring.unmap()
    assert ring.mapped
    array[0] = 7
    assert memory.guest.load8(10) == 7
    del array
    ring.unmap()
    assert not ring.mapped
    with pytest.raises(MachineError, match="unmapped before"):
        ring.unmap()
    with pytest.raises(MachineError, match="was unmapped"):
        ring.view()


def test_unmapping_leaves_a_guard_until_the_end(memory: Memory) -> None:
    ring = memory.map_ring(pages(0), pages(1))
    ring.unmap()
    assert _rights(ring.address) == "---p"


def _rights(address: int) -> str | None:
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address < end:
                return rights
    return None


def test_a_stale_address_hits_the_guard() -> None:
    """What a raw address kept after unmapping does: a SIGSEGV, never a write to someone else's memory."""
    script = """
import ctypes
from hvkernel.machine import HvPfn, Memory
memory = Memory([(0, 65536)])
ring = memory.map_ring([HvPfn(0)], [HvPfn(1)])
ring.unmap()
print("before", flush=True)
ctypes.memset(ring.address, 1, 1)
print("after", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("before\n", -11)


def test_close_unmaps_all_but_what_is_in_use() -> None:
    memory = Memory([(0, 16 * PAGE)])
    used, free = memory.map_ring(pages(0), pages(1)), memory.map_ring(pages(2), pages(3))
    view = used.view()
    assert not memory.close()
    view[0] = 1
    assert _rights(used.address) == "rw-s"
    assert _rights(free.address) != "rw-s"
    view.release()


def test_only_ram_is_mapped(memory: Memory) -> None:
    for control, data in ((pages(20), pages(1)), (pages(1), pages(2, 33)), (pages(-1), pages(1))):
        with pytest.raises(PageFault, match="no RAM here"):
            memory.map_ring(control, data)
    with pytest.raises(ValueError, match="empty"):
        memory.map_ring([], [])


def test_a_thousand_mappings_and_machines_do_not_pile_up() -> None:
    with open("/proc/self/maps") as maps:
        before = len(maps.readlines())
    for _ in range(100):
        with Machine([(0, 16 * PAGE)], [VpTopology(0, 0)]) as machine:
            for n in range(10):
                ring = machine.memory.map_ring(pages(n), pages(n + 1, n + 3))
                if n % 2:
                    ring.unmap()
    with open("/proc/self/maps") as maps:
        assert len(maps.readlines()) < before + 20
