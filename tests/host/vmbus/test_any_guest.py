"""No guest can break the host: whatever it writes where, only faults of the machine come out."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from hvkernel.abi.guids import HV_SCSI_GUID
from hvkernel.abi.vmbus import CHANNEL_MESSAGES
from hvkernel.abi.wire import Guid
from hvkernel.api.host import DiskImage, StorageUnit
from hvkernel.config import load_profile
from hvkernel.host import Host
from hvkernel.host.hypercalls import table
from hvkernel.host.vmbus import DeviceTable, SlotSpec, VmbusServer
from hvkernel.machine import Fault, Machine, VirtualProcessor, VpTopology
from hvkernel_arm64.host import HVC_0, HVC_1, HostArm64
from hvkernel_storvsc.vsp import StorageController
from hvkernel_x86 import tlfs as x86
from hvkernel_x86.host import HostX86

MIB = 1 << 20
RAM = ((0, 32 * MIB), (48 * MIB, 16 * MIB))
"""With a hole, so that an overlay can lie where there is no memory."""
HOLE = 40 * MIB
END = 64 * MIB
TRAPS = 3000
"""Of one seed. The four seeds and two architectures below make 24,000."""
PAGES = (0x60_0000, 0x61_0000, 0x62_0000, 0x63_0000, 0x100_0000, 0x110_0000, 0x111_0000, HOLE, HOLE + 0x1000)
SHARED = 0x100_0000
"""Where rings, monitor pages and GPADLs are taken from."""
MASK64 = (1 << 64) - 1


class AnyGuest:
    """A guest that does anything, half of it nearly right."""

    def __init__(self, seed: int, profile: str, arch: Any, image: DiskImage) -> None:
        self.rng = random.Random(f"any guest {seed}")
        self.machine = Machine(RAM, [VpTopology(vp_index=n, hw_id=n * 2) for n in range(3)], seed=seed)
        self.host = Host(self.machine, load_profile(profile), 2, arch)
        self.x86 = isinstance(arch, HostX86)
        self.opcode = arch.hypercall_page()[:3] if self.x86 else HVC_0
        classes = DeviceTable()
        classes.register(HV_SCSI_GUID, StorageController, owner="storvsc")
        units = {"units": (StorageUnit(image=image), StorageUnit("dvd", lun=2)), "subchannels": 3}
        slots = [SlotSpec(f"scsi{n}", HV_SCSI_GUID, Guid(bytes([n + 1] * 16)), parameters=units) for n in range(2)]
        self.server = VmbusServer(self.host, self.host.profile.vmbus, slots, classes)
        self.server.start()
        self.machine.set_secondary_entry(lambda vp: None)
        for vp in self.machine.vps:
            vp.set_entry(lambda vector: None)
        self.faults: Counter[str] = Counter()

    # values

    def number(self) -> int:
        rng = self.rng
        return rng.choice(
            (
                0, 1, 2, 3, 4, 7, 8, 16, 0xFF, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, MASK64, MASK64 - 1, 0xFFFF_FFFE,
                rng.getrandbits(8), rng.getrandbits(32), rng.getrandbits(64), 1 << rng.randrange(64),
            )
        )  # fmt: skip

    def gpa(self) -> int:
        rng = self.rng
        page = rng.choice((*PAGES, *PAGES, END - 0x1000, END, 1 << 45, MASK64 & ~0xFFF, 0))
        return page | rng.choice((0, 0, 0, 0, 1, 8, 0x800, 0xFF0, 0xFF8, 0xFFF))

    def value(self) -> int:
        return self.gpa() | 1 if self.rng.random() < 0.4 else self.number()

    # what a guest does

    def step(self, vp: VirtualProcessor) -> None:
        rng = self.rng
        kind = rng.randrange(10)
        try:
            if kind < 2:
                self.register(vp)
            elif kind < 4:
                self.hypercall(vp)
            elif kind < 7:
                self.message(vp)
            elif kind < 8:
                self.memory(vp)
            elif kind < 9:
                self.ring(vp)
            elif self.x86:
                self.port(vp)
        except Fault as fault:
            # A fault at the host's door is the host's own mistake.
            self.faults["guest" if getattr(fault, "side", "guest") == "guest" else str(fault)] += 1

    def register(self, vp: VirtualProcessor) -> None:
        rng = self.rng
        if not self.x86:
            number = rng.choice(list(self.host.arch.registers)) if rng.random() < 0.9 else self.number()
            if rng.random() < 0.3:
                vp.hypercall(HVC_0, (0x4600_0001, 0x1_0001_0050, MASK64, 0xFFFF_FFFE, number, 0))
            else:
                vp.hypercall(HVC_0, (0x4600_0001, 0x1_0001_0051, MASK64, 0xFFFF_FFFE, number, 0, self.value(), 0))
            return
        number = rng.choice((*self.host.arch.registers, 0x10, 0x1B, 0x6E0, 0x808, 0x80B, 0x830, 0x83F, 0x838))
        if rng.random() < 0.05:
            number = self.number()
        if rng.random() < 0.3:
            vp.rdmsr(number)
        else:
            vp.wrmsr(number, self.value())

    def call(self, vp: VirtualProcessor, control: int, first: int, second: int) -> None:
        rng = self.rng
        if not self.x86:
            more = tuple(self.number() for _ in range(rng.randrange(13)))
            if rng.random() < 0.2:
                vp.hypercall(HVC_1, (control, first, second, *more, 0)[:18])
            else:
                vp.hypercall(HVC_0, (0x4600_0001, control, first, second, *more)[:18])
            return
        opcode = self.opcode if rng.random() < 0.98 else b"\x0f\x01\xc1"
        if rng.random() < 0.2:
            regs = [control >> 32, control, first >> 32, first, second >> 32, second]
        else:
            regs = [control, first, second]
        if rng.random() < 0.3:
            regs += [self.number() << 64 | self.number() for _ in range(6)]
        vp.hypercall(opcode, tuple(regs))

    def hypercall(self, vp: VirtualProcessor) -> None:
        rng = self.rng
        code = rng.choice(list(table(16))) if rng.random() < 0.97 else self.number() & 0xFFFF
        control = code | rng.choice((0, 0, 1 << 16)) | rng.choice((0, 0, 0, rng.randrange(8))) << 17
        control |= rng.choice((0, 1, 2, 3, 500, 0xFFF)) << 32 | rng.choice((0, 0, 0, 1, 2)) << 48
        if rng.random() < 0.05:
            control |= 1 << rng.randrange(64)
        first, second = self.gpa(), self.gpa()
        if control >> 16 & 1:
            first, second = self.number(), self.number()
        elif rng.random() < 0.8:
            first &= ~0xFFF
            count = rng.randrange(1, 40)
            words = [rng.choice((MASK64, 0xFFFF_FFFE, self.number(), self.number())) for _ in range(count)]
            self.put(first, struct.pack(f"<{count}Q", *words))
        self.call(vp, control, first, second)

    def put(self, gpa: int, data: bytes) -> None:
        self.machine.memory.guest.write(gpa, data)

    def field(self) -> int:
        rng = self.rng
        return rng.choice((0, 1, 1, 2, 2, 3, 4, 5, 8, 0xE1, 0xE2, 0xE3, rng.getrandbits(32)))

    def message(self, vp: VirtualProcessor) -> None:
        rng = self.rng
        row = rng.choice([row for row in CHANNEL_MESSAGES if row.sender == "guest"])
        number, size = int(row.number), row.struct.SIZE
        words = [self.field() for _ in range(58)]
        name = row.number.name
        pages = rng.randrange(2, 12)
        if name.endswith("INITIATE_CONTACT"):
            if rng.random() < 0.9 and self.server.bus.version is not None:
                return
            page = rng.choice((SHARED, SHARED + 0x1000, HOLE, HOLE + 0x1000, 0x60_0000, 3))
            other = rng.choice((0, page, SHARED + 0x2000, HOLE))
            words[0] = rng.choice((0xD, 0x1_0001, 0x2_0004, 0x3_0000, 0x4_0000, 0x5_0000, 0x5_0003, 0x6_0000))
            words[1] = rng.choice((0, 0, 1, 2, 9))
            words[2:4] = (2, 0) if rng.random() < 0.7 else (page, 0)
            words[4:8] = (page, 0, other, 0)
        elif name.endswith("GPADL_HEADER"):
            first = rng.choice((SHARED, SHARED, SHARED, HOLE, END - 0x4000)) >> 12
            words[:2] = (rng.choice((1, 1, 2, 3)), rng.choice((0xE1, 0xE2, 0xE3)))
            words[2] = 8 + 8 * pages | 1 << 16
            words[3:5] = (pages * 4096, 0)
            for n in range(pages):
                words[5 + 2 * n : 7 + 2 * n] = (first + n, 0)
            size = 20 + 8 + 8 * pages
            if rng.random() < 0.2:
                words[2] = self.field()
        elif name.endswith("OPENCHANNEL"):
            relid = rng.choice((1, 1, 2, 3))
            words[:5] = (relid, relid, rng.choice((0xE1, 0xE2, 0xE3)), rng.choice((0, 1, 2, 9)), rng.randrange(1, 9))
        elif name.endswith("UNLOAD") and rng.random() < 0.9:
            return
        payload = struct.pack("<II58I", number, 0, *(word & 0xFFFF_FFFF for word in words))[:240]
        length = size if rng.random() < 0.95 else rng.randrange(256)
        connection = 1 if rng.random() < 0.7 else rng.choice((1, 4, 0x2001, 2, 0))
        kind = 1 if rng.random() < 0.97 else self.number() & 0xFFFF_FFFF
        self.put(0x11_0000, struct.pack("<IIII", connection, 0, kind, length) + payload.ljust(240, b"\0"))
        self.call(vp, 0x5C, 0x11_0000, 0)
        if name.endswith("INITIATE_CONTACT"):
            self.put(0x11_0000, struct.pack("<IIIIII", 1, 0, 1, 8, 3, 0).ljust(256, b"\0"))
            self.call(vp, 0x5C, 0x11_0000, 0)

    def memory(self, vp: VirtualProcessor) -> None:
        """Junk in shared pages; message slots are emptied, that the host goes on."""
        rng, memory = self.rng, self.machine.memory.guest
        if rng.random() < 0.5:
            for state in self.host.synic.vps.values():
                if state.simp_page.hvpfn is not None:
                    memory.write(state.simp_page.hvpfn << 12, bytes(4096))
            self.host.synic.scan(vp.vp_index)
            return
        page = rng.choice((SHARED, SHARED + 0x1000, SHARED + 0x2000, SHARED + 0x4000, HOLE, 0x60_0000))
        if rng.random() < 0.5:
            memory.sync_set_bit(page + 8, rng.randrange(256))
        else:
            memory.write(page + rng.choice((0, 4, 8, 12, 64)), struct.pack("<I", self.number() & 0xFFFF_FFFF))

    def ring(self, vp: VirtualProcessor) -> None:
        """A packet that may be right, in the ring of an open channel, and a signal."""
        rng = self.rng
        opened = self.open_channels()
        if not opened:
            return
        operation = rng.choice((3, 7, 8, 9, 10, 3, 3, 3, 13, 4, 5, 6, rng.getrandbits(8)))
        body = struct.pack("<III", operation, 1, 0)
        if operation == 9:
            body += struct.pack("<HH", rng.choice((0x200, 0x402, 0x501, 0x602, 9)), 0)
        elif operation == 13:
            body += struct.pack("<H", rng.choice((1, 3, 9)))
        else:
            cdb = bytes([rng.choice((0, 3, 0x12, 0x25, 0x28, 0x2A, 0x42, 0x88, 0x8A, 0x9E, 0xA0, 0x1A, 0x15, 0x55,
                                     0x5A, 0x41, 0x93, 0x35, 0x4A, rng.getrandbits(8)))])  # fmt: skip
            cdb += rng.randbytes(15) if rng.random() < 0.5 else struct.pack(">BIxH7x", 0, rng.randrange(9), 1)
            length = rng.choice((0, 8, 36, 96, 512, 4096, 0xFFFF_FFFF))
            body += struct.pack("<HBBBBBBBBBBI", 52, 0, 0, 0, 0, 0, rng.choice((0, 1, 2)), 16, 20, 1, 0, length) + cdb
        body = body.ljust(rng.choice((48, 64, 64, 64, 16)), b"\0")
        body = body[: len(body) & ~7]
        if rng.random() < 0.5:
            packet = struct.pack("<HHHHQ", 6, 2, 2 + len(body) // 8, 1, rng.getrandbits(3)) + body
        else:
            count = rng.choice((512, 4096, 96, 0, 0xFFFF_FFFF))
            page = rng.choice((0x1200, HOLE >> 12, 1 << 51, 5))
            packet = struct.pack("<HHHHQ", 9, 5, 5 + len(body) // 8, rng.choice((0, 1, 1, 2)), rng.getrandbits(3))
            packet += struct.pack("<IIIIQ", 0, 1, count, rng.choice((0, 0, 8, 4095)), page) + body
        if rng.random() < 0.02:
            packet = rng.randbytes(32)
        self.send(vp, rng.choice(opened), packet)

    def send(self, vp: VirtualProcessor, channel: Any, packet: bytes) -> None:
        rng, memory, rings = self.rng, self.machine.memory.guest, channel.rings
        pfns, size = rings.gpadl.pfns, rings.incoming.size
        write = memory.load32(pfns[0] << 12)
        packet += struct.pack("<II", 0, write)
        if write < size and not write & 7:
            for n in range(0, len(packet), 8):
                at = (write + n) % size
                memory.write((pfns[1 + (at >> 12)] << 12) + (at & 0xFFF), packet[n : n + 8])
            memory.store32(pfns[0] << 12, (write + len(packet)) % size)
        if rng.random() < 0.7:
            down = pfns[size // 4096 + 1] << 12
            memory.store32(down + 4, memory.load32(down))
        vp.hypercall(self.opcode, self.fast(0x5D, channel.connection_id))

    def fast(self, code: int, first: int) -> tuple[int, ...]:
        control = code | 1 << 16
        return (control, first, 0) if self.x86 else (0x4600_0001, control, first, 0)

    def port(self, vp: VirtualProcessor) -> None:
        rng = self.rng
        page = rng.choice((0xFEE0_0000, self.gpa()))
        offset, size = rng.randrange(0, 0x400, 16), rng.choice((1, 2, 4, 8))
        kind = rng.randrange(5)
        if kind == 0:
            vp.mmio_read(page + offset, size)
        elif kind == 1:
            vp.mmio_write(page + offset, size, self.number())
        elif kind == 2:
            vp.io_in(rng.choice((0x408, 0x404, 0xCF9, 0x80)), size)
        elif kind == 3:
            vp.io_out(rng.choice((0x408, 0x404, 0xCF9, 0x80)), size, self.number())
        else:
            vp.cpuid(rng.choice((0, 1, 7, 0x4000_0003, 0x4000_00FF, self.number())), self.number())

    # life

    def begin(self) -> None:
        boot = self.machine.boot_vp

        def on(vp: VirtualProcessor) -> None:
            if not self.x86:
                pairs = ((0x9_0002, 0x8100 << 48 | 1), (0xA_0013, 0x62_0001), (0xA_0012, 0x63_0001), (0xA_0002, 0x12),
                         (0xA_0010, 1))  # fmt: skip
                for number, value in pairs:
                    vp.hypercall(HVC_0, (0x4600_0001, 0x1_0001_0051, MASK64, 0xFFFF_FFFE, number, 0, value, 0))
                return
            vp.wrmsr(x86.HV_X64_MSR_GUEST_OS_ID, 0x8100 << 48 | 1)
            vp.wrmsr(x86.HV_X64_MSR_HYPERCALL, 0x60_0001)
            vp.wrmsr(x86.HV_REGISTER_SIMP, 0x62_0001)
            vp.wrmsr(x86.HV_REGISTER_SIEFP, 0x63_0001)
            vp.wrmsr(x86.HV_REGISTER_SINT2, 0xF3)
            vp.wrmsr(x86.HV_REGISTER_SCONTROL, 1)

        self.machine.call(on, boot)

    def live(self, traps: int) -> None:
        for number in range(traps):
            if number % 400 == 0:
                self.begin_again()
            vp = self.rng.choice(self.machine.vps[:2]) if self.rng.random() < 0.3 else self.machine.boot_vp
            if not vp.started:
                vp.start()
            self.machine.call(self.step, vp, vp=vp, limit=1 << 40)
            if number % 3 == 0:
                self.machine.run(limit=2_000, steps=500)

    def begin_again(self) -> None:
        """As after a reset, so that one bad register does not end everything; then an honest connection."""
        self.host.reset()
        self.begin()
        monitors = (SHARED + 0x1000, 0, SHARED + 0x2000, 0)
        self.honest(16)
        self.honest(14, 0x5_0000, 0, 2, 0, *monitors, connection=4)
        self.honest(14, 0x4_0000, 0, 0, 0, *monitors)
        self.honest(3)
        for relid in (1, 2):
            first = (SHARED >> 12) + 0x10 * relid
            pages = [word for n in range(8) for word in (first + n, 0)]
            self.honest(8, relid, 0xE0 + relid, 72 | 1 << 16, 8 * 4096, 0, *pages)
            self.honest(5, relid, relid, 0xE0 + relid, relid - 1, 4, *[0] * 30)
        for number in (7, 9, 10, 8):
            for channel in self.open_channels():
                version = struct.pack("<HH", 0x602, 0) if number == 9 else b""
                body = (struct.pack("<III", number, 1, 0) + version).ljust(64, b"\0")
                self.machine.call(self.send, self.machine.boot_vp, channel, inband(body), vp=self.machine.boot_vp)
                self.machine.run(limit=2_000)

    def honest(self, number: int, *words: int, connection: int = 1) -> None:
        """Post one message, let the host work and take its answers."""
        payload = struct.pack(f"<II{len(words)}I", number, 0, *words)
        self.put(0x11_0000, struct.pack("<IIII", connection, 0, 1, len(payload)) + payload.ljust(240, b"\0"))
        vp = self.machine.boot_vp
        regs = (0x5C, 0x11_0000, 0) if self.x86 else (0x4600_0001, 0x5C, 0x11_0000, 0)
        self.machine.call(vp.hypercall, self.opcode, regs, vp=vp)
        self.machine.run(limit=2_000)
        self.put(0x62_0000, bytes(4096))

    def open_channels(self) -> list[Any]:
        return [channel for channel in self.server.by_relid.values() if channel.rings is not None]


def inband(body: bytes) -> bytes:
    return struct.pack("<HHHHQ", 6, 2, 2 + len(body) // 8, 1, 7) + body


@pytest.fixture
def image() -> Iterator[DiskImage]:
    disk = DiskImage.blank(random.Random(1), 2 * MIB)
    yield disk
    disk.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("profile", "arch"), [("ws2022", HostX86), ("azure-arm64", HostArm64)])
def test_only_faults_come_out(seed: int, profile: str, arch: Any, image: DiskImage) -> None:
    guest = AnyGuest(seed, profile, arch(), image)
    try:
        guest.live(TRAPS)
        blamed = [finding.text for finding in guest.machine.findings if finding.kind == "plugin"]
        assert set(guest.faults) == {"guest"}
        assert blamed == [], "a guest's mistake is no plugin's"
        assert guest.server.requests, "it never came as far as the bus"
        assert sum(channel.opens for device in guest.server.devices for channel in device.channels), "nothing opened"
    finally:
        guest.machine.close()
