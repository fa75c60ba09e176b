"""What each hypercall does, its input already checked for form.

Layouts: TLFS, hypercall reference, and include/asm-generic/hyperv-tlfs.h. A handler returns an HV_STATUS and its
output; contents that are wrong are HV_STATUS_INVALID_PARAMETER unless the reference names another status.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import TYPE_CHECKING, Final

from hvkernel.abi import tlfs_hypercall as tlfs
from hvkernel.abi.tlfs_synic import HV_MESSAGE_PAYLOAD_BYTE_COUNT
from hvkernel.host.status import HvStatus
from hvkernel.host.vpset import mask_members, set_members

if TYPE_CHECKING:
    from hvkernel.host.partition import Host

__all__ = [
    "HVCALL_START_VP",
    "RETARGET_SIZE",
    "flush_guest_physical_list",
    "flush_guest_physical_space",
    "flush_list",
    "flush_list_ex",
    "flush_space",
    "flush_space_ex",
    "get_partition_id",
    "get_vp_registers",
    "memory_heat_hint",
    "notify_long_spin_wait",
    "post_message",
    "query_capabilities",
    "retarget_interrupt",
    "root_only",
    "root_only_rep",
    "send_ipi",
    "send_ipi_ex",
    "set_vp_registers",
    "signal_event",
    "start_vp",
]

HVCALL_START_VP: Final = 0x0099
"""HvCallStartVirtualProcessor (TLFS; Linux names it from 6.6 on)."""
RETARGET_SIZE: Final = 40
"""Fixed input of HvCallRetargetDeviceInterrupt without its interrupt entry, whose size the architecture knows:
partition, device, reserved, vector, flags, and the mask or the set's format. The variable part starts with the
valid banks (drivers/pci/controller/pci-hyperv.c: hv_arch_irq_unmask)."""

_U64: Final = Struct("<Q")
_FLUSH: Final = Struct("<QQQ")
_FLUSH_EX: Final = Struct("<QQQQ")
_IPI: Final = Struct("<IIQ")
_IPI_EX: Final = Struct("<IIQQ")
_VP_REGISTERS: Final = Struct("<QIB3s")
_NAME: Final = Struct("<I")
_PAIR: Final = Struct("<QQ")
_SET_ELEMENT: Final = Struct("<IIQQQ")
_POST: Final = Struct("<IIII")
_SIGNAL: Final = Struct("<IHH")
_START: Final = Struct("<QIB3s")

_FLUSH_FLAGS: Final = (
    tlfs.HV_FLUSH_ALL_PROCESSORS
    | tlfs.HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES
    | tlfs.HV_FLUSH_NON_GLOBAL_MAPPINGS_ONLY
    | tlfs.HV_FLUSH_USE_EXTENDED_RANGE_FORMAT
)
_LOW_VECTOR: Final = 0x10
_HIGH_VECTOR: Final = 0xFF

Result = tuple[int, bytes]
RepResult = tuple[int, list[bytes]]


def _bank_words(data: bytes, start: int) -> list[int]:
    return [word for (word,) in _U64.iter_unpack(data[start:])]


# the virtual MMU: the model has no TLB, so a flush is a checked promise -------------------------------------------


def _flush(host: Host, vp: int, flags: int, targets: Iterable[int] | None) -> int:
    if flags & ~_FLUSH_FLAGS or targets is None:
        return HvStatus.INVALID_PARAMETER
    absent = [target for target in targets if target not in host.vps]
    if absent and not flags & tlfs.HV_FLUSH_ALL_PROCESSORS:
        host.record("tolerated", f"VP {vp}: flush of VPs that do not exist: {absent}")
    return HvStatus.SUCCESS


def flush_space(host: Host, vp: int, data: bytes) -> Result:
    """HvCallFlushVirtualAddressSpace."""
    _, flags, mask = _FLUSH.unpack(data)
    return _flush(host, vp, flags, mask_members(mask)), b""


def flush_list(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """HvCallFlushVirtualAddressList: every element is a range, none can be wrong."""
    _, flags, mask = _FLUSH.unpack(header)
    status = _flush(host, vp, flags, mask_members(mask))
    return status, [] if status else [b""] * len(elements)


def _flush_ex(host: Host, vp: int, header: bytes) -> int:
    _, flags, form, banks = _FLUSH_EX.unpack_from(header)
    if flags & tlfs.HV_FLUSH_ALL_PROCESSORS:
        return _flush(host, vp, flags, ())
    return _flush(host, vp, flags, set_members(form, banks, _bank_words(header, 32), host.vp_indices))


def flush_space_ex(host: Host, vp: int, data: bytes) -> Result:
    """HvCallFlushVirtualAddressSpaceEx."""
    return _flush_ex(host, vp, data), b""


def flush_list_ex(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """HvCallFlushVirtualAddressListEx."""
    status = _flush_ex(host, vp, header)
    return status, [] if status else [b""] * len(elements)


def _nested(host: Host) -> int:
    # "can only be used with nested virtualization is active" (TLFS); announced by the nested feature leaf.
    return HvStatus.SUCCESS if host.words.nested else HvStatus.OPERATION_DENIED


def flush_guest_physical_space(host: Host, vp: int, data: bytes) -> Result:
    """HvCallFlushGuestPhysicalAddressSpace: for a hypervisor inside the guest."""
    _, flags = _PAIR.unpack(data)
    return HvStatus.INVALID_PARAMETER if flags else _nested(host), b""


def flush_guest_physical_list(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """HvCallFlushGuestPhysicalAddressList: for a hypervisor inside the guest."""
    _, flags = _PAIR.unpack(header)
    status = HvStatus.INVALID_PARAMETER if flags else _nested(host)
    return status, [] if status else [b""] * len(elements)


# processors ----------------------------------------------------------------------------------------------------


def notify_long_spin_wait(host: Host, vp: int, data: bytes) -> Result:
    """HvCallNotifyLongSpinWait: advice; always succeeds."""
    return HvStatus.SUCCESS, b""


def _ipi(host: Host, vp: int, vector: int, rest: int, targets: list[int] | None) -> int:
    if targets is None or not _LOW_VECTOR <= vector <= _HIGH_VECTOR or rest:
        return HvStatus.INVALID_PARAMETER
    absent = [target for target in targets if target not in host.vps]
    if absent:
        host.record("refused", f"VP {vp}: IPI to VPs that do not exist: {absent}")
        return HvStatus.INVALID_PARAMETER
    for target in targets:
        host.interrupt(target, vector)
    return HvStatus.SUCCESS


def send_ipi(host: Host, vp: int, data: bytes) -> Result:
    """HvCallSendSyntheticClusterIpi. A VP that does not exist is *unspecified*: refused, nobody is interrupted."""
    vector, rest, mask = _IPI.unpack(data)
    return _ipi(host, vp, vector, rest, list(mask_members(mask))), b""


def send_ipi_ex(host: Host, vp: int, data: bytes) -> Result:
    """HvCallSendSyntheticClusterIpiEx."""
    vector, rest, form, banks = _IPI_EX.unpack_from(data)
    return _ipi(host, vp, vector, rest, set_members(form, banks, _bank_words(data, 24), host.vp_indices)), b""


def start_vp(host: Host, vp: int, data: bytes) -> Result:
    """HvCallStartVirtualProcessor. The initial context is not looked at: a VP runs the guest's start-up code."""
    partition, target, vtl, rest = _START.unpack_from(data)
    if partition != tlfs.HV_PARTITION_ID_SELF:
        return HvStatus.INVALID_PARTITION_ID, b""
    if vtl or rest.strip(b"\0"):
        return HvStatus.INVALID_VTL_STATE, b""
    if target not in host.vps:
        return HvStatus.INVALID_VP_INDEX, b""
    return HvStatus.SUCCESS if host.start_vp(target) else HvStatus.INVALID_VP_STATE, b""


