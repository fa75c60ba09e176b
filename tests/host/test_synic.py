"""The SynIC: slots, pending messages, EOM, event flags, interrupts, and everything that switches it off."""

from __future__ import annotations

from struct import pack, unpack
from typing import Any

import pytest

from hvkernel.abi.tlfs_synic import HvMessage, HvMessageHeader
from hvkernel.host import HvStatus
from hvkernel_x86 import tlfs as x86

SINT = 2
SLOT = 0x80_0000 + SINT * 256
FLAGS = 0x81_0000 + SINT * 256
VECTOR = 0xF3


@pytest.fixture
def on(rig: Any) -> Any:
    rig.enable_synic()
    return rig


def post(rig: Any, payload: bytes = b"hello", vp: int = 0, sint: int = SINT, kind: int = 1) -> int:
    return int(rig.host.synic.post_message(vp, sint, kind, 0x20000, payload))


def slot(rig: Any) -> tuple[int, int, int, int, bytes]:
    """Type, size, flags, port, payload of the slot."""
    kind, size, flags, _, port = unpack("<IBBHQ", rig.get(SLOT, 16))
    return kind, size, flags, port, rig.get(SLOT + 16, size)


def take(rig: Any) -> bytes:
    """What vmbus_signal_eom does: copy, empty the slot, write EOM."""
    payload = slot(rig)[4]
    rig.put(SLOT, bytes(4))
    rig.write(x86.HV_REGISTER_EOM, 0)
    return payload


def delivered(rig: Any) -> list[tuple[int, int]]:
    rig.idle(rig.machine.clock.now + 100)
    return [(vp, vector) for vp, vector, _ in rig.interrupts]


def test_a_message_fills_its_slot_and_interrupts(on: Any) -> None:
    assert post(on) == 0
    assert slot(on) == (1, 5, 0, 0x20000, b"hello")
    header = HvMessageHeader.unpack(on.get(SLOT, 16))
    assert (header.message_type, header.payload_size, header.message_flags.msg_pending) == (1, 5, 0)
    assert HvMessage.SIZE == 256
    assert delivered(on) == [(0, VECTOR)]


def test_a_second_message_waits_and_says_so(on: Any) -> None:
    post(on, b"one")
    post(on, b"two")
    post(on, b"three")
    assert slot(on) == (1, 3, 1, 0x20000, b"one")
    assert delivered(on) == [(0, VECTOR)]
    assert take(on) == b"one"
    assert slot(on) == (1, 3, 1, 0x20000, b"two"), "more are pending behind it"
    assert take(on) == b"two"
    assert slot(on) == (1, 5, 0, 0x20000, b"three"), "the last one says nothing is pending"
    assert take(on) == b"three"
    assert slot(on)[0] == 0
    assert delivered(on) == [(0, VECTOR)] * 3


def test_nothing_moves_until_the_guest_says_end_of_message(on: Any) -> None:
    post(on, b"one")
    post(on, b"two")
    on.put(SLOT, bytes(4))
    assert slot(on)[0] == 0
    on.write(x86.HV_X64_MSR_EOI, 0)
    assert slot(on)[4] == b"two", "the end of an interrupt looks at the queues too"


def test_an_eom_with_a_full_slot_or_an_empty_queue_does_nothing(on: Any) -> None:
    on.write(x86.HV_REGISTER_EOM, 0)
    post(on, b"one")
    post(on, b"two")
    on.write(x86.HV_REGISTER_EOM, 5)
    assert slot(on)[4] == b"one"


def test_an_emptied_slot_takes_the_next_message_when_another_is_queued(on: Any) -> None:
    post(on, b"one")
    post(on, b"two")
    on.put(SLOT, bytes(4))
    post(on, b"three")
    assert slot(on)[4] == b"two", "queueing scans, in order"


def test_every_sint_and_vp_has_its_own_slot_and_queue(on: Any) -> None:
    on.enable_synic(1, 0x44)
    post(on, b"a", vp=1)
    post(on, b"b", sint=5)
    assert on.get(0x80_1000 + SINT * 256 + 16, 1) == b"a"
    assert on.get(0x80_0000 + 5 * 256 + 16, 1) == b"b"
    on.run(lambda vp: on.machine.delay(10), 1)
    assert [(vp, vector) for vp, vector, _ in on.interrupts] == [(1, 0x44)], "SINT5 is masked: that interrupt is lost"


@pytest.mark.parametrize("register", [x86.HV_REGISTER_SCONTROL, x86.HV_REGISTER_SIMP])
def test_a_vp_that_is_switched_off_is_no_target(on: Any, register: int) -> None:
    on.write(register, 0)
    assert post(on) == HvStatus.INVALID_SYNIC_STATE
    assert delivered(on) == []


