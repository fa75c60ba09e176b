"""The local APIC of a virtual processor, as the hypervisor keeps it.

Enough of the xAPIC and x2APIC for an operating system: identity, task priority, end of interrupt, inter-processor
interrupts (fixed, INIT, start-up), the timer in one-shot, periodic and TSC-deadline mode, and the local vector table
as memory. Interrupts themselves wait in the machine; which of them is in service is not modelled, so an end of
interrupt only makes the hypervisor look at the message queues (TLFS, "SynIC Messages").
Source: Intel SDM volume 3, chapter "Advanced Programmable Interrupt Controller"; arch/x86/include/asm/apicdef.h.
"""

from __future__ import annotations

from typing import Final

from hvkernel.api.host import Partition, PendingCall

__all__ = ["APIC_BASE", "Lapic", "Lapics"]

APIC_BASE: Final = 0xFEE0_0000
"""Default address of the register page (IA32_APIC_BASE)."""

ID: Final = 0x20
VERSION: Final = 0x30
TPR: Final = 0x80
PPR: Final = 0xA0
EOI: Final = 0xB0
LDR: Final = 0xD0
DFR: Final = 0xE0
SVR: Final = 0xF0
ICR: Final = 0x300
ICR2: Final = 0x310
LVT_TIMER: Final = 0x320
SELF_IPI: Final = 0x3F0
TMICT: Final = 0x380
TMCCT: Final = 0x390
TDCR: Final = 0x3E0

_BASE_ENABLE: Final = 1 << 11
_BASE_X2APIC: Final = 1 << 10
_BASE_BSP: Final = 1 << 8
_VERSION_VALUE: Final = 0x0005_0014
"""Six LVT entries, version 0x14."""
_LVT_MASKED: Final = 1 << 16
_FIXED: Final = 0
_LOWEST: Final = 1
_NMI: Final = 4
_INIT: Final = 5
_STARTUP: Final = 6
_BROADCAST: Final = 0xFF
_BROADCAST_X2: Final = 0xFFFF_FFFF
_PERIODIC: Final = 1
_DEADLINE: Final = 2
_UNITS: Final = 10_000_000


class Lapic:
    """Registers of one local APIC."""

    __slots__ = ("armed", "base", "deadline", "divide", "icr", "initial", "registers", "started_at", "vp", "waits")

    def __init__(self, vp: int, boot: bool) -> None:
        self.vp = vp
        self.base = APIC_BASE | _BASE_ENABLE | (_BASE_BSP if boot else 0)
        """IA32_APIC_BASE."""
        self.icr = 0
        """The interrupt command register, always in the xAPIC's layout of the low half."""
        self.registers: dict[int, int] = {
            SVR: 0xFF, DFR: 0xFFFF_FFFF, **{LVT_TIMER + 0x10 * n: _LVT_MASKED for n in range(6)}
        }  # fmt: skip
        self.waits = not boot
        """INIT was received, a start-up interrupt is awaited."""
        self.initial = 0
        self.divide = 0
        self.started_at = 0
        self.deadline = 0
        self.armed: PendingCall | None = None

    @property
    def x2apic(self) -> bool:
        """Whether the guest switched to x2APIC mode."""
        return bool(self.base & _BASE_X2APIC)