def _register_target(host: Host, vp: int, header: bytes) -> tuple[int, int]:
    partition, target, vtl, rest = _VP_REGISTERS.unpack_from(header)
    if partition != tlfs.HV_PARTITION_ID_SELF:
        return HvStatus.INVALID_PARTITION_ID, 0
    if host.arch.register_calls_need_privilege and not host.words.privileges_high >> 17 & 1:
        return HvStatus.ACCESS_DENIED, 0
    if vtl & 0x0F or rest.strip(b"\0"):
        return HvStatus.INVALID_PARAMETER, 0
    if target == tlfs.HV_VP_INDEX_SELF:
        return 0, vp
    return (0, target) if target in host.vps else (HvStatus.INVALID_VP_INDEX, 0)


def get_vp_registers(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """HvCallGetVpRegisters: stops at the first register that cannot be read."""
    status, target = _register_target(host, vp, header)
    values: list[bytes] = []
    for element in elements if not status else ():
        register = host.arch.registers.get(_NAME.unpack(element)[0])
        if not host.identified and register not in host.arch.early_registers:
            return HvStatus.ACCESS_DENIED, values
        wide = host.registers.wide(register)
        if wide is None:
            status, value = host.registers.try_read(target, register)
            if status:
                break
            wide = (value, 0)
        values.append(_PAIR.pack(*wide))
    return status, values


def set_vp_registers(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """HvCallSetVpRegisters: stops at the first register that cannot be written."""
    status, target = _register_target(host, vp, header)
    done: list[bytes] = []
    for element in elements if not status else ():
        name, _, _, low, high = _SET_ELEMENT.unpack(element)
        register = host.arch.registers.get(name)
        if not host.identified and register not in host.arch.early_registers:
            return HvStatus.ACCESS_DENIED, done
        status = HvStatus.INVALID_PARAMETER if high else host.registers.try_write(target, register, low)
        if status:
            break
        done.append(b"")
    return status, done


# messages, events, interrupts -----------------------------------------------------------------------------------


def post_message(host: Host, vp: int, data: bytes) -> Result:
    """HvCallPostMessage."""
    connection, _, message_type, size = _POST.unpack_from(data)
    if not message_type or message_type >> 31 or size > HV_MESSAGE_PAYLOAD_BYTE_COUNT:
        return HvStatus.INVALID_PARAMETER, b""
    return host.ports.post(vp, connection, message_type, data[16 : 16 + size]), b""


def signal_event(host: Host, vp: int, data: bytes) -> Result:
    """HvCallSignalEvent."""
    connection, flag, _ = _SIGNAL.unpack(data)
    return host.ports.signal(connection, flag), b""


def retarget_interrupt(host: Host, vp: int, data: bytes) -> Result:
    """HvCallRetargetDeviceInterrupt, handed to whoever connected the device (``host.devices``)."""
    return host.retarget(vp, data), b""


# the partition -----------------------------------------------------------------------------------------------------


def get_partition_id(host: Host, vp: int, data: bytes) -> Result:
    """HvCallGetPartitionId."""
    return HvStatus.SUCCESS, _U64.pack(host.partition_id)


def query_capabilities(host: Host, vp: int, data: bytes) -> Result:
    """HvExtCallQueryCapabilities."""
    return HvStatus.SUCCESS, _U64.pack(host.extended_capabilities)


def memory_heat_hint(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """HvExtCallMemoryHeatHint: cold pages may be discarded. Refused unless the capability was reported."""
    if not host.extended_capabilities & tlfs.HV_EXT_CAPABILITY_MEMORY_COLD_DISCARD_HINT:
        return HvStatus.ACCESS_DENIED, []
    if _U64.unpack(header)[0] != tlfs.HV_EXT_MEMORY_HEAT_HINT_TYPE_COLD_DISCARD:
        return HvStatus.INVALID_PARAMETER, []
    return HvStatus.SUCCESS, [b""] * len(elements)


def root_only(host: Host, vp: int, data: bytes) -> Result:
    """Calls of the root partition or a debugger: known, granted to no profile here."""
    return HvStatus.OPERATION_DENIED, b""


def root_only_rep(host: Host, vp: int, header: bytes, elements: list[bytes]) -> RepResult:
    """Rep calls of the root partition or a confidential guest."""
    return HvStatus.OPERATION_DENIED, []
