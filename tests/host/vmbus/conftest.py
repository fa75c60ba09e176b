"""A raw guest: it knows byte layouts and nothing of the kernel, and drives the server at the hypervisor's doors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hvkernel.abi import tlfs_hypercall
from hvkernel.abi import vmbus as abi
from hvkernel.abi.ring import VmbusPacketType
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.abi.wire import Guid, Wire
from hvkernel.api.host import Channel, DeviceSlot, Offer, Packet
from hvkernel.config import load_profile
from hvkernel.host.partition import Host
from hvkernel.host.vmbus import DeviceTable, SlotSpec, VmbusServer
from hvkernel.machine import Finding, HvPfn, Machine, VirtualProcessor, VpTopology
from hvkernel_x86 import tlfs
from hvkernel_x86.host import HostX86

MIB = 1 << 20
HYPERCALL_PAGE = 0x60_0000
INPUT = 0x61_0000
SIMP = 0x62_0000
SIEFP = 0x63_0000


@dataclass
class Accepts:
    """What a host profile says of the bus."""

    versions: tuple[int, ...] = (0x0000_000D, 0x0001_0001, 0x0002_0004, 0x0003_0000, 0x0004_0000)
    message_connection_4: bool = False
    gpadl_total_mb: int = 384
    features: int = 0


NEWEST = Accepts(
    (
        0xD, 0x1_0001, 0x2_0004, 0x3_0000, 0x4_0000, 0x4_0001, 0x5_0000, 0x5_0001, 0x5_0002, 0x5_0003, 0x6_0000
    ),
    message_connection_4=True,
    gpadl_total_mb=1280,
)  # fmt: skip


@dataclass
class Echo:
    """A device that completes every packet with its payload and keeps what it saw."""

    slot: DeviceSlot
    status: int = 0
    offer_changes: dict[str, Any] = field(default_factory=dict)
    opened: list[Channel] = field(default_factory=list)
    closed: list[Channel] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    on: Callable[[Channel, Packet], None] | None = None
    protocol: str | None = None

    def offer(self, offer: Offer) -> Offer:
        return replace(offer, **self.offer_changes)

    def on_open(self, channel: Channel) -> int:
        self.opened.append(channel)
        return self.status

    def on_packet(self, channel: Channel, packet: Packet) -> None:
        self.packets.append(packet)
        if self.on is not None:
            self.on(channel, packet)
        elif packet.completion_requested:
            channel.complete(packet.trans_id, packet.payload)

    def on_close(self, channel: Channel) -> None:
        self.closed.append(channel)


def guid(number: int) -> Guid:
    return Guid(number.to_bytes(16, "little"))


class GuestRing:
    """The guest's ends of a channel's rings, in plain loads and stores."""

    def __init__(self, guest: RawGuest, first: int, split: int, pages: int) -> None:
        memory = guest.machine.memory.guest
        self.memory = memory
        self.up, self.down = first << 12, first + split << 12
        self.up_size, self.down_size = (split - 1) * 4096, (pages - split - 1) * 4096

    def word(self, base: int, offset: int) -> int:
        return self.memory.load32(base + offset)

    def _put(self, base: int, size: int, at: int, data: bytes) -> None:
        for i in range(0, len(data), 8):
            self.memory.write(base + 4096 + (at + i) % size, data[i : i + 8])

    def _get(self, base: int, size: int, at: int, length: int) -> bytes:
        return b"".join(self.memory.read(base + 4096 + (at + i) % size, 8) for i in range(0, length, 8))

    def free(self) -> int:
        write, read = self.word(self.up, 0), self.word(self.up, 4)
        return (read - write - 1) % self.up_size + 1

    def write(self, packet: bytes) -> bool:
        """Append a packet; false when there is no room. A ring is never filled completely."""
        write = self.word(self.up, 0)
        if self.free() <= len(packet) + 8:
            return False
        self._put(self.up, self.up_size, write, packet + struct.pack("<II", 0, write))
        self.memory.store32(self.up, (write + len(packet) + 8) % self.up_size)
        return True

    def read(self) -> bytes | None:
        """Take one packet of the host, without its trailer."""
        write, read = self.word(self.down, 0), self.word(self.down, 4)
        if write == read:
            return None
        length = struct.unpack_from("<H", self._get(self.down, self.down_size, read, 8), 4)[0] * 8
        packet = self._get(self.down, self.down_size, read, length + 8)
        assert struct.unpack_from("<II", packet, length) == (0, read)
        self.memory.store32(self.down + 4, (read + length + 8) % self.down_size)
        return packet[:length]

    def read_all(self) -> list[bytes]:
        return list(iter(self.read, None))


def inband(payload: bytes, tid: int = 0, flags: int = 0, kind: int = VmbusPacketType.VM_PKT_DATA_INBAND) -> bytes:
    payload += bytes(-len(payload) % 8)
    return struct.pack("<HHHHQ", kind, 2, 2 + len(payload) // 8, flags, tid) + payload


def gpa_direct(ranges: Sequence[tuple[int, int, Sequence[int]]], payload: bytes, tid: int, flags: int = 1) -> bytes:
    body = struct.pack("<II", 0, len(ranges))
    for count, offset, pfns in ranges:
        body += struct.pack(f"<II{len(pfns)}Q", count, offset, *pfns)
    start = (16 + len(body)) // 8
    payload += bytes(-len(payload) % 8)
    return struct.pack("<HHHHQ", 9, start, start + len(payload) // 8, flags, tid) + body + payload


class RawGuest:
    """Builds messages from the abi and shows what the host did."""

    def __init__(
        self, accepts: Accepts, slots: int, *, vps: int = 2, device: Any = Echo, ram: Any = None, **server: Any
    ) -> None:
        self.machine = Machine(
            ram=ram or [(0, 64 * MIB)], vps=[VpTopology(vp_index=i, hw_id=2 * i + 1) for i in range(vps)], seed=0
        )
        self.host = Host(self.machine, load_profile("ws2022"), 1, HostX86())
        self._enable_synic()
        self.echoes: list[Echo] = []

        def make(slot: DeviceSlot) -> Echo:
            self.echoes.append(device(slot))
            return self.echoes[-1]

        self.table = DeviceTable()
        self.table.register(guid(0xC1A55), make, owner="echo")
        specs = [SlotSpec(f"echo{i}", guid(0xC1A55), guid(0x1000 + i)) for i in range(slots)]
        self.serve(VmbusServer(self.host, accepts, specs, self.table, **server))
        self.gpadl = 0xE1E10

    def serve(self, server: VmbusServer) -> None:
        """Let this server be the one that the guest talks to."""
        self.host.ports.disconnect(1)
        self.host.ports.disconnect(4)
        self.server = server
        server.start()

    def _enable_synic(self) -> None:
        def boot(vp: VirtualProcessor) -> None:
            vp.wrmsr(tlfs.HV_X64_MSR_GUEST_OS_ID, 0x8100 << 48 | 6 << 32 | 1)
            vp.wrmsr(tlfs.HV_X64_MSR_HYPERCALL, HYPERCALL_PAGE | 1)

        def each(vp: VirtualProcessor) -> None:
            vp.wrmsr(tlfs.HV_REGISTER_SIMP, SIMP + vp.vp_index * 4096 | 1)
            vp.wrmsr(tlfs.HV_REGISTER_SIEFP, SIEFP + vp.vp_index * 4096 | 1)
            vp.wrmsr(tlfs.HV_REGISTER_SINT2, 0xF3)
            vp.wrmsr(tlfs.HV_REGISTER_SCONTROL, 1)

        self.machine.set_secondary_entry(lambda vp: None)
        self.machine.call(boot, self.machine.boot_vp)
        self.opcode = self.machine.memory.guest.read(HYPERCALL_PAGE, 3)
        for vp in self.machine.vps:
            if not vp.started:
                vp.start()
            self.machine.call(each, vp, vp=vp)

    def run(self) -> None:
        self.machine.run()

    def hypercall(self, vp: int, *regs: int) -> int:
        """Make a hypercall on a VP; returns its HV_STATUS."""
        processor = self.machine.vps[vp]
        return self.machine.call(lambda: processor.hypercall(self.opcode, regs)[0], vp=processor) & 0xFFFF

    def post(
        self, payload: bytes | Wire, *, connection: int = 1, message_type: int = 1, vp: int = 0, times: int = 1
    ) -> int:
        """HvPostMessage, ``times`` times in one go; then let the host work. Returns the last HV_STATUS."""
        data = payload if isinstance(payload, bytes) else payload.pack()
        block = struct.pack("<IIII", connection, 0, message_type, len(data)) + data.ljust(240, b"\0")
        self.machine.memory.guest.write(INPUT, block)
        processor = self.machine.vps[vp]

        def post() -> int:
            for _ in range(times):
                status = processor.hypercall(self.opcode, (tlfs_hypercall.HVCALL_POST_MESSAGE, INPUT, 0))[0]
            return status & 0xFFFF

        status = self.machine.call(post, vp=processor)
        self.run()
        return status

    def taken(self) -> list[tuple[int, bytes]]:
        """Empty the message slots of SINT 2: ``(vp, payload)``."""
        memory = self.machine.memory.guest
        out = []
        for vp in self.machine.vps:
            slot = SIMP + vp.vp_index * 4096 + 2 * 256
            while memory.load32(slot):
                size, flags = memory.load8(slot + 4), memory.load8(slot + 5)
                out.append((vp.vp_index, memory.read(slot + 16, size)))
                memory.store32(slot, 0)
                if flags & 1:
                    self.machine.call(vp.wrmsr, tlfs.HV_REGISTER_EOM, 0, vp=vp)
        return out

    def got(self) -> list[Any]:
        """Take the host's messages, decoded by the table."""
        out = []
        for _, payload in self.taken():
            row = abi.channel_message(struct.unpack_from("<I", payload)[0])
            assert row is not None
            assert row.sender == "host"
            out.append(row.struct.unpack(payload))
        return out

    def events(self) -> list[tuple[int, int]]:
        """Take the event flags of SINT 2 as (vp, flag)."""
        memory = self.machine.memory.guest
        out = []
        for vp in self.machine.vps:
            page = SIEFP + vp.vp_index * 4096 + 2 * 256
            flags = int.from_bytes(memory.read(page, 256), "little")
            memory.write(page, bytes(256))
            out += [(vp.vp_index, flag) for flag in range(2048) if flags >> flag & 1]
        return out

    def signal(self, connection_id: int) -> bool:
        """HvSignalEvent in its fast form; false when the hypervisor refuses."""
        status = self.hypercall(0, tlfs_hypercall.HVCALL_SIGNAL_EVENT | 1 << 16, connection_id, 0)
        self.run()
        return status == 0

    def findings(self) -> list[str]:
        """Take the server's findings as ``kind: text``; the hypervisor's own are its tests' business."""
        taken: list[Finding] = list(self.machine.findings)
        self.machine.findings.clear()
        return [f"{f.kind}: {f.text}" for f in taken if f.text.startswith("vmbus: ")]

    def contact(
        self,
        version: int,
        *,
        connection: int | None = None,
        monitor: tuple[int, int] = (0x3000, 0x4000),
        vp: int = 0,
        page: int | None = None,
    ) -> int:
        """Post INITIATE_CONTACT as a kernel does; returns the HV_STATUS."""
        new = version >= abi.VERSION_WIN10_V5
        if connection is None:
            connection = 4 if new else 1
        message = abi.VmbusChannelInitiateContact(
            head(Type.CHANNELMSG_INITIATE_CONTACT),
            version,
            vp,
            (2 if new else 0x5000) if page is None else page,
            *monitor,
        )
        return self.post(message, connection=connection)

    def connect(self, version: int = abi.VERSION_WIN10) -> list[abi.VmbusChannelOfferChannel]:
        """Negotiate and ask for the offers; returns them."""
        assert self.contact(version) == 0
        (answer,) = self.got()
        assert isinstance(answer, abi.VmbusChannelVersionResponse)
        assert answer.version_supported == 1
        self.post(head(Type.CHANNELMSG_REQUESTOFFERS))
        *offers, last = self.got()
        assert last == head(Type.CHANNELMSG_ALLOFFERS_DELIVERED)
        assert all(isinstance(offer, abi.VmbusChannelOfferChannel) for offer in offers)
        return offers

    def post_gpadl(self, relid: int, handle: int, ranges: Sequence[tuple[int, int, Sequence[int]]]) -> None:
        """Post a GPADL in as many messages as the kernel needs: 26 page numbers in the header, 28 in each body."""
        data = b"".join(struct.pack(f"<II{len(p)}Q", count, offset, *p) for count, offset, p in ranges)
        self.post_gpadl_data(relid, handle, data, len(ranges))

    def post_gpadl_data(self, relid: int, handle: int, data: bytes, count: int, buflen: int | None = None) -> None:
        buflen = len(data) & 0xFFFF if buflen is None else buflen
        first = abi.VmbusChannelGpadlHeader(head(Type.CHANNELMSG_GPADL_HEADER), relid, handle, buflen, count)
        cut = 8 + 26 * 8
        self.post(first.pack() + data[:cut])
        for at in range(cut, len(data), 28 * 8):
            body = abi.VmbusChannelGpadlBody(head(Type.CHANNELMSG_GPADL_BODY), 0, handle)
            self.post(body.pack() + data[at : at + 28 * 8])

    def lend(self, relid: int, first: int, pages: int) -> int:
        """Make a GPADL of consecutive pages; returns its handle once the host accepted it."""
        self.gpadl += 1
        self.post_gpadl(relid, self.gpadl, [(pages * 4096, 0, range(first, first + pages))])
        assert self.got() == [abi.VmbusChannelGpadlCreated(head(Type.CHANNELMSG_GPADL_CREATED), relid, self.gpadl, 0)]
        return self.gpadl

    def open_message(self, relid: int, handle: int, split: int, **changes: Any) -> abi.VmbusChannelOpenChannel:
        return abi.VmbusChannelOpenChannel(
            head(Type.CHANNELMSG_OPENCHANNEL), relid, relid, handle, 1, split, b"user data".ljust(120, b"\0")
        ).replace(**changes)

    def open(self, relid: int, *, first: int = 0x100, split: int = 4, pages: int = 8) -> GuestRing:
        """Lend ring memory and open a channel on VP 1."""
        handle = self.lend(relid, first, pages)
        self.post(self.open_message(relid, handle, split))
        assert self.got() == [abi.VmbusChannelOpenResult(head(Type.CHANNELMSG_OPENCHANNEL_RESULT), relid, relid, 0)]
        self.events()
        return GuestRing(self, first, split, pages)

    def shared(self) -> list[tuple[int, int, str]]:
        """The sharing ledger, less what the hypervisor itself shows."""
        mine = ("gpadl", "gpa-range", "monitor", "interrupt page")
        return [(e.gpa >> 12, e.pages, e.via) for e in self.machine.ledger.entries() if e.via.startswith(mine)]


def head(number: Type) -> abi.VmbusChannelMessageHeader:
    return abi.VmbusChannelMessageHeader(number, 0)


class Maker:
    """Hands the classes and helpers above to the tests, which cannot import this file."""

    Accepts: type = Accepts
    NEWEST = NEWEST
    Echo: type = Echo
    head = staticmethod(head)
    guid = staticmethod(guid)
    inband = staticmethod(inband)
    gpa_direct = staticmethod(gpa_direct)
    HvPfn = HvPfn
    SlotSpec = SlotSpec

    def __init__(self) -> None:
        self.guests: list[RawGuest] = []

    def __call__(self, accepts: Any = None, slots: int = 1, **kwargs: Any) -> RawGuest:
        self.guests.append(RawGuest(accepts or Accepts(), slots, **kwargs))
        return self.guests[-1]


@pytest.fixture
def raw() -> Iterator[Maker]:
    """Makes raw guests; closes their machines."""
    maker = Maker()
    yield maker
    for guest in maker.guests:
        guest.machine.close()


@pytest.fixture(scope="session")
def raw_guest() -> Maker:
    """The same for property tests, which close each machine themselves."""
    return Maker()
