"""The synthetic interrupt controller: message slots, event flags, interrupt sources.

Source: TLFS, "Inter-Partition Communication". Each VP has a SIM page of 16 message slots and a SIEF page of 16 sets of
2048 event flags, one per SINT. A message goes into its slot if the slot is empty, else it waits and the slot's header
says that more is pending; the guest empties the slot and writes EOM (or EOI), and the next one follows.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final

from hvkernel.abi.tlfs_synic import (
    HV_EVENT_FLAGS_COUNT,
    HV_MESSAGE_PAYLOAD_BYTE_COUNT,
    HV_MESSAGE_SIZE,
    HV_SYNIC_FIRST_VALID_VECTOR,
    HV_SYNIC_SINT_AUTO_EOI,
    HV_SYNIC_SINT_COUNT,
    HV_SYNIC_SINT_MASKED,
    HV_SYNIC_SINT_VECTOR_MASK,
    HV_SYNIC_VERSION_1,
)
from hvkernel.host.status import HvStatus

if TYPE_CHECKING:
    from hvkernel.host.partition import Host

__all__ = ["SINT_POLLING", "Synic", "VpSynic"]

SINT_POLLING: Final = 1 << 18
"""Polling bit of SINTx (TLFS, "SINTx Registers"; include/asm-generic/hyperv-tlfs.h: hv_synic_sint.polling)."""

_HEADER: Final = Struct("<IBBHQ")
"""hv_message_header: type, payload size, flags, reserved, sender or port."""
_PENDING: Final = b"\x01"
_FLAGS_OFFSET: Final = 5
_MASK64: Final = 0xFFFF_FFFF_FFFF_FFFF


class VpSynic:
    """Registers, pages and queues of one VP's SynIC."""

    __slots__ = ("queues", "scontrol", "siefp", "siefp_page", "simp", "simp_page", "sints", "vp")

    def __init__(self, host: Host, vp: int) -> None:
        self.vp = vp
        self.scontrol = 0
        self.simp = 0
        self.siefp = 0
        self.sints = [HV_SYNIC_SINT_MASKED] * HV_SYNIC_SINT_COUNT
        self.simp_page = host.overlays.new(f"SIM page of VP {vp}", "simp", vp)
        self.siefp_page = host.overlays.new(f"SIEF page of VP {vp}", "siefp", vp)
        self.queues: list[deque[bytes]] = [deque() for _ in range(HV_SYNIC_SINT_COUNT)]

    @property
    def takes_messages(self) -> bool:
        """Whether the VP is a target for messages: SynIC and SIM page enabled."""
        return bool(self.scontrol & 1) and bool(self.simp & 1)


