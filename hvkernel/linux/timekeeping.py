"""kernel/time arithmetic: mult/shift pairs and what they bound. Pure functions on integers."""

from __future__ import annotations

from typing import Final

NSEC_PER_SEC: Final = 1_000_000_000
_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1


def clocks_calc_mult_shift(from_hz: int, to_hz: int, maxsec: int) -> tuple[int, int]:
    """``(mult, shift)`` that converts ``from_hz`` ticks to ``to_hz`` ticks for ``maxsec`` seconds without overflow.

    Source: kernel/time/clocksource.c:clocks_calc_mult_shift.
    """
    bits_over = ((maxsec * from_hz) >> 32).bit_length()
    sftacc = 32 - bits_over
    mult, shift = 0, 0
    for shift in range(32, 0, -1):
        mult = ((to_hz << shift) + from_hz // 2) // from_hz
        if mult >> sftacc == 0:
            return mult, shift
    return mult & _U32, 0


def clocksource_max_adjustment(mult: int) -> int:
    """11 % of ``mult``, the most that NTP may change it. Source: clocksource.c:clocksource_max_adjustment."""
    return mult * 11 // 100


def clocks_calc_max_nsecs(mult: int, shift: int, maxadj: int, mask: int) -> tuple[int, int]:
    """``(max_nsecs, max_cycles)`` that may pass between two reads. Source: clocksource.c:clocks_calc_max_nsecs."""
    max_cycles = min(_U64 // ((mult + maxadj) & _U32), mask)
    max_nsecs = ((max_cycles * (mult - maxadj)) & _U64) >> shift
    return max_nsecs >> 1, max_cycles


def freq_scale(mask: int, scale: int, freq: int) -> tuple[int, int]:
    """``(mult, shift)`` of a clocksource of ``scale * freq`` Hz.

    Source: clocksource.c:__clocksource_update_freq_scale, with the halving loop for large multipliers.
    """
    sec = mask // freq // scale
    if not sec:
        sec = 1
    elif sec > 600 and mask > _U32:
        sec = 600
    mult, shift = clocks_calc_mult_shift(freq, NSEC_PER_SEC // scale, sec * scale)
    while mult + clocksource_max_adjustment(mult) > _U32:
        mult >>= 1
        shift -= 1
    return mult, shift


def jiffies_shift(hz: int) -> int:
    """JIFFIES_SHIFT for an HZ. Source: kernel/time/tick-internal.h."""
    return 6 if hz < 34 else 7 if hz < 67 else 8


def jiffies_mult(hz: int) -> int:
    """The mult of jiffies: TICK_NSEC << JIFFIES_SHIFT. Source: kernel/time/jiffies.c, include/vdso/jiffies.h."""
    return (NSEC_PER_SEC + hz // 2) // hz << jiffies_shift(hz)


def refined_jiffies_mult(cycles_per_second: int, hz: int) -> int:
    """The mult of refined-jiffies. Source: kernel/time/jiffies.c:register_refined_jiffies."""
    cycles_per_tick = (cycles_per_second + hz // 2) // hz
    shift_hz = ((cycles_per_second << 8) + cycles_per_tick // 2) // cycles_per_tick & _U32
    nsec_per_tick = ((NSEC_PER_SEC << 8) + shift_hz // 2) // shift_hz
    return (nsec_per_tick & _U32) << jiffies_shift(hz) & _U32
