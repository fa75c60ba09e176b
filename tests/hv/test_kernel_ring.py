"""Our rings against the kernel's own ``drivers/hv/ring_buffer.c`` and ``channel.c``, compiled into a user program.

Every call goes to the kernel's functions and to ours, each on memory of its own; after every call both rings have the
same bytes, and returned values, counters, signals and private indices agree. What plays the host is
``hvkernel/host/vmbus/ring.py`` on both, so that is held against the kernel's guest as well; the last tests do the same
with ``hvkernel.ring`` in either role. See tests/data/kernel-stub/README.md.
"""

from __future__ import annotations

import ctypes
import random
import re
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hvkernel.api.guest.hyperv import VMBUS_RQST_ADDR_ANY, HvMpbArray, VmbusChannel, VmbusOffer
from hvkernel.api.guest.sched import Tasklet
from hvkernel.host.vmbus.packets import build_packet, build_transfer_pages, parse_packet
from hvkernel.host.vmbus.ring import IncomingRing, OutgoingRing, RingCorrupt
from hvkernel.hv import channel_packets
from hvkernel.hv import ring_buffer as rb
from hvkernel.machine.addresses import HvPfn
from hvkernel.machine.memory import Memory
from hvkernel.ring import RingReader, RingWriter, unpack

STUB = Path(__file__).parents[1] / "data" / "kernel-stub"
PAGE_SHIFTS = (12, 14, 16)
U64 = ctypes.c_uint64
PRIVATE = (
    "setevents",
    "intr_out_empty",
    "intr_in_full",
    "out_full_total",
    "out_full_first",
    "out_full_flag",
    "priv_read_index",
    "in_ring_size",
    "in_datasize",
    "pkt_buffer_size",
    "out_ring_size",
    "out_datasize",
    "next_request_id",
    "to_read",
    "to_write",
    "percent",
)
DEBUGINFO = (
    "current_interrupt_mask",
    "current_read_index",
    "current_write_index",
    "bytes_avail_toread",
    "bytes_avail_towrite",
)
COMP, INBAND, GPA_DIRECT = 11, 6, 9

Build = Callable[[int], ctypes.CDLL]


