"""The jitted ring: atomics, memcpy and the batch loops.

Importing this module imports numba and compiles (or loads) the code.

All arguments are signed 64 bit integers, most of them addresses (numba makes a float of an unsigned and a signed
one); nothing here checks bounds of a caller's buffer or keeps it alive:
:mod:`hvkernel.ring.ends` does. Intrinsics and kernels stay in one file on purpose, because numba's on-disk cache
knows a function only by the time stamp of the file that defines it.

State of an end: 16 words of 64 bits, see the ``ST_`` offsets; the addresses of the caller's buffers are among them,
because every argument of a call from Python costs time. The control page's offsets are those of ``struct
hv_ring_buffer`` (include/linux/hyperv.h, Linux 6.1.192); the order of loads, stores and barriers is that of
drivers/hv/ring_buffer.c, with one publication and one full barrier for a whole batch. The publication is a release
store and a sequentially consistent fence: a sequentially consistent *store* alone would not order the loads behind it
on arm64.
"""

# mypy: disable-error-code="untyped-decorator"
# numba's decorators turn typed Python into compiled objects; what mypy could say about the result would be wrong.

from __future__ import annotations

from typing import Any, Final

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _typed_intrinsic

intrinsic: Any = _typed_intrinsic
literal_intrinsic: Any = _typed_intrinsic(prefer_literal=True)
njit: Any = numba.njit
raw_memcpy: Any = cgutils.raw_memcpy

ST_BASE: Final = 0
ST_DSIZE: Final = 8
ST_PRIV: Final = 16
ST_MAX_PKT: Final = 24
ST_SIGNALS: Final = 32
ST_FULL_TOTAL: Final = 40
ST_FULL_FIRST: Final = 48
ST_FULL_FLAG: Final = 56
ST_BYTES: Final = 64
ST_CAPACITY: Final = 72
ST_LENGTHS: Final = 80
ST_TRANS_IDS: Final = 88
ST_WORDS: Final = 16

WRITE_INDEX: Final = 0
READ_INDEX: Final = 4
INTERRUPT_MASK: Final = 8
PENDING_SEND_SZ: Final = 12
FEATURE_BITS: Final = 64
DATA: Final = 4096

SMALLEST_MOVE: Final = 8
"""Payload bytes from which on the batch loops copy themselves; fewer go through memcpy."""

MAX_PACKET: Final = 0xFFFF << 3
"""Largest packet: len8 is a u16."""

E_WRITE_INDEX: Final = -1
E_READ_INDEX: Final = -2
E_DST_TOO_SMALL: Final = -3
E_SRC_TOO_SMALL: Final = -4
E_PACKET_TOO_BIG: Final = -5
"""Errors of the batch kernels; for the last two the packet's number is taken off times 8."""

_I8P: Final = ir.IntType(8).as_pointer()


def _pointer(builder: Any, address: Any, bits: int) -> Any:
    return builder.inttoptr(address, ir.IntType(bits).as_pointer())


