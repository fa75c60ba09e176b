"""A ring as a plain byte array, written from the format alone: what every implementation is compared with."""

from __future__ import annotations

import struct

import pytest

PAGE = 4096


class ModelRing:
    """One packet at a time on bytes; no implementation detail is shared with hvkernel.ring or hvkernel.hv."""

    def __init__(self, dsize: int) -> None:
        self.dsize = dsize
        self.data = bytearray(dsize)
        self.write_index = 0
        self.read_index = 0
        self.out_full_total = 0
        self.out_full_first = 0
        self.full = False
        self.out_signals = 0
        self.in_signals = 0
        self.pending_send_sz = 0
        self.interrupt_mask = 0

    def _put(self, at: int, chunk: bytes) -> int:
        for byte in chunk:
            self.data[at] = byte
            at = (at + 1) % self.dsize
        return at

    def _take(self, at: int, size: int) -> bytes:
        return bytes(self.data[(at + i) % self.dsize] for i in range(size))

    def used(self) -> int:
        return (self.write_index - self.read_index) % self.dsize

    def fits(self, payload: bytes) -> bool:
        return self.dsize - self.used() > 24 + (len(payload) + 7) // 8 * 8

    def write(self, payloads: list[bytes], tid: int, kind: int = 6, flags: int = 0) -> int:
        """A batch with one decision to signal, as a batch of the jitted ring has."""
        before = self.write_index
        done = 0
        for payload in payloads:
            if not self.fits(payload):
                self.out_full_total += 1
                if not self.full:
                    self.out_full_first += 1
                    self.full = True
                break
            self.full = False
            padded = payload + bytes(-len(payload) % 8)
            start = self.write_index
            head = struct.pack("<HHHHQ", kind, 2, (16 + len(padded)) // 8, flags, (tid + done) % 2**64)
            self.write_index = self._put(start, head + padded + struct.pack("<II", 0, start))
            done += 1
        if done and not self.interrupt_mask and before == self.read_index:
            self.out_signals += 1
        return done

    def read(self, count: int) -> list[tuple[int, bytes]]:
        out: list[tuple[int, bytes]] = []
        at = self.read_index
        while len(out) < count and at != self.write_index:
            _kind, offset8, len8, _flags, tid = struct.unpack("<HHHHQ", self._take(at, 16))
            out.append((tid, self._take(at, len8 * 8)[offset8 * 8 :]))
            at = (at + len8 * 8 + 8) % self.dsize
        if out:
            room_before = self.dsize - self.used()
            self.read_index = at
            room = self.dsize - self.used()
            if self.pending_send_sz and room_before <= self.pending_send_sz < room:
                self.in_signals += 1
        return out

    def image(self) -> bytes:
        control = struct.pack(
            "<IIII", self.write_index, self.read_index, self.interrupt_mask, self.pending_send_sz
        ).ljust(64, b"\0") + struct.pack("<I", 1)
        return control.ljust(PAGE, b"\0") + bytes(self.data)


@pytest.fixture(scope="session")
def model_ring() -> type[ModelRing]:
    return ModelRing
