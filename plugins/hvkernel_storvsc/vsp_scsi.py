"""SCSI as the host's side speaks it: operation codes, sense data, the outcome of a command.

Numbers are those of SPC-4, SBC-3 and MMC-6 (include/scsi/scsi_proto.h has the same ones). Which SRB status goes with
which sense data follows OpenVMM's scsidisk and, for a drive without medium, a real log (srb 0x84, hv 0xc0000001).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from hvkernel.api.host import GuestBuffer

TEST_UNIT_READY: Final = 0x00
REQUEST_SENSE: Final = 0x03
READ_6: Final = 0x08
WRITE_6: Final = 0x0A
INQUIRY: Final = 0x12
MODE_SELECT: Final = 0x15
RESERVE_6: Final = 0x16
RELEASE_6: Final = 0x17
MODE_SENSE: Final = 0x1A
START_STOP: Final = 0x1B
SEND_DIAGNOSTIC: Final = 0x1D
ALLOW_MEDIUM_REMOVAL: Final = 0x1E
READ_CAPACITY: Final = 0x25
READ_10: Final = 0x28
WRITE_10: Final = 0x2A
VERIFY_10: Final = 0x2F
SYNCHRONIZE_CACHE: Final = 0x35
WRITE_SAME: Final = 0x41
UNMAP: Final = 0x42
READ_TOC: Final = 0x43
GET_CONFIGURATION: Final = 0x46
GET_EVENT_STATUS_NOTIFICATION: Final = 0x4A
MODE_SELECT_10: Final = 0x55
MODE_SENSE_10: Final = 0x5A
READ_16: Final = 0x88
WRITE_16: Final = 0x8A
VERIFY_16: Final = 0x8F
SYNCHRONIZE_CACHE_16: Final = 0x91
WRITE_SAME_16: Final = 0x93
SERVICE_ACTION_IN_16: Final = 0x9E
REPORT_LUNS: Final = 0xA0
READ_12: Final = 0xA8
WRITE_12: Final = 0xAA
VERIFY_12: Final = 0xAF
SAI_READ_CAPACITY_16: Final = 0x10

GOOD: Final = 0x00
CHECK_CONDITION: Final = 0x02

NO_SENSE: Final = 0x0
NOT_READY: Final = 0x2
MEDIUM_ERROR: Final = 0x3
ILLEGAL_REQUEST: Final = 0x5
DATA_PROTECT: Final = 0x7

INVALID_OPCODE: Final = (0x20, 0x00)
LBA_OUT_OF_RANGE: Final = (0x21, 0x00)
INVALID_FIELD_IN_CDB: Final = (0x24, 0x00)
PARAMETER_LIST_LENGTH_ERROR: Final = (0x1A, 0x00)
INVALID_FIELD_IN_PARAMETER_LIST: Final = (0x26, 0x00)
WRITE_PROTECTED: Final = (0x27, 0x00)
MEDIUM_NOT_PRESENT_TRAY_OPEN: Final = (0x3A, 0x02)
UNRECOVERED_READ_ERROR: Final = (0x11, 0x00)
WRITE_FAULT: Final = (0x03, 0x00)

SRB_SUCCESS: Final = 0x01
SRB_ERROR: Final = 0x04
SRB_INVALID_REQUEST: Final = 0x06
SRB_DATA_OVERRUN: Final = 0x12
SRB_INVALID_LUN: Final = 0x20

SENSE_SIZE: Final = 18
"""Bytes of fixed format sense data."""


@dataclass(slots=True)
class Outcome:
    """How a command ended: SCSI status, SRB status without flags, sense data, bytes moved. Not changed once made."""

    status: int = GOOD
    srb: int = SRB_SUCCESS
    sense: bytes = b""
    transferred: int = 0


class Refused(Exception):
    """A command that ends in CHECK CONDITION."""

    def __init__(self, key: int, code: tuple[int, int], srb: int = SRB_ERROR) -> None:
        super().__init__(f"sense key {key:#x}, asc {code[0]:#04x}, ascq {code[1]:#04x}")
        self.outcome = Outcome(CHECK_CONDITION, srb, sense_data(key, code))


def illegal(code: tuple[int, int], srb: int = SRB_INVALID_REQUEST) -> Refused:
    """The refusal of a command that makes no sense."""
    return Refused(ILLEGAL_REQUEST, code, srb)


def sense_data(key: int, code: tuple[int, int]) -> bytes:
    """Fixed format sense data of a current error (SPC-4, 4.5.3)."""
    data = bytearray(SENSE_SIZE)
    data[0] = 0x70
    data[2] = key
    data[7] = SENSE_SIZE - 8
    data[12], data[13] = code
    return bytes(data)


@dataclass(slots=True)
class Command:
    """One command: its CDB, and the guest memory it may move data through. Not changed once made."""

    cdb: bytes
    """16 bytes."""
    buffer: GuestBuffer | None
    length: int
    """Bytes of *buffer* that belong to the command."""
    data_in: bool
    """The guest expects data from the device."""

    def answer(self, data: bytes, allocation: int | None = None) -> int:
        """Give *data* to the guest, cut to the allocation length; return the bytes moved.

        :raises Refused: the guest's memory is smaller than the allocation length it named.
        """
        if allocation is None:
            allocation = self.length
        elif allocation > self.length:
            raise illegal(INVALID_FIELD_IN_CDB, SRB_DATA_OVERRUN)
        data = data[:allocation]
        if data and self.buffer is not None:
            self.buffer.write(0, data)
        return len(data)

    def fetch(self, size: int) -> bytes:
        """*size* bytes of the guest's. :raises Refused: there are fewer."""
        if size > self.length or (size and self.buffer is None):
            raise illegal(PARAMETER_LIST_LENGTH_ERROR)
        return self.buffer.read(0, size) if size and self.buffer is not None else b""


Handler = Callable[[Command], int]
"""Does one operation: returns the bytes moved, or raises :class:`Refused`."""


class LogicalUnit(Protocol):
    """A device behind one LUN."""

    def execute(self, command: Command) -> Outcome:
        """Do a command."""
        ...


def run(handlers: Mapping[int, Handler], command: Command) -> Outcome:
    """Do a command by its operation code; an unknown one is refused with INVALID COMMAND OPERATION CODE."""
    handler = handlers.get(command.cdb[0])
    try:
        if handler is None:
            raise illegal(INVALID_OPCODE)
        return Outcome(transferred=handler(command))
    except Refused as refusal:
        return refusal.outcome


def inquiry_data(
    peripheral: int, version: int, product: str, *, removable: bool = False, vendor: str = "Msft"
) -> bytes:
    """Standard INQUIRY data, 96 bytes; version 5 is SPC-3. Vendor and revision are those of the real devices."""
    data = bytearray(96)
    data[0] = peripheral
    data[1] = 0x80 if removable else 0
    data[2] = version
    data[3] = 0x02
    data[4] = len(data) - 5
    data[7] = 0x02
    data[8:16] = vendor.encode("ascii").ljust(8)
    data[16:32] = product.encode("ascii").ljust(16)
    data[32:36] = b"1.0 "
    return bytes(data)


def vpd_page(peripheral: int, page: int, body: bytes) -> bytes:
    """A vital product data page with its 4 byte header."""
    return bytes([peripheral, page]) + len(body).to_bytes(2, "big") + body