def test_queued_messages_survive_a_disabled_page_and_follow_it(on: Any) -> None:
    post(on, b"one")
    post(on, b"two")
    on.write(x86.HV_REGISTER_SIMP, 0)
    assert on.get(SLOT, 4) == bytes(4), "the guest's own page is back"
    on.write(x86.HV_REGISTER_SIMP, 0x83_0001)
    assert on.get(0x83_0000 + SINT * 256 + 16, 3) == b"one"
    on.put(0x83_0000 + SINT * 256, bytes(4))
    on.write(x86.HV_REGISTER_EOM, 0)
    assert on.get(0x83_0000 + SINT * 256 + 16, 3) == b"two"


def test_a_masked_sint_takes_the_message_and_loses_the_interrupt(on: Any) -> None:
    on.write(x86.HV_REGISTER_SINT2, VECTOR | 1 << 16)
    assert post(on) == 0
    assert slot(on)[4] == b"hello"
    assert delivered(on) == []


def test_polling_delivers_without_an_interrupt(on: Any) -> None:
    on.write(x86.HV_REGISTER_SINT2, VECTOR | 1 << 18)
    post(on)
    assert on.host.synic.signal_event(0, SINT, 3)
    assert slot(on)[4] == b"hello"
    assert on.get(FLAGS, 1) == b"\x08"
    assert delivered(on) == []


def test_a_polling_bit_that_is_not_announced_changes_nothing(make_x86: Any) -> None:
    rig = make_x86("ws2012r2")
    rig.enable_synic(flags=1 << 18)
    post(rig)
    assert delivered(rig) == [(0, VECTOR)]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"payload": bytes(241)}, "payload is 241 bytes; a message has 240"),
        ({"sint": 16}, "sint = 16: must be 0 to 15"),
        ({"kind": 0}, "message_type = 0 marks an empty slot"),
    ],
)
def test_a_message_that_cannot_be(on: Any, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        post(on, **arguments)


def test_a_message_for_an_absent_vp(on: Any) -> None:
    assert post(on, vp=9) == HvStatus.INVALID_VP_INDEX


def test_a_full_message_fills_the_slot_exactly(on: Any) -> None:
    on.put(SLOT + 256, b"\xaa" * 4)
    post(on, bytes(range(240)))
    assert slot(on)[4] == bytes(range(240))
    assert on.get(SLOT + 256, 4) == b"\xaa" * 4


# event flags


def test_an_event_sets_its_flag_and_interrupts_once(on: Any) -> None:
    synic = on.host.synic
    assert synic.signal_event(0, SINT, 0)
    assert synic.signal_event(0, SINT, 9)
    assert synic.signal_event(0, SINT, 9)
    assert synic.signal_event(0, SINT, 2047)
    assert on.get(FLAGS, 256) == b"\x01\x02" + bytes(253) + b"\x80"
    assert len(on.machine.vps[0].pending_irqs) == 1
    assert delivered(on) == [(0, VECTOR)]
    assert synic.signal_event(0, SINT, 9)
    assert delivered(on) == [(0, VECTOR)], "a flag that is still set interrupts nobody"
    on.put(FLAGS + 1, b"\x00")
    synic.signal_event(0, SINT, 9)
    assert delivered(on) == [(0, VECTOR)] * 2


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (x86.HV_REGISTER_SCONTROL, 0),
        (x86.HV_REGISTER_SIEFP, 0),
        (x86.HV_REGISTER_SINT2, VECTOR | 1 << 16),
    ],
)
def test_an_event_needs_a_synic_a_page_and_an_unmasked_sint(on: Any, register: int, value: int) -> None:
    on.write(register, value)
    assert not on.host.synic.signal_event(0, SINT, 1)
    assert delivered(on) == []


@pytest.mark.parametrize(("vp", "sint", "flag"), [(9, 2, 0), (0, 16, 0), (0, 2, 2048), (0, 2, -1)])
def test_an_event_that_cannot_be(on: Any, vp: int, sint: int, flag: int) -> None:
    assert not on.host.synic.signal_event(vp, sint, flag)


def test_an_event_into_a_hidden_page_is_not_lost(on: Any) -> None:
    on.host.synic.signal_event(0, SINT, 4)
    on.write(x86.HV_REGISTER_SIEFP, 0)
    on.write(x86.HV_REGISTER_SIEFP, 0x84_0001)
    assert on.get(0x84_0000 + SINT * 256, 1) == b"\x10"


def test_a_message_beneath_another_overlay_is_not_lost(on: Any) -> None:
    on.write(x86.HV_REGISTER_SIEFP, 0x80_0001)
    post(on, b"below")
    assert on.get(SLOT, 4) == bytes(4)
    on.write(x86.HV_REGISTER_SIEFP, 0)
    assert slot(on)[4] == b"below"


def test_timer_messages_share_the_slots(on: Any) -> None:
    post(on, b"first")
    on.write(x86.HV_REGISTER_STIMER0_COUNT, 1)
    on.write(x86.HV_REGISTER_STIMER0_CONFIG, 1 | SINT << 16)
    on.idle(on.machine.clock.now + 1000)
    assert slot(on) == (1, 5, 1, 0x20000, b"first")
    take(on)
    assert slot(on)[:4] == (0x8000_0010, 24, 0, 0)
    assert slot(on)[4][:12] == pack("<IIQ", 0, 0, 1)[:12]
