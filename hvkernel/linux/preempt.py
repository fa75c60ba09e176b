"""preempt.h: the fields of preempt_count. Source: include/linux/preempt.h."""

from __future__ import annotations

from typing import Final

PREEMPT_OFFSET: Final = 1
SOFTIRQ_OFFSET: Final = 1 << 8
SOFTIRQ_DISABLE_OFFSET: Final = 2 * SOFTIRQ_OFFSET
HARDIRQ_OFFSET: Final = 1 << 16

PREEMPT_MASK: Final = 0x0000FF
SOFTIRQ_MASK: Final = 0x00FF00
HARDIRQ_MASK: Final = 0x0F0000
NMI_MASK: Final = 0xF00000
INTERRUPT_MASK: Final = SOFTIRQ_MASK | HARDIRQ_MASK | NMI_MASK
