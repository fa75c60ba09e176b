"""Compiled loops over the batch kernels, for measuring them without Python in between.

Arguments are as in :mod:`hvkernel.ring.kernels`: integers, most of them addresses. Compiled at import and not kept on
disk, as numba's cache would not see a change of the kernels that are compiled into these.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"
# numba's decorators turn typed Python into compiled objects; what mypy could say about the result would be wrong.

from __future__ import annotations

from typing import Any, Final

from numba import types

from hvkernel.ring.kernels import (
    READ_INDEX,
    ST_BASE,
    WRITE_INDEX,
    get64,
    load32_relaxed,
    njit,
    read_batch,
    store32_release,
    write_batch,
)

POLLS: Final = 4096
"""Polls of an empty or full ring before a thread offers its processor to others."""

_i64: Final = types.int64
_sched_yield: Final[Any] = types.ExternalFunction("sched_yield", types.int32())


@njit(_i64(_i64, _i64, _i64, _i64), nogil=True, error_model="numpy")
def round_trips(writer: int, reader: int, count: int, rounds: int) -> int:
    """Write a batch and read it back, *rounds* times; returns the packets moved."""
    moved = 0
    for i in range(rounds):
        moved += write_batch(writer, count, i * count, 6)
        read_batch(reader, count)
    return moved


@njit(_i64(_i64, _i64, _i64), nogil=True, error_model="numpy")
def writes(writer: int, count: int, rounds: int) -> int:
    """Write a batch and let the read index follow by itself, *rounds* times; returns the packets written."""
    moved = 0
    base = get64(writer + ST_BASE)
    for i in range(rounds):
        moved += write_batch(writer, count, i * count, 6)
        store32_release(base + READ_INDEX, load32_relaxed(base + WRITE_INDEX))
    return moved


@njit(_i64(_i64, _i64, _i64), nogil=True, error_model="numpy")
def produce(writer: int, count: int, total: int) -> int:
    """Write *total* packets in batches of at most *count*, polling while the ring is full."""
    sent = 0
    idle = 0
    while sent < total:
        done = write_batch(writer, min(count, total - sent), sent, 6)
        if done < 0:
            return done
        sent += done
        idle = 0 if done else idle + 1
        if idle > POLLS:
            _sched_yield()
    return sent


@njit(_i64(_i64, _i64, _i64), nogil=True, error_model="numpy")
def consume(reader: int, count: int, total: int) -> int:
    """Read *total* packets in batches of at most *count*, polling while the ring is empty."""
    seen = 0
    idle = 0
    while seen < total:
        done = read_batch(reader, min(count, total - seen))
        if done < 0:
            return done
        seen += done
        idle = 0 if done else idle + 1
        if idle > POLLS:
            _sched_yield()
    return seen
