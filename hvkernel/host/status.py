"""HV_STATUS: the result codes of hypercalls.

Source: TLFS, "HV_STATUS", with the numbers of the published hypervisor definitions (microsoft/openvmm,
vm/hv1/hvdef: HvError). Linux 6.1 names ten of them (include/asm-generic/hyperv-tlfs.h); these are all that this
hypervisor returns.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["HvStatus"]


class HvStatus(IntEnum):
    """Result of a hypercall, the low 16 bits of its result value."""

    SUCCESS = 0x00
    INVALID_HYPERCALL_CODE = 0x02
    INVALID_HYPERCALL_INPUT = 0x03
    INVALID_ALIGNMENT = 0x04
    INVALID_PARAMETER = 0x05
    ACCESS_DENIED = 0x06
    INVALID_PARTITION_STATE = 0x07
    OPERATION_DENIED = 0x08
    INSUFFICIENT_MEMORY = 0x0B
    INVALID_PARTITION_ID = 0x0D
    INVALID_VP_INDEX = 0x0E
    INVALID_PORT_ID = 0x11
    INVALID_CONNECTION_ID = 0x12
    INSUFFICIENT_BUFFERS = 0x13
    INVALID_VP_STATE = 0x15
    INVALID_SYNIC_STATE = 0x18
    INVALID_REGISTER_VALUE = 0x50
    INVALID_VTL_STATE = 0x51
    INVALID_DEVICE_ID = 0x57
