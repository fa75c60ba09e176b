"""A host that breaks the ring's rules: the guest reads as 6.1 does, says what 6.1 says, ends, and goes on."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from hvkernel.abi.ring import VmbusPacketType
from hvkernel.host.vmbus.channel import ServerChannel

CLOUD = "debian12-6.1.192-cloud-amd64"
SECOND = 10_000_000
STEPS = 20_000
"""More scheduling steps than any of these runs takes; a reader that goes round for ever takes millions."""


class Hostile:
    """A guest that is up, and raw hands on the host's ring of its disk controller."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.channel = next(device for device in session.server.devices if device.name == "scsi0").channels[0]
        self.outgoing = self.channel.rings.outgoing
        self.ring = self.outgoing._map
        self.before = len(session.machine.findings)
        self.lines = len(session.kernel.printk.log)

    @property
    def at(self) -> int:
        return int(self.ring.load32(0))

    def put(self, raw: bytes, publish: int | None = None) -> None:
        """Bytes at the write index; then the index moves by *publish* bytes, all of them and a trailer if None."""
        at, size = self.at, self.outgoing.size
        for i, byte in enumerate(raw):
            self.ring.store8(4096 + (at + i) % size, byte)
        self.move((at + (len(raw) + 8 if publish is None else publish)) % size)

    def move(self, index: int) -> None:
        self.ring.store32(0, index)
        self.outgoing._write_at = index

    def run(self) -> list[str]:
        """Interrupt the guest and let it run; the kinds of findings made."""
        self.channel.signal_guest()
        machine = self.session.machine
        assert machine.run(until=lambda: False, limit=SECOND, steps=STEPS) in ("idle", "limit")
        assert machine.run(limit=SECOND, steps=STEPS) in ("idle", "limit"), "and does not go on later"
        return [finding.kind for finding in machine.findings[self.before :]]

    def log(self) -> list[str]:
        return [line.render() for line in self.session.kernel.printk.log[self.lines :]]


@pytest.fixture
def hostile(start: Any) -> Hostile:
    return Hostile(start(CLOUD))


def descriptor(offset8: int, len8: int, tid: int = 0, kind: int = VmbusPacketType.VM_PKT_COMP) -> bytes:
    return struct.pack("<HHHHQ", kind, offset8, len8, 0, tid)


def still_reads(hostile: Hostile) -> bool:
    """Whether the driver takes a packet of the host that comes now: one with an unknown id, which it reports."""
    lines = len(hostile.log())
    hostile.channel.send_packet(VmbusPacketType.VM_PKT_COMP, bytes(64), 0xABCDEF)
    hostile.session.machine.run(limit=SECOND, steps=STEPS)
    return any("Incorrect transaction ID" in line for line in hostile.log()[lines:])


def test_a_packet_longer_than_the_guest_takes(hostile: Hostile) -> None:
    hostile.channel.send_packet(VmbusPacketType.VM_PKT_COMP, bytes(200), 5)
    kinds = hostile.run()
    assert kinds[0] == "ring-length"
    found = hostile.session.machine.findings[hostile.before]
    assert "says 216 bytes" in found.text
    assert any("storvsc_on_channel_callback" in frame for frame in found.where)


def test_a_packet_of_a_legal_length_is_no_finding(hostile: Hostile) -> None:
    hostile.channel.send_packet(VmbusPacketType.VM_PKT_COMP, bytes(64), 5)
    assert hostile.run() == []


def test_a_completion_for_a_dead_transaction(hostile: Hostile) -> None:
    hostile.channel.send_packet(VmbusPacketType.VM_PKT_COMP, bytes(64), 5)
    assert hostile.run() == []
    assert [line for line in hostile.log() if "Incorrect transaction ID" in line]
    assert still_reads(hostile)


@pytest.mark.parametrize("len8", [0, 1, 0xFFFF])
def test_a_length_that_cannot_be_takes_what_is_there(hostile: Hostile, len8: int) -> None:
    """The packet becomes everything up to the write index, so the next one begins a trailer behind it."""
    hostile.put(descriptor(2, len8, 5) + bytes(64))
    assert hostile.run()[0] == "ring-length"


def test_an_offset_that_cannot_be_becomes_16(hostile: Hostile) -> None:
    for offset8 in (0, 1, 11, 0xFFFF):
        hostile.put(descriptor(offset8, 10, 5) + bytes(64))
    assert hostile.run() == []
    assert len([line for line in hostile.log() if "Incorrect transaction ID" in line]) == 4
    assert still_reads(hostile)


