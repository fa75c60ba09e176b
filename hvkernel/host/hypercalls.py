"""The hypercall interface: one table of calls, and every check of the input.

Source: TLFS, "Hypercall Interface". The order of the checks is undefined there but for one wish, that a missing
privilege is reported rather than anything that reveals more; here it is: call code, privilege, control word, form (fast
or memory), alignment and page, contents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from hvkernel.abi import tlfs_hypercall as tlfs
from hvkernel.api.host.arch import ArchFeatures
from hvkernel.host import calls
from hvkernel.host.status import HvStatus
from hvkernel.machine.addresses import HV_HYP_PAGE_SIZE, OFFSET_IN_HVPAGE, HvPfn

if TYPE_CHECKING:
    from hvkernel.host.partition import Host

__all__ = ["Call", "Hypercalls", "table"]

Simple = Callable[["Host", int, bytes], tuple[int, bytes]]
"""``handler(host, vp, input) -> (HV_STATUS, output)``."""
Rep = Callable[["Host", int, bytes, list[bytes]], tuple[int, list[bytes]]]
"""``handler(host, vp, header, elements) -> (HV_STATUS, output elements)``; as many outputs as reps completed."""

_RESERVED: Final = tlfs.HV_HYPERCALL_RSVD_MASK
_TWO_PARAMETERS: Final = 16
_EARLY: Final = (tlfs.HVCALL_GET_VP_REGISTERS, tlfs.HVCALL_SET_VP_REGISTERS)
"""Calls that a guest may make before it wrote its Guest OS ID (TLFS, "Reporting the Guest OS Identity")."""


class Call(NamedTuple):
    """One hypercall."""

    name: str
    input_size: int
    """Fixed input, or the fixed part of the header of a rep call, in bytes."""
    simple: Simple | None = None
    rep: Rep | None = None
    output_size: int = 0
    element_size: int = 0
    """Size of one input element of a rep call."""
    output_element_size: int = 0
    fast: bool = True
    """Whether the register form exists."""
    variable: bool = False
    """Whether the header may be longer than ``input_size``."""
    privilege: int | None = None
    """Bit of HV_PARTITION_PRIVILEGE_MASK that the caller needs."""


def table(interrupt_entry_size: int) -> dict[int, Call]:
    """Return every hypercall of this hypervisor by its call code.

    :param interrupt_entry_size: size of hv_interrupt_entry on the architecture.
    """
    c = calls
    return {
        tlfs.HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE: Call("HvCallFlushVirtualAddressSpace", 24, c.flush_space),
        tlfs.HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST: Call(
            "HvCallFlushVirtualAddressList", 24, rep=c.flush_list, element_size=8
        ),
        tlfs.HVCALL_NOTIFY_LONG_SPIN_WAIT: Call("HvCallNotifyLongSpinWait", 8, c.notify_long_spin_wait),
        tlfs.HVCALL_SEND_IPI: Call("HvCallSendSyntheticClusterIpi", 16, c.send_ipi),
        tlfs.HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX: Call(
            "HvCallFlushVirtualAddressSpaceEx", 32, c.flush_space_ex, variable=True
        ),
        tlfs.HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX: Call(
            "HvCallFlushVirtualAddressListEx", 32, rep=c.flush_list_ex, element_size=8, variable=True
        ),
        tlfs.HVCALL_SEND_IPI_EX: Call("HvCallSendSyntheticClusterIpiEx", 24, c.send_ipi_ex, variable=True),
        tlfs.HVCALL_GET_PARTITION_ID: Call(
            "HvCallGetPartitionId", 0, c.get_partition_id, output_size=8, fast=False, privilege=33
        ),
        tlfs.HVCALL_DEPOSIT_MEMORY: Call(
            "HvCallDepositMemory", 8, rep=c.root_only_rep, element_size=8, fast=False, privilege=34
        ),
        tlfs.HVCALL_CREATE_VP: Call("HvCallCreateVp", 40, c.root_only, fast=False, privilege=44),
        tlfs.HVCALL_GET_VP_REGISTERS: Call(
            "HvCallGetVpRegisters", 16, rep=c.get_vp_registers, element_size=4, output_element_size=16
        ),
        tlfs.HVCALL_SET_VP_REGISTERS: Call("HvCallSetVpRegisters", 16, rep=c.set_vp_registers, element_size=32),
        tlfs.HVCALL_POST_MESSAGE: Call("HvCallPostMessage", 256, c.post_message, fast=False, privilege=36),
        tlfs.HVCALL_SIGNAL_EVENT: Call("HvCallSignalEvent", 8, c.signal_event, privilege=37),
        tlfs.HVCALL_POST_DEBUG_DATA: Call("HvCallPostDebugData", 16, c.root_only, fast=False, privilege=43),
        tlfs.HVCALL_RETRIEVE_DEBUG_DATA: Call("HvCallRetrieveDebugData", 16, c.root_only, fast=False, privilege=43),
        tlfs.HVCALL_RESET_DEBUG_SESSION: Call("HvCallResetDebugSession", 8, c.root_only, privilege=43),
        tlfs.HVCALL_ADD_LOGICAL_PROCESSOR: Call("HvCallAddLogicalProcessor", 24, c.root_only, fast=False, privilege=44),
        tlfs.HVCALL_MAP_DEVICE_INTERRUPT: Call("HvCallMapDeviceInterrupt", 64, c.root_only, fast=False, privilege=44),
        tlfs.HVCALL_UNMAP_DEVICE_INTERRUPT: Call("HvCallUnmapDeviceInterrupt", 32, c.root_only, privilege=44),
        tlfs.HVCALL_RETARGET_INTERRUPT: Call(
            "HvCallRetargetDeviceInterrupt", c.RETARGET_SIZE + interrupt_entry_size, c.retarget_interrupt,
            fast=False, variable=True,
        ),
        c.HVCALL_START_VP: Call("HvCallStartVirtualProcessor", 16, c.start_vp, fast=False, privilege=53),
        tlfs.HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE: Call(
            "HvCallFlushGuestPhysicalAddressSpace", 16, c.flush_guest_physical_space
        ),
        tlfs.HVCALL_FLUSH_GUEST_PHYSICAL_ADDRESS_LIST: Call(
            "HvCallFlushGuestPhysicalAddressList", 16, rep=c.flush_guest_physical_list, element_size=8
        ),
        tlfs.HVCALL_MODIFY_SPARSE_GPA_PAGE_HOST_VISIBILITY: Call(
            "HvCallModifySparseGpaPageHostVisibility", 16, rep=c.root_only_rep, element_size=8, fast=False,
            privilege=54,
        ),
        tlfs.HV_EXT_CALL_QUERY_CAPABILITIES: Call(
            "HvExtCallQueryCapabilities", 0, c.query_capabilities, output_size=8, fast=False, privilege=52
        ),
        tlfs.HV_EXT_CALL_MEMORY_HEAT_HINT: Call(
            "HvExtCallMemoryHeatHint", 8, rep=c.memory_heat_hint, element_size=8, fast=False, privilege=52
        ),
    }  # fmt: skip


class Hypercalls:
    """Dispatch of one partition's hypercalls."""

    __slots__ = ("_features", "_host", "_privileges", "counts", "rep_limit", "table")

    def __init__(self, host: Host, features: ArchFeatures) -> None:
        self._host = host
        self._features = features
        self._privileges = host.words.privileges_high << 32 | host.words.privileges_low
        self.table = {
            code: call
            for code, call in table(host.arch.interrupt_entry_size).items()
            if code not in host.arch.unknown_calls
        }
        self.counts: dict[int, int] = {}
        """How often each call code was used, known or not."""
        self.rep_limit: int | None = None
        """Most repetitions of one invocation, ``None`` for all. A hypervisor may return early from a rep call
        with success and fewer completed repetitions; the caller continues from there (TLFS, "Hypercall Classes")."""

    def execute(
        self, vp: int, control: int, input_gpa: int, output_gpa: int, block: bytes | None
    ) -> tuple[int, bytes, int]:
        """Execute one call.

        :param block: registers of a fast call as bytes, as long as the caller's registers go; ``None`` for memory.
        :returns: the 64-bit result value, the fast output, and where in the registers it goes, in bytes: after the
            input, rounded up to pairs of 64-bit registers, and after the outputs of earlier repetitions.
        """
        host = self._host
        code = control & 0xFFFF
        self.counts[code] = self.counts.get(code, 0) + 1
        call = self.table.get(code)
        if call is None:
            return self._refuse(vp, control, HvStatus.INVALID_HYPERCALL_CODE, "unknown call code")
        if not host.registers.guest_os_id and code not in _EARLY:
            return self._refuse(vp, control, HvStatus.ACCESS_DENIED, "the guest has not identified itself")
        if call.privilege is not None and not self._privileges >> call.privilege & 1:
            return self._refuse(vp, control, HvStatus.ACCESS_DENIED, f"{call.name} needs privilege {call.privilege}")
        reps = start = variable = 0
        if control >> tlfs.HV_HYPERCALL_VARHEAD_OFFSET:
            reps = control >> tlfs.HV_HYPERCALL_REP_COMP_OFFSET & 0xFFF
            start = control >> tlfs.HV_HYPERCALL_REP_START_OFFSET & 0xFFF
            variable = (control >> tlfs.HV_HYPERCALL_VARHEAD_OFFSET & 0x3FF) * 8
            wrong = self._check_control(call, control, reps, start, variable)
            if wrong:
                return self._refuse(vp, control, HvStatus.INVALID_HYPERCALL_INPUT, f"{call.name}: {wrong}")
        elif call.rep is not None:
            return self._refuse(vp, control, HvStatus.INVALID_HYPERCALL_INPUT, f"{call.name}: no reps")
        header = call.input_size + variable
        input_size = header + reps * call.element_size
        output_size = call.output_size + reps * call.output_element_size
        if block is not None:
            problem = self._check_fast(call, input_size, output_size, len(block))
            if problem:
                return self._refuse(vp, control, HvStatus.INVALID_HYPERCALL_INPUT, f"{call.name}: {problem}")
            data = block[:input_size]
        else:
            status, text = self._check_memory(input_gpa, input_size, output_gpa, output_size)
            if status:
                return self._refuse(vp, control, status, f"{call.name}: {text}")
            data = host.machine.memory.host.read(input_gpa, input_size) if input_size else b""
        if call.rep is None:
            assert call.simple is not None
            status, output = call.simple(host, vp, data)
            done = 0
            skip = 0
        else:
            last = reps if self.rep_limit is None else min(reps, start + self.rep_limit)
            size = call.element_size
            elements = [data[header + n * size : header + (n + 1) * size] for n in range(start, last)]
            status, outputs = call.rep(host, vp, data[:header], elements)
            done = start + len(outputs)
            output = b"".join(outputs)
            skip = start * call.output_element_size
        if output and block is None and (not status or call.rep is not None):
            host.machine.memory.host.write(output_gpa + skip, output)
            output = b""
        if status and not host.ports.take_declined():
            host.record("refused", f"VP {vp}: {call.name}: {HvStatus(status).name}")
        return status | done << 32, output, -(-input_size // 16) * 16 + skip

    @staticmethod
    def _check_control(call: Call, control: int, reps: int, start: int, variable: int) -> str:
        """Say what is wrong with a control word that has more than a call code and the fast bit."""
        if control & _RESERVED:
            return "reserved bits are set"
        if variable and not call.variable:
            return "it takes no variable header"
        if call.rep is None:
            return "it takes no reps" if reps or start else ""
        return "" if start < reps else "no reps are left"

    def _refuse(self, vp: int, control: int, status: int, why: str) -> tuple[int, bytes, int]:
        self._host.record("refused", f"VP {vp}: hypercall {control:#x}: {HvStatus(status).name}: {why}")
        return status, b"", 0

    def _check_fast(self, call: Call, input_size: int, output_size: int, room: int) -> str:
        if not call.fast:
            return "has no fast form"
        taken = -(-input_size // 16) * 16
        if input_size > room or (output_size and taken + output_size > room):
            return f"{input_size + output_size} bytes do not fit into {room} bytes of registers"
        more = input_size > _TWO_PARAMETERS and not self._features.fast_input_extended
        if more or (output_size and not self._features.fast_output):
            # "Any attempt to use this interface when the hypervisor does not indicate availability will result in
            # a #UD fault" (TLFS, XMM Fast Hypercall Input and Output).
            self._host.record("refused", f"{call.name}: extended fast hypercalls are not announced")
            self._host.undefined_opcode(b"")
        return ""

    def _check_memory(self, input_gpa: int, input_size: int, output_gpa: int, output_size: int) -> tuple[int, str]:
        for what, gpa, size in (("input", input_gpa, input_size), ("output", output_gpa, output_size)):
            if not size:
                continue  # "the hypervisor ignores the corresponding GPA pointer"
            if gpa & 7:
                return HvStatus.INVALID_ALIGNMENT, f"{what} GPA {gpa:#x} is not aligned to 8 bytes"
            if (gpa & OFFSET_IN_HVPAGE) + size > HV_HYP_PAGE_SIZE:
                return HvStatus.INVALID_ALIGNMENT, f"{what} of {size} bytes at GPA {gpa:#x} crosses a page"
            refused = self._reach(what, gpa)
            if refused:
                return HvStatus.INVALID_ALIGNMENT, refused
        if input_size and output_size and input_gpa < output_gpa + output_size and output_gpa < input_gpa + input_size:
            return HvStatus.INVALID_ALIGNMENT, "input and output overlap"
        return 0, ""

    def _reach(self, what: str, gpa: int) -> str:
        """Say why the guest itself could not make this access.

        An address beyond the GPA space is HV_STATUS_INVALID_ALIGNMENT (TLFS, "Common Hypercall Status Codes"). One
        inside it that is unmapped or may not be written makes a memory intercept message for the parent, whose answer
        is *unspecified*; here the call fails with the same status and a finding tells the two apart.
        """
        memory = self._host.machine.memory
        page = HvPfn(gpa >> 12)
        if page >= memory.hvpfn_end:
            return f"{what} GPA {gpa:#x} is beyond the GPA space"
        if not memory.is_ram(page):
            return f"memory intercept: {what} GPA {gpa:#x} is not mapped"
        overlay = memory.overlays.at(page)
        if overlay is None:
            return ""
        if overlay.readonly and what == "output":
            return f"memory intercept: output on the read-only {overlay.name}"
        # "hypervisor access to the input parameter list is undefined" (TLFS, Alignment Requirements): it is made.
        self._host.record("undefined", f"hypercall {what} at GPA {gpa:#x} lies on the {overlay.name}")
        return ""