@pytest.fixture(scope="session")
def kernel_rig(
    kernel_source: Path, program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Build:
    """Return a function that compiles the kernel's ring for a page size, once each."""
    gcc = program("gcc", "gcc")
    built: dict[int, ctypes.CDLL] = {}
    drivers = kernel_source / "drivers" / "hv"
    where = tmp_path_factory.mktemp("kernel-ring")
    text = (drivers / "channel.c").read_text()
    requestor = text[text.index("static u64 *request_arr_init(") : text.index("static int __vmbus_open(")]
    (where / "channel_part.h").write_text(requestor + text[text.index("int vmbus_sendpacket_getid(") :])
    sources = [text, (drivers / "ring_buffer.c").read_text(), (kernel_source / "include/linux/hyperv.h").read_text()]
    for name in re.findall(r"^#include <([^>]+)>", "\n".join(sources), re.MULTILINE):
        if name != "linux/hyperv.h":
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_text('#include "stub.h"\n')

    flags = [gcc, "-std=gnu11", "-O1", "-fPIC", "-shared", f"-I{STUB}", f"-I{where}", f"-I{kernel_source / 'include'}"]
    flags.append(f"-I{drivers}")

    def build(page_shift: int) -> ctypes.CDLL:
        if page_shift not in built:
            library = where / f"rig{page_shift}.so"
            done = subprocess.run(
                [*flags, f"-DPAGE_SHIFT={page_shift}", str(STUB / "rig.c"), "-o", str(library)],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            lib = built[page_shift] = ctypes.CDLL(str(library))
            lib.rig_new.restype = lib.rig_arena.restype = ctypes.c_void_p
            lib.rig_first.restype = lib.rig_next.restype = lib.rig_step.restype = ctypes.c_void_p
            lib.rig_end_read.restype = ctypes.c_uint32
            lib.rig_match.restype = lib.rig_next_id.restype = U64
        return built[page_shift]

    return build


class Bytes:
    """One ring of the kernel's arena as the host sees it: 4 KiB of the control page, then the data."""

    def __init__(self, arena: memoryview, start: int, page_size: int) -> None:
        self.arena, self.start, self.skip = arena, start, page_size - 4096

    def _at(self, offset: int) -> int:
        return self.start + (offset if offset < 4096 else offset + self.skip)

    def read(self, offset: int, size: int, /) -> bytes:
        if offset < 4096 < offset + size:
            return self.read(offset, 4096 - offset) + self.read(4096, offset + size - 4096)
        return bytes(self.arena[self._at(offset) : self._at(offset) + size])

    def write(self, offset: int, data: bytes, /) -> None:
        self.arena[self._at(offset) : self._at(offset) + len(data)] = data

    def load32(self, offset: int, /) -> int:
        return int(struct.unpack_from("<I", self.arena, self._at(offset))[0])

    def store32(self, offset: int, value: int, /) -> None:
        struct.pack_into("<I", self.arena, self._at(offset), value)

    def word32(self, offset: int, /) -> SimpleNamespace:
        return SimpleNamespace(load=partial(self.load32, offset), store=partial(self.store32, offset))


class KernelSide:
    """The kernel's functions on an arena that only they and a host know."""

    def __init__(self, lib: ctypes.CDLL, shift: int, out_pages: int, in_pages: int, limit: int, slots: int) -> None:
        self.lib = lib
        self.rig = ctypes.c_void_p(lib.rig_new(out_pages, in_pages, limit, slots))
        size = out_pages + in_pages << shift
        self.arena = memoryview((ctypes.c_char * size).from_address(lib.rig_arena(self.rig))).cast("B")
        page = 1 << shift
        self.out = Bytes(self.arena, 0, page)
        self.inb = Bytes(self.arena, out_pages << shift, page)

    def close(self) -> None:
        self.lib.rig_free(self.rig)

    def rescind(self, now: bool, at_setevent: bool) -> None:
        self.lib.rig_rescind(self.rig, int(now), int(at_setevent))

    def private(self) -> dict[str, int]:
        values = (U64 * len(PRIVATE))()
        self.lib.rig_private(self.rig, values)
        return dict(zip(PRIVATE, values, strict=True))

    def send(self, payload: bytes, requestid: int, kind: int, flags: int) -> tuple[int, int]:
        trans_id = U64(0)
        status = self.lib.rig_send(
            self.rig, payload, len(payload), U64(requestid), ctypes.byref(trans_id), ctypes.c_uint32(kind), flags
        )
        return status, trans_id.value

    def send_mpb(self, array: HvMpbArray, desc_size: int, payload: bytes, requestid: int) -> int:
        head = struct.pack("<HHHHQIIII", 0, 0, 0, 0, 0, 0, 1, array.len, array.offset)
        desc = ctypes.create_string_buffer(
            (head + struct.pack(f"<{len(array.pfn_array)}Q", *array.pfn_array)).ljust(desc_size, b"\0"), desc_size
        )
        status: int = self.lib.rig_send_mpb(self.rig, desc, desc_size, payload, len(payload), U64(requestid))
        return status

    def recv(self, size: int, raw: bool) -> tuple[int, bytes, int, int]:
        buffer, actual, tid = ctypes.create_string_buffer(max(size, 1)), ctypes.c_uint32(0), U64(0)
        status = self.lib.rig_recv(self.rig, buffer, size, ctypes.byref(actual), ctypes.byref(tid), int(raw))
        return status, buffer.raw[: 0 if status else actual.value], actual.value, tid.value

    def _copy(self, desc: int | None) -> bytes | None:
        return (
            None if desc is None else ctypes.string_at(desc, struct.unpack("<H", ctypes.string_at(desc + 4, 2))[0] * 8)
        )

    def iterate(self, count: int, close: bool) -> list[bytes | None]:
        desc = self.lib.rig_first(self.rig)
        got = [self._copy(desc)]
        while desc is not None and len(got) < count:
            desc = (self.lib.rig_next if close else self.lib.rig_step)(self.rig, ctypes.c_void_p(desc))
            got.append(self._copy(desc))
        return got

    def iter_close(self) -> None:
        self.lib.rig_iter_close(self.rig)

    def begin_read(self) -> None:
        self.lib.rig_begin_read(self.rig)

    def end_read(self) -> int:
        return int(self.lib.rig_end_read(self.rig))

    def debuginfo(self, inbound: bool) -> dict[str, int]:
        out = (ctypes.c_uint32 * 5)()
        assert self.lib.rig_debuginfo(self.rig, int(inbound), out) == 0
        return dict(zip(DEBUGINFO, out, strict=True))

    def match(self, trans_id: int, address: int) -> int:
        return int(self.lib.rig_match(self.rig, U64(trans_id), U64(address)))

    def next_id(self, address: int) -> int:
        return int(self.lib.rig_next_id(self.rig, U64(address)))


class Lock:
    """A lock nobody waits for."""

    def irqsave(self) -> Any:
        return nullcontext()

    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...


class OurSide:
    """hvkernel/hv on a machine's memory, the host on that memory's other door."""

    OUT, IN = 1 << 20, 3 << 20

    def __init__(self, shift: int, out_pages: int, in_pages: int, limit: int, slots: int, jit: bool = False) -> None:
        self.page_size = 1 << shift
        self.memory = Memory([(0, 5 << 20)])
        self.found: list[tuple[str, str]] = []
        self.setevents = 0
        self.rescind_at_setevent = False
        locking: Any = SimpleNamespace(spin_lock_init=lambda _: Lock(), mutex_init=lambda _: Lock())
        self.ring = rb.RingBuffer(
            self.memory,
            self.page_size,
            preempt=lambda: None,
            vmbus_setevent=self._setevent,
            locking=locking,
            jit=jit,
            finding=lambda kind, text: self.found.append((kind, text)),
        )
        self.v = cast(Any, SimpleNamespace(rings=self.ring, kernel=SimpleNamespace(locking=locking)))
        offer = VmbusOffer(b"", b"", 0, 0, b"", 0, 1, 0, False, True, 1)
        lock: Any = Lock()
        self.channel = channel = VmbusChannel(
            offer, lock, Tasklet(lambda _: None), rb.HvRingBufferInfo(), rb.HvRingBufferInfo()
        )
        self.ring.hv_ringbuffer_pre_init(channel)
        assert self.ring.hv_ringbuffer_init(channel.outbound, self.OUT, out_pages, 0) == 0
        assert self.ring.hv_ringbuffer_init(channel.inbound, self.IN, in_pages, limit) == 0
        channel.rqstor_size = slots
        if slots:
            channel_packets.vmbus_alloc_requestor(self.v, channel.requestor, slots)
            channel.next_request_id_callback = lambda c, a: channel_packets.vmbus_next_request_id(self.v, c, a)
            channel.request_addr_callback = lambda c, t: channel_packets.vmbus_request_addr(self.v, c, t)
        self.out, self.inb = self._host(self.OUT, out_pages), self._host(self.IN, in_pages)

    def _host(self, base: int, pages: int) -> Any:
        """The host's mapping: one page of control, the data."""
        first, per_page = base >> 12, self.page_size >> 12
        data = range(first + per_page, first + per_page * pages)
        return self.memory.host.vmap([HvPfn(first), *map(HvPfn, data)])

    def _setevent(self, channel: VmbusChannel) -> None:
        self.setevents += 1
        if self.rescind_at_setevent:
            channel.rescind = True

    def close(self) -> None:
        self.ring.hv_ringbuffer_cleanup(self.channel.outbound)
        self.ring.hv_ringbuffer_cleanup(self.channel.inbound)
        self.memory.close()

    def rescind(self, now: bool, at_setevent: bool) -> None:
        self.channel.rescind, self.rescind_at_setevent = now, at_setevent

    def private(self) -> dict[str, int]:
        channel, inbound, outbound = self.channel, self.channel.inbound, self.channel.outbound
        values = [self.setevents, channel.intr_out_empty, channel.intr_in_full, channel.out_full_total]
        values += [channel.out_full_first, int(channel.out_full_flag), inbound.priv_read_index, inbound.ring_size]
        values += [inbound.ring_datasize, inbound.pkt_buffer_size, outbound.ring_size, outbound.ring_datasize]
        values += [channel.requestor.next_request_id, rb.hv_get_bytes_to_read(inbound)]
        values += [rb.hv_get_bytes_to_write(outbound), rb.hv_get_avail_to_write_percent(outbound)]
        return dict(zip(PRIVATE, values, strict=True))

    def send(self, payload: bytes, requestid: int, kind: int, flags: int) -> tuple[int, int]:
        return channel_packets.vmbus_sendpacket_getid(self.v, self.channel, payload, requestid, kind, flags)

    def send_mpb(self, array: HvMpbArray, desc_size: int, payload: bytes, requestid: int) -> int:
        return channel_packets.vmbus_sendpacket_mpb_desc(self.v, self.channel, array, desc_size, payload, requestid)

    def recv(self, size: int, raw: bool) -> tuple[int, bytes, int, int]:
        take = channel_packets.vmbus_recvpacket_raw if raw else channel_packets.vmbus_recvpacket
        return take(self.v, self.channel, size)

    def iterate(self, count: int, close: bool) -> list[bytes | None]:
        desc = self.ring.hv_pkt_iter_first(self.channel)
        got = [None if desc is None else bytes(desc.raw[: desc.len8 * 8])]
        while desc is not None and len(got) < count:
            desc = (self.ring.hv_pkt_iter_next if close else self.ring._hv_pkt_iter_next)(self.channel, desc)
            got.append(None if desc is None else bytes(desc.raw[: desc.len8 * 8]))
        return got

    def iter_close(self) -> None:
        self.ring.hv_pkt_iter_close(self.channel)

    def begin_read(self) -> None:
        self.ring.hv_begin_read(self.channel.inbound)

    def end_read(self) -> int:
        return self.ring.hv_end_read(self.channel.inbound)

    def debuginfo(self, inbound: bool) -> dict[str, int]:
        info = self.ring.hv_ringbuffer_get_debuginfo(self.channel.inbound if inbound else self.channel.outbound)
        assert isinstance(info, rb.HvRingBufferDebugInfo)
        return {name: getattr(info, name) for name in DEBUGINFO}

    def match(self, trans_id: int, address: int) -> int:
        return channel_packets.vmbus_request_addr_match(self.v, self.channel, trans_id, address)

    def next_id(self, address: int) -> int:
        return channel_packets.vmbus_next_request_id(self.v, self.channel, address)


class ForEver(Exception):
    """The kernel goes on where ours has found that this is for ever: the end of a comparison."""


ENDS = {"ring-loop", "ring-stuck"}


class Pair:
    """The same calls on both sides; every one ends with a comparison of everything there is."""

    def __init__(self, lib: ctypes.CDLL, shift: int, pages: tuple[int, int], limit: int, slots: int, jit: bool) -> None:
        self.sizes = [4096 + (count - 1 << shift) for count in pages]
        self.kernel = KernelSide(lib, shift, *pages, limit, slots)
        self.ours = OurSide(shift, *pages, limit, slots, jit)
        self.incoming = [IncomingRing(side.out, self.sizes[0] >> 12) for side in (self.kernel, self.ours)]
        self.outgoing = [
            OutgoingRing(side.inb, self.sizes[1] >> 12, flow_control=True) for side in (self.kernel, self.ours)
        ]
        self.count = 0

    def close(self) -> None:
        self.kernel.close()
        self.ours.close()

    def __call__(self, name: str, *arguments: Any) -> Any:
        theirs = getattr(self.kernel, name)(*arguments)
        ours = getattr(self.ours, name)(*arguments)
        ends = [text for kind, text in self.ours.found if kind in ENDS]
        if ends:
            self.for_ever(name, ours, theirs, ends[0])
        assert ours == theirs, f"call {self.count}: {name}{arguments}"
        self.same(f"call {self.count}: {name}{arguments}")
        return theirs

    def for_ever(self, name: str, ours: Any, theirs: Any, text: str) -> None:
        """Up to where ours ended, both did the same; the kernel takes what it took before, or comes back for it."""
        if name == "iterate":
            assert ours[:-1] == theirs[: len(ours) - 1]
            assert ours[-1] is None is not theirs[len(ours) - 1]
        elif name == "recv":
            assert ours == (0, b"", 0, 0) or ours == theirs
        else:
            assert (name, ours) == ("end_read", 0)
            assert theirs > 0
        raise ForEver(text)

    def host(self, ends: Sequence[Any], name: str, *arguments: Any) -> Any:
        """One call of each host."""
        results = []
        for end in ends:
            try:
                results.append(getattr(end, name)(*arguments))
            except RingCorrupt as error:
                results.append(str(error))
        assert results[0] == results[1], f"call {self.count}: host's {name}"
        self.same(f"call {self.count}: host's {name}")
        return results[0]

    def poke(self, inbound: bool, offset: int, data: bytes) -> None:
        """A hostile host's store, into both."""
        for side in (self.kernel, self.ours):
            (side.inb if inbound else side.out).write(offset, data)

    def same(self, after: str) -> None:
        self.count += 1
        assert self.ours.private() == self.kernel.private(), after
        for ours, theirs, size in (
            (self.ours.out, self.kernel.out, self.sizes[0]),
            (self.ours.inb, self.kernel.inb, self.sizes[1]),
        ):
            if ours.read(0, size) != theirs.read(0, size):
                pairs = zip(ours.read(0, size), theirs.read(0, size), strict=True)
                at = next(i for i, (a, b) in enumerate(pairs) if a != b)
                raise AssertionError(f"{after}: the rings differ at {at:#x}")


@pytest.fixture
def pair(kernel_rig: Build) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(
        shift: int = 12, pages: tuple[int, int] = (2, 2), limit: int = 4096, slots: int = 0, jit: bool = False
    ) -> Pair:
        while made:  # the rig keeps one channel at a time
            made.pop().close()
        made.append(Pair(kernel_rig(shift), shift, pages, limit, slots, jit))
        return made[-1]

    yield make
    for one in made:
        one.close()


def payload(rng: random.Random, most: int) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 7, 8, 9, rng.randrange(most), rng.randrange(most), most)))


