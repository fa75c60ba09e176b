"""A raw driver for the hypervisor: traps straight on the machine's processors, no guest kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

from hvkernel.config import HostProfile, load_profile
from hvkernel.host import Host, ram_ranges
from hvkernel.machine import Machine, VirtualProcessor, VpTopology
from hvkernel_arm64.host import HVC_0, HostArm64
from hvkernel_x86 import tlfs as x86
from hvkernel_x86.host import HostX86

T = TypeVar("T")

GUEST_ID = 0x8100_0006_01C0_0000
"""What Linux 6.1.192 writes (HV_LINUX_VENDOR_ID << 48 | version << 16)."""
HYPERCALL_PAGE = 0x0060_0000
INPUT = 0x0070_0000
OUTPUT = 0x0070_1000
SIMP = 0x0080_0000
SIEFP = 0x0081_0000
SELF = (1 << 64) - 1
VP_SELF = 0xFFFF_FFFE


class Rig:
    """One machine with a hypervisor; code given to :meth:`run` is the guest."""

    def __init__(self, profile: HostProfile, generation: int, arch: HostX86 | HostArm64, machine: Machine) -> None:
        self.machine = machine
        self.profile = profile
        self.arch = arch
        self.host = Host(machine, profile, generation, arch)
        self.interrupts: list[tuple[int, int, int]] = []
        """(VP index, vector, time) of every interrupt that was delivered."""
        for vp in machine.vps:
            vp.set_entry(self._entry(vp.vp_index))
        machine.set_secondary_entry(lambda vp: None)

    def _entry(self, vp: int) -> Callable[[int], None]:
        return lambda vector: self.interrupts.append((vp, vector, self.machine.clock.now))

    def run(self, fn: Callable[[VirtualProcessor], T], vp: int | None = None) -> T:
        """Run guest code on a VP, starting it if need be."""
        processor = self.machine.boot_vp if vp is None else self.machine.vps[vp]
        if not processor.started:
            processor.start()
        return self.machine.call(fn, processor, vp=processor)

    def idle(self, until: int) -> None:
        """Let virtual time pass until ``until``, interrupts on."""
        self.run(lambda vp: self.machine.delay(max(0, until - self.machine.clock.now)))

    def findings(self, kind: str) -> list[str]:
        return [finding.text for finding in self.machine.findings if finding.kind == kind]

    # guest memory

    def put(self, gpa: int, data: bytes) -> None:
        self.machine.memory.guest.write(gpa, data)

    def get(self, gpa: int, size: int) -> bytes:
        return self.machine.memory.guest.read(gpa, size)


class X86Rig(Rig):
    """MSRs and the hypercall page."""

    opcode = b"\x0f\x01\xc1"

    def read(self, n: int, vp: int | None = None) -> int:
        return self.run(lambda p: p.rdmsr(n), vp)

    def write(self, n: int, value: int, vp: int | None = None) -> None:
        self.run(lambda p: p.wrmsr(n, value), vp)

    def enable(self) -> None:
        """Identify the guest, show the hypercall page, read the instruction off it."""
        self.write(x86.HV_X64_MSR_GUEST_OS_ID, GUEST_ID)
        self.write(x86.HV_X64_MSR_HYPERCALL, HYPERCALL_PAGE | 1)
        self.opcode = self.get(HYPERCALL_PAGE, 3)

    def enable_synic(self, vp: int = 0, vector: int = 0xF3, flags: int = 0) -> None:
        """What hv_synic_enable_regs writes."""
        self.write(x86.HV_REGISTER_SIMP, SIMP + vp * 0x1000 | 1, vp)
        self.write(x86.HV_REGISTER_SIEFP, SIEFP + vp * 0x1000 | 1, vp)
        self.write(x86.HV_REGISTER_SINT2, vector | flags, vp)
        self.write(x86.HV_REGISTER_SCONTROL, 1, vp)

    def regs(self, *regs: int, vp: int | None = None) -> tuple[int, ...]:
        return self.run(lambda p: p.hypercall(self.opcode, regs), vp)

    def hypercall(self, control: int, data: bytes = b"", *, output: int = OUTPUT, vp: int | None = None) -> int:
        """Memory form: ``data`` at INPUT; returns the result value."""
        self.put(INPUT, data)
        return self.regs(control, INPUT, output, vp=vp)[0]

    def fast(self, control: int, first: int = 0, second: int = 0, *xmm: int, vp: int | None = None) -> int:
        """Fast form; returns the result value."""
        return self.regs(control | 1 << 16, first, second, *xmm, vp=vp)[0]


class Arm64Rig(Rig):
    """SMCCC calls."""

    def call(self, *x: int, opcode: bytes = HVC_0, vp: int | None = None) -> tuple[int, ...]:
        return self.run(lambda p: p.hypercall(opcode, tuple(x) + (0,) * (4 - len(x))), vp)

    def set_register(self, n: int, value: int, vp: int | None = None) -> int:
        return self.call(0x4600_0001, 0x1_0001_0051, SELF, VP_SELF, n, 0, value, 0, vp=vp)[0] & 0xFFFF

    def get_register(self, n: int, vp: int | None = None) -> tuple[int, int, int]:
        x = self.call(0x4600_0001, 0x1_0001_0050, SELF, VP_SELF, n, vp=vp)
        return x[0] & 0xFFFF, x[6], x[7]


MakeX86 = Callable[..., X86Rig]
MakeArm64 = Callable[..., Arm64Rig]


def topology(cpus: int, spread: int) -> Sequence[VpTopology]:
    # The boot processor is VP 0; hardware ids are not the indices.
    return [VpTopology(vp_index=n, hw_id=n * spread, node=n * 2 // cpus) for n in range(cpus)]


@pytest.fixture
def make_x86() -> Iterator[MakeX86]:
    """Make x86 rigs: ``make_x86("ws2022", generation=1, cpus=4, memory=64 << 20)``."""
    machines: list[Machine] = []

    def make(
        name: str = "azure-gen2", *, generation: int | None = None, cpus: int = 4, memory: int = 64 << 20
    ) -> X86Rig:
        profile = load_profile(name)
        machine = Machine(ram_ranges(profile, memory), topology(cpus, 2))
        machines.append(machine)
        return X86Rig(profile, generation or profile.default_generation, HostX86(), machine)

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def make_arm64() -> Iterator[MakeArm64]:
    """Make arm64 rigs."""
    machines: list[Machine] = []

    def make(cpus: int = 4, memory: int = 64 << 20) -> Arm64Rig:
        profile = load_profile("azure-arm64")
        machine = Machine(ram_ranges(profile, memory), topology(cpus, 0x100))
        machines.append(machine)
        return Arm64Rig(profile, 2, HostArm64(), machine)

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def rig(make_x86: MakeX86) -> X86Rig:
    """An azure-gen2 partition with hypercalls enabled."""
    made = make_x86()
    made.enable()
    return made


@pytest.fixture
def arm(make_arm64: MakeArm64) -> Arm64Rig:
    """An azure-arm64 partition whose guest identified itself."""
    made = make_arm64()
    assert made.set_register(0x0009_0002, GUEST_ID) == 0
    return made
