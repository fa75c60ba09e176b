"""The boundary between guest and host: memory, traps, interrupts, time and firmware tables. Nothing else crosses it.

Knows no architecture and no Hyper-V. Only integers and bytes go through. See docs/design.rst, "machine".
"""

from __future__ import annotations

from hvkernel.machine.accessor import Accessor, Side, View
from hvkernel.machine.addresses import (
    HV_HYP_PAGE_SHIFT,
    HV_HYP_PAGE_SIZE,
    OFFSET_IN_HVPAGE,
    Gpa,
    HvPfn,
    Pfn,
    gpa_of,
    hvpfn_of,
    hvpfns_of,
)
from hvkernel.machine.clock import UNITS_PER_SECOND, Clock, Timer
from hvkernel.machine.faults import (
    Fault,
    GeneralProtectionFault,
    LimitReached,
    MachineError,
    MachineStuck,
    PageFault,
    ProtectionFault,
    TaskExit,
    UndefinedOpcode,
)
from hvkernel.machine.firmware import FirmwareTables
from hvkernel.machine.ledger import Ledger, LedgerEntry, LedgerError
from hvkernel.machine.machine import Machine
from hvkernel.machine.memory import Memory
from hvkernel.machine.overlay import Overlay, OverlayError, Overlays
from hvkernel.machine.report import Finding, Stats
from hvkernel.machine.ringmap import RingMapping
from hvkernel.machine.sched import Policy, Task
from hvkernel.machine.scheduler import Outcome
from hvkernel.machine.vmap import Vmap
from hvkernel.machine.vp import TrapHandler, VirtualProcessor, VpTopology

__all__ = [
    "HV_HYP_PAGE_SHIFT",
    "HV_HYP_PAGE_SIZE",
    "OFFSET_IN_HVPAGE",
    "UNITS_PER_SECOND",
    "Accessor",
    "Clock",
    "Fault",
    "Finding",
    "FirmwareTables",
    "GeneralProtectionFault",
    "Gpa",
    "HvPfn",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LimitReached",
    "Machine",
    "MachineError",
    "MachineStuck",
    "Memory",
    "Outcome",
    "Overlay",
    "OverlayError",
    "Overlays",
    "PageFault",
    "Pfn",
    "Policy",
    "ProtectionFault",
    "RingMapping",
    "Side",
    "Stats",
    "Task",
    "TaskExit",
    "Timer",
    "TrapHandler",
    "UndefinedOpcode",
    "View",
    "VirtualProcessor",
    "Vmap",
    "VpTopology",
    "gpa_of",
    "hvpfn_of",
    "hvpfns_of",
]
