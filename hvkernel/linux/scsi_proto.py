"""scsi_proto.h, scsi_common.h, constants.c: numbers and names of SCSI, and the decoding of sense data."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

TEST_UNIT_READY: Final = 0x00
INQUIRY: Final = 0x12
MODE_SENSE: Final = 0x1A
MODE_SENSE_10: Final = 0x5A
START_STOP: Final = 0x1B
READ_CAPACITY: Final = 0x25
READ_10: Final = 0x28
WRITE_10: Final = 0x2A
SYNCHRONIZE_CACHE: Final = 0x35
UNMAP: Final = 0x42
READ_16: Final = 0x88
WRITE_16: Final = 0x8A
SERVICE_ACTION_IN_16: Final = 0x9E
REPORT_LUNS: Final = 0xA0
MAINTENANCE_IN: Final = 0xA3
SAI_READ_CAPACITY_16: Final = 0x10
"""Source: include/scsi/scsi_proto.h."""

NOT_READY: Final = 0x02
ILLEGAL_REQUEST: Final = 0x05
UNIT_ATTENTION: Final = 0x06
RECOVERED_ERROR: Final = 0x01
MEDIUM_ERROR: Final = 0x03
HARDWARE_ERROR: Final = 0x04
DATA_PROTECT: Final = 0x07
BLANK_CHECK: Final = 0x08
COPY_ABORTED: Final = 0x0A
ABORTED_COMMAND: Final = 0x0B
VOLUME_OVERFLOW: Final = 0x0D
MISCOMPARE: Final = 0x0E

_MEDIUM_GONE: Final = frozenset({0x11, 0x13, 0x14})
_REFUSED: Final = frozenset({0x20, 0x21, 0x22, 0x24, 0x26, 0x27})
_TARGET_FAILURES: Final = frozenset(
    {HARDWARE_ERROR, DATA_PROTECT, BLANK_CHECK, COPY_ABORTED, VOLUME_OVERFLOW, MISCOMPARE}
)

TYPE_DISK: Final = 0x00
TYPE_ROM: Final = 0x05
TYPE_MOD: Final = 0x07
TYPE_RBC: Final = 0x0E
TYPE_ZBC: Final = 0x14

SCSI_2: Final = 3
SCSI_3: Final = 4
SCSI_SPC_2: Final = 5
SCSI_UNKNOWN: Final = 0
"""scsi_level values. Source: include/scsi/scsi.h."""

DEVICE_TYPES: Final = (
    "Direct-Access    ",
    "Sequential-Access",
    "Printer          ",
    "Processor        ",
    "WORM             ",
    "CD-ROM           ",
    "Scanner          ",
    "Optical Device   ",
    "Medium Changer   ",
    "Communications   ",
    "ASC IT8          ",
    "ASC IT8          ",
    "RAID             ",
    "Enclosure        ",
    "Direct-Access-RBC",
    "Optical card     ",
    "Bridge controller",
    "Object storage   ",
    "Automation/Drive ",
    "Security Manager ",
    "Direct-Access-ZBC",
)
"""Source: drivers/scsi/scsi_common.c:scsi_device_types."""

SENSE_KEYS: Final = (
    "No Sense",
    "Recovered Error",
    "Not Ready",
    "Medium Error",
    "Hardware Error",
    "Illegal Request",
    "Unit Attention",
    "Data Protect",
    "Blank Check",
    "Vendor Specific(9)",
    "Copy Aborted",
    "Aborted Command",
    "Equal",
    "Volume Overflow",
    "Miscompare",
    "Completed",
)
"""Source: drivers/scsi/constants.c:snstext."""

ADDITIONAL: Final = MappingProxyType(
    {
        0x0000: "No additional sense information",
        0x0401: "Logical unit is in process of becoming ready",
        0x2000: "Invalid command operation code",
        0x2100: "Logical block address out of range",
        0x2400: "Invalid field in cdb",
        0x2500: "Logical unit not supported",
        0x2600: "Invalid field in parameter list",
        0x2700: "Write protected",
        0x2800: "Not ready to ready change, medium may have changed",
        0x2900: "Power on, reset, or bus device reset occurred",
        0x2A09: "Capacity data has changed",
        0x3A00: "Medium not present",
        0x3A01: "Medium not present - tray closed",
        0x3A02: "Medium not present - tray open",
        0x3F0E: "Reported luns data has changed",
        0x0C00: "Write error",
        0x1100: "Unrecovered read error",
        0x4400: "Internal target failure",
    }
)
"""ASC and ASCQ to text, those that the modelled devices give. Source: drivers/scsi/sense_codes.h."""

COMMANDS: Final = MappingProxyType(
    {
        TEST_UNIT_READY: "Test Unit Ready",
        INQUIRY: "Inquiry",
        MODE_SENSE: "Mode Sense(6)",
        MODE_SENSE_10: "Mode Sense(10)",
        START_STOP: "Start/Stop Unit",
        READ_CAPACITY: "Read Capacity(10)",
        READ_10: "Read(10)",
        WRITE_10: "Write(10)",
        SYNCHRONIZE_CACHE: "Synchronize Cache(10)",
        UNMAP: "Unmap/Read sub-channel",
        READ_16: "Read(16)",
        WRITE_16: "Write(16)",
        SERVICE_ACTION_IN_16: "Service Action In(16)",
        REPORT_LUNS: "Report Luns",
    }
)
"""Source: drivers/scsi/constants.c:cdb_byte0_names."""


def scsi_device_type(kind: int) -> str:
    """17 characters. Source: drivers/scsi/scsi_common.c."""
    if kind == 0x1E:
        return "Well-known LUN   "
    if kind == 0x1F:
        return "No Device        "
    return DEVICE_TYPES[kind] if kind < len(DEVICE_TYPES) else "Unknown          "


@dataclass(frozen=True, slots=True)
class Sense:
    """struct scsi_sense_hdr."""

    response_code: int
    key: int
    asc: int
    ascq: int

    def __str__(self) -> str:
        """Source: scsi_logging.c:scsi_format_extd_sense."""
        text = ADDITIONAL.get(self.asc << 8 | self.ascq)
        if text:
            return text
        vendor = ["<<vendor>>" if code >= 0x80 else "" for code in (self.asc, self.ascq)]
        return f"{vendor[0]}ASC=0x{self.asc:x} {vendor[1]}ASCQ=0x{self.ascq:x} "

    @property
    def deferred(self) -> bool:
        """About an earlier command. Source: include/scsi/scsi_common.h:scsi_sense_is_deferred."""
        return bool(self.response_code & 1)

    @property
    def additional(self) -> str:
        """The line that follows :attr:`header`."""
        return f"Add. Sense: {self}" if self.asc << 8 | self.ascq in ADDITIONAL else str(self)

    @property
    def header(self) -> str:
        """Source: scsi_logging.c:scsi_format_sense_hdr."""
        when, descriptor = "deferred" if self.deferred else "current", "[descriptor] " * (self.response_code >= 0x72)
        return f"Sense Key : {SENSE_KEYS[self.key]} [{when}] {descriptor}"


def normalize_sense(data: bytes) -> Sense | None:
    """Fixed or descriptor format; None when it is neither. Source: scsi_common.c:scsi_normalize_sense."""
    if not data or data[0] & 0x70 != 0x70:
        return None
    code = data[0] & 0x7F
    padded = data[:18].ljust(18, b"\0")
    if code >= 0x72:
        return Sense(code, padded[1] & 0xF, padded[2], padded[3])
    more = len(data) if len(data) < 8 else min(len(data), 8 + data[7])
    return Sense(code, padded[2] & 0xF, padded[12] if more > 12 else 0, padded[13] if more > 13 else 0)


def wants_retry(sense: Sense) -> bool:
    """Whether a read or write that ended so is worth another attempt. Source: scsi_error.c:scsi_check_sense."""
    if sense.deferred:
        return True
    if sense.key in (NOT_READY, UNIT_ATTENTION):
        return (sense.asc, sense.ascq) == (0x04, 0x01)
    return (sense.key == ABORTED_COMMAND and sense.asc != 0x10) or (
        sense.key == MEDIUM_ERROR and sense.asc not in _MEDIUM_GONE
    )


def block_status(sense: Sense) -> str:
    """How the block layer calls such an error. Source: scsi_error.c:scsi_check_sense,
    scsi_lib.c:scsi_io_completion_action, block/blk-core.c:blk_errors."""
    if sense.deferred:
        return "I/O"
    if sense.key == DATA_PROTECT and (sense.asc, sense.ascq) == (0x27, 0x07):
        return "critical space allocation"
    if sense.key == MEDIUM_ERROR and sense.asc in _MEDIUM_GONE:
        return "critical medium"
    if sense.key in (ILLEGAL_REQUEST, ABORTED_COMMAND) and sense.asc == 0x10:
        return "protection"
    if sense.key in _TARGET_FAILURES or (sense.key == ILLEGAL_REQUEST and sense.asc in _REFUSED):
        return "critical target"
    return "I/O"


def unit_attention_text(sense: Sense) -> str | None:
    """What the kernel says of a unit attention; None for nothing. Source: scsi_error.c:scsi_report_sense."""
    if sense.asc == 0x3F:
        if sense.ascq == 0x03:
            return "Inquiry data has changed"
        if sense.ascq == 0x0E:
            return (
                "LUN assignments on this target have changed. The Linux SCSI layer does not automatically remap LUN "
                "assignments."
            )
        return (
            "Operating parameters on this target have changed. The Linux SCSI layer does not automatically adjust "
            "these parameters."
        )
    if sense.asc == 0x38 and sense.ascq == 0x07:
        return "Warning! Received an indication that the LUN reached a thin provisioning soft threshold."
    if sense.asc == 0x29:
        return "Power-on or device reset occurred"
    if sense.asc == 0x2A:
        changed = {0x01: "Mode parameters changed", 0x06: "Asymmetric access state changed"}
        return changed.get(sense.ascq, "Capacity data has changed" if sense.ascq == 0x09 else "Parameters changed")
    return None


def int_to_scsilun(lun: int) -> bytes:
    """Eight bytes. Source: scsi_common.c:int_to_scsilun."""
    out = bytearray(8)
    for i in (0, 2, 4, 6):
        out[i], out[i + 1] = lun >> 8 & 0xFF, lun & 0xFF
        lun >>= 16
    return bytes(out)


def scsilun_to_int(raw: bytes) -> int:
    """Source: scsi_common.c:scsilun_to_int."""
    lun = 0
    for i in (0, 2, 4, 6):
        lun |= raw[i] << (i + 1) * 8 | raw[i + 1] << i * 8
    return lun


def string_get_size(size: int, block: int, binary: bool) -> str:
    """``30.0 GiB`` or ``32.2 GB``: three significant digits. Source: lib/string_helpers.c:string_get_size."""
    units = (
        ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
        if binary
        else ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
    )
    divisor = 1024 if binary else 1000
    i = remainder = 0
    if not block or not size:
        return "0 B"
    while block >> 32:
        block //= divisor
        i += 1
    while size >> 32:
        size //= divisor
        i += 1
    size *= block
    while size >= divisor:
        size, remainder = divmod(size, divisor)
        i += 1
    digits, coefficient = 0, size
    while coefficient * 10 < 1000:
        coefficient *= 10
        digits += 1
    if binary:
        remainder = remainder * 1000 >> 10
    remainder += (500, 50, 5)[digits]
    if remainder >= 1000:
        remainder -= 1000
        size += 1
    tail = f".{remainder:03d}"[: digits + 1] if digits else ""
    return f"{size}{tail} {units[i]}"
