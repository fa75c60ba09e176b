"""The virtual DVD drive, with or without a medium.

A real log shows it as CD-ROM "Msft Virtual DVD-ROM 1.0", ANSI 0, and a read without medium as NOT READY, MEDIUM NOT
PRESENT - TRAY OPEN. Commands beyond those that the kernel's sr driver sends while it attaches are refused.
"""

from __future__ import annotations

import struct
from typing import Final

from hvkernel.api.host import DiskError, DiskImage

from . import vsp_scsi as scsi
from .vsp_scsi import Command, Handler, Outcome, illegal

BLOCK: Final = 2048
CD_ROM: Final = 0x05


class DvdDrive:
    """A drive; *image* is the medium in it, None for none."""

    __slots__ = ("_handlers", "_last_sense", "image")

    def __init__(self, image: DiskImage | None = None) -> None:
        self.image = image
        self._last_sense = b""
        self._handlers: dict[int, Handler] = {
            scsi.TEST_UNIT_READY: self._test_unit_ready,
            scsi.REQUEST_SENSE: self._request_sense,
            scsi.INQUIRY: self._inquiry,
            scsi.ALLOW_MEDIUM_REMOVAL: self._nothing,
            scsi.START_STOP: self._nothing,
            scsi.READ_CAPACITY: self._read_capacity,
            scsi.READ_10: self._read,
            scsi.READ_12: self._read,
            scsi.GET_EVENT_STATUS_NOTIFICATION: self._events,
        }

    def execute(self, command: Command) -> Outcome:
        """Do a command."""
        outcome = scsi.run(self._handlers, command)
        if command.cdb[0] != scsi.REQUEST_SENSE:
            self._last_sense = outcome.sense
        return outcome

    def _medium(self) -> DiskImage:
        if self.image is None:
            raise scsi.Refused(scsi.NOT_READY, scsi.MEDIUM_NOT_PRESENT_TRAY_OPEN)
        return self.image

    def _nothing(self, command: Command) -> int:
        return 0

    def _test_unit_ready(self, command: Command) -> int:
        self._medium()
        return 0

    def _request_sense(self, command: Command) -> int:
        sense = self._last_sense or scsi.sense_data(scsi.NO_SENSE, (0, 0))
        self._last_sense = b""
        return command.answer(sense, command.cdb[4])

    def _inquiry(self, command: Command) -> int:
        cdb = command.cdb
        if cdb[1] & 1 or cdb[2]:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        data = scsi.inquiry_data(CD_ROM, 0, "Virtual DVD-ROM", removable=True)
        return command.answer(data, int.from_bytes(cdb[3:5], "big"))

    def _read_capacity(self, command: Command) -> int:
        blocks = self._medium().size // BLOCK
        if command.length < 8:
            raise illegal(scsi.INVALID_FIELD_IN_CDB, scsi.SRB_DATA_OVERRUN)
        return command.answer(struct.pack(">II", max(blocks - 1, 0), BLOCK))

    def _read(self, command: Command) -> int:
        image = self._medium()
        cdb = command.cdb
        first = int.from_bytes(cdb[2:6], "big")
        count = int.from_bytes(cdb[7:9] if cdb[0] == scsi.READ_10 else cdb[6:10], "big")
        blocks = image.size // BLOCK
        if count == 0 or count * BLOCK > command.length or first >= blocks or count > blocks - first:
            raise illegal(scsi.LBA_OUT_OF_RANGE)
        assert command.buffer is not None
        try:
            command.buffer.write(0, image.pread(count * BLOCK, first * BLOCK))
        except (OSError, DiskError):
            raise scsi.Refused(scsi.MEDIUM_ERROR, scsi.UNRECOVERED_READ_ERROR) from None
        return count * BLOCK

    def _events(self, command: Command) -> int:
        """No event is pending. *unspecified*: real drives report the first insertion or removal once."""
        cdb = command.cdb
        if not cdb[1] & 1:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        media = 0x10
        if not cdb[4] & media:
            return command.answer(struct.pack(">HBB", 2, 0x80, media), int.from_bytes(cdb[7:9], "big"))
        present = 0x02 if self.image is not None else 0x01
        data = struct.pack(">HBB", 6, 0x04, media) + bytes([0, present, 0, 0])
        return command.answer(data, int.from_bytes(cdb[7:9], "big"))
