"""What the jitted ring costs next to the C reference of the same protocol and to memcpy, and the floors it must hold.

The reference does per packet what Linux 6.1 does (``reference.c``): *iter+copy* is ``foreach_vmbus_pkt`` with a copy to
the caller, *recvpacket* is ``vmbus_recvpacket``. memcpy is the limit: every payload into a window of the ring's size
and out of it again. All are measured in turn, repeat by repeat, in CPU time, and a ratio is the median of the repeats'
ratios: other load on the machine slows all of them and counts little. Two threads are measured by wall clock, which
another program's load moves by much: there the least of the repeats counts, and no floor is set.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from random import Random
from statistics import median
from threading import Thread
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Any, Final

from hvkernel.ring.ends import RingReader, RingWriter, init_ring, pack

if TYPE_CHECKING:
    from hvkernel.ring.reference import Reference, ReferenceEnd

__all__ = ["CASES", "Case", "Row", "markdown", "measure", "table"]

KIB: Final = 1 << 10
IMIX: Final = ((64, 7), (576, 4), (1500, 1))
"""A mix of sizes in bytes and how many of each in twelve, as network tests use it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, and what it must reach."""

    sizes: tuple[int, ...]
    """Payload bytes of the packets of a batch, repeated until it is full."""
    batch: int
    """Packets that one publication covers."""
    ring: int
    """Bytes of ring data."""
    loop: str
    """``jit``: compiled; ``python``: it calls write_batch and read_batch; ``write``: compiled, write only (the read
    index follows by itself); ``threads``: compiled, writer and reader in two threads, wall clock."""
    floor: float | None
    """Least ratio to the C reference's iter+copy (for ``write``: to its write)."""
    memcpy_floor: float | None = None
    """Least fraction of memcpy's speed."""

    @property
    def payload(self) -> str:
        """Bytes, or the name of the mix."""
        return str(self.sizes[0]) if len(self.sizes) == 1 else "IMIX"


def _imix() -> tuple[int, ...]:
    sizes = [size for size, share in IMIX for _ in range(share)] * 32
    Random(0).shuffle(sizes)
    return tuple(sizes)


CASES: Final = (
    Case((8,), 64, 128 * KIB, "jit", 3.5),
    Case((64,), 64, 128 * KIB, "jit", 3.5),
    Case((8,), 64, 128 * KIB, "write", 8.0),
    Case((256,), 64, 128 * KIB, "jit", 2.5),
    Case((64,), 1, 128 * KIB, "jit", 1.5),
    Case((1500,), 64, 128 * KIB, "jit", 1.2, 0.85),
    Case((1500,), 8, 16 * KIB, "jit", 1.2, 0.80),
    Case((4096,), 23, 128 * KIB, "jit", 1.4, 0.85),
    Case((16384,), 5, 128 * KIB, "jit", None, 0.85),
    Case((16384,), 80, 2048 * KIB, "jit", 1.1, 0.85),
    Case(_imix(), 256, 128 * KIB, "jit", 2.2),
    Case((64,), 64, 128 * KIB, "python", 1.1),
    Case((64,), 256, 128 * KIB, "python", 2.2),
    Case((8,), 64, 128 * KIB, "threads", None),
    Case((64,), 64, 128 * KIB, "threads", None),
)
"""All that is measured. Where a floor is missing, none is promised."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. Times are nanoseconds for one packet, written and read, medians of the repeats."""

    payload: str
    batch: int
    ring_kib: int
    loop: str
    ns: float
    """The jitted ring."""
    iter_ns: float
    """C, iter+copy; for the loop ``write``, C's write."""
    recv_ns: float | None
    """C, recvpacket."""
    memcpy_ns: float | None
    ratio: float
    """iter_ns / ns: how many times faster than C."""
    recv_ratio: float | None
    memcpy_ratio: float | None
    """memcpy_ns / ns: 1.0 is the limit."""
    floor: float | None
    memcpy_floor: float | None

    @property
    def ok(self) -> bool:
        """Whether no floor is missed."""
        short = self.floor is not None and self.ratio < self.floor
        slow = self.memcpy_floor is not None and (self.memcpy_ratio or 0) < self.memcpy_floor
        return not short and not slow

    def as_dict(self) -> dict[str, Any]:
        """The row for ``--json``."""
        return asdict(self) | {"ok": self.ok}


def measure(
    reference: Reference, budget_ms: float = 15.0, repeats: int = 9, cases: Sequence[Case] = CASES
) -> Iterator[Row]:
    """Measure every case in turn.

    :param reference: the compiled C reference.
    :param budget_ms: time of one repeat of one implementation, about.
    """
    for case in cases:
        with ExitStack() as stack:
            bench = _Bench(case, reference, stack)
            ways = bench.ways()
            yield _row(case, _interleaved(ways, case.loop == "threads", case.batch, budget_ms, repeats))


