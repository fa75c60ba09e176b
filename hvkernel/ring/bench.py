"""What the jitted ring costs, next to the limit: a memcpy of the payload into a window of that size and out of it
again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from time import process_time_ns
from typing import Any, Final

from hvkernel.ring.ends import RingReader, RingWriter, init_ring, pack

__all__ = ["CASES", "Row", "measure"]

RING_BYTES: Final = 128 << 10
"""Bytes of ring data, the size of most real rings."""

CASES: Final = (
    (8, 64, "jit"),
    (64, 64, "jit"),
    (64, 1, "jit"),
    (256, 64, "jit"),
    (1500, 64, "jit"),
    (4096, 23, "jit"),
    (16384, 5, "jit"),
    (64, 64, "python"),
    (64, 256, "python"),
)
"""(payload bytes, packets per batch, where the loop runs)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; times are CPU time of one packet, written and read, in nanoseconds."""

    payload: int
    """Bytes."""
    batch: int
    """Packets that one publication covers."""
    loop: str
    """``jit``: the loop over batches is compiled too; ``python``: it calls write_batch and read_batch."""
    ns_per_packet: float
    memcpy_ns: float
    """Copying the same batches in and out of a window of that size, nothing else."""
    memcpy_ratio: float
    """memcpy_ns / ns_per_packet: 1.0 is the limit."""

    def as_dict(self) -> dict[str, Any]:
        """The row for ``--json``."""
        return asdict(self)


def measure(budget_ms: float = 20.0, repeats: int = 7) -> list[Row]:
    """Measure every case: ring and memcpy in turn, the median of the repeats.

    :param budget_ms: CPU time of one repeat of one case, about.
    """
    return [_case(payload, batch, loop, budget_ms, repeats) for payload, batch, loop in CASES]


def _case(payload: int, batch: int, loop: str, budget_ms: float, repeats: int) -> Row:
    import numpy as np

    from hvkernel.ring import kernels

    buffer = bytearray(4096 + RING_BYTES)
    init_ring(buffer)
    source, lengths = pack([bytes(payload)] * batch)
    stride = (payload + 7) & ~7
    target = np.zeros(max(stride * batch, 8), np.uint8)
    lengths_out, trans_ids = np.zeros(batch, np.uint32), np.zeros(batch, np.uint64)
    window = np.zeros(RING_BYTES, np.uint8)
    pin = np.frombuffer(source, np.uint8)
    round_trips = kernels.entry_point(kernels.round_trips)
    copy_batches = kernels.entry_point(kernels.copy_batches)
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        writer.write_batch(source, lengths, batch, 0)  # both ends hold the buffers from here on
        reader.read_batch(target, lengths_out, trans_ids, batch)

        def ring_jit(rounds: int) -> None:
            moved = round_trips(writer._state, reader._state, batch, rounds)
            if moved != rounds * batch:
                raise RuntimeError(f"ring bench: {moved} of {rounds * batch} packets of {payload} bytes moved")

        def ring_python(rounds: int) -> None:
            for _ in range(rounds):
                writer.write_batch(source, lengths, batch, 0)
                reader.read_batch(target, lengths_out, trans_ids, batch)

        def memcpy(rounds: int) -> None:
            copy_batches(int(pin.ctypes.data), int(window.ctypes.data), int(target.ctypes.data), payload, batch, rounds)

        ring = ring_jit if loop == "jit" else ring_python
        rounds = _rounds(ring, budget_ms)
        ring_ns, memcpy_ns = [], []
        for _ in range(repeats):
            ring_ns.append(_time(ring, rounds) / (rounds * batch))
            memcpy_ns.append(_time(memcpy, rounds) / (rounds * batch))
    own, limit = median(ring_ns), median(memcpy_ns)
    return Row(payload, batch, loop, round(own, 2), round(limit, 2), round(limit / own, 2))


def _time(function: Callable[[int], None], rounds: int) -> int:
    start = process_time_ns()
    function(rounds)
    return process_time_ns() - start


def _rounds(function: Callable[[int], None], budget_ms: float) -> int:
    """How many rounds take about *budget_ms*."""
    rounds = 1
    while True:
        took = _time(function, rounds)
        if took >= budget_ms * 1e5:
            return max(1, int(rounds * budget_ms * 1e6 / took))
        rounds *= 4