def test_a_packet_that_takes_its_trailers_place(hostile: Hostile) -> None:
    """A length of all that is there is legal to 6.1; its trailer then leads over the write index and round the ring."""
    hostile.put(descriptor(2, 10, 5) + bytes(64), publish=80)
    kinds = hostile.run()
    assert set(kinds) <= {"ring-length", "ring-loop", "ring-stuck"}
    assert kinds


def test_bytes_that_are_no_packet(hostile: Hostile) -> None:
    """Less than a descriptor: no packet to 6.1, and its batched callback would be called again and again."""
    hostile.put(b"", publish=8)
    assert hostile.run() == ["ring-stuck"]
    text = hostile.session.machine.findings[-1].text
    assert text.startswith("the indices say that 8 bytes are in the host's ring")


@pytest.mark.parametrize("index", [0xFFFFFFFF, 0x80000000, 0xFFFFF])
def test_a_write_index_outside_the_ring(hostile: Hostile, index: int) -> None:
    hostile.move(index)
    kinds = hostile.run()
    assert "ring-loop" in kinds
    assert kinds.count("ring-loop") == 1
    loop = next(one for one in hostile.session.machine.findings[hostile.before :] if one.kind == "ring-loop")
    assert f"write_index is still {index:#x}" in loop.text
    assert hostile.session.machine.findings[-1].kind in ("ring-loop", "ring-stuck")


def test_a_host_that_moves_on_is_read_again(hostile: Hostile) -> None:
    """Stopped is not dead: what the host writes next is read, from where the guest then stands."""
    good = hostile.at
    hostile.move(0xFFFFFFF8)
    assert "ring-loop" in hostile.run()
    hostile.move(good)
    hostile.run()
    stands = hostile.ring.load32(4)
    hostile.move(stands)
    hostile.run()
    assert still_reads(hostile)


def test_a_read_index_of_the_guest_that_the_host_overwrote(hostile: Hostile) -> None:
    """The guest reads from its private index and publishes that again."""
    hostile.ring.store32(4, 0xFFFFFFF0)
    hostile.put(descriptor(2, 10, 5) + bytes(64))
    assert hostile.run() == []
    assert hostile.ring.load32(4) == hostile.at
    assert still_reads(hostile)


def test_a_read_index_of_the_guest_that_the_host_overwrote_while_nothing_came(hostile: Hostile) -> None:
    """hv_end_read() believes the shared index, the iterator its own: 6.1 would come back for ever."""
    hostile.ring.store32(4, (hostile.at - 64) % hostile.outgoing.size)
    assert hostile.run() == ["ring-stuck"]
    assert "say that 64 bytes are" in hostile.session.machine.findings[-1].text
    hostile.ring.store32(4, hostile.at)  # else the host takes the ring for one that needs no signal
    assert still_reads(hostile)


def test_the_guests_own_write_index_outside_the_ring_is_an_oops(hostile: Hostile) -> None:
    """The guest believes its write index in shared memory, so its memcpy() goes beyond the mapping."""
    session = hostile.session
    hostile.channel.rings.incoming._map.store32(0, 0x40000000)
    (disk,) = session.kernel.block.disks
    machine = session.machine
    task = session.kernel.spawn(session.kernel.block.read, disk, 0, 1, name="dd")
    machine.run(until=lambda: task.done, limit=SECOND, steps=STEPS)
    (oops,) = [finding for finding in machine.findings[hostile.before :] if finding.kind == "oops"]
    assert "index 0x40000000 leads outside the ring's mapping" in oops.text
    assert any("BUG: unable to handle page fault for address: 0000000040001000" in line for line in hostile.log())


def test_a_channel_that_was_stopped_can_be_closed_and_opened_again(loom: Any) -> None:
    """Both sides' rings are broken at once: the host is led round its own, the guest's is left alone by the host."""
    guest = loom()
    (one,) = guest.looms
    driver, machine = guest.driver, guest.session.machine
    channel = loom_channels(guest)[0]
    before = len(machine.findings)
    channel.rings.outgoing._map.store32(0, 0xFFFFFFF8)
    channel.signal_guest()
    assert machine.run(limit=SECOND, steps=STEPS) in ("idle", "limit")
    kinds = [finding.kind for finding in machine.findings[before:]]
    assert "ring-loop" in kinds
    outbound = one.channels[0].outbound.ring_buffer
    outbound.store32(0, outbound.load32(0) ^ 4)
    channel.kick()
    assert machine.run(limit=SECOND, steps=STEPS) in ("idle", "limit")
    refused = [finding.text for finding in machine.findings[before:] if finding.kind == "refused"]
    assert len(refused) == 1
    assert "the host stops using the rings" in refused[0]
    # The driver's goodbye is answered no more, so it waits for its timeout; then everything is new.
    guest.call(driver.loom_reopen, one)
    guest.settle()
    assert [guest.call(driver.loom_sum, one, each, b"new") for each in one.channels] == [0] * 4


