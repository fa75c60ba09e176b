"""A guest's side of a storage channel in plain bytes: packets in, completions out, data in scattered guest pages."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.abi.wire import Guid
from hvkernel.api.host import DeviceSlot, DiskImage, Offer, Packet, StorageUnit
from hvkernel.host.vmbus.buffers import GpaBuffer
from hvkernel.machine.memory import Memory
from hvkernel_storvsc.vsp import StorageController

BEGIN, END, VERSION, PROPERTIES, SUB_CHANNELS, SRB = 7, 8, 9, 10, 13, 3


class Services:
    now = 0

    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.findings: list[tuple[str, str]] = []

    def after(self, delay: int, call: Callable[[], None]) -> Any:
        raise AssertionError("storage uses no timer")

    def record(self, kind: str, text: str) -> None:
        self.findings.append((kind, text))

    def rescind(self) -> None:
        raise AssertionError("storage rescinds nothing")


class Pipe:
    """The host's end of an open channel; keeps what the device sends."""

    def __init__(self, primary: Pipe | None = None) -> None:
        self.primary: Any = primary or self
        self.completions: list[tuple[int, bytes]] = []
        self.sent: list[tuple[int, bytes, int]] = []
        self.subchannels = 0
        self.relid, self.version, self.target_vp, self.user_data, self.is_open = 1, 4 << 16, 0, bytes(120), True
        self.incoming_bytes = self.outgoing_bytes = 126976
        self.offer = Offer(Guid(bytes(16)), Guid(bytes(16)))

    def send_packet(self, kind: int, payload: bytes, trans_id: int = 0, flags: int = 0) -> None:
        self.sent.append((kind, payload, trans_id))

    def send_transfer_pages(self, *arguments: Any, **options: Any) -> None:
        raise AssertionError("storage sends no transfer pages")

    def complete(self, trans_id: int, payload: bytes = b"", flags: int = 0) -> None:
        self.completions.append((trans_id, payload))

    def gpadl(self, handle: int) -> None:
        return None

    def offer_subchannels(self, count: int) -> None:
        self.subchannels += count


@dataclass
class Answer:
    """A completion, taken apart."""

    operation: int
    status: int
    body: bytes

    @property
    def scsi(self) -> int:
        return self.body[3]

    @property
    def srb(self) -> int:
        return self.body[2]

    @property
    def moved(self) -> int:
        return int(struct.unpack_from("<I", self.body, 12)[0])

    @property
    def sense(self) -> tuple[int, int, int] | None:
        """(key, asc, ascq), None without sense data."""
        if not self.srb & 0x80:
            return None
        data = self.body[16:36]
        assert data[0] == 0x70
        return data[2], data[12], data[13]


class Guest:
    """Talks to a controller as an operating system would."""

    def __init__(self, device: StorageController, services: Services) -> None:
        self.device = device
        self.services = services
        self.memory = Memory([(0, 8 << 20)])
        self.channel = Pipe()
        assert device.on_open(self.channel) == 0
        self.tid = 0

    def send(
        self, payload: bytes, buffer: GpaBuffer | None = None, channel: Pipe | None = None, flags: int = 1
    ) -> Answer | None:
        channel = channel or self.channel
        self.tid += 1
        channel.completions.clear()
        self.device.on_packet(channel, Packet(6, flags, self.tid, payload, buffer))
        if not channel.completions:
            return None
        ((tid, answer),) = channel.completions
        assert tid == self.tid
        assert len(answer) == min(len(payload), 64)
        operation, answer_flags, status = struct.unpack_from("<III", answer)
        assert answer_flags == 0
        return Answer(operation, status, answer[12:])

    def operation(self, number: int, body: bytes = b"", channel: Pipe | None = None) -> Answer:
        answer = self.send(struct.pack("<III", number, 1, 0) + body.ljust(52, b"\0"), channel=channel)
        assert answer is not None
        assert answer.operation == 1
        return answer

    def start(self, version: int = 0x602) -> Guest:
        for number, body in ((BEGIN, b""), (VERSION, struct.pack("<HH", version, 0)), (PROPERTIES, b""), (END, b"")):
            assert self.operation(number, body).status == 0
        return self

    def pages(self, size: int, offset: int = 0, seed: int = 0) -> GpaBuffer:
        """Guest memory of *size* bytes from *offset* on, in shuffled pages."""
        count = (offset + size + 4095) // 4096
        pfns = random.Random(seed).sample(range(1, 2047), count)
        return GpaBuffer(self.memory.host, [(size, offset, tuple(pfns))])

    def command(
        self,
        cdb: bytes,
        room: int = 0,
        data: bytes = b"",
        place: tuple[int, int, int] = (0, 0, 0),
        offset: int = 0,
        channel: Pipe | None = None,
    ) -> tuple[Answer, bytes]:
        """Send a command that reads into *room* bytes or writes *data*; its answer and what was read."""
        size = room or len(data)
        buffer = self.pages(size, offset, self.tid) if size else None
        if buffer is not None:
            buffer.write(0, data or b"\xee" * size)
        head = struct.pack("<HBBBBBBBBBBI", 52, 0, 0, 0, *place, len(cdb), 20, 1 if room else 0 if data else 2, 0, size)
        body = head + cdb.ljust(20, b"\0") + bytes(16)
        answer = self.send(struct.pack("<III", SRB, 1, 0) + body, buffer, channel)
        assert answer is not None
        return answer, buffer.read() if buffer is not None else b""


@dataclass
class Rig:
    """Makes guests on controllers."""

    tmp_path: Path
    made: list[Guest]

    def image(self, size: int = 1 << 20, *, read_only: bool = False, name: str = "disk.img") -> DiskImage:
        path = self.tmp_path / name
        path.write_bytes(random.Random(size).randbytes(size))
        return DiskImage.open(path, read_only=read_only)

    def guest(self, *units: StorageUnit, ide: bool = False, **parameters: Any) -> Guest:
        services = Services()
        if ide:
            class_guid, instance = HV_IDE_GUID, Guid(struct.pack("<IHH8x", 0, 1, 0x8899))
        else:
            class_guid, instance = HV_SCSI_GUID, Guid(bytes(16))
        slot = DeviceSlot(class_guid, instance, "scsi0", services, MappingProxyType({"units": units, **parameters}))
        guest = Guest(StorageController(slot, ide=ide), services)
        self.made.append(guest)
        return guest

    def disk(self, size: int = 1 << 20, **options: Any) -> Guest:
        """A guest that has started up on a controller with one disk."""
        return self.guest(StorageUnit(image=self.image(size, **options))).start()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, [])
    yield made
    for guest in made.made:
        guest.memory.close()
        for unit in guest.device.units.values():
            image = getattr(unit, "image", None)
            if image is not None:
                image.close()
