from __future__ import annotations

import struct
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.host.vmbus.packets import build_packet
from hvkernel.host.vmbus.ring import IncomingRing, OutgoingRing, RingCorrupt


class Pages:
    """Ring memory without a machine."""

    def __init__(self, pages: int) -> None:
        self.data = bytearray(pages * 4096)

    def read(self, offset: int, size: int) -> bytes:
        assert 0 <= offset <= offset + size <= len(self.data)
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= len(self.data)
        self.data[offset : offset + len(data)] = data

    def load32(self, offset: int) -> int:
        return int.from_bytes(self.data[offset : offset + 4], "little")

    def store32(self, offset: int, value: int) -> None:
        self.data[offset : offset + 4] = value.to_bytes(4, "little")

    def word32(self, offset: int) -> SimpleNamespace:
        return SimpleNamespace(load=partial(self.load32, offset), store=partial(self.store32, offset))


def pair(pages: int = 2, *, start: int = 0) -> tuple[Pages, OutgoingRing, IncomingRing]:
    """A writer and a reader of one ring: the host's two ends talk to each other."""
    memory = Pages(pages)
    memory.store32(0, start)
    memory.store32(4, start)
    incoming = IncomingRing(memory, pages)
    incoming.unmask()
    return memory, OutgoingRing(memory, pages, flow_control=True), incoming


def test_a_ring_needs_data() -> None:
    with pytest.raises(RingCorrupt, match=r"^a ring of 1 pages has no data; it needs at least 2$"):
        IncomingRing(Pages(1), 1)


def test_bytes_on_the_page() -> None:
    memory, outgoing, _ = pair(start=4096 - 16)
    assert outgoing.write(build_packet(6, b"12345", 0x1122334455667788, 1)) is True
    assert memory.data[4096 + 4080 :] == struct.pack("<HHHHQ", 6, 2, 3, 1, 0x1122334455667788)
    assert memory.data[4096 : 4096 + 16] == b"12345\0\0\0" + struct.pack("<II", 0, 4080)
    assert memory.load32(0) == 16


@given(st.data())
@settings(max_examples=60)
def test_fifo_of_any_packets(data: st.DataObject) -> None:
    """What goes in comes out, in order; the writer signals exactly when the reader has nothing and is not looking."""
    pages = data.draw(st.integers(2, 4))
    start = data.draw(st.integers(0, (pages - 1) * 512 - 1)) * 8
    _, outgoing, incoming = pair(pages, start=start)
    size = (pages - 1) * 4096
    queue: deque[bytes] = deque()
    masked = False
    unseen = 0  # packets that the reader has not committed
    for _ in range(data.draw(st.integers(1, 60))):
        match data.draw(st.sampled_from(["write", "read", "commit", "mask", "unmask"])):
            case "write":
                packet = build_packet(
                    6, bytes([data.draw(st.integers(0, 255))]) * data.draw(st.integers(0, 2000)), 1, 0
                )
                used = sum(len(p) + 8 for p in queue) + unseen
                signal = outgoing.write(packet)
                if len(packet) + 8 > size - 8 - used:
                    assert signal is None
                else:
                    assert signal is (not masked and not used)
                    queue.append(packet)
            case "read":
                raw = incoming.read()
                if queue:
                    assert raw == queue.popleft()
                    unseen += len(raw) + 8
                else:
                    assert raw is None
            case "commit":
                assert incoming.commit() is False
                unseen = 0
            case "mask":
                incoming.mask()
                masked = True
            case "unmask":
                assert incoming.unmask() is bool(queue)
                masked = False
    while queue:
        assert incoming.read() == queue.popleft()
    assert incoming.read() is None


def test_a_ring_is_never_filled_completely() -> None:
    _, outgoing, incoming = pair()
    assert outgoing.fits(4096 - 16)
    assert not outgoing.fits(4096 - 8)
    assert outgoing.write(bytes(4096 - 8)) is None
    packet = build_packet(6, bytes(4096 - 32), 0, 0)
    assert outgoing.write(packet) is True
    assert outgoing.write(build_packet(6, b"", 0, 0)) is None
    assert incoming.read() == packet


