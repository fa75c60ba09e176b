"""The start-up protocol of a storage channel, as a table: which operation is legal when, and what follows.

Facts from OpenVMM's storvsp (process_primary, handle_packet), which says that it follows Hyper-V's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .wire import VstorPacketOperation as Op


class State(StrEnum):
    """Where a controller is with its guest."""

    BEGIN = "waits for BEGIN_INITIALIZATION"
    VERSION = "waits for a version that it speaks"
    PROPERTIES = "waits for QUERY_PROPERTIES"
    END = "waits for END_INITIALIZATION"
    READY = "does commands"


TRANSITIONS: Final[Mapping[tuple[State, Op], State]] = MappingProxyType(
    {
        (State.BEGIN, Op.VSTOR_OPERATION_BEGIN_INITIALIZATION): State.VERSION,
        (State.VERSION, Op.VSTOR_OPERATION_QUERY_PROTOCOL_VERSION): State.PROPERTIES,
        (State.PROPERTIES, Op.VSTOR_OPERATION_QUERY_PROPERTIES): State.END,
        (State.END, Op.VSTOR_OPERATION_CREATE_SUB_CHANNELS): State.END,
        (State.END, Op.VSTOR_OPERATION_END_INITIALIZATION): State.READY,
        (State.READY, Op.VSTOR_OPERATION_CREATE_SUB_CHANNELS): State.READY,
        (State.READY, Op.VSTOR_OPERATION_EXECUTE_SRB): State.READY,
        (State.READY, Op.VSTOR_OPERATION_RESET_LUN): State.READY,
        (State.READY, Op.VSTOR_OPERATION_RESET_ADAPTER): State.READY,
        (State.READY, Op.VSTOR_OPERATION_RESET_BUS): State.READY,
    }
)
"""State and operation to the state after it succeeded; any other pair is answered with INVALID_DEVICE_STATE and
changes nothing. A version that the host does not speak leaves the state at VERSION."""
