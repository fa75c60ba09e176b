"""The hypervisor's x86 half: CPUID, native MSRs, the local APIC, ports."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.machine import GeneralProtectionFault
from hvkernel_x86 import tlfs
from hvkernel_x86.host import HostX86
from hvkernel_x86.host_lapic import APIC_BASE

ICR, ICR2, LVT_TIMER, TMICT, TMCCT, TDCR, SVR, LDR = 0x300, 0x310, 0x320, 0x380, 0x390, 0x3E0, 0xF0, 0xD0
ASSERT = 1 << 14
INIT, SIPI, NMI = 5 << 8, 6 << 8, 4 << 8
TSC, BASE, DEADLINE = 0x10, 0x1B, 0x6E0


def refused(rig: Any, n: int, value: int | None = None) -> bool:
    def body(vp: Any) -> bool:
        try:
            vp.rdmsr(n) if value is None else vp.wrmsr(n, value)
        except GeneralProtectionFault as fault:
            return fault.register == n
        return False

    return bool(rig.run(body))


def apic(rig: Any, offset: int, value: int | None = None, vp: int = 0) -> int:
    if value is None:
        return int(rig.run(lambda p: p.mmio_read(APIC_BASE + offset, 4), vp))
    rig.run(lambda p: p.mmio_write(APIC_BASE + offset, 4, value), vp)
    return 0


def settle(rig: Any) -> list[tuple[int, int]]:
    for vp in rig.machine.vps:
        if vp.started:
            rig.run(lambda p: rig.machine.delay(10), vp.vp_index)
    return sorted((vp, vector) for vp, vector, _ in rig.interrupts)


# CPUID


def test_the_hypervisor_leaves(rig: Any) -> None:
    def leaf(n: int) -> tuple[int, int, int, int]:
        found: tuple[int, int, int, int] = rig.run(lambda vp: vp.cpuid(n))
        return found

    top, b, c, d = leaf(0x4000_0000)
    assert (top, b.to_bytes(4, "little") + c.to_bytes(4, "little") + d.to_bytes(4, "little")) == (
        0x4000_0006,
        b"Microsoft Hv",
    )
    assert leaf(0x4000_0001)[0].to_bytes(4, "little") == b"Hv#1"
    a, b, c, d = leaf(0x4000_0002)
    assert (b >> 16, b & 0xFFFF, a, d & 0xFF_FFFF, c, d >> 24) == (10, 0, 20348, 3020, 3, 0), "Host Build of log 01"
    assert leaf(0x4000_0003) == (0x2E7F, 0x3B8030, 0, 0xED7B2)
    assert leaf(0x4000_0004) == (0x60C2C, 0xFFF, 0, 0)
    assert leaf(0x4000_0005)[0] == 1024
    assert leaf(1)[2] >> 31 == 1, "a hypervisor is present"


def test_leaves_beyond_the_highest_are_zero(make_x86: Any) -> None:
    assert make_x86().run(lambda vp: vp.cpuid(0x4000_000A)) == (0, 0, 0, 0)
    assert make_x86("ws2022").run(lambda vp: vp.cpuid(0x4000_000A)) == (0x4A0000, 0, 0, 0)
    assert make_x86().run(lambda vp: vp.cpuid(0x4000_0081)) == (0, 0, 0, 0)
    assert make_x86("ws2008r2").run(lambda vp: vp.cpuid(0x4000_0006)) == (0, 0, 0, 0)


def test_the_processor_leaves(make_x86: Any) -> None:
    rig = make_x86("ws2022")
    _, b, c, d = rig.run(lambda vp: vp.cpuid(0))
    assert b"".join(r.to_bytes(4, "little") for r in (b, d, c)) == b"AuthenticAMD"
    edx = rig.run(lambda vp: vp.cpuid(1))[3]
    assert all(edx >> bit & 1 for bit in (4, 5, 6, 8, 9)), "TSC, MSR, PAE, CX8, APIC"
    assert rig.run(lambda vp: vp.cpuid(0x8000_0001))[3] >> 29 & 1 == 1, "long mode"
    assert rig.run(lambda vp: vp.cpuid(0x8000_0000))[0] == 0x8000_0008


@pytest.mark.parametrize(("profile", "announced"), [("azure-gen2", 0), ("ws2025", 1)])
def test_x2apic_is_announced_by_the_profile(make_x86: Any, profile: str, announced: int) -> None:
    assert make_x86(profile).run(lambda vp: vp.cpuid(1))[2] >> 21 & 1 == announced


# features


def test_feature_bits_are_edx_of_leaf_3(make_x86: Any) -> None:
    features = HostX86().features(make_x86().profile.cpuid)
    assert (features.frequency_registers, features.crash_registers, features.direct_stimer) == (True, True, True)
    assert (features.guest_idle, features.fast_input_extended, features.fast_output) == (True, True, True)
    features = HostX86().features(make_x86("ws2008r2").profile.cpuid)
    assert (features.frequency_registers, features.crash_registers, features.direct_stimer) == (True, False, False)


# MSRs


def test_the_tsc_runs_at_its_frequency(rig: Any) -> None:
    before, start = rig.read(TSC), rig.machine.clock.now
    rig.idle(start + 10_000_000)
    ticks, units = rig.read(TSC) - before, rig.machine.clock.now - start
    assert abs(ticks - units * 2_793_438_000 // 10_000_000) < 10_000


@pytest.mark.parametrize("n", [0x11, 0x174, 0xC000_0080, 0x802, 0x830])
def test_msrs_that_do_not_exist(rig: Any, n: int) -> None:
    assert refused(rig, n)
    assert refused(rig, n, 0)


def test_the_apic_base(rig: Any) -> None:
    assert rig.read(BASE) == APIC_BASE | 1 << 11 | 1 << 8, "enabled, boot processor"
    assert rig.read(BASE, 1) == APIC_BASE | 1 << 11
    assert refused(rig, BASE, 0xFED0_0800), "the page cannot move"
    assert refused(rig, BASE, APIC_BASE | 0xC00), "no x2APIC on this host"


# the local APIC by its page and its synthetic MSRs


def test_identity_and_version(rig: Any) -> None:
    assert [apic(rig, 0x20, vp=vp) >> 24 for vp in range(4)] == [0, 2, 4, 6]
    assert apic(rig, 0x30) & 0xFF == 0x14


def test_tpr_by_page_and_by_msr_is_one_register(rig: Any) -> None:
    apic(rig, 0x80, 0x30)
    assert rig.read(tlfs.HV_X64_MSR_TPR) == 0x30
    rig.write(tlfs.HV_X64_MSR_TPR, 0x40)
    assert apic(rig, 0x80) == 0x40
    assert refused(rig, tlfs.HV_X64_MSR_TPR, 0x100), "reserved bits"
    assert refused(rig, tlfs.HV_X64_MSR_EOI, 1 << 32)


def test_fixed_ipis_by_physical_id(rig: Any) -> None:
    for vp in (1, 2, 3):
        rig.run(lambda p: None, vp)
    rig.write(tlfs.HV_X64_MSR_ICR, 4 << 56 | 0x41)  # APIC id 4 is VP 2
    apic(rig, ICR2, 6 << 24)
    apic(rig, ICR, 0x42)
    assert settle(rig) == [(2, 0x41), (3, 0x42)]
    assert rig.read(tlfs.HV_X64_MSR_ICR) == 6 << 56 | 0x42


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (1 << 18, [0]),
        (2 << 18, [0, 1, 2, 3]),
        (3 << 18, [1, 2, 3]),
        (0xFF << 56, [0, 1, 2, 3]),
        (7 << 56, []),
        (0b101 << 56 | 1 << 11, [0, 2]),
        (0b110 << 56 | 1 << 11 | 1 << 8, [1]),
    ],
)
def test_destinations(rig: Any, command: int, expected: list[int]) -> None:
    for vp in range(4):
        apic(rig, LDR, 1 << 24 + vp, vp)
    rig.write(tlfs.HV_X64_MSR_ICR, command | 0x55)
    assert settle(rig) == [(vp, 0x55) for vp in expected]


def test_vectors_below_16_go_nowhere(rig: Any) -> None:
    rig.write(tlfs.HV_X64_MSR_ICR, 1 << 18 | 0x0F)
    assert settle(rig) == []
    assert len(rig.findings("tolerated")) == 1


def test_init_and_start_up_start_a_processor_once(rig: Any) -> None:
    destination = 4 << 56
    rig.write(tlfs.HV_X64_MSR_ICR, destination | ASSERT | INIT)
    assert not rig.machine.vps[2].started
    rig.write(tlfs.HV_X64_MSR_ICR, destination | INIT)
    rig.write(tlfs.HV_X64_MSR_ICR, destination | SIPI | 0x9A)
    assert rig.machine.vps[2].started
    rig.write(tlfs.HV_X64_MSR_ICR, destination | SIPI | 0x9A)
    assert rig.findings("tolerated") == [], "the second start-up IPI of the sequence is ignored"
    rig.write(tlfs.HV_X64_MSR_ICR, destination | ASSERT | INIT)
    assert not rig.machine.vps[2].started, "INIT stops a running processor"
    rig.write(tlfs.HV_X64_MSR_ICR, destination | SIPI | 0x9A)
    assert rig.machine.vps[2].started


def test_an_nmi_is_noted(rig: Any) -> None:
    rig.write(tlfs.HV_X64_MSR_ICR, 2 << 56 | NMI)
    assert rig.findings("tolerated") == ["VP 0 sent an NMI to VPs [1]; it is not modelled"]


def test_x2apic_mode(make_x86: Any) -> None:
    rig = make_x86("ws2025")
    rig.write(BASE, APIC_BASE | 0xC00 | 1 << 8)
    assert rig.read(0x802) == 0
    assert apic(rig, 0x20) == 0xFFFF_FFFF, "the page is gone"
    rig.run(lambda p: None, 3)
    rig.write(0x830, 6 << 32 | 0x77)
    rig.write(0x83F, 0x78)
    assert settle(rig) == [(0, 0x78), (3, 0x77)]
    rig.write(0x808, 0x20)
    assert rig.read(0x808) == 0x20
    assert refused(rig, 0x80B, 1), "EOI takes zero only"
    for n in (0x80B, 0x83F, tlfs.HV_X64_MSR_EOI):
        assert refused(rig, n), "write only (TLFS, HV_X64_MSR_EOI; SDM)"
    rig.write(0x80B, 0)
    assert refused(rig, 0x803, 1), "the version is read only"


def test_a_vector_below_16_is_no_interrupt_from_oneself_either(make_x86: Any) -> None:
    rig = make_x86("ws2025")
    rig.write(BASE, APIC_BASE | 0xC00 | 1 << 8)
    rig.write(0x83F, 15)
    rig.write(0x832, 14)
    rig.write(0x838, 1000)
    assert settle(rig) == []
    rig.idle(rig.machine.clock.now + 10_000)
    assert rig.interrupts == []
    assert rig.findings("tolerated") == [
        "VP 0 sent itself an IPI with vector 15; nothing happens",
        "VP 0 let its timer expire with vector 14; nothing happens",
    ]


# its timer


def test_the_one_shot_timer(rig: Any) -> None:
    apic(rig, TDCR, 0b1011)
    apic(rig, LVT_TIMER, 0xEC)
    start = rig.machine.clock.now
    apic(rig, TMICT, 200_000)  # 1 ms at 200 MHz
    assert 0 < apic(rig, TMCCT) <= 200_000
    rig.idle(start + 50_000)
    ((vp, vector, time),) = rig.interrupts
    assert (vp, vector) == (0, 0xEC)
    assert 10_000 <= time - start < 10_300
    assert apic(rig, TMCCT) == 0


def test_the_divider_and_the_mask(rig: Any) -> None:
    apic(rig, TDCR, 0b0011)
    apic(rig, LVT_TIMER, 0xEC)
    start = rig.machine.clock.now
    apic(rig, TMICT, 12_500)  # 16 ticks each
    rig.idle(start + 9_000)
    assert rig.interrupts == []
    rig.idle(start + 20_000)
    assert len(rig.interrupts) == 1
    apic(rig, LVT_TIMER, 0xEC | 1 << 16)
    apic(rig, TMICT, 12_500)
    rig.idle(start + 90_000)
    assert len(rig.interrupts) == 1


def test_the_periodic_timer(rig: Any) -> None:
    apic(rig, TDCR, 0b1011)
    apic(rig, LVT_TIMER, 0xEC | 1 << 17)
    start = rig.machine.clock.now
    apic(rig, TMICT, 200_000)
    for step in range(1, 56):
        rig.idle(start + 1000 * step)
    assert len(rig.interrupts) == 5
    apic(rig, TMICT, 0)
    rig.idle(start + 200_000)
    assert len(rig.interrupts) == 5


def test_the_tsc_deadline(rig: Any) -> None:
    rig.write(DEADLINE, 1)
    assert rig.read(DEADLINE) == 0, "ignored in another mode"
    apic(rig, LVT_TIMER, 0xEC | 2 << 17)
    start = rig.machine.clock.now
    rig.write(DEADLINE, rig.read(TSC) + 2_793_438)  # 1 ms
    rig.idle(start + 50_000)
    ((_, vector, time),) = rig.interrupts
    assert vector == 0xEC
    assert 10_000 <= time - start < 10_300
    assert rig.read(DEADLINE) == 0


# ports


def test_the_pm_timer_counts(rig: Any) -> None:
    first = rig.run(lambda vp: vp.io_in(0x408, 4))
    rig.idle(rig.machine.clock.now + 10_000_000)
    assert abs(rig.run(lambda vp: vp.io_in(0x408, 4)) - first - 3_579_545) < 100


@pytest.mark.parametrize(("port", "value", "kind"), [(0x404, 5 << 10 | 1 << 13, "off"), (0xCF9, 6, "reset")])
def test_power_by_port(rig: Any, port: int, value: int, kind: str) -> None:
    told: list[str] = []
    rig.host.on_power.append(told.append)
    rig.run(lambda vp: vp.io_out(port, 2, value))
    assert told == [kind]
    assert rig.host.power_events[0][1] == kind


def test_nobody_answers_elsewhere(rig: Any) -> None:
    assert rig.run(lambda vp: vp.io_in(0x1F7, 1)) == 0xFF
    assert rig.run(lambda vp: vp.mmio_read(0xF000_0000, 4)) == 0xFFFF_FFFF
    rig.run(lambda vp: vp.io_out(0x80, 1, 0))
    rig.run(lambda vp: vp.mmio_write(0xF000_0000, 4, 1))
