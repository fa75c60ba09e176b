"""One end of a ring as a program: ``peer.py write|read FD BYTES WAKE WOKEN MESSAGES SEED``, for test_processes.py.

WAKE and WOKEN are pipes that stand for interrupts. Sizes of messages and batches come from the seed, pauses too. An end
that sleeps for a minute has missed its signal: exit status 3. Prints how many messages went, their checksum, the
signals sent and how often it slept.
"""

from __future__ import annotations

import mmap
import os
import select
import sys
from random import Random
from zlib import crc32

import numpy as np

from hvkernel.ring import RingReader, RingWriter, pack, unpack

MOST = 16
"""Messages in a batch."""


def sleep(woken: int) -> None:
    """Wait for a signal."""
    ready, _, _ = select.select([woken], [], [], 60)
    if not ready:
        sys.exit(3)
    if not os.read(woken, 4096):
        sys.exit("the other end is gone")


def pause(rng: Random) -> None:
    """Let the other end run ahead, or not."""
    for _ in range(rng.choice((0, 0, 0, 10, 100, 1000))):
        pass


def write(memory: mmap.mmap, wake: int, woken: int, messages: int, seed: int) -> None:
    rng = Random(seed)
    sent = slept = checksum = 0
    with RingWriter.attach(memory) as writer:
        largest = min(writer.dsize - 64, 3000)
        while sent < messages:
            count = min(rng.randrange(1, MOST + 1), messages - sent)
            batch = [rng.randbytes(8 * rng.randrange(1, largest // 8)) for _ in range(count)]
            for payload in batch:
                checksum = crc32(payload, checksum)
            while batch:
                signals = writer.signals
                done = writer.write_batch(*pack(batch), len(batch), sent)
                if writer.signals != signals:
                    os.write(wake, b"!")
                batch = batch[done:]
                sent += done
                if batch:
                    need = len(batch[0]) + 24
                    if writer.set_pending_send_sz(need) <= need:
                        slept += 1
                        sleep(woken)
                    writer.set_pending_send_sz(0)
            pause(rng)
        print(sent, checksum, writer.signals, slept)


def read(memory: mmap.mmap, wake: int, woken: int, messages: int, seed: int) -> None:
    rng = Random(seed)
    seen = slept = checksum = 0
    target, lengths, tids = bytearray(MOST * 4096), np.zeros(MOST, np.uint32), np.zeros(MOST, np.uint64)
    with RingReader.attach(memory) as reader:
        reader.begin_read()
        while seen < messages:
            signals = reader.signals
            got = reader.read_batch(target, lengths, tids, rng.randrange(1, MOST + 1))
            if reader.signals != signals:
                os.write(wake, b"!")
            for tid, payload in zip(tids[:got], unpack(target, lengths, got), strict=True):
                assert int(tid) == seen, (int(tid), seen)
                checksum = crc32(payload, checksum)
                seen += 1
            if not got:
                if not reader.end_read():
                    slept += 1
                    sleep(woken)
                reader.begin_read()
            pause(rng)
        print(seen, checksum, reader.signals, slept)


def main() -> None:
    role, *numbers = sys.argv[1:]
    fd, size, wake, woken, messages, seed = map(int, numbers)
    with mmap.mmap(fd, size) as memory:
        (write if role == "write" else read)(memory, wake, woken, messages, seed)


if __name__ == "__main__":
    main()
