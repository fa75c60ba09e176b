"""The variables of the arm64 files, one set per guest, and the two ways out of EL1: HVC and the counter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.hyperv import HvCommon
from hvkernel.api.guest.mshyperv import MsHypervInfo

if TYPE_CHECKING:
    from hvkernel.api.guest.arch import ArchKernel
    from hvkernel.api.guest.smp import PerCpu, VirtualProcessor
    from hvkernel.api.guest.time import ClockEventDevice

__all__ = ["Arm64State"]

HVC_0: Final = b"\x02\x00\x00\xd4"
"""``hvc #0`` as it lies in memory (0xd4000002)."""
UNITS_PER_SECOND: Final = 10_000_000
DEFAULT_COUNTER_HZ: Final = 25_000_000
"""CNTFRQ where the firmware says nothing. *unspecified*: what Azure's arm64 hosts have."""


class Arm64State:
    """Everything that the arm64 functions keep between calls."""

    def __init__(self) -> None:
        self._kernel: ArchKernel | None = None
        self.ms_hyperv = MsHypervInfo()
        self.hyperv_initialized = False
        self.panic_reported = False
        self.hypercalls = 0
        """Hypercalls made, for the tests."""
        # arm_arch_timer.c
        self.arch_timer_rate = 0
        self.arch_timer_ppi = 0
        self.arch_timer_evt: PerCpu[ClockEventDevice] | None = None
        # psci.c
        self.psci_conduit = False

    def attach(self, kernel: ArchKernel) -> None:
        """Bind to the kernel, once."""
        assert self._kernel is None, "an arm64 guest half belongs to one kernel"
        self._kernel = kernel

    @property
    def kernel(self) -> ArchKernel:
        """The kernel that this belongs to."""
        assert self._kernel is not None, "Arch.attach() did not run"
        return self._kernel

    @property
    def vp(self) -> VirtualProcessor:
        """The processor that runs the caller."""
        return self.kernel.cpus.this_cpu().vp

    @property
    def hv_common(self) -> HvCommon:
        """drivers/hv/hv_common.c; only where HYPERV is built."""
        return self.kernel.symbol(HvCommon)

    def hvc(self, *regs: int) -> tuple[int, ...]:
        """Execute ``hvc #0`` with x0, x1, ...; return x0 to x7 at least."""
        self.hypercalls += 1
        return self.vp.hypercall(HVC_0, (*regs, *(0,) * (8 - len(regs))))

    def cntvct(self) -> int:
        """Read CNTVCT_EL0. The counter belongs to the processor and needs no trap."""
        return -(-self.kernel.counter_time() * self.arch_timer_rate // UNITS_PER_SECOND)
