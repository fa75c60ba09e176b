"""``arch/arm64/hyperv/hv_core.c``: hypercalls by the SMC calling convention, synthetic registers by hypercall.

Every call is ``hvc #0`` with x0 = 0x46000001 and the control word in x1. A register that cannot be read or written is
a broken hypervisor: there is no way to go on, so it is a BUG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs import (
    HV_CRASH_CTL_CRASH_NOTIFY,
    HV_HYPERCALL_FAST_BIT,
    HV_HYPERCALL_REP_COMP_1,
    HV_PARTITION_ID_SELF,
    HV_VP_INDEX_SELF,
    HVCALL_GET_VP_REGISTERS,
    HVCALL_SET_VP_REGISTERS,
)
from hvkernel.api.guest.arch import ArchBug
from hvkernel.api.guest.mshyperv import hv_result_success
from hvkernel_arm64 import tlfs

if TYPE_CHECKING:
    from hvkernel_arm64.guest.state import Arm64State

GET: Final = HVCALL_GET_VP_REGISTERS | HV_HYPERCALL_FAST_BIT | HV_HYPERCALL_REP_COMP_1
SET: Final = HVCALL_SET_VP_REGISTERS | HV_HYPERCALL_FAST_BIT | HV_HYPERCALL_REP_COMP_1


def hv_do_hypercall(a: Arm64State, control: int, input_gpa: int | None, output_gpa: int | None) -> int:
    """Make a memory-based hypercall; return its 64-bit result."""
    return a.hvc(tlfs.HV_FUNC_ID, control, input_gpa or 0, output_gpa or 0)[0]


def hv_do_fast_hypercall8(a: Arm64State, code: int, input1: int) -> int:
    """Make a hypercall with 8 bytes of input in a register."""
    return a.hvc(tlfs.HV_FUNC_ID, code | HV_HYPERCALL_FAST_BIT, input1)[0]


def hv_set_vpreg(a: Arm64State, register: int, value: int) -> None:
    """Write a VP register of the calling processor. :raises ArchBug: the hypervisor refused."""
    status = a.hvc(tlfs.HV_FUNC_ID, SET, HV_PARTITION_ID_SELF, HV_VP_INDEX_SELF, register, 0, value, 0)[0]
    if not hv_result_success(status):
        raise ArchBug(
            f"arch/arm64/hyperv/hv_core.c:80! (register 0x{register:x} = 0x{value:x}: HV_STATUS {status & 0xFFFF})"
        )


def hv_get_vpreg_128(a: Arm64State, register: int) -> tuple[int, int]:
    """Read a VP register of the calling processor: low and high 64 bits. :raises ArchBug: the hypervisor refused."""
    out = a.hvc(tlfs.HV_FUNC_ID, GET, HV_PARTITION_ID_SELF, HV_VP_INDEX_SELF, register)
    if not hv_result_success(out[0]):
        raise ArchBug(f"arch/arm64/hyperv/hv_core.c:114! (register 0x{register:x}: HV_STATUS {out[0] & 0xFFFF})")
    return out[6], out[7]


def hv_get_vpreg(a: Arm64State, register: int) -> int:
    """Read the low 64 bits of a VP register."""
    return hv_get_vpreg_128(a, register)[0]


def hyperv_report_panic(a: Arm64State, err: int, in_die: bool) -> None:
    """Report a panic by the crash registers, once. Program counter and stack pointer are not modelled: zero."""
    if a.panic_reported or (in_die and not a.kernel.reboot.panic_on_oops):
        return
    a.panic_reported = True
    guest_id = hv_get_vpreg(a, tlfs.HV_REGISTER_GUEST_OSID)
    hv_set_vpreg(a, tlfs.HV_REGISTER_CRASH_P0, err)
    hv_set_vpreg(a, tlfs.HV_REGISTER_CRASH_P1, guest_id)
    hv_set_vpreg(a, tlfs.HV_REGISTER_CRASH_P2, 0)
    hv_set_vpreg(a, tlfs.HV_REGISTER_CRASH_P3, 0)
    hv_set_vpreg(a, tlfs.HV_REGISTER_CRASH_P4, 0)
    hv_set_vpreg(a, tlfs.HV_REGISTER_CRASH_CTL, HV_CRASH_CTL_CRASH_NOTIFY)
