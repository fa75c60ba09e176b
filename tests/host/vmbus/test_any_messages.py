"""Any sequence of messages, whole, cut, changed or random, between events of the host's own.

Nothing raises, every message that has an answer gets it once, and a connection leaves nothing behind.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import CHANNEL_MESSAGES
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type

VERSIONS = (0xD, 0x1_0001, 0x2_0004, 0x3_0000, 0x4_0000, 0x4_0001, 0x5_0000, 0x5_0003, 0x6_0000, 0x7_0000)
GUEST = tuple(row.number for row in CHANNEL_MESSAGES if row.sender == "guest")
RARE = MappingProxyType(
    {
        Type.CHANNELMSG_INITIATE_CONTACT: 1,
        Type.CHANNELMSG_UNLOAD: 1,
        Type.CHANNELMSG_RELID_RELEASED: 2,
        Type.CHANNELMSG_GPADL_HEADER: 16,
        Type.CHANNELMSG_OPENCHANNEL: 16,
    }
)
"""What ends things comes less often than what begins them."""


@dataclass
class Traffic:
    """A guest that posts what a generator says, and looks at what comes back."""

    raw: Any
    rng: random.Random
    host_events: bool = True

    def __post_init__(self) -> None:
        self.guest = self.raw(self.raw.NEWEST, 3)
        self.server = self.guest.server
        self.late = 0

    def small(self, *usual: int) -> int:
        if self.rng.random() < 0.9:
            return self.rng.choice(usual)
        return self.rng.getrandbits(self.rng.choice((3, 32)))

    def whole(self, number: Type) -> bytes:
        """A message that may well be right."""
        rng = self.rng
        relid = self.small(1, 2, 3, 4)
        words: tuple[int, ...] = (relid, self.small(0xE0 + (relid & 7)))
        if number is Type.CHANNELMSG_INITIATE_CONTACT:
            version = rng.choice(VERSIONS)
            monitors = rng.choice(((0x3000, 0x4000), (0, 0), (0x3000, 0), (0x3001, 0x4000), (0x3000, 1 << 40)))
            target = rng.choice((2, 2, 2, 0x5000, 3, 0x102)) if version >= 0x5_0000 else rng.choice((0x5000, 0, 7))
            return struct.pack("<IIIIQQQ", number, 0, version, self.small(0, 1), target, *monitors)
        if number is Type.CHANNELMSG_GPADL_HEADER:
            pages = rng.choice((8, 8, 8, 8, 1, 4, 26, 27, 60, 8191))
            first = rng.choice((0x100, 0x200, 0x300, 0x3FFE))
            data = struct.pack("<II", pages * 4096, 0) + struct.pack(
                f"<{min(pages, 26)}Q", *range(first, first + min(pages, 26))
            )
            length = rng.choice((8 + 8 * pages & 0xFFFF,) * 8 + (16, 0, 7))
            return struct.pack("<IIIIHH", number, 0, *words, length, rng.choice((1, 1, 1, 1, 1, 1, 0, 2))) + data
        if number is Type.CHANNELMSG_GPADL_BODY:
            count = rng.choice((1, 1, 28, 34, 0)) % 29
            return struct.pack("<IIII", number, 0, 0, words[1]) + struct.pack(f"<{count}Q", *range(count))
        if number is Type.CHANNELMSG_OPENCHANNEL:
            if rng.random() < 0.7 and self.server.gpadls._table:
                words = rng.choice(list(self.server.gpadls._table))
            body = struct.pack("<IIIII", words[0], words[0], words[1], self.small(0, 1), self.small(4, 2))
            return struct.pack("<II", number, 0) + body + bytes(120)
        if number is Type.CHANNELMSG_MODIFYCHANNEL:
            words = (words[0], self.small(0, 1))
        row = abi.channel_message(number)
        assert row is not None
        return struct.pack("<IIII", number, 0, *words).ljust(row.struct.SIZE, b"\0")[: max(row.struct.SIZE, 8)]

    def changed(self, payload: bytes) -> bytes:
        rng = self.rng
        kind = rng.randrange(20)
        if kind == 0:
            return payload[: rng.randrange(len(payload) + 1)]
        if kind == 1:
            return (payload + rng.randbytes(rng.randrange(64)))[:240]
        if kind == 2:
            at = rng.randrange(len(payload))
            return payload[:at] + rng.randbytes(1) + payload[at + 1 :]
        if kind == 3:
            return rng.randbytes(rng.randrange(241))
        return payload

    def event(self) -> None:
        rng, server = self.rng, self.server
        name = rng.choice([device.name for device in server.devices] or ["none"])
        kind = rng.randrange(6)
        if name == "none" or kind == 0:
            self.late += 1
            spec = self.raw.SlotSpec(f"late{self.late}", self.raw.guid(0xC1A55), self.raw.guid(0x900 + self.late))
            server.offer(spec)
        elif kind == 1:
            server.rescind(name)
        elif kind == 2:
            server.reoffer(name, at_once=rng.random() < 0.5)
        elif kind == 3:
            server.repeat_offer(name)
        else:
            server.offer_subchannels(name, rng.randrange(4))
        self.guest.run()
        self.guest.got()
        self.guest.events()

    def message(self) -> None:
        number = self.rng.choices(GUEST, [RARE.get(number, 6) for number in GUEST])[0]
        if self.server.state == "connected" and self.rng.random() < 0.7:
            number = Type.CHANNELMSG_REQUESTOFFERS
        elif self.server.state == "disconnected" and self.rng.random() < 0.7:
            number = Type.CHANNELMSG_INITIATE_CONTACT
        payload = self.changed(self.whole(number))
        connection = self.rng.choice((1, 1, 1, 4))
        before = self.expectation(payload, connection)
        self.guest.post(payload, connection=connection)
        answers = Counter(Type(struct.unpack_from("<I", data)[0]) for _, data in self.guest.taken())
        self.guest.events()
        if before is not None:
            number, count = before
            assert answers[number] == count, (payload.hex(), answers)
        for number, count in answers.items():
            allowed = 8 if number in (Type.CHANNELMSG_OFFERCHANNEL, Type.CHANNELMSG_RESCIND_CHANNELOFFER) else 1
            if number is not Type.CHANNELMSG_GPADL_TORNDOWN:
                assert count <= max(allowed, len(self.server.by_relid) + 8 if allowed > 1 else 1), answers

    def expectation(self, payload: bytes, connection: int) -> tuple[Type, int] | None:
        """The answer that a message must get, and how often; None where the message is none of the protocol's."""
        server = self.server
        version = server.bus.version
        if len(payload) < 8:
            return None
        row = abi.channel_message(struct.unpack_from("<I", payload)[0])
        if row is None or row.sender != "guest" or len(payload) < row.struct.SIZE:
            return None
        number = row.number
        if number is Type.CHANNELMSG_INITIATE_CONTACT:
            asked, vp, target = struct.unpack_from("<IIQ", payload, 8)
            new = connection == 4 and asked >= 0x5_0000
            if asked >= 0x6_0000 and target >> 32 & 8:
                return None
            if new and asked >= 0x5_0001 and target >> 8 & 0xFF:
                return Type.CHANNELMSG_VERSION_RESPONSE, 0
            if new and target & 0xFF != 2:
                return None
            if asked >= 0x3_0000 and vp > 1:
                return None  # goes to the processor of the connection before, or to one that takes none
            return Type.CHANNELMSG_VERSION_RESPONSE, 1
        if version is None or (version < row.since and number is not Type.CHANNELMSG_UNLOAD):
            return None
        relid, word = struct.unpack_from("<II", payload.ljust(16, b"\0"), 8)
        channel = server.by_relid.get(relid)
        if number is Type.CHANNELMSG_UNLOAD:
            return Type.CHANNELMSG_UNLOAD_RESPONSE, 1
        if number is Type.CHANNELMSG_REQUESTOFFERS:
            return Type.CHANNELMSG_ALLOFFERS_DELIVERED, int(server.state == "connected")
        if number is Type.CHANNELMSG_OPENCHANNEL:
            return Type.CHANNELMSG_OPENCHANNEL_RESULT, int(channel is None or not channel.is_rescinded)
        if number is Type.CHANNELMSG_MODIFYCHANNEL:
            return Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE, int(version >= 0x5_0003)
        if number is Type.CHANNELMSG_TL_CONNECT_REQUEST:
            return Type.CHANNELMSG_TL_CONNECT_RESULT, int(version >= 0x4_0001)
        if number is Type.CHANNELMSG_GPADL_TEARDOWN:
            gpadl = server.gpadls.get(relid, word) if channel is not None else None
            return Type.CHANNELMSG_GPADL_TORNDOWN, int(gpadl is not None and gpadl.state == "created")
        return None

    def finish(self) -> None:
        """An honest end: the host has no trace of the connection."""
        guest, server = self.guest, self.server
        guest.contact(abi.VERSION_WIN10)
        guest.got()
        assert len(server.gpadls) == 0, "another connection drops them"
        guest.post(self.raw.head(Type.CHANNELMSG_UNLOAD))
        assert guest.got() == [self.raw.head(Type.CHANNELMSG_UNLOAD_RESPONSE)]
        assert (guest.shared(), server.by_relid, len(server.gpadls), server.gpadls.total) == ([], {}, 0, 0)
        assert (server.numbers.room, server._monitors.room) == (2047, 128)
        ports = guest.host.ports
        assert not ports._events, "every channel's connection is closed"
        assert all(channel.state == "not offered" for device in server.devices for channel in device.channels)
        assert [text for text in guest.findings() if text.startswith("plugin")] == []
        ids = [offer.child_relid for offer in guest.connect()]
        assert ids == list(range(1, len(server.devices) + 1))


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 80))
@settings(max_examples=60)
def test_every_answer_once_and_nothing_left(raw_guest: Any, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    traffic = Traffic(raw_guest, rng)
    try:
        if rng.random() < 0.9:
            traffic.guest.connect(rng.choice(VERSIONS[:-1]))
        for _ in range(steps):
            if rng.random() < 0.15:
                traffic.event()
            else:
                traffic.message()
        traffic.finish()
    finally:
        traffic.guest.machine.close()
        raw_guest.guests.remove(traffic.guest)


@pytest.mark.parametrize("seed", range(4))
def test_it_gets_somewhere(raw_guest: Any, seed: int) -> None:
    """The generator is worth something: channels open, GPADLs exist, every kind of message is taken."""
    traffic = Traffic(raw_guest, random.Random(f"somewhere {seed}"))
    try:
        traffic.guest.connect(abi.VERSION_WIN10_V5_3)
        for _ in range(600):
            traffic.message()
        assert sum(len(echo.opened) for echo in traffic.guest.echoes) > 0
        traffic.finish()
    finally:
        traffic.guest.machine.close()
        raw_guest.guests.remove(traffic.guest)