class Lapics:
    """The local APICs of a partition."""

    __slots__ = ("_partition", "states", "x2apic_available")

    def __init__(self, partition: Partition, boot_vp: int) -> None:
        self._partition = partition
        self.x2apic_available = partition.processor.x2apic or any(
            partition.hw_id(vp) >= _BROADCAST for vp in partition.vp_indices
        )
        """Whether CPUID announces x2APIC: as the profile says, and always where an APIC id does not fit eight bits."""
        self.states = {vp: Lapic(vp, vp == boot_vp) for vp in partition.vp_indices}

    # registers by offset; the x2APIC MSR number is 0x800 + offset / 16

    def read(self, vp: int, offset: int) -> int:
        """Read a 32-bit register."""
        state = self.states[vp]
        if offset == ID:
            hw_id = self._partition.hw_id(vp)
            return hw_id if state.x2apic else hw_id << 24 & 0xFFFF_FFFF
        if offset == VERSION:
            return _VERSION_VALUE
        if offset == LDR and state.x2apic:
            hw_id = self._partition.hw_id(vp)
            return (hw_id >> 4) << 16 | 1 << (hw_id & 0xF)
        if offset == PPR:
            return state.registers.get(TPR, 0)
        if offset == ICR:
            return state.icr & 0xFFFF_FFFF
        if offset == ICR2:
            return state.icr >> 32
        if offset == TMCCT:
            return self._current_count(state)
        if offset == TMICT:
            return state.initial
        if offset == TDCR:
            return state.divide
        return state.registers.get(offset, 0)

    def write(self, vp: int, offset: int, value: int) -> bool:
        """Write a 32-bit register; false for one that is read only."""
        state = self.states[vp]
        value &= 0xFFFF_FFFF
        if offset == EOI:
            self._partition.end_of_interrupt(vp)
        elif offset == ICR:
            self.command(vp, state.icr & ~0xFFFF_FFFF | value)
        elif offset == ICR2:
            state.icr = state.icr & 0xFFFF_FFFF | value << 32
        elif offset == TMICT:
            state.initial = value
            self._start_timer(state)
        elif offset == TDCR:
            state.divide = value & 0xB
        elif offset == LVT_TIMER:
            state.registers[offset] = value
            if value & _LVT_MASKED or self._mode(state) == _DEADLINE:
                self._disarm(state)
        elif offset in (VERSION, PPR, TMCCT):
            return False
        else:
            state.registers[offset] = value
        return True

    def write_base(self, vp: int, value: int) -> bool:
        """Write IA32_APIC_BASE. The page cannot be moved (*unspecified*; TLFS allows a fixed one)."""
        state = self.states[vp]
        if value & _BASE_X2APIC and not (self.x2apic_available and value & _BASE_ENABLE):
            return False
        if value & ~0xFFF != APIC_BASE:
            return False
        state.base = value
        return True

    # inter-processor interrupts

    def command(self, vp: int, value: int) -> None:
        """Write the whole interrupt command register: in the high half is the destination.

        In xAPIC layout its top byte counts, in x2APIC mode all 32 bits.
        """
        state = self.states[vp]
        state.icr = value & ~(1 << 12)  # delivery status: always idle
        vector, mode = value & 0xFF, value >> 8 & 7
        targets = self._targets(state, value)
        if mode in (_FIXED, _LOWEST):
            if vector < 16:
                self._partition.record("tolerated", f"VP {vp} sent an IPI with vector {vector}; nothing happens")
                return
            for target in targets[:1] if mode == _LOWEST else targets:
                self._partition.interrupt(target, vector)
        elif mode == _INIT:
            for target in targets:
                if value >> 14 & 1:  # level assert; the de-assert message of old processors does nothing
                    self.states[target].waits = True
                    if target != vp:
                        self._partition.stop_vp(target)
        elif mode == _STARTUP:
            for target in targets:
                if self.states[target].waits:
                    self.states[target].waits = False
                    if not self._partition.start_vp(target):
                        self._partition.record("tolerated", f"VP {vp} started VP {target}, which runs")
        else:
            what = "an NMI" if mode == _NMI else f"delivery mode {mode}"
            self._partition.record("tolerated", f"VP {vp} sent {what} to VPs {targets}; it is not modelled")

    def _targets(self, state: Lapic, value: int) -> list[int]:
        everyone = list(self._partition.vp_indices)
        shorthand = value >> 18 & 3
        if shorthand == 1:
            return [state.vp]
        if shorthand:
            return everyone if shorthand == 2 else [vp for vp in everyone if vp != state.vp]
        wide = state.x2apic
        destination = value >> 32 if wide else value >> 56
        if destination == (_BROADCAST_X2 if wide else _BROADCAST):
            return everyone
        if value >> 11 & 1:
            return [vp for vp in everyone if self._logical(vp, destination, wide)]
        target = self._partition.vp_of(destination)
        return [] if target is None else [target]

    def _logical(self, vp: int, destination: int, wide: bool) -> bool:
        if wide:
            own = self.read(vp, LDR)
            return own >> 16 == destination >> 16 and bool(own & destination & 0xFFFF)
        own = self.states[vp].registers.get(LDR, 0) >> 24
        if self.states[vp].registers[DFR] >> 28 == 0xF:
            return bool(own & destination)
        return own >> 4 == destination >> 4 and bool(own & destination & 0xF)

    def interrupt(self, vp: int, vector: int, what: str) -> None:
        """Interrupt a VP itself; an illegal vector is an error of its APIC and no interrupt (SDM 10.5.2)."""
        if vector < 16:
            self._partition.record("tolerated", f"VP {vp} {what} with vector {vector}; nothing happens")
        else:
            self._partition.interrupt(vp, vector)

    # the timer

    def _mode(self, state: Lapic) -> int:
        return state.registers[LVT_TIMER] >> 17 & 3

    def _period(self, state: Lapic) -> int:
        """Time from the initial count to zero, in 100 ns units, at least one."""
        shift = ((state.divide & 3 | state.divide >> 1 & 4) + 1) & 7
        return max(1, (state.initial << shift) * _UNITS // max(1, self._partition.processor.apic_hz))

    def _current_count(self, state: Lapic) -> int:
        if state.armed is None or not state.initial:
            return 0
        period = self._period(state)
        left = max(0, period - (self._partition.now - state.started_at))
        return state.initial * left // period

    def _disarm(self, state: Lapic) -> None:
        if state.armed is not None:
            state.armed.cancel()
            state.armed = None

    def _start_timer(self, state: Lapic) -> None:
        self._disarm(state)
        if state.initial and self._mode(state) != _DEADLINE:
            state.started_at = self._partition.now
            state.armed = self._partition.at(state.started_at + self._period(state), lambda: self._expire(state))

    def _expire(self, state: Lapic) -> None:
        state.armed = None
        entry = state.registers[LVT_TIMER]
        if self._mode(state) == _PERIODIC:
            self._start_timer(state)
        else:
            state.deadline = 0
        if not entry & _LVT_MASKED:
            self.interrupt(state.vp, entry & 0xFF, "let its timer expire")

    def write_deadline(self, vp: int, value: int) -> None:
        """Write IA32_TSC_DEADLINE: interrupt when the TSC reaches ``value``; zero disarms."""
        state = self.states[vp]
        if self._mode(state) != _DEADLINE:
            return
        self._disarm(state)
        state.deadline = value
        if value:
            ahead = max(0, value - self._partition.counter)
            hz = self._partition.processor.counter_hz
            when = self._partition.now + -(-ahead * _UNITS // hz)
            state.armed = self._partition.at(when, lambda: self._expire(state))