class Synic:
    """The SynICs of all VPs of a partition."""

    __slots__ = ("_host", "_polling", "vps")

    def __init__(self, host: Host, *, polling: bool) -> None:
        self._host = host
        self._polling = polling
        self.vps = {vp: VpSynic(host, vp) for vp in host.vp_indices}
        """By VP index."""

    # for the host's own servers

    def post_message(self, vp: int, sint: int, message_type: int, port_id: int, payload: bytes) -> int:
        """Queue a message for a SINT of a VP and try to deliver it.

        Delivery order is the order of the calls. The queue is not limited: a sender that would meet
        HV_STATUS_INSUFFICIENT_BUFFERS (16 buffers per port) tries again until it gets through, and that loop is not
        modelled.

        :param payload: at most 240 bytes.
        :returns: HV_STATUS_SUCCESS, HV_STATUS_INVALID_VP_INDEX, or HV_STATUS_INVALID_SYNIC_STATE when the VP is no
            target (SynIC or SIM page disabled); then nothing was queued.
        :raises ValueError: more than 240 bytes, a SINT outside 0..15, a message type of zero.
        """
        if len(payload) > HV_MESSAGE_PAYLOAD_BYTE_COUNT:
            raise ValueError(f"payload is {len(payload)} bytes; a message has {HV_MESSAGE_PAYLOAD_BYTE_COUNT}")
        if not 0 <= sint < HV_SYNIC_SINT_COUNT:
            raise ValueError(f"sint = {sint}: must be 0 to {HV_SYNIC_SINT_COUNT - 1}")
        if not message_type:
            raise ValueError("message_type = 0 marks an empty slot")
        state = self.vps.get(vp)
        if state is None:
            return HvStatus.INVALID_VP_INDEX
        if not state.takes_messages:
            return HvStatus.INVALID_SYNIC_STATE
        state.queues[sint].append(_HEADER.pack(message_type, len(payload), 0, 0, port_id) + payload)
        self._deliver(state, sint)
        return HvStatus.SUCCESS

    def signal_event(self, vp: int, sint: int, flag: int) -> bool:
        """Set an event flag and interrupt if it was clear.

        :returns: False when the SynIC or SIEF page is disabled or the SINT is masked (HvSignalEvent would return
            HV_STATUS_INVALID_SYNIC_STATE), and for a VP, SINT or flag that does not exist.
        """
        state = self.vps.get(vp)
        if state is None or not 0 <= sint < HV_SYNIC_SINT_COUNT or not 0 <= flag < HV_EVENT_FLAGS_COUNT:
            return False
        value = state.sints[sint]
        masked = value & HV_SYNIC_SINT_MASKED and not (self._polling and value & SINT_POLLING)
        if not state.scontrol & 1 or not state.siefp & 1 or masked:
            return False
        if not state.siefp_page.set_bit(sint * HV_EVENT_FLAGS_COUNT + flag):
            self._interrupt(state, sint)
        return True

    # delivery

    def _deliver(self, state: VpSynic, sint: int) -> None:
        queue = state.queues[sint]
        if not queue or not state.takes_messages:
            return
        page = state.simp_page
        slot = sint * HV_MESSAGE_SIZE
        if page.read(slot, 4) != b"\0\0\0\0":
            # The message in the slot now has a successor: say so, that the guest writes EOM (TLFS, HV_MESSAGE_FLAGS).
            page.write(slot + _FLAGS_OFFSET, _PENDING)
            return
        message = queue.popleft()
        if queue:
            message = message[:_FLAGS_OFFSET] + _PENDING + message[_FLAGS_OFFSET + 1 :]
        # The type goes in last: a slot with a type is a complete message.
        page.write(slot + 4, message[4:])
        page.write(slot, message[:4])
        self._interrupt(state, sint)

    def _interrupt(self, state: VpSynic, sint: int) -> None:
        value = state.sints[sint]
        if value & SINT_POLLING and self._polling:
            return
        if value & HV_SYNIC_SINT_MASKED:
            # "If the APIC is software disabled or the SINTx is masked, the interrupt is lost" (TLFS, Messages).
            return
        self._host.arch.interrupt(state.vp, value & HV_SYNIC_SINT_VECTOR_MASK, bool(value & HV_SYNIC_SINT_AUTO_EOI))

    def scan(self, vp: int) -> None:
        """Look at every queue of a VP again (EOM, or the end of an interrupt)."""
        state = self.vps[vp]
        for sint in range(HV_SYNIC_SINT_COUNT):
            if state.queues[sint]:
                self._deliver(state, sint)

    def timer_message(self, vp: int, sint: int, payload: bytes, message_type: int) -> bool:
        """Queue a timer's message. False when the VP takes none now: the timer tries again later.

        A timer has one message buffer (TLFS, "Message Sources"): while it is still queued, an expiration adds nothing.
        """
        state = self.vps[vp]
        if not state.takes_messages:
            return False
        queue = state.queues[sint]
        header = _HEADER.pack(message_type, len(payload), 0, 0, 0)
        if not any(message.startswith(header) and message[16:20] == payload[:4] for message in queue):
            queue.append(header + payload)
        self._deliver(state, sint)
        return True

    # registers

    def read_scontrol(self, vp: int) -> int:
        """SCONTROL."""
        return self.vps[vp].scontrol

    def write_scontrol(self, vp: int, value: int) -> bool:
        """SCONTROL: bit 0 enables, the rest is preserved."""
        self.vps[vp].scontrol = value
        return True

    def read_sversion(self, vp: int) -> int:
        """SVERSION, read only."""
        return HV_SYNIC_VERSION_1

    def read_simp(self, vp: int) -> int:
        """SIMP."""
        return self.vps[vp].simp

    def write_simp(self, vp: int, value: int) -> bool:
        """SIMP: shows, moves or hides the SIM page. Beyond the GPA space the guest sees no page."""
        state = self.vps[vp]
        if not state.simp_page.sync(bool(value & 1), value >> 12, vp):
            self._host.record("tolerated", f"SIMP of VP {vp} = {value:#x} is beyond the GPA space")
        state.simp = value
        return True

    def read_siefp(self, vp: int) -> int:
        """SIEFP."""
        return self.vps[vp].siefp

    def write_siefp(self, vp: int, value: int) -> bool:
        """SIEFP: shows, moves or hides the SIEF page. Beyond the GPA space the guest sees no page."""
        state = self.vps[vp]
        if not state.siefp_page.sync(bool(value & 1), value >> 12, vp):
            self._host.record("tolerated", f"SIEFP of VP {vp} = {value:#x} is beyond the GPA space")
        state.siefp = value
        return True

    def read_sint(self, vp: int, sint: int) -> int:
        """SINTx."""
        return self.vps[vp].sints[sint]

    def write_sint(self, vp: int, sint: int, value: int) -> bool:
        """SINTx. An unmasked source needs a vector from 16 on; a masked one may hold any.

        *unspecified*: the TLFS refuses an invalid vector without mentioning the mask, but the reset value is
        masked with vector 0, and guests write that back.
        """
        vector = value & HV_SYNIC_SINT_VECTOR_MASK
        if vector < HV_SYNIC_FIRST_VALID_VECTOR and not value & HV_SYNIC_SINT_MASKED:
            return False
        self.vps[vp].sints[sint] = value & _MASK64
        return True

    def write_eom(self, vp: int, value: int) -> bool:
        """EOM: any write looks at the queues."""
        self.scan(vp)
        return True

    def reset(self) -> None:
        """Put every SynIC into its state at processor creation."""
        for vp, state in self.vps.items():
            state.simp_page.sync(False, 0, vp)
            state.siefp_page.sync(False, 0, vp)
            state.simp_page.clear()
            state.siefp_page.clear()
            state.scontrol = state.simp = state.siefp = 0
            state.sints = [HV_SYNIC_SINT_MASKED] * HV_SYNIC_SINT_COUNT
            for queue in state.queues:
                queue.clear()