@intrinsic
def load32_relaxed(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load_atomic(_pointer(builder, args[0], 32), "monotonic", 4)
        return builder.zext(value, ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def load32_acquire(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load_atomic(_pointer(builder, args[0], 32), "acquire", 4)
        return builder.zext(value, ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def load64_relaxed(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0], 64), "monotonic", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store32_release(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = builder.trunc(args[1], ir.IntType(32))
        builder.store_atomic(narrow, _pointer(builder, args[0], 32), "release", 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def fence_seq_cst(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def get32(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args[0], 32), align=4), ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def get64(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], 64), align=8)

    return types.int64(types.int64), codegen


@intrinsic
def put32(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[1], ir.IntType(32)), _pointer(builder, args[0], 32), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def put64(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], 64), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def memcpy(typingctx: Any, target: Any, source: Any, length: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        raw_memcpy(builder, builder.inttoptr(args[0], _I8P), builder.inttoptr(args[1], _I8P), args[2], 1, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def item32(typingctx: Any, address: Any, index: Any) -> Any:
    """An item of an array of u32; unlike ``get32(address + 4 * index)`` LLVM can make a vector loop of it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(_pointer(builder, args[0], 32), [args[1]])
        return builder.zext(builder.load(place, align=4), ir.IntType(64))

    return types.int64(types.int64, types.int64), codegen


@literal_intrinsic
def move_ends(typingctx: Any, target: Any, source: Any, length: Any, size: Any) -> Any:
    """Copy the first and the last *size* (a literal) bytes; both are loaded before either is stored."""
    width = size.literal_value
    piece = ir.VectorType(ir.IntType(8), width).as_pointer()

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        last = builder.sub(args[2], ir.Constant(args[2].type, width))
        places = (args[:2], (builder.add(args[0], last), builder.add(args[1], last)))
        values = [builder.load(builder.inttoptr(place[1], piece), align=1) for place in places]
        for place, value in zip(places, values, strict=True):
            builder.store(value, builder.inttoptr(place[0], piece), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, size), codegen


@njit(nogil=True, error_model="numpy", forceinline=True)
def move(target: int, source: int, length: int) -> None:
    """Copy 8 bytes or more without a call; the last 256 in pieces from both ends that may overlap in the middle."""
    if length <= 16:
        move_ends(target, source, length, 8)
    elif length <= 32:
        move_ends(target, source, length, 16)
    elif length <= 64:
        move_ends(target, source, length, 32)
    else:
        if length > 1024:  # from here on stores that lie across two cache lines cost more than one odd step
            move_ends(target, source, 64, 32)
            odd = 64 - (target & 63)
            target += odd
            source += odd
            length -= odd
        while length > 256:
            move_ends(target, source, 128, 64)
            target += 128
            source += 128
            length -= 128
        move_ends(target, source, length, 64)
        if length > 128:
            move_ends(target + 64, source + 64, length - 128, 64)


def _compiled(signature: Any) -> Any:
    """njit with the on-disk cache; without it where no cache directory can be written."""

    def decorate(function: Any) -> Any:
        options = {"nogil": True, "error_model": "numpy"}
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:
            return njit(signature, **options)(function)

    return decorate


_i64: Final = types.int64


@_compiled(_i64(_i64, _i64, _i64, _i64))
def write_batch(state: int, count: int, trans_id: int, head: int) -> int:
    """Write packets until *count* are in or the ring is full; publish and decide on the signal once.

    The payloads are the ST_CAPACITY bytes at ST_BYTES, their lengths the u32 at ST_LENGTHS.

    :param head: descriptor type in bits 15:0 and flags in bits 63:48.
    :return: packets written, or an ``E_`` value (nothing written then).
    """
    base = get64(state + ST_BASE)
    dsize = get64(state + ST_DSIZE)
    source = get64(state + ST_BYTES)
    capacity = get64(state + ST_CAPACITY)
    lengths = get64(state + ST_LENGTHS)
    data = base + DATA
    write = load32_relaxed(base + WRITE_INDEX)
    if write >= dsize or write & 7:
        return E_WRITE_INDEX
    used = 0
    biggest = 0
    smallest = dsize
    for i in range(count):
        length = item32(lengths, i)
        padded = (length + 7) & -8
        used += padded
        biggest = max(biggest, padded)
        smallest = min(smallest, length)
    if used > capacity or biggest + 24 >= dsize or biggest + 16 > MAX_PACKET:
        used = 0
        for i in range(count):
            length = item32(lengths, i)
            total = ((length + 7) & -8) + 24
            if total >= dsize or total - 8 > MAX_PACKET:
                return E_PACKET_TOO_BIG - 8 * i
            if used + length > capacity:
                return E_SRC_TOO_SMALL - 8 * i
            used += total - 24
    read = load32_acquire(base + READ_INDEX)
    if read >= dsize:
        return E_READ_INDEX
    head += (2 << 16) | (16 << 29)
    first = write
    done = 0
    full = 0
    # Nearly every batch fits before the end of the ring as a whole: then no packet needs to be asked.
    if smallest >= SMALLEST_MOVE and write + used + 24 * count < (read if read > write else dsize):
        at = data + write
        behind = write << 32
        while done < count:
            length = item32(lengths, done)
            padded = (length + 7) & -8
            put64(at, head + (padded << 29))
            put64(at + 8, trans_id + done)
            put64(at + 8 + padded, 0)
            move(at + 16, source, length)
            put64(at + 16 + padded, behind)
            at += padded + 24
            behind += (padded + 24) << 32
            source += padded
            done += 1
        write = at - data
    while done < count:
        stop = read if read > write else dsize
        while done < count:
            length = item32(lengths, done)
            padded = (length + 7) & -8
            following = write + padded + 24
            if length < SMALLEST_MOVE or following >= stop:
                break
            at = data + write
            put64(at, head + (padded << 29))
            put64(at + 8, trans_id + done)
            put64(at + 8 + padded, 0)
            move(at + 16, source, length)
            put64(at + 16 + padded, write << 32)
            write = following
            source += padded
            done += 1
        if done == count:
            break
        length = item32(lengths, done)
        padded = (length + 7) & -8
        total = padded + 24
        if (dsize - write + read if write >= read else read - write) <= total:
            read = load32_acquire(base + READ_INDEX)
            if read >= dsize:
                break
            if (dsize - write + read if write >= read else read - write) <= total:
                full = 1
                break
        put64(data + write, head + (padded << 29))
        following = write + total
        if following >= dsize:
            following -= dsize
        place = write + 8
        if place == dsize:
            place = 0
        put64(data + place, trans_id + done)
        place += 8
        if place == dsize:
            place = 0
        last = place + padded
        if last >= dsize:
            last -= dsize
        put64(data + last, write << 32)
        if length & 7:
            put64(data + (last if last else dsize) - 8, 0)
        head_part = dsize - place
        if head_part >= length:
            memcpy(data + place, source, length)
        else:
            memcpy(data + place, source, head_part)
            memcpy(data, source + head_part, length - head_part)
        write = following
        source += padded
        done += 1
    if full:
        put64(state + ST_FULL_TOTAL, get64(state + ST_FULL_TOTAL) + 1)
        if done > 0 or get64(state + ST_FULL_FLAG) == 0:
            put64(state + ST_FULL_FIRST, get64(state + ST_FULL_FIRST) + 1)
    if done > 0 or full:
        put64(state + ST_FULL_FLAG, full)
    if done > 0:
        store32_release(base + WRITE_INDEX, write)
        fence_seq_cst()
        if load32_relaxed(base + INTERRUPT_MASK) == 0 and load32_relaxed(base + READ_INDEX) == first:
            put64(state + ST_SIGNALS, get64(state + ST_SIGNALS) + 1)
    return done


@_compiled(_i64(_i64, _i64))
def read_batch(state: int, count: int) -> int:
    """Copy out up to *count* packets' payloads at 8-aligned places; give their space back once.

    The ST_CAPACITY bytes at ST_BYTES receive the payloads, ST_LENGTHS (u32) and ST_TRANS_IDS (u64) the rest.
    A descriptor is judged and used as one 64 bit load gave it (the first loop drops what it leaves to the second), and
    its length and offset are clamped like hv_pkt_iter_first does.
    The private read index is the reader's own: the writer cannot move it.

    :return: packets read, or an ``E_`` value.
    """
    base = get64(state + ST_BASE)
    dsize = get64(state + ST_DSIZE)
    limit = get64(state + ST_MAX_PKT)
    target = get64(state + ST_BYTES)
    capacity = get64(state + ST_CAPACITY)
    lengths = get64(state + ST_LENGTHS)
    trans_ids = get64(state + ST_TRANS_IDS)
    data = base + DATA
    priv = get64(state + ST_PRIV)
    write = load32_acquire(base + WRITE_INDEX)
    if write >= dsize:
        return E_WRITE_INDEX
    done = 0
    while done < count:
        stop = write if write >= priv else dsize - 1
        while done < count:
            at = data + priv
            head = load64_relaxed(at)
            length = (head >> 29) & 0x7FFF8
            payload = length - 16
            following = priv + length + 8
            if (
                length < SMALLEST_MOVE + 16
                or length > limit
                or head & 0xFFFF0000 != 2 << 16
                or following > stop
                or payload > capacity
            ):
                break
            put64(trans_ids + 8 * done, get64(at + 8))
            put32(lengths + 4 * done, payload)
            move(target, at + 16, payload)
            target += payload
            capacity -= payload
            priv = following
            done += 1
        if done == count:
            break
        avail = write - priv if write >= priv else dsize - priv + write
        if avail < 16:
            write = load32_acquire(base + WRITE_INDEX)
            if write >= dsize:
                break
            avail = write - priv if write >= priv else dsize - priv + write
            if avail < 16:
                break
        if avail > limit:
            avail = limit
        head = load64_relaxed(data + priv)
        length = (head >> 29) & 0x7FFF8
        offset = (head >> 13) & 0x7FFF8
        if length < 16 or length > avail:
            length = avail & -8
        if offset < 16 or offset > length:
            offset = 16
        payload = length - offset
        if payload > capacity:
            if done == 0:
                return E_DST_TOO_SMALL
            break
        place = priv + 8
        if place == dsize:
            place = 0
        put64(trans_ids + 8 * done, get64(data + place))
        put32(lengths + 4 * done, payload)
        place = priv + offset
        if place >= dsize:
            place -= dsize
        head_part = dsize - place
        if head_part >= payload:
            memcpy(target, data + place, payload)
        else:
            memcpy(target, data + place, head_part)
            memcpy(target + head_part, data, payload - head_part)
        target += payload
        capacity -= payload
        priv += length + 8
        if priv >= dsize:
            priv -= dsize
        done += 1
    if done > 0:
        put64(state + ST_PRIV, priv)
        start = load32_relaxed(base + READ_INDEX)
        store32_release(base + READ_INDEX, priv)
        if load32_relaxed(base + FEATURE_BITS) & 1:
            fence_seq_cst()
            pending = load32_relaxed(base + PENDING_SEND_SZ)
            if pending != 0:
                write = load32_acquire(base + WRITE_INDEX)
                free = (dsize - (write - priv) if write >= priv else priv - write) & 0xFFFFFFFF
                taken = (priv - start if priv >= start else dsize - start + priv) & 0xFFFFFFFF
                if ((free - taken) & 0xFFFFFFFF) <= pending and free > pending:
                    put64(state + ST_SIGNALS, get64(state + ST_SIGNALS) + 1)
    return done


@_compiled(_i64(_i64, _i64))
def set_interrupt_mask(base: int, mask: int) -> Any:
    """Store interrupt_mask, full barrier, return the write index (hv_begin_read, hv_end_read)."""
    store32_release(base + INTERRUPT_MASK, mask)
    fence_seq_cst()
    return load32_relaxed(base + WRITE_INDEX)


@_compiled(_i64(_i64, _i64))
def set_pending_send_sz(base: int, size: int) -> Any:
    """Store pending_send_sz, full barrier, return the read index (a writer that waits for room)."""
    store32_release(base + PENDING_SEND_SZ, size)
    fence_seq_cst()
    return load32_relaxed(base + READ_INDEX)


@_compiled(_i64(_i64, _i64, _i64))
def copy(target: int, source: int, length: int) -> int:
    """memcpy; returns *length*."""
    memcpy(target, source, length)
    return length


def entry_point(function: Any) -> Any:
    """The compiled code behind a kernel, twice as fast to call; the kernel itself where numba hides it."""
    try:
        (result,) = function.overloads.values()
        return result.entry_point
    except (AttributeError, TypeError, ValueError):
        return function