def guest_step(both: Pair, rng: random.Random, ids: list[int]) -> None:
    """Something that a driver does."""
    most = both.sizes[0] // 3
    kind = rng.choice(("send", "send", "send", "mpb", "recv", "iterate", "mask", "debuginfo", "match"))
    if kind == "send":
        flags = rng.choice((0, 1, 1, 1, 2, 3))
        status, trans_id = both(
            "send", payload(rng, most), rng.randrange(2**64), rng.choice((INBAND, COMP, 7, 0xFFFF)), flags
        )
        if status == 0 and flags == 1:
            ids.append(trans_id)
    elif kind == "mpb":
        count = rng.randrange(1, 40)
        array = HvMpbArray(rng.randrange(1, 4096) + 4096 * (count - 1), rng.randrange(4096), range(7, 7 + count))
        both("send_mpb", array, 32 + 8 * (count + rng.randrange(4)), payload(rng, 80), rng.randrange(2**64))
    elif kind == "recv":
        both("recv", rng.choice((0, 1, 8, 100, 4096, 4096, 1 << 20)), rng.random() < 0.4)
    elif kind == "iterate":
        both("iterate", rng.randrange(1, 9), rng.random() < 0.7)
        if rng.random() < 0.5:
            both("iter_close")
    elif kind == "mask":
        both("begin_read")
        if rng.random() < 0.8:
            both("end_read")
    elif kind == "debuginfo":
        both("debuginfo", rng.random() < 0.5)
    else:
        known = rng.choice(ids) if ids else 1
        both("match", rng.choice((known, known, 0, 1, 2**64 - 1)), rng.choice((VMBUS_RQST_ADDR_ANY, 5, 2**63)))


