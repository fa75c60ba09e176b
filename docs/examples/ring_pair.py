"""Two processes, one ring each way: the child answers each message with its checksum.

Run it: ``python ring_pair.py [MESSAGES]``. The parent makes one memfd with both rings and starts the child, which
inherits it. Four pipes stand for interrupts: a byte is written only when an end says that its peer has to be signalled,
and an end with nothing to do sleeps in ``read``, so no processor spins.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import numpy as np

from hvkernel.ring import RingReader, RingWriter, init_ring, pack, unpack

RING = 4096 + 65536
"""A control page and the data, in bytes."""
BATCH = 64
OPEN = 1024
"""Messages that may wait for an answer: their answers fit the ring back, so the child can always answer."""


class Outgoing:
    """The writing end of a ring, with the pipes that wake its reader and that its reader wakes it by."""

    def __init__(self, memory: memoryview, wake: int, woken: int) -> None:
        self.writer = RingWriter.attach(memory)
        self.wake, self.woken, self.slept = wake, woken, 0

    def send(self, payloads: list[bytes], tid: int) -> None:
        """Write all of them, however often the ring is full meanwhile."""
        while payloads:
            signals = self.writer.signals
            done = self.writer.write_batch(*pack(payloads), len(payloads), tid)
            if self.writer.signals != signals:
                os.write(self.wake, b"!")
            payloads, tid = payloads[done:], tid + done
            if payloads:
                self.wait((len(payloads[0]) + 7 & ~7) + 24)

    def wait(self, size: int) -> None:
        """Sleep until a packet of so many bytes fits: first say what is needed, then look once more."""
        if self.writer.set_pending_send_sz(size) <= size:
            self.slept += 1
            if not os.read(self.woken, 4096):
                raise ConnectionError("the other process is gone")
        self.writer.set_pending_send_sz(0)


class Incoming:
    """The reading end of a ring, with the pipes that wake its writer and that its writer wakes it by."""

    def __init__(self, memory: memoryview, wake: int, woken: int) -> None:
        self.reader = RingReader.attach(memory)
        self.reader.begin_read()
        self.wake, self.woken, self.slept = wake, woken, 0
        self.target = bytearray(RING)
        self.lengths, self.tids = np.zeros(BATCH, np.uint32), np.zeros(BATCH, np.uint64)

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Up to a batch of (transaction id, payload); sleeps while there is none."""
        while True:
            signals = self.reader.signals
            count = self.reader.read_batch(self.target, self.lengths, self.tids, BATCH)
            if self.reader.signals != signals:
                os.write(self.wake, b"!")
            if count:
                return zip(map(int, self.tids[:count]), unpack(self.target, self.lengths, count), strict=True)
            if self.reader.end_read() == 0:  # signals are on again, and still nothing came
                self.slept += 1
                if not os.read(self.woken, 4096):
                    raise ConnectionError("the other process is gone")
            self.reader.begin_read()


def parent(messages: int) -> None:
    """Send the messages and check every answer."""
    fd = os.memfd_create("rings")
    os.ftruncate(fd, 2 * RING)
    pipes = [os.pipe() for _ in range(4)]  # (read, write): request sent, request room, answer sent, answer room
    for end in (fd, pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][0]):
        os.set_inheritable(end, True)
    with mmap.mmap(fd, 0) as memory, memoryview(memory) as rings:
        init_ring(rings[:RING])
        init_ring(rings[RING:])
        inherited = [fd, pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][0]]
        command = [sys.executable, __file__, "--child", *map(str, inherited), str(messages)]
        process = subprocess.Popen(command, pass_fds=inherited)
        for end in inherited[1:]:
            os.close(end)  # only the child's copies are left: when it dies, our reads of its pipes end
        out = Outgoing(rings[:RING], pipes[0][1], pipes[1][0])
        incoming = Incoming(rings[RING:], pipes[3][1], pipes[2][0])
        sent = seen = 0
        while seen < messages:
            if sent < messages and sent - seen <= OPEN - BATCH:
                batch = [message(sent + i) for i in range(min(BATCH, messages - sent))]
                out.send(batch, sent)
                sent += len(batch)
                continue
            for tid, answer in incoming.receive():
                assert (tid, answer) == (seen, checksum(message(seen))), f"answer {tid} where {seen} was due"
                seen += 1
        status = process.wait()
        total = sum(len(message(n)) for n in range(messages))
        print(f"{seen} messages, {total} bytes, every answer right and in order; the child ended with {status}")
        print(f"signalled {out.writer.signals} times, slept {out.slept} times for room, {incoming.slept} for an answer")
        out.writer.close()
        incoming.reader.close()
        del out, incoming


def child(fd: int, woken: int, room: int, wake: int, has_room: int, messages: int) -> None:
    """Answer so many messages."""
    with mmap.mmap(fd, 0) as memory, memoryview(memory) as rings:
        incoming = Incoming(rings[:RING], room, woken)
        out = Outgoing(rings[RING:], wake, has_room)
        seen = 0
        while seen < messages:
            first = seen
            answers = [checksum(payload) for _, payload in incoming.receive()]
            seen += len(answers)
            out.send(answers, first)
        out.writer.close()
        incoming.reader.close()


def message(number: int) -> bytes:
    """The payload of one message: 8 to 1,504 bytes; multiples of 8, as a ring delivers the padding too."""
    return number.to_bytes(8, "little") * (1 + number * 37 % 188)


def checksum(payload: bytes) -> bytes:
    """The answer to a message."""
    return crc32(payload).to_bytes(8, "little")


def main(arguments: list[Any]) -> None:
    if arguments[:1] == ["--child"]:
        child(*map(int, arguments[1:]))
    else:
        parent(int(arguments[0]) if arguments else 100_000)


if __name__ == "__main__":
    main(sys.argv[1:])