def _row(case: Case, ns: dict[str, list[float]]) -> Row:
    if case.loop == "threads":
        ns = {name: [min(values)] for name, values in ns.items()}

    def ratio(name: str) -> float | None:
        if name not in ns:
            return None
        return round(median(other / own for other, own in zip(ns[name], ns["ring"], strict=True)), 2)

    def middle(name: str) -> float | None:
        return round(median(ns[name]), 2) if name in ns else None

    return Row(
        payload=case.payload,
        batch=case.batch,
        ring_kib=case.ring // KIB,
        loop=case.loop,
        ns=middle("ring") or 0.0,
        iter_ns=middle("iter") or 0.0,
        recv_ns=middle("recv"),
        memcpy_ns=middle("memcpy"),
        ratio=ratio("iter") or 0.0,
        recv_ratio=ratio("recv"),
        memcpy_ratio=ratio("memcpy"),
        floor=case.floor,
        memcpy_floor=case.memcpy_floor,
    )


@contextmanager
def _ring_file(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """An empty ring of *size* bytes of data in a memfd, and a mapping of it."""
    fd = os.memfd_create("hvkernel-bench")
    try:
        os.ftruncate(fd, 4096 + size)
        with mmap.mmap(fd, 0) as memory:
            init_ring(memory)
            yield fd, memory
    finally:
        os.close(fd)


class _Bench:
    """The buffers of one case and both implementations' ends of a ring each."""

    def __init__(self, case: Case, reference: Reference, stack: ExitStack) -> None:
        import numpy as np

        from hvkernel.ring import kernels, loops
        from hvkernel.ring.reference import Work

        self.case = case
        self.library = reference.library
        self.loops, self.entry_point = loops, kernels.entry_point
        sizes = [case.sizes[i % len(case.sizes)] for i in range(case.batch)]
        self.source, self.lengths = pack([bytes(size) for size in sizes])
        self.target = np.zeros(len(self.source) + 8, np.uint8)
        self.lengths_out, self.trans_ids = np.zeros(case.batch, np.uint32), np.zeros(case.batch, np.uint64)
        self.window = np.zeros(case.ring, np.uint8)
        fd, memory = stack.enter_context(_ring_file(case.ring))
        self.writer: RingWriter = stack.enter_context(RingWriter.attach(memory))
        self.reader: RingReader = stack.enter_context(RingReader.attach(memory))
        fd, _ = stack.enter_context(_ring_file(case.ring))
        largest = 16 + max(sizes) + 7 & ~7
        self.c_writer: ReferenceEnd = stack.enter_context(reference.attach(fd, case.ring, largest))
        self.c_reader: ReferenceEnd = stack.enter_context(reference.attach(fd, case.ring, largest))
        self._pin = np.frombuffer(self.source, np.uint8)
        self.work = Work(
            int(self._pin.ctypes.data),
            int(self.lengths.ctypes.data),
            int(self.target.ctypes.data),
            int(self.lengths_out.ctypes.data),
            int(self.trans_ids.ctypes.data),
            self.target.nbytes,
        )
        # The ends hold the buffers from here on: the compiled loops find them in the ends' state.
        self.writer.write_batch(self.source, self.lengths, case.batch, 0)
        self.reader.read_batch(self.target, self.lengths_out, self.trans_ids, case.batch)

    def ways(self) -> dict[str, Callable[[int], int]]:
        """What to time, by name; each is called with a number of rounds and returns the packets it moved."""
        if self.case.loop == "threads":
            return {"ring": self._ring_threads, "iter": self._c_threads}
        if self.case.loop == "write":
            return {"ring": self._ring_writes, "iter": self._c_writes}
        ring = self._ring_jit if self.case.loop == "jit" else self._ring_python
        return {"ring": ring, "iter": self._c_iter, "recv": self._c_recv, "memcpy": self._c_memcpy}

    def _ring_jit(self, rounds: int) -> int:
        loop = self.entry_point(self.loops.round_trips)
        return int(loop(self.writer._state, self.reader._state, self.case.batch, rounds))

    def _ring_python(self, rounds: int) -> int:
        moved, batch = 0, self.case.batch
        write, read = self.writer.write_batch, self.reader.read_batch
        source, lengths, target = self.source, self.lengths, self.target
        lengths_out, trans_ids = self.lengths_out, self.trans_ids
        for _ in range(rounds):
            moved += write(source, lengths, batch, 0)
            read(target, lengths_out, trans_ids, batch)
        return moved

    def _ring_writes(self, rounds: int) -> int:
        return int(self.entry_point(self.loops.writes)(self.writer._state, self.case.batch, rounds))

    def _c_iter(self, rounds: int, receive: int = 0) -> int:
        ends = self.c_writer.address, self.c_reader.address
        return int(self.library.ref_round_trips(*ends, self.work, self.case.batch, rounds, receive))

    def _c_recv(self, rounds: int) -> int:
        return self._c_iter(rounds, 1)

    def _c_writes(self, rounds: int) -> int:
        return int(self.library.ref_writes(self.c_writer.address, self.work, self.case.batch, rounds))

    def _c_memcpy(self, rounds: int) -> int:
        address = int(self.window.ctypes.data)
        return self.case.batch * int(
            self.library.ref_memcpy(self.work, address, self.window.nbytes, self.case.batch, rounds)
        )

    def _ring_threads(self, rounds: int) -> int:
        produce, consume = self.loops.produce, self.loops.consume
        batch, total = self.case.batch, rounds * self.case.batch
        other = Thread(target=produce, args=(self.writer._state, batch, total))
        other.start()
        moved = consume(self.reader._state, batch, total)
        other.join()
        return int(moved)

    def _c_threads(self, rounds: int) -> int:
        batch, total = self.case.batch, rounds * self.case.batch
        other = Thread(target=self.library.ref_produce, args=(self.c_writer.address, self.work, batch, total))
        other.start()
        moved = self.library.ref_consume(self.c_reader.address, self.work, batch, total)
        other.join()
        return int(moved)


def _interleaved(
    ways: dict[str, Callable[[int], int]], wall: bool, batch: int, budget_ms: float, repeats: int
) -> dict[str, list[float]]:
    """Nanoseconds a packet of each way, one value a repeat."""
    clock = perf_counter_ns if wall else process_time_ns

    def time(way: Callable[[int], int], rounds: int) -> int:
        start = clock()
        moved = way(rounds)
        took = clock() - start
        if moved != rounds * batch:
            raise RuntimeError(f"ring bench: {moved} of {rounds * batch} packets moved")
        return took

    def rounds_of(way: Callable[[int], int]) -> int:
        """How many rounds take about the budget."""
        count = 1
        while (took := time(way, count)) < budget_ms * 1e5:
            count *= 4
        return max(1, int(count * budget_ms * 1e6 / took))

    rounds = {name: rounds_of(way) for name, way in ways.items()}
    ns: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            ns[name].append(time(way, rounds[name]) / (rounds[name] * batch))
    return ns


def _cell(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


HEADINGS: Final = (
    "payload", "batch", "ring KiB", "loop", "ns", "C iter ns", "C recv ns", "memcpy ns",
    "vs C iter", "floor", "vs C recv", "of memcpy", "floor", "",
)  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.payload,
        str(row.batch),
        str(row.ring_kib),
        row.loop,
        _cell(row.ns, 1),
        _cell(row.iter_ns, 1),
        _cell(row.recv_ns, 1),
        _cell(row.memcpy_ns, 1),
        _cell(row.ratio),
        _cell(row.floor, 1),
        _cell(row.recv_ratio),
        _cell(row.memcpy_ratio),
        _cell(row.memcpy_floor),
        "ok" if row.ok else "MISSED",
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text with a line of headings, each verdict at the end of its line."""
    lines = [HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(runs: Sequence[Sequence[Row]]) -> str:
    """A Markdown table of several runs of the same cases: ranges, and the floors."""

    def span(values: Sequence[float | None], digits: int) -> str:
        known = [value for value in values if value is not None]
        if not known:
            return "-"
        least, most = _cell(min(known), digits), _cell(max(known), digits)
        return least if least == most else f"{least} to {most}"

    lines = [
        "| payload, batch, ring, loop | ns | C ns | times C (floor) | times C `recvpacket` | of `memcpy` (floor) |",
        "|---|---|---|---|---|---|",
    ]
    for rows in zip(*runs, strict=True):
        first = rows[0]
        what = f"{first.payload}{'' if first.payload == 'IMIX' else ' B'}, {first.batch}, {first.ring_kib} KiB"
        floor = "" if first.floor is None else f" ({first.floor:.1f})"
        memcpy_floor = "" if first.memcpy_floor is None else f" ({first.memcpy_floor:.2f})"
        lines.append(
            f"| {what}, {first.loop} | {span([row.ns for row in rows], 1)} | {span([row.iter_ns for row in rows], 1)} "
            f"| **{span([row.ratio for row in rows], 2)}**{floor} | {span([row.recv_ratio for row in rows], 2)} "
            f"| {span([row.memcpy_ratio for row in rows], 2)}{memcpy_floor} |"
        )
    return "\n".join(lines)
