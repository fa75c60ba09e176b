"""Writer and reader in two processes and in two threads: every packet arrives, whole, once, in order, and no signal is
lost; and the example of the manual."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from time import sleep
from zlib import crc32

import numpy as np
import pytest

from hvkernel.ring import RingReader, RingWriter, init_ring, pack, unpack

PAGE = 4096
PEER = Path(__file__).with_name("peer.py")
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ring_pair.py"


@pytest.mark.parametrize("seed", range(4))
def test_two_processes_sleep_and_wake_each_other(seed: int) -> None:
    """Small rings are full and empty all the time: an end that misses its signal sleeps until its time is over."""
    pages, messages = 1 + seed % 3, 3000
    size = PAGE * (1 + pages)
    fd = os.memfd_create("ring")
    data, room = os.pipe(), os.pipe()
    try:
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as memory:
            init_ring(memory)
        children = []
        for role, wake, woken in (("write", data[1], room[0]), ("read", room[1], data[0])):
            arguments = [sys.executable, str(PEER), role, *map(str, (fd, size, wake, woken, messages, seed))]
            children.append(subprocess.Popen(arguments, pass_fds=[fd, wake, woken], stdout=subprocess.PIPE, text=True))
    finally:
        for end in (fd, *data, *room):
            os.close(end)
    try:
        outputs = [child.communicate(timeout=150)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert [child.returncode for child in children] == [0, 0]
    (sent, written, signals, waited), (seen, read, room_signals, slept) = (map(int, out.split()) for out in outputs)
    assert sent == seen == messages
    assert written == read
    assert signals <= slept + 1 + messages
    assert slept + waited > 0, "neither end ever had to wait"
    assert room_signals >= waited - 1


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Two threads that poll pass the interpreter's lock every 50 microseconds instead of every 5 milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("short_turns")
def test_two_threads_share_a_ring() -> None:
    """The kernels give the interpreter's lock away, so both ends are inside the ring at once."""
    batches, count = 400, 32
    buffer = bytearray(PAGE * 9)
    init_ring(buffer)
    rng = np.random.default_rng(5)
    sizes = rng.integers(0, 256, count) * 8
    payloads = [rng.bytes(int(size)) for size in sizes]
    expected = 0
    for _ in range(batches):
        for payload in payloads:
            expected = crc32(payload, expected)

    def produce() -> None:
        starts = [sum(len(payload) for payload in payloads[:i]) for i in range(count)]
        src, lens = pack(payloads)
        with RingWriter.attach(buffer) as writer:
            for n in range(batches):
                done = 0
                while done < count:
                    rest = memoryview(src)[starts[done] :]
                    wrote = writer.write_batch(rest, lens[done:], count - done, n * count + done)
                    done += wrote
                    if not wrote:
                        sleep(0)

    seen = checksum = 0
    dst, lens, tids = bytearray(count * 2048), np.zeros(count, np.uint32), np.zeros(count, np.uint64)
    other = Thread(target=produce)
    other.start()
    with RingReader.attach(buffer) as reader:
        while seen < batches * count and (other.is_alive() or reader.bytes_to_read):
            got = reader.read_batch(dst, lens, tids, count)
            assert list(tids[:got]) == list(range(seen, seen + got))
            for payload in unpack(dst, lens, got):
                checksum = crc32(payload, checksum)
            seen += got
            if not got:
                sleep(0)
    other.join()
    assert (seen, checksum) == (batches * count, expected)


class Race:
    """The two loops of hvkernel.ring.litmus on one ring of one page, for a limited time."""

    def __init__(self, seconds: float) -> None:
        from hvkernel.ring import litmus

        self.litmus, self.seconds = litmus, seconds
        self.shared = np.zeros(litmus.WORDS, np.uint32)
        self.address = int(self.shared.ctypes.data)
        buffer = bytearray(2 * PAGE)
        init_ring(buffer)
        self.writer, self.reader = RingWriter.attach(buffer), RingReader.attach(buffer)
        # The ends hold these buffers from here on: the compiled loops use what the ends know.
        self.writer._hold(*pack([b"12345678"]))
        self.reader._hold(bytearray(PAGE), np.zeros(1, np.uint32), np.zeros(1, np.uint64))

    def run(self, awake: Callable[[], int], asleep: Callable[[], int]) -> tuple[int, int]:
        """(packets that the awake end moved, signals lost)."""
        results: dict[str, int] = {}
        threads = [
            Thread(target=lambda: results.update(moved=awake())),
            Thread(target=lambda: results.update(lost=asleep())),
        ]
        for thread in threads:
            thread.start()
        threads[0].join(self.seconds)
        self.shared[self.litmus.STOP // 4] = 1
        for thread in threads:
            thread.join()
        return results["moved"], results["lost"]


def test_a_reader_that_goes_to_sleep_is_woken_for_every_packet() -> None:
    race = Race(2.0)
    moved, lost = race.run(
        lambda: race.litmus.write_when_empty(race.writer._state, race.address, 300_000, 1),
        lambda: race.litmus.sleep_when_empty(race.reader._state, race.writer._state, race.address, 300_000, 1),
    )
    assert lost == 0
    assert moved > 0
    assert race.writer.signals > 0


def test_a_writer_that_waits_for_room_is_woken_for_it() -> None:
    race = Race(2.0)
    moved, lost = race.run(
        lambda: race.litmus.read_when_full(race.reader._state, race.address, 300_000, 1),
        lambda: race.litmus.sleep_when_full(race.writer._state, race.reader._state, race.address, 32, 300_000, 1),
    )
    assert lost == 0
    assert moved > 0
    assert race.reader.signals > 0


def test_the_example_of_the_manual() -> None:
    done = subprocess.run([sys.executable, EXAMPLE, "5000"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    total = sum(8 * (1 + number * 37 % 188) for number in range(5000))
    assert first == f"5000 messages, {total} bytes, every answer right and in order; the child ended with 0"
    assert second.startswith("signalled ")