def host_step(both: Pair, rng: random.Random) -> None:
    """Something that a correct host does."""
    kind = rng.choice(("drain", "drain", "write", "write", "write", "wait"))
    if kind == "drain":
        if rng.random() < 0.5:
            both.host(both.incoming, "mask")
        for _ in range(rng.randrange(1, 9)):
            if both.host(both.incoming, "read") is None:
                break
        both.host(both.incoming, "commit")
        both.host(both.incoming, "unmask")
    elif kind == "write":
        body, tid, flags = payload(rng, both.sizes[1] // 5), rng.randrange(2**64), rng.randrange(2)
        packet = build_packet(rng.choice((INBAND, COMP, 13)), body, tid, flags)
        if rng.random() < 0.2:
            packet = build_transfer_pages(7, [(1, 2), (3, 4)], body, tid, flags)
        if both.host(both.outgoing, "write", packet) is None:
            both.host(both.outgoing, "wait_for", len(packet))
    elif rng.random() < 0.5:
        both.host(both.outgoing, "wait_for", 8 * rng.randrange(2, both.sizes[1] // 16))
    else:
        both.host(both.outgoing, "stop_waiting")


@pytest.mark.parametrize("jit", [False, True], ids=["accessors", "jit"])
@pytest.mark.parametrize("shift", PAGE_SHIFTS, ids=["4K", "16K", "64K"])
def test_random_runs_agree_with_the_kernel(pair: Callable[..., Pair], shift: int, jit: bool) -> None:
    """Both directions, wraps, full rings, all send and receive functions, partial reads, masks, waiting hosts."""
    seen: dict[str, int] = dict.fromkeys(PRIVATE, 0)
    for seed in range(8 if shift == 12 else 2):
        rng = random.Random(f"{shift} {seed}")
        both = pair(shift, rng.choice(((2, 2), (3, 2), (2, 4))), 4096 << shift - 12, rng.choice((0, 1, 5, 64)), jit)
        ids: list[int] = []
        with suppress(ForEver):  # a driver that never makes room for one packet
            for _ in range(600 if shift == 12 else 250):
                if rng.random() < 0.55:
                    guest_step(both, rng, ids)
                else:
                    host_step(both, rng)
        for name, value in both.kernel.private().items():
            seen[name] += value
        assert not [kind for kind, _ in both.ours.found if kind != "ring-stuck"]
    for name in ("intr_out_empty", "intr_in_full", "out_full_total", "out_full_first"):
        assert seen[name], f"the runs never came to {name}"


@pytest.mark.parametrize("shift", PAGE_SHIFTS, ids=["4K", "16K", "64K"])
def test_a_lying_host_is_read_as_the_kernel_reads_it(pair: Callable[..., Pair], shift: int) -> None:
    """Indices outside the ring, lengths and offsets that lie: the same bytes come out, for as long as we go on."""
    values = (0, 1, 7, 8, 15, 16, 24, 0x7FFFFFFF, 0xFFFFFFF8, 0xFFFFFFFF)
    found: set[str] = set()
    ended = 0
    for seed in range(100 if shift == 12 else 20):
        rng = random.Random(f"lies {shift} {seed}")
        limit = rng.choice((16, 24, 200, 1000, (1 << shift) - 8))
        both = pair(shift, (2, 2), limit)
        size = both.sizes[1] - 4096
        both.poke(True, 4096, rng.randbytes(size))
        try:
            for _ in range(60):
                if rng.random() < 0.2:
                    index = rng.choice((*values, rng.randrange(size), rng.randrange(2**32)))
                    both.poke(True, 0, struct.pack("<I", index))
                if rng.random() < 0.1:
                    offset = rng.choice((4, 8, 12, 64))
                    both.poke(True, offset, struct.pack("<I", rng.choice((*values, rng.randrange(size)))))
                if rng.random() < 0.5:
                    head = struct.pack("<HHH", 6, rng.choice((0, 1, 2, 3, 9, 0xFFFF)), rng.choice((0, 1, 2, 5, 0xFFFF)))
                    both.poke(True, 4096 + both.kernel.private()["priv_read_index"] % size, head)
                both(*rng.choice((("recv", 4096, True), ("recv", 64, False), ("iterate", 5, True), ("iter_close",))))
                if rng.random() < 0.2:
                    both("begin_read")
                    both("end_read")
        except ForEver:
            ended += 1
        found |= {kind for kind, _ in both.ours.found}
        assert both.ours.private()["priv_read_index"] < size
    assert found == {"ring-length", *ENDS}
    assert 0 < ended < (100 if shift == 12 else 20)


def test_lengths_beyond_the_descriptors_16_bits(pair: Callable[..., Pair]) -> None:
    """A packet of more than 512 KiB, and a reader whose limit is above: both lengths wrap as the kernel's do."""
    both = pair(16, (20, 20), 0x90000)
    assert both("send", bytes(600_000), 1, INBAND, 0) == (0, 1)
    assert both("debuginfo", False)["bytes_avail_toread"] == 600_000 + 24
    both.poke(True, 0, struct.pack("<I", 0x98000))
    (first, *_) = both("iterate", 1, False)
    assert len(first) == (0x90000 >> 3 & 0xFFFF) << 3


def test_type_and_flags_are_16_bits(pair: Callable[..., Pair]) -> None:
    """Upper bits are lost on the way, and what is left of the flags decides about an id."""
    both = pair(slots=4)
    assert both("send", b"x", 9, 0x10006, 0x10000) == (0, 9)
    assert both("send", b"x", 9, 0xFFFF_0006, 0x10001) == (0, 1)


def test_a_host_that_writes_the_guests_own_index(pair: Callable[..., Pair]) -> None:
    """The kernel believes the write index in shared memory; inside the ring, that is what ours does too."""
    rng = random.Random(1)
    both = pair(slots=4)
    for _ in range(400):
        both.poke(False, rng.choice((0, 4)), struct.pack("<I", rng.randrange(4096)))
        if rng.random() < 0.3:
            both.poke(False, 4, struct.pack("<I", rng.randrange(2**32)))
        both("send", rng.randbytes(rng.randrange(200)), 9, INBAND, rng.randrange(2))


@pytest.mark.parametrize("shift", PAGE_SHIFTS, ids=["4K", "16K", "64K"])
def test_the_host_takes_apart_what_the_kernel_sends(pair: Callable[..., Pair], shift: int) -> None:
    """GPA-direct packets of 1 to 32 pages and their ranges; a descriptor larger than needed; in-band ones between."""
    rng = random.Random(9)
    both = pair(shift, slots=8)
    memory = both.ours.memory.host
    for count in (1, 1, 2, 3, 31, 32):
        offset = rng.randrange(4096)
        length = max(count * 4096 - offset - rng.randrange(4096), (count - 1) * 4096 - offset + 1, 1)
        pfns = tuple(rng.randrange(1 << 40) for _ in range(count))
        body = rng.randbytes(rng.randrange(60))
        assert both("send_mpb", HvMpbArray(length, offset, pfns), 32 + 8 * (count + rng.randrange(3)), body, 77) == 0
        assert both("send", body, 78, INBAND, 0)[0] == 0
        packet = parse_packet(both.host(both.incoming, "read"), memory)
        assert (packet.kind, packet.flags, packet.payload) == (GPA_DIRECT, 1, body + bytes(-len(body) % 8))
        assert packet.buffer is not None
        assert packet.buffer.ranges == ((length, offset, pfns),)
        assert both("match", packet.trans_id, VMBUS_RQST_ADDR_ANY) == 77
        assert parse_packet(both.host(both.incoming, "read"), memory).trans_id == 78
        both.host(both.incoming, "commit")


def test_the_requestor_hands_out_and_takes_back_as_the_kernels(pair: Callable[..., Pair]) -> None:
    for slots in (1, 2, 64, 65):
        rng = random.Random(slots)
        both = pair(slots=slots)
        addresses = [rng.randrange(2**64) for _ in range(8)]
        full = 0
        for _ in range(600):
            if rng.random() < 0.55:
                full += both("next_id", rng.choice(addresses)) == 2**64 - 2
            else:
                trans_id = rng.choice((0, 2**64 - 1, slots + 1, rng.randrange(slots + 2), rng.randrange(slots + 2)))
                both("match", trans_id, rng.choice((VMBUS_RQST_ADDR_ANY, VMBUS_RQST_ADDR_ANY, *addresses)))
        assert full


def test_a_send_without_a_free_id_leaves_the_bytes_and_not_the_index(pair: Callable[..., Pair]) -> None:
    both = pair(slots=1)
    assert both("send", b"first", 10, INBAND, 1) == (0, 1)
    assert both("send", b"second", 11, INBAND, 1) == (-11, 0)
    assert both.kernel.private()["out_full_total"] == 0
    assert both("send", b"", 12, INBAND, 0) == (0, 12)
    assert both("match", 1, VMBUS_RQST_ADDR_ANY) == 10
    assert both("match", 1, VMBUS_RQST_ADDR_ANY) == 2**64 - 2, "a second completion for the same id"
    assert both("send", b"third", 13, INBAND, 1) == (0, 1)


def test_a_rescind_while_sending_gives_the_id_back(pair: Callable[..., Pair]) -> None:
    both = pair(slots=2)
    both.host(both.incoming, "unmask")
    both("rescind", False, True)
    assert both("send", b"x", 10, INBAND, 1) == (-19, 1)
    assert both.kernel.private()["next_request_id"] == 0
    assert both("send", b"x", 10, INBAND, 1) == (-19, 0)
    both("rescind", False, False)
    assert both("send", b"x", 10, INBAND, 1) == (0, 1)


def test_debuginfo_of_a_ring_that_is_not_open(kernel_rig: Build) -> None:
    side = OurSide(12, 2, 2, 4096, 0)
    side.ring.hv_ringbuffer_cleanup(side.channel.inbound)
    assert side.ring.hv_ringbuffer_get_debuginfo(side.channel.inbound) == kernel_rig(12).rig_debuginfo_closed() == -22
    side.ring.hv_ringbuffer_cleanup(side.channel.outbound)
    side.memory.close()


# hvkernel.ring in the host's place, and in the guest's -----------------------------------------------------------


def test_the_standalone_ring_as_the_kernels_host(kernel_rig: Build) -> None:
    """RingReader takes what the kernel wrote, RingWriter writes what the kernel takes."""
    side = KernelSide(kernel_rig(12), 12, 3, 3, 8192, 0)
    rng = random.Random(2)
    target, lengths, tids = bytearray(1 << 16), np.zeros(64, np.uint32), np.zeros(64, np.uint64)
    up: list[tuple[int, bytes]] = []
    down: list[tuple[int, bytes]] = []
    got_up: list[tuple[int, bytes]] = []
    got_down: list[tuple[int, bytes]] = []
    with (
        RingReader.attach(side.arena[: 3 * 4096]) as reader,
        RingWriter.attach(side.arena[3 * 4096 :]) as writer,
    ):
        for tid in range(2000):
            data = rng.randbytes(8 * rng.randrange(1, 150))
            if side.send(data, tid, INBAND, 0)[0] == 0:
                up.append((tid, data))
            if writer.write_batch(bytearray(data), np.array([len(data)], np.uint32), 1, tid):
                down.append((tid, data))
            if rng.random() < 0.2:
                count = reader.read_batch(target, lengths, tids, 64)
                got_up += zip(map(int, tids[:count]), unpack(target, lengths, count), strict=True)
            while rng.random() < 0.5:
                status, body, size, request = side.recv(4096, False)
                assert status == 0
                if not size:
                    break
                got_down.append((request, body))
        private = side.private()
        assert got_up == up[: len(got_up)]
        assert got_down == down[: len(got_down)]
        assert min(len(got_up), len(got_down)) > 500
        assert private["out_full_total"] > 0
        assert writer.out_full_total > 0
    side.close()


def test_the_standalone_ring_is_the_kernels_guest_byte_for_byte(kernel_rig: Build) -> None:
    """RingWriter beside vmbus_sendpacket: the same images, signals and full counts; RingReader beside the iterator."""
    side = KernelSide(kernel_rig(12), 12, 2, 2, 4096, 0)
    rng = random.Random(4)
    out, inb = bytearray(8192), bytearray(8192)
    out[64] = inb[64] = 1
    host = [IncomingRing(side.out, 2), IncomingRing(_image(out), 2)]
    feed = [OutgoingRing(side.inb, 2, flow_control=True), OutgoingRing(_image(inb), 2, flow_control=True)]
    target, lengths, tids = bytearray(1 << 13), np.zeros(64, np.uint32), np.zeros(64, np.uint64)
    with RingWriter.attach(out) as writer, RingReader.attach(inb) as reader:
        for tid in range(2000):
            data = rng.randbytes(rng.randrange(400))
            status, _ = side.send(data, tid, INBAND, 0)
            done = writer.write_batch(bytearray(data), np.array([len(data)], np.uint32), 1, tid)
            assert (status == 0) == (done == 1)
            if rng.random() < 0.3:
                for end in host:
                    while end.read() is not None:
                        pass
                    end.commit()
                    end.unmask()
            packet = build_packet(INBAND, data, tid, 0)
            wrote = [outgoing.write(packet) for outgoing in feed]
            assert wrote[0] is wrote[1]
            if wrote[0] is None:
                assert feed[0].wait_for(len(packet)) == feed[1].wait_for(len(packet))
            if rng.random() < 0.06:
                got = [one for one in side.iterate(1000, True) if one is not None]
                count = reader.read_batch(target, lengths, tids, 64)
                assert [one[16:] for one in got] == unpack(target, lengths, count)
                for outgoing in feed:
                    outgoing.stop_waiting()
            assert side.out.read(0, 8192) == out
            assert side.inb.read(0, 8192) == inb
        private = side.private()
        assert (writer.signals, reader.signals) == (private["intr_out_empty"], private["intr_in_full"])
        assert min(writer.signals, reader.signals) > 20
        assert (writer.out_full_total, writer.out_full_first) == (
            private["out_full_total"],
            private["out_full_first"],
        )
    side.close()


def _image(ring: bytearray) -> Bytes:
    return Bytes(memoryview(ring), 0, 4096)
