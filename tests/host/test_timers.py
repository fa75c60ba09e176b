"""Reference time, the reference TSC page, synthetic timers against virtual time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from struct import unpack
from typing import Any

import pytest

from hvkernel.host.timers import counter_at, tsc_page_time, tsc_scale
from hvkernel.machine import GeneralProtectionFault
from hvkernel_x86 import tlfs as x86

FUNCTIONS = Path(__file__).parents[1] / "data" / "abi" / "functions.json"
DIRECT = 1 << 12
VECTOR = 0xED
CONFIG, COUNT = x86.HV_REGISTER_STIMER0_CONFIG, x86.HV_REGISTER_STIMER0_COUNT
ENABLE, PERIODIC, LAZY, AUTO = 1, 2, 4, 8


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FUNCTIONS.read_text())["functions"]["tsc_page_time"]["rows"]
    return found


def test_the_page_formula_is_the_kernels() -> None:
    table = rows()
    assert len(table) > 50
    for row in table:
        given = row["in"]
        got = tsc_page_time(int(given["tsc"], 16), int(given["scale"], 16), int(given["offset"]))
        assert got == int(row["out"], 16), row


@pytest.mark.parametrize("hz", [2_793_438_000, 25_000_000, 10_000_001, 5_000_000_000])
def test_the_page_gives_the_reference_time_to_one_unit(hz: int) -> None:
    scale = tsc_scale(hz)
    assert 0 < scale < 1 << 64
    for now in (0, 1, 999, 10_000_000, 36_000_000_000, 10**15):
        assert tsc_page_time(counter_at(now, hz), scale, 0) - now in (-1, 0)


def test_a_counter_too_slow_for_the_page_is_an_error() -> None:
    with pytest.raises(ValueError, match="counter_hz = 10000000: the reference TSC page needs more than 10000000"):
        tsc_scale(10_000_000)


def test_the_reference_counter_is_strictly_increasing_on_all_vps(rig: Any) -> None:
    for vp in (1, 2, 3):
        rig.run(lambda p: None, vp)
    seen = [rig.read(x86.HV_REGISTER_TIME_REF_COUNT, n % 4) for n in range(16)]
    assert all(a < b for a, b in itertools.pairwise(seen))
    first = rig.host.timers.read_time_ref_count(0)
    assert rig.host.timers.read_time_ref_count(1) == first + 1, "two reads at one instant"


def test_the_reference_counter_is_virtual_time(rig: Any) -> None:
    before = rig.read(x86.HV_REGISTER_TIME_REF_COUNT)
    rig.idle(rig.machine.clock.now + 1_000_000)
    assert 1_000_000 <= rig.read(x86.HV_REGISTER_TIME_REF_COUNT) - before < 1_001_000


def test_the_page_in_guest_memory(rig: Any) -> None:
    rig.write(x86.HV_REGISTER_REFERENCE_TSC, 0x80_0001)
    sequence, zero, scale, offset = unpack("<IIQq", rig.get(0x80_0000, 24))
    assert (sequence, zero, offset) == (1, 0, 0)
    assert rig.get(0x80_0000 + 24, 4096 - 24) == bytes(4096 - 24)

    def both(vp: Any) -> tuple[int, int, int]:
        return rig.host.timers.now, vp.rdmsr(0x10), rig.host.timers.now

    before, counter, after = rig.run(both)
    assert before - 1 <= tsc_page_time(counter, scale, offset) <= after


def test_showing_the_page_again_changes_its_sequence(rig: Any) -> None:
    for expected in (1, 2):
        rig.write(x86.HV_REGISTER_REFERENCE_TSC, 0x80_0001)
        assert unpack("<I", rig.get(0x80_0000, 4)) == (expected,)
        rig.write(x86.HV_REGISTER_REFERENCE_TSC, 0x80_0000)


# synthetic timers


def fired(rig: Any) -> list[tuple[int, int]]:
    return [(vector, time) for _, vector, time in rig.interrupts]


def now(rig: Any) -> int:
    return int(rig.machine.clock.now)


def test_a_one_shot_fires_once_at_its_time_and_disables_itself(rig: Any) -> None:
    due = now(rig) + 5000
    rig.write(COUNT, due)
    rig.write(CONFIG, ENABLE | DIRECT | VECTOR << 4)
    rig.idle(due - 200)
    assert fired(rig) == []
    rig.idle(due + 50_000)
    ((vector, time),) = fired(rig)
    assert vector == VECTOR
    assert due <= time < due + 200, "never before its time"
    assert rig.read(CONFIG) == DIRECT | VECTOR << 4


def test_auto_enable_arms_on_a_count(rig: Any) -> None:
    rig.write(CONFIG, AUTO | DIRECT | VECTOR << 4)
    rig.write(COUNT, now(rig) + 1000)
    assert rig.read(CONFIG) & ENABLE
    rig.idle(now(rig) + 5000)
    assert not rig.read(CONFIG) & ENABLE
    rig.write(COUNT, now(rig) + 1000)
    rig.idle(now(rig) + 5000)
    assert [vector for vector, _ in fired(rig)] == [VECTOR] * 2, "as Linux programs it"


def test_without_auto_enable_a_count_arms_nothing(rig: Any) -> None:
    rig.write(CONFIG, DIRECT | VECTOR << 4)
    rig.write(COUNT, now(rig) + 100)
    rig.idle(now(rig) + 1000)
    assert fired(rig) == []


def test_a_count_in_the_past_fires_at_once(rig: Any) -> None:
    rig.write(COUNT, 1)
    before = now(rig)
    rig.write(CONFIG, ENABLE | DIRECT | VECTOR << 4)
    rig.idle(before + 1000)
    assert len(fired(rig)) == 1
    assert fired(rig)[0][1] < before + 200


def test_a_zero_count_stops_the_timer_whatever_auto_enable_says(rig: Any) -> None:
    rig.write(CONFIG, AUTO | DIRECT | VECTOR << 4)
    rig.write(COUNT, now(rig) + 1000)
    rig.write(COUNT, 0)
    assert not rig.read(CONFIG) & ENABLE
    rig.idle(now(rig) + 5000)
    assert fired(rig) == []


def test_disabling_and_reprogramming_cancel_the_old_time(rig: Any) -> None:
    rig.write(CONFIG, AUTO | DIRECT | VECTOR << 4)
    rig.write(COUNT, now(rig) + 1000)
    rig.write(COUNT, now(rig) + 9000)
    rig.idle(now(rig) + 5000)
    assert fired(rig) == []
    rig.write(CONFIG, 0)
    rig.idle(now(rig) + 50_000)
    assert fired(rig) == []


@pytest.mark.parametrize("lazy", [0, LAZY])
def test_a_periodic_timer_goes_on_until_it_is_disabled(rig: Any, lazy: int) -> None:
    start = now(rig)
    rig.write(COUNT, 10_000)
    rig.write(CONFIG, ENABLE | PERIODIC | lazy | DIRECT | VECTOR << 4)
    for step in range(1, 60):
        rig.idle(start + step * 1000)
    times = [time for _, time in fired(rig)]
    assert len(times) == 5
    assert all(9_000 < b - a < 11_000 for a, b in itertools.pairwise(times))
    rig.write(CONFIG, 0)
    rig.idle(start + 200_000)
    assert len(fired(rig)) == 5


def test_missed_periods_are_skipped(rig: Any) -> None:
    expired: list[int] = []
    send = rig.host.arch.interrupt

    def count(vp: int, vector: int, auto_eoi: bool) -> None:
        expired.append(vector)
        send(vp, vector, auto_eoi)

    rig.host.arch.interrupt = count
    rig.write(COUNT, 1000)
    rig.write(CONFIG, ENABLE | PERIODIC | DIRECT | VECTOR << 4)
    rig.machine.clock.charge(100_500)
    rig.idle(now(rig) + 100)
    assert len(expired) == 1
    timer = rig.host.timers.timers[0][0]
    assert rig.host.timers.now < timer.due <= rig.host.timers.now + 1000


def test_a_timer_has_one_message_buffer(rig: Any) -> None:
    rig.enable_synic()
    rig.write(COUNT, 1000)
    rig.write(COUNT + 2, 1000)
    rig.write(CONFIG, ENABLE | PERIODIC | 2 << 16)
    rig.write(CONFIG + 2, ENABLE | PERIODIC | 2 << 16)
    for step in range(20):
        rig.idle(now(rig) + 1000 + step)
    queue = rig.host.synic.vps[0].queues[2]
    assert len(queue) == 2, "one waits per timer behind the one in the slot"
    assert {unpack("<I", message[16:20])[0] for message in queue} == {0, 1}


def test_a_message_timer_needs_a_sint(rig: Any) -> None:
    rig.write(COUNT, now(rig) + 100)
    rig.write(CONFIG, ENABLE)
    assert rig.read(CONFIG) == 0, "SINTx of zero disables an enabled timer"
    rig.write(CONFIG, AUTO)
    rig.write(COUNT, now(rig) + 100)
    assert not rig.read(CONFIG) & ENABLE


def test_the_expiration_message(rig: Any) -> None:
    rig.enable_synic()
    due = now(rig) + 3000
    rig.write(COUNT + 2, due)
    rig.write(CONFIG + 2, ENABLE | 2 << 16)
    rig.idle(due + 5000)
    kind, size, flags, _, sender = unpack("<IBBHQ", rig.get(0x80_0200, 16))
    assert (kind, size, flags, sender) == (0x8000_0010, 24, 0, 0)
    index, zero, expired, delivered = unpack("<IIQQ", rig.get(0x80_0210, 24))
    assert (index, zero, expired) == (1, 0, due)
    assert due <= delivered < due + 200
    assert [vector for vector, _ in fired(rig)] == [0xF3]


def test_a_message_timer_waits_for_the_synic(rig: Any) -> None:
    rig.write(COUNT, now(rig) + 100)
    rig.write(CONFIG, ENABLE | 2 << 16)
    rig.idle(now(rig) + 1000)
    assert rig.read(CONFIG) & ENABLE, "not expired yet: its message has nowhere to go"
    rig.enable_synic()
    rig.idle(now(rig) + 30_000)
    assert rig.get(0x80_0200, 4) == b"\x10\0\0\x80"
    assert not rig.read(CONFIG) & ENABLE


def test_direct_mode_must_be_announced(make_x86: Any) -> None:
    rig = make_x86("ws2012r2")

    def write(vp: Any) -> bool:
        try:
            vp.wrmsr(CONFIG, ENABLE | DIRECT | VECTOR << 4)
        except GeneralProtectionFault:
            return False
        return True

    assert not rig.run(write)


def test_direct_mode_with_a_vector_that_no_apic_takes(rig: Any) -> None:
    for vector, expected in ((15, []), (16, [16])):
        rig.interrupts.clear()
        rig.write(CONFIG, AUTO | DIRECT | vector << 4)
        rig.write(COUNT, now(rig) + 10_000)
        rig.idle(rig.machine.clock.now + 20_000)
        assert [seen for _, seen, _ in rig.interrupts] == expected
        assert not rig.read(CONFIG) & ENABLE, "it expired"
    assert rig.findings("undefined") == ["STIMER0 of VP 0: direct mode with vector 15; nothing is interrupted"]


def test_reserved_bits_are_dropped_and_noted(rig: Any) -> None:
    rig.write(CONFIG, 1 << 13 | 1 << 40 | AUTO)
    assert rig.read(CONFIG) == AUTO
    assert len(rig.findings("tolerated")) == 1


def test_changing_an_enabled_timer_is_a_finding(rig: Any) -> None:
    rig.write(COUNT, now(rig) + 10_000)
    rig.write(CONFIG, ENABLE | DIRECT | VECTOR << 4)
    rig.write(CONFIG, ENABLE | PERIODIC | DIRECT | VECTOR << 4)
    assert rig.findings("undefined") == ["STIMER0 of VP 0 was changed while enabled"]


def test_a_time_that_never_comes_arms_nothing(rig: Any) -> None:
    rig.write(CONFIG, AUTO | DIRECT | VECTOR << 4)
    rig.write(COUNT, (1 << 64) - 1)
    assert rig.host.timers.timers[0][0].armed is None
    assert rig.read(CONFIG) & ENABLE


def test_timers_of_vps_are_independent(rig: Any) -> None:
    rig.run(lambda vp: None, 1)
    rig.write(CONFIG, AUTO | DIRECT | 0x50 << 4, 1)
    rig.write(CONFIG, AUTO | DIRECT | 0x60 << 4, 0)
    due = now(rig) + 1000
    rig.write(COUNT, due, 1)
    rig.idle(due + 2000)
    assert [(vp, vector) for vp, vector, _ in rig.interrupts] == [(1, 0x50)]