def test_pending_send_sz_of_the_guest() -> None:
    """Reading signals a writer once, when the room that it waits for appears; low bits of its number mean nothing."""
    memory, outgoing, incoming = pair()
    small = build_packet(6, bytes(984), 0, 0)  # 1008 bytes with the trailer
    for _ in range(4):
        assert outgoing.write(small) is not None
    memory.store32(12, 2016 | 7)
    signals = []
    for _ in range(4):
        incoming.read()
        signals.append(incoming.commit())
    assert signals == [False, True, False, False]
    assert incoming.commit() is False
    memory.store32(12, 4095)  # the ring less one: it means all that can be free, 4088
    assert outgoing.write(small) is not None
    incoming.read()
    assert incoming.commit() is True
    memory.store32(64, 1)
    assert incoming.guest_uses_pending_send_sz


def test_pending_send_sz_of_the_host() -> None:
    memory, outgoing, incoming = pair()
    small = build_packet(6, bytes(2000), 0, 0)
    assert outgoing.write(small) is True
    assert outgoing.wait_for(len(small)) is True, "there is room for a second one"
    assert outgoing.write(small) is False
    assert outgoing.write(small) is None
    assert outgoing.wait_for(len(small)) is False
    assert memory.load32(12) == len(small) + 8
    assert incoming.read() == small
    assert incoming.commit() is True
    assert outgoing.write(small) is not None
    outgoing.stop_waiting()
    assert memory.load32(12) == 0


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        (0, 4096, "write_index = 0x1000 is not a multiple of 8 below the ring's 0x1000 bytes"),
        (0, 4, "write_index = 0x4 is not a multiple of 8 below the ring's 0x1000 bytes"),
        (0, 8, "8 bytes at 0x0 are less than the smallest packet and its trailer"),
    ],
)
def test_broken_write_index_of_the_guest(where: int, value: int, text: str) -> None:
    memory, _, incoming = pair()
    memory.store32(where, value)
    with pytest.raises(RingCorrupt, match=text):
        incoming.read()


@pytest.mark.parametrize(("offset8", "len8"), [(0, 3), (1, 3), (4, 3), (2, 100), (2, 0), (65535, 65535)])
def test_packets_whose_lengths_do_not_fit(offset8: int, len8: int) -> None:
    memory, _, incoming = pair()
    memory.write(4096, struct.pack("<HHHHQ", 6, offset8, len8, 0, 0))
    memory.store32(0, 32)
    with pytest.raises(RingCorrupt, match=rf"^packet at 0x0: offset8 {offset8}, len8 {len8}; "):
        incoming.read()


@pytest.mark.parametrize("start", [0, 64, 4096 - 8, 4096 - 16])
def test_a_guest_that_changes_the_packet_under_the_host(start: int) -> None:
    """What was checked is what the device gets, whatever the guest writes between the check and the copy."""
    memory, outgoing, incoming = pair(start=start)
    packet = build_packet(6, b"content!", 7, 1)
    outgoing.write(packet)
    read = memory.read

    def meddling(offset: int, size: int) -> bytes:
        taken = read(offset, size)
        memory.data[4096 + start : 4096 + start + 8] = b"\xff" * 8
        return taken

    memory.read = meddling  # type: ignore[method-assign]  # the guest, at the worst moment
    assert incoming.read() == packet
    memory.read = read  # type: ignore[method-assign]  # as above
    assert incoming.read() is None


def test_the_hosts_own_indices_are_the_hosts() -> None:
    memory, outgoing, incoming = pair()
    outgoing.write(build_packet(6, b"", 0, 0))
    incoming.read()
    memory.store32(4, 8)
    with pytest.raises(RingCorrupt, match=r"^read_index is the host's: it left 0x0 and finds 0x8$"):
        incoming.commit()
    memory.store32(0, 64)
    with pytest.raises(RingCorrupt, match=r"^write_index is the host's: it left 0x18 and finds 0x40$"):
        outgoing.write(build_packet(6, b"", 0, 0))