def loom_channels(guest: Any) -> Any:
    """The host's channels of the loom: batched, direct, in the interrupt, batched again."""
    return next(device for device in guest.session.server.devices if device.name == "loom0").channels


@pytest.mark.parametrize("index", [0, 1, 2], ids=["batched", "direct", "isr"])
@pytest.mark.parametrize("write_index", [8, 0x1008, 0xFFFFFFF8])
def test_a_lying_write_index_in_every_callback_mode(loom: Any, index: int, write_index: int) -> None:
    """The callback ends, and the device's other channels work on."""
    guest = loom()
    (one,) = guest.looms
    machine = guest.session.machine
    channel = loom_channels(guest)[index]
    at = channel.rings.outgoing._map.load32(0)
    channel.rings.outgoing._map.store32(0, (at + 8) % 8192 if write_index == 8 else write_index)
    channel.signal_guest()
    before = len(machine.findings)
    assert machine.run(limit=SECOND, steps=STEPS) in ("idle", "limit")
    kinds = {finding.kind for finding in machine.findings[before:]}
    assert kinds
    assert kinds <= {"ring-length", "ring-loop", "ring-stuck"}
    others = [each for each in one.channels if each.offermsg.child_relid != channel.relid]
    assert len(others) == 3
    assert [guest.call(guest.driver.loom_sum, one, each, b"still") for each in others] == [0] * 3


@pytest.mark.parametrize("index", [0, 1, 2], ids=["batched", "direct", "isr"])
@pytest.mark.parametrize("trans_id", [0, 1, 32, 33, 2**32 + 1, 2**64 - 1])
def test_completions_for_nothing(loom: Any, index: int, trans_id: int) -> None:
    """No id is in use: whatever the host completes, the requestor has nothing for it, and its slots stay whole."""
    guest = loom()
    (one,) = guest.looms
    mine = one.channels[index]
    lines = len(guest.session.kernel.printk.log)
    channel = loom_channels(guest)[index]
    for _ in range(2):
        channel.send_packet(VmbusPacketType.VM_PKT_COMP, bytes(32), trans_id)
    assert guest.session.machine.run(limit=SECOND, steps=STEPS) in ("idle", "limit")
    said = [line.render() for line in guest.session.kernel.printk.log[lines:]]
    assert len([line for line in said if f"Incorrect transaction id 0x{trans_id:x}" in line]) == 2
    assert guest.findings == []
    free, at = [], mine.requestor.next_request_id
    while at < mine.requestor.size:
        free.append(at)
        at = mine.requestor.req_arr[at]
    assert sorted(free) == list(range(mine.requestor.size))
    assert guest.call(guest.driver.loom_sum, one, mine, b"goes on") == 0


def test_an_answer_twice(loom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second completion of a request finds its slot free."""
    guest = loom()
    (one,) = guest.looms
    mine = one.channels[0]
    complete = ServerChannel.complete

    def twice(self: ServerChannel, *arguments: Any) -> None:
        complete(self, *arguments)
        complete(self, *arguments)

    monkeypatch.setattr(ServerChannel, "complete", twice)
    assert guest.call(guest.driver.loom_sum, one, mine, b"once") == 0
    guest.settle()
    monkeypatch.undo()
    assert mine.per_channel_state.bad == 1
    assert guest.call(guest.driver.loom_sum, one, mine, b"more") == 0
    assert mine.per_channel_state.bad == 1


@pytest.mark.parametrize("kind", [0, 8, 10, 12, 0xFFFF])
def test_types_that_no_driver_expects_reach_the_driver(loom: Any, kind: int) -> None:
    """The ring does not look at the type; the driver counts it as bad, and goes on."""
    guest = loom()
    (one,) = guest.looms
    for channel in loom_channels(guest):
        channel.send_packet(kind, bytes(40), 3)
    guest.settle()
    assert [each.per_channel_state.bad for each in one.channels] == [1] * 4
    assert [guest.call(guest.driver.loom_sum, one, each, b"goes on") for each in one.channels] == [0] * 4
