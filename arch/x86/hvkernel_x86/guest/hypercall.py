"""The hypercall primitives of ``arch/x86/include/asm/mshyperv.h``.

A hypercall is a call into the hypercall page; the model executes the instruction that the hypervisor put there, so a
page that was never enabled, or was overwritten, faults as it would.

Registers, as the machine carries them (:mod:`hvkernel_x86.host` documents the convention): 64-bit guests pass
``(rcx, rdx, r8)``, control word, input and output address (or the two input words of a fast call), and get ``rax``
first. 32-bit guests pass ``(edx, eax, ebx, ecx, edi, esi)`` and get ``(edx, eax)``: each 64-bit value is a pair, high
word first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.mshyperv import HV_HYPERCALL_FAST_BIT, U64_MAX, hv_do_rep_hypercall

if TYPE_CHECKING:
    from hvkernel_x86.guest.state import X86State

ENDBR64: Final = b"\xf3\x0f\x1e\xfa"
OPCODE_BYTES: Final = 3
"""VMCALL and VMMCALL are three bytes long."""
MASK32: Final = 0xFFFF_FFFF


def _call(a: X86State, control: int, first: int, second: int) -> int:
    page = a.hv_hypercall_pg
    assert page is not None, "call into the hypercall page before it exists"
    kernel = a.kernel
    code = kernel.mm.memory.read(page.gpa, len(ENDBR64) + OPCODE_BYTES)
    opcode = code[len(ENDBR64) :] if code.startswith(ENDBR64) else code[:OPCODE_BYTES]
    a.hypercalls += 1
    vp = kernel.cpus.this_cpu().vp
    if a.bits == 64:
        return vp.hypercall(opcode, (control, first, second))[0]
    regs = (control >> 32, control & MASK32, first >> 32, first & MASK32, second >> 32, second & MASK32)
    out = vp.hypercall(opcode, regs)
    return out[0] << 32 | out[1]


def hv_do_hypercall(a: X86State, control: int, input_gpa: int | None, output_gpa: int | None) -> int:
    """Make a memory-based hypercall; all ones when there is no hypercall page."""
    if a.hv_hypercall_pg is None:
        return U64_MAX
    return _call(a, control, input_gpa or 0, output_gpa or 0)


def hv_do_fast_hypercall8(a: X86State, code: int, input1: int) -> int:
    """Make a hypercall with 8 bytes of input in registers. The kernel does not check for the page here."""
    return _call(a, code | HV_HYPERCALL_FAST_BIT, input1, 0)


def hv_do_fast_hypercall16(a: X86State, code: int, input1: int, input2: int) -> int:
    """Make a hypercall with 16 bytes of input in registers."""
    return _call(a, code | HV_HYPERCALL_FAST_BIT, input1, input2)


def rep_hypercall(a: X86State, code: int, rep_count: int, varhead_size: int, input_gpa: int) -> int:
    """Repeat a rep hypercall until it is done or fails."""
    return hv_do_rep_hypercall(
        lambda control, i, o: hv_do_hypercall(a, control, i, o), code, rep_count, varhead_size, input_gpa
    )
