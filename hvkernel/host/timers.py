"""Reference time and the synthetic timers.

The partition's reference counter counts 100 ns units since the partition was made (TLFS, "Reference Counter"). The
reference TSC page lets a guest compute it from the processor's own counter, ``((counter * scale) >> 64) + offset``.
Each VP has four synthetic timers that send a message to a SINT or, in direct mode, assert an interrupt.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs_synic import HV_SYNIC_FIRST_VALID_VECTOR, HV_SYNIC_STIMER_COUNT, HvMessageType
from hvkernel.machine.clock import UNITS_PER_SECOND

if TYPE_CHECKING:
    from hvkernel.host.partition import Host
    from hvkernel.machine.clock import Timer

__all__ = ["Stimer", "Timers", "counter_at", "tsc_page_time", "tsc_scale"]

_MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF
_PAYLOAD: Final = Struct("<IIQQ")
"""hv_timer_message_payload."""
_TSC_PAGE: Final = Struct("<IIQq")
"""ms_hyperv_tsc_page."""

_ENABLE: Final = 1 << 0
_PERIODIC: Final = 1 << 1
_LAZY: Final = 1 << 2
_AUTO_ENABLE: Final = 1 << 3
_VECTOR_SHIFT: Final = 4
_DIRECT: Final = 1 << 12
_SINT_SHIFT: Final = 16
_RESERVED: Final = _MASK64 & ~0xF_1FFF
"""Bits 15:13 and 63:20 (TLFS, "Synthetic Timer Configuration Register")."""

_RETRY: Final = 10_000
"""How long a timer waits, in 100 ns units, when its message could not be queued. *unspecified*: 1 ms."""

_NEVER: Final = 1 << 62
"""Expirations further away than this, in 100 ns units (14,600 years), never come."""


def tsc_scale(counter_hz: int) -> int:
    """Return TscScale for a counter of ``counter_hz``: 2^64 * 10 MHz / counter_hz, rounded down.

    A counter slower than 10 MHz does not fit into 64 bits.

    :raises ValueError: ``counter_hz`` is not above 10 MHz.
    """
    if counter_hz <= UNITS_PER_SECOND:
        raise ValueError(f"counter_hz = {counter_hz}: the reference TSC page needs more than {UNITS_PER_SECOND}")
    return (UNITS_PER_SECOND << 64) // counter_hz


def tsc_page_time(counter: int, scale: int, offset: int) -> int:
    """Return the reference time that a guest computes from the page, modulo 2^64."""
    return ((counter * scale >> 64) + offset) & _MASK64


def counter_at(now: int, counter_hz: int) -> int:
    """Return the processor's counter (TSC, CNTVCT) at reference time ``now``.

    The counter starts with the partition. It is rounded up, so that the time computed from it through the page is never
    behind the reference counter by more than the page's own rounding, one unit.
    """
    return -(-now * counter_hz // UNITS_PER_SECOND) & _MASK64


class Stimer:
    """One synthetic timer."""

    __slots__ = ("armed", "config", "count", "due", "index", "vp")

    def __init__(self, vp: int, index: int) -> None:
        self.vp = vp
        self.index = index
        self.config = 0
        self.count = 0
        self.due = 0
        """Reference time of the next expiration while armed."""
        self.armed: Timer | None = None


class Timers:
    """Reference time and all synthetic timers of a partition."""

    __slots__ = ("_direct", "_host", "_last", "_page_register", "_start", "page", "sequence", "timers")

    def __init__(self, host: Host, *, direct: bool) -> None:
        self._host = host
        self._direct = direct
        self._start = host.machine.clock.now
        self._last = -1
        self._page_register = 0
        self.sequence = 0
        """TscSequence of the page; 0 while it was never shown."""
        self.page = host.overlays.new("reference TSC page", "reference tsc", 0, readonly=True)
        self.timers = {vp: [Stimer(vp, n) for n in range(HV_SYNIC_STIMER_COUNT)] for vp in host.vp_indices}

    @property
    def now(self) -> int:
        """Reference time in 100 ns units."""
        return self._host.machine.clock.now - self._start

    def read_time_ref_count(self, vp: int) -> int:
        """TIME_REF_COUNT: strictly increasing for all VPs together (TLFS, "Reference Counter").

        Two reads at one instant cannot both be right; the second one takes 100 ns.
        """
        now = self.now
        if now <= self._last:
            self._host.machine.clock.charge(self._last + 1 - now)
            now = self._last + 1
        self._last = now
        return now

    # the reference TSC page

    def read_reference_tsc(self, vp: int) -> int:
        """REFERENCE_TSC."""
        return self._page_register

    def write_reference_tsc(self, vp: int, value: int) -> bool:
        """REFERENCE_TSC: shows, moves or hides the page. Beyond the GPA space the guest sees no page."""
        if value & 1 and not self.page.mapped:
            self._fill()
        if not self.page.sync(bool(value & 1), value >> 12, vp):
            self._host.record("tolerated", f"REFERENCE_TSC = {value:#x} is beyond the GPA space")
        self._page_register = value
        return True

    def _fill(self) -> None:
        hz = self._host.processor.counter_hz
        self.sequence = (self.sequence + 1) & 0xFFFF_FFFF or 1
        self.page.write(0, _TSC_PAGE.pack(self.sequence, 0, tsc_scale(hz), 0))

    # synthetic timers

    def read_config(self, vp: int, index: int) -> int:
        """STIMERn_CONFIG."""
        return self.timers[vp][index].config

    def read_count(self, vp: int, index: int) -> int:
        """STIMERn_COUNT."""
        return self.timers[vp][index].count

    def write_config(self, vp: int, index: int, value: int) -> bool:
        """STIMERn_CONFIG. Reserved bits are dropped with a finding; *unspecified*: a real host may refuse them.

        Direct mode that was not announced is refused.
        """
        timer = self.timers[vp][index]
        if value & _DIRECT and not self._direct:
            return False
        if value & _RESERVED:
            self._host.record("tolerated", f"STIMER{index}_CONFIG of VP {vp} = {value:#x} sets reserved bits")
            value &= ~_RESERVED
        if timer.config & value & _ENABLE and (timer.config ^ value) & ~_ENABLE:
            self._host.record("undefined", f"STIMER{index} of VP {vp} was changed while enabled")
        if value & _ENABLE and not value & _DIRECT and not value >> _SINT_SHIFT & 0xF:
            # "It is not permitted to set the SINTx field to zero for an enabled timer": it is disabled at once.
            value &= ~_ENABLE
        timer.config = value
        self._evaluate(timer)
        return True

    def write_count(self, vp: int, index: int, value: int) -> bool:
        """STIMERn_COUNT: zero stops the timer, else AutoEnable enables it."""
        timer = self.timers[vp][index]
        timer.count = value
        if not value:
            timer.config &= ~_ENABLE
        elif timer.config & _AUTO_ENABLE and (timer.config & _DIRECT or timer.config >> _SINT_SHIFT & 0xF):
            timer.config |= _ENABLE
        self._evaluate(timer)
        return True

    def _evaluate(self, timer: Stimer) -> None:
        if timer.armed is not None:
            timer.armed.cancel()
            timer.armed = None
        if not timer.config & _ENABLE or not timer.count:
            return
        timer.due = self.now + timer.count if timer.config & _PERIODIC else timer.count
        self._arm(timer, timer.due)

    def _arm(self, timer: Stimer, due: int) -> None:
        if due - self.now < _NEVER:
            timer.armed = self._host.machine.clock.at(self._start + due, lambda: self._expire(timer))

    def _expire(self, timer: Stimer) -> None:
        timer.armed = None
        now = self.now
        if timer.config & _DIRECT:
            vector = timer.config >> _VECTOR_SHIFT & 0xFF
            if vector < HV_SYNIC_FIRST_VALID_VECTOR:
                # *unspecified*; no interrupt controller takes an interrupt of such a vector.
                text = f"STIMER{timer.index} of VP {timer.vp}: direct mode with vector {vector}; nothing is interrupted"
                self._host.record("undefined", text)
            else:
                self._host.arch.interrupt(timer.vp, vector, False)
        elif not self._send(timer, now):
            self._arm(timer, now + _RETRY)
            return
        if not timer.config & _PERIODIC:
            timer.config &= ~_ENABLE
            return
        # Missed periods are skipped, lazy or not: time cannot be caught up with on a VP that was not running.
        missed = max(0, now - timer.due) // timer.count
        timer.due += timer.count * (missed + 1)
        self._arm(timer, timer.due)

    def _send(self, timer: Stimer, now: int) -> bool:
        payload = _PAYLOAD.pack(timer.index, 0, timer.due & _MASK64, now & _MASK64)
        sint = timer.config >> _SINT_SHIFT & 0xF
        return self._host.synic.timer_message(timer.vp, sint, payload, HvMessageType.HVMSG_TIMER_EXPIRED)

    def reset(self) -> None:
        """Stop every timer and hide the page, as at processor creation."""
        for timers in self.timers.values():
            for timer in timers:
                if timer.armed is not None:
                    timer.armed.cancel()
                timer.armed = None
                timer.config = timer.count = 0
        self.page.sync(False, 0, 0)
        self._page_register = 0