INDEX = st.one_of(st.integers(0, 511).map(lambda i: 8 * i), st.integers(0, 2**32 - 1))
DESCRIPTOR = st.builds(
    lambda *words: struct.pack("<HHHHQ", *words, 0),
    st.integers(0, 15), st.integers(0, 4), st.integers(0, 12), st.integers(0, 3),
)  # fmt: skip


@given(junk=st.lists(DESCRIPTOR, min_size=1, max_size=20), write=INDEX, read=INDEX)
@settings(max_examples=200)
def test_any_ring_at_all(junk: list[bytes], write: int, read: int) -> None:
    """Whatever is on the pages: packets, nothing or RingCorrupt, and an end."""
    memory = Pages(2)
    words = b"".join(junk)
    memory.data[4096:] = (words * (4096 // len(words) + 1))[:4096]
    memory.store32(0, write)
    memory.store32(4, read)
    try:
        incoming = IncomingRing(memory, 2)
        for _ in range(4096 // 24 + 1):
            raw = incoming.read()
            incoming.commit()
            if raw is None:
                return
            assert 16 <= len(raw) <= 4096
    except RingCorrupt:
        return
    raise AssertionError("more packets than fit")


def stream(guest: Any, ring: Any, packets: list[bytes]) -> list[bytes]:
    """Send packets as a guest does and collect the answers, stopping for a full ring."""
    got: list[bytes] = []
    for packet in packets:
        while not ring.write(packet):
            guest.signal(0x2001)
            got += ring.read_all()
        guest.signal(0x2001)
    while batch := ring.read_all():
        got += batch
        guest.signal(0x2001)
    return got


@given(lengths=st.lists(st.integers(0, 4000), min_size=1, max_size=40))
@settings(max_examples=25)
def test_both_ways_through_a_server(raw_guest: Any, lengths: list[int]) -> None:
    raw = raw_guest
    guest = raw()
    try:
        guest.connect()
        ring = guest.open(1)
        sent = [raw.inband(bytes([i]) * n, i, 1) for i, n in enumerate(lengths)]
        got = stream(guest, ring, sent)
        assert got == [b"\x0b" + p[1:6] + b"\0\0" + p[8:] for p in sent]
        assert guest.findings() == []
        assert guest.server.devices[0].channels[0].inflight == {}
    finally:
        guest.machine.close()


def test_more_than_the_hosts_ring_holds_waits_for_the_guest(raw: Any) -> None:
    """The host queues, asks with pending_send_sz, and goes on when the guest made room and signalled."""
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    channel = guest.echoes[0].opened[0]
    for i in range(20):
        channel.send_packet(6, bytes([i]) * 2000, i)
    assert guest.events() == [(1, 1)], "one signal: from empty to not empty"
    packet = 2000 + 16 + 8
    assert ring.word(ring.down, 12) == packet
    seen: list[int] = []
    while True:
        batch = ring.read_all()
        if not batch:
            break
        seen += [p[16] for p in batch]
        guest.signal(0x2001)
    assert seen == list(range(20))
    assert ring.word(ring.down, 12) == 0
    with pytest.raises(ValueError, match=r"^relid 1 \(echo0\): a packet of 12288 bytes never fits a ring of 12288$"):
        channel.send_packet(6, bytes(12288 - 16))


def test_what_waits_for_room_dies_with_the_channel(raw: Any) -> None:
    guest = raw()
    guest.connect()
    guest.open(1)
    for i in range(20):
        guest.echoes[0].opened[0].send_packet(6, bytes([i]) * 2000, i)
    guest.post(struct.pack("<III", 7, 0, 1))
    guest.machine.memory.guest.write(0x100 << 12, bytes(0x8000))
    ring = guest.open(1, first=0x200)
    guest.echoes[0].opened[1].send_packet(6, b"new here")
    guest.signal(0x2001)
    assert ring.read_all() == [raw.inband(b"new here")]


def test_a_packet_that_comes_while_the_host_goes_to_sleep(raw: Any) -> None:
    """The guest sees the mask and does not signal; the host looks once more after it took the mask off."""
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    rings = guest.server.devices[0].channels[0].rings

    class Racy(IncomingRing):
        late = True

        def unmask(self) -> bool:
            if self.late:
                self.late = False
                ring.write(raw.inband(b"late", 2, 1))
            return super().unmask()

    rings.incoming = Racy(guest.machine.memory.host.vmap(range(0x100, 0x104)), 4)
    ring.write(raw.inband(b"in time", 1, 1))
    guest.signal(0x2001)
    assert [p[8] for p in ring.read_all()] == [1, 2]


def test_a_host_before_2012_polls_for_room(raw: Any) -> None:
    guest = raw()
    guest.connect(0x0001_0001)
    ring = guest.open(1)
    channel = guest.echoes[0].opened[0]
    for i in range(20):
        channel.send_packet(6, bytes([i]) * 2000, i)
    seen = []
    for _ in range(20):
        seen += [p[16] for p in ring.read_all()]
        guest.machine.run(limit=guest.machine.clock.now + 1_000_000)
    assert seen == list(range(20))


def test_no_signal_while_the_guest_looks_anyway(raw: Any) -> None:
    guest = raw()
    guest.connect()
    ring = guest.open(1)
    channel = guest.echoes[0].opened[0]
    guest.machine.memory.guest.store32(ring.down + 8, 1)
    channel.send_packet(6, b"a")
    assert guest.events() == []
    guest.machine.memory.guest.store32(ring.down + 8, 0)
    channel.send_packet(6, b"b")
    assert guest.events() == [], "the ring was not empty"
    assert len(ring.read_all()) == 2
    channel.send_packet(6, b"c")
    assert guest.events() == [(1, 1)]


@pytest.mark.parametrize(
    "breakage",
    [
        lambda guest, ring: guest.machine.memory.guest.store32(ring.up, 0x7FFF_FFF8),
        lambda guest, ring: guest.machine.memory.guest.store32(ring.up, 8),
        lambda guest, ring: (
            ring.write(struct.pack("<HHHHQ", 6, 2, 2, 0, 0)),
            guest.machine.memory.guest.store32(ring.up + 4, 8),
        ),
        lambda guest, ring: ring.write(struct.pack("<HHHHQ", 6, 9, 2, 0, 0)),
        lambda guest, ring: ring.write(struct.pack("<HHHHQ", 5, 2, 2, 0, 0)),
        lambda guest, ring: ring.write(struct.pack("<HHHHQ", 6, 2, 2, 2, 0)),
        lambda guest, ring: ring.write(struct.pack("<HHHHQII", 9, 3, 3, 0, 0, 0, 0)),
        lambda guest, ring: ring.write(struct.pack("<HHHHQ", 9, 2, 2, 0, 0)),
        lambda guest, ring: ring.write(struct.pack("<HHHHQII", 9, 3, 3, 0, 0, 0, 1)),
    ],
)
def test_a_broken_ring_is_left_alone_and_closes_normally(raw: Any, breakage: Any) -> None:
    guest = raw(slots=2)
    guest.connect()
    ring = guest.open(1)
    other = guest.open(2, first=0x200)
    breakage(guest, ring)
    guest.signal(0x2001)
    (finding,) = guest.findings()
    assert finding.startswith("refused: vmbus: relid 1 (echo0): ")
    assert finding.endswith("; the host stops using the rings")
    guest.signal(0x2001)
    assert guest.findings() == []
    other.write(raw.inband(b"fine", 1, 1))
    guest.signal(0x2002)
    assert len(other.read_all()) == 1
    guest.post(struct.pack("<III", 7, 0, 1))
    guest.post(struct.pack("<IIII", 11, 0, 1, guest.gpadl - 1))
    assert len(guest.got()) == 1
    guest.machine.memory.guest.write(0x100 << 12, bytes(0x8000))
    guest.open(1)
