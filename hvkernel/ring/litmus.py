"""Two compiled loops that race for the one moment in which a signal can be lost, and count when one is.

Each end of a ring decides alone whether its peer sleeps: it stores its own index, and then looks at what the peer
stored. If both could look before the other's store is visible, the writer would not signal and the reader would sleep
on a packet. The full barrier between store and look, in both ends, forbids it. Here writer and reader meet in that
moment once a round, with delays drawn anew each time; *barrier* 0 leaves the sleeper's barrier out and shows that the
race is real (``tests/bench/litmus.py``).

Memory that both threads see besides the ring: u32 words, each on a cache line of its own, at ``DECIDED`` and ``STOP``.
Compiled at import and not kept on disk, see :mod:`hvkernel.ring.loops`.
"""

# mypy: disable-error-code="untyped-decorator, no-any-return"
# numba's decorators turn typed Python into compiled objects; what mypy could say about the result would be wrong.

from __future__ import annotations

from typing import Any, Final

from numba import types

from hvkernel.ring.kernels import (
    INTERRUPT_MASK,
    PENDING_SEND_SZ,
    READ_INDEX,
    ST_BASE,
    ST_DSIZE,
    ST_SIGNALS,
    WRITE_INDEX,
    get64,
    load32_acquire,
    load32_relaxed,
    load64_relaxed,
    njit,
    read_batch,
    set_interrupt_mask,
    set_pending_send_sz,
    store32_release,
    write_batch,
)

DECIDED: Final = 0
"""Packets about which the awake end has decided whether to signal."""
STOP: Final = 64
"""Not 0: both loops end."""
WORDS: Final = 32
"""u32 words of the shared memory."""

_i64: Final = types.int64
_sched_yield: Final[Any] = types.ExternalFunction("sched_yield", types.int32())


@njit(_i64(_i64, _i64), nogil=True, error_model="numpy")
def _delay(random: int, place: int) -> int:
    """Pass up to some hundred cycles; returns the next random number."""
    random = (random * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
    for _ in range((random >> 40) & 127):
        load32_relaxed(place)
    return random


@njit(_i64(_i64, _i64, _i64, _i64), nogil=True, error_model="numpy")
def write_when_empty(writer: int, shared: int, rounds: int, random: int) -> int:
    """Write a packet just when the reader goes to sleep, *rounds* times; returns the packets written."""
    base = get64(writer + ST_BASE)
    sent = 0
    idle = 0
    while sent < rounds and load32_relaxed(shared + STOP) == 0:
        if load32_relaxed(base + READ_INDEX) != load32_relaxed(base + WRITE_INDEX):
            idle += 1
            if idle > 2000:
                _sched_yield()
            continue
        idle = 0
        random = _delay(random, base)
        sent += write_batch(writer, 1, sent, 6)
        store32_release(shared + DECIDED, sent)
    return sent


@njit(_i64(_i64, _i64, _i64, _i64, _i64), nogil=True, error_model="numpy")
def sleep_when_empty(reader: int, writer: int, shared: int, rounds: int, barrier: int) -> int:
    """Read *rounds* packets, sleeping whenever there is none until a signal comes; returns the signals lost."""
    base = get64(reader + ST_BASE)
    seen = 0
    lost = 0
    woken = 0
    idle = 0
    while seen < rounds and load32_relaxed(shared + STOP) == 0:
        store32_release(base + INTERRUPT_MASK, 1)
        got = read_batch(reader, 1)
        if got > 0:
            seen += got
            continue
        if barrier:
            set_interrupt_mask(base, 0)
        else:
            store32_release(base + INTERRUPT_MASK, 0)
        if load32_acquire(base + WRITE_INDEX) != load32_relaxed(base + READ_INDEX):
            continue
        idle = 0
        while load32_relaxed(shared + STOP) == 0:
            decided = load32_acquire(shared + DECIDED)
            signals = load64_relaxed(writer + ST_SIGNALS)
            if signals > woken:
                woken = signals
                break
            if decided > seen:
                lost += 1
                break
            idle += 1
            if idle > 2000:
                _sched_yield()
    return lost


@njit(_i64(_i64, _i64, _i64, _i64), nogil=True, error_model="numpy")
def read_when_full(reader: int, shared: int, rounds: int, random: int) -> int:
    """Read a packet just when the writer goes to sleep, *rounds* times; returns the packets read."""
    base = get64(reader + ST_BASE)
    seen = 0
    idle = 0
    before = load32_relaxed(base + WRITE_INDEX)
    while seen < rounds and load32_relaxed(shared + STOP) == 0:
        write = load32_relaxed(base + WRITE_INDEX)
        if write == before and seen > 0:
            idle += 1
            if idle > 2000:
                _sched_yield()
            continue
        before = write
        idle = 0
        random = _delay(random, base)
        seen += read_batch(reader, 1)
        store32_release(shared + DECIDED, seen)
    return seen


@njit(_i64(_i64, _i64, _i64, _i64, _i64, _i64), nogil=True, error_model="numpy")
def sleep_when_full(writer: int, reader: int, shared: int, size: int, rounds: int, barrier: int) -> int:
    """Write *rounds* packets into a ring that is full, sleeping for room each time; returns the signals that were lost.

    :param size: bytes of a packet in the ring, the same for all.
    """
    base = get64(writer + ST_BASE)
    dsize = get64(writer + ST_DSIZE)
    sent = 0
    first = 0
    lost = 0
    woken = 0
    random = rounds
    while write_batch(writer, 1, 0, 6) == 1:
        first += 1
    while sent < rounds and load32_relaxed(shared + STOP) == 0:
        done = write_batch(writer, 1, sent, 6)
        if done > 0:
            sent += done
            continue
        random = _delay(random, base)
        if barrier:
            set_pending_send_sz(base, size)
        else:
            store32_release(base + PENDING_SEND_SZ, size)
        read = load32_acquire(base + READ_INDEX)
        write = load32_relaxed(base + WRITE_INDEX)
        if (dsize - write + read if write >= read else read - write) > size:
            store32_release(base + PENDING_SEND_SZ, 0)
            continue
        idle = 0
        while load32_relaxed(shared + STOP) == 0:
            decided = load32_acquire(shared + DECIDED)
            signals = load64_relaxed(reader + ST_SIGNALS)
            if signals > woken:
                woken = signals
                break
            if dsize - (first + sent - decided) * size > size:
                lost += 1
                break
            idle += 1
            if idle > 2000:
                _sched_yield()
        store32_release(base + PENDING_SEND_SZ, 0)
    return lost
