"""The virtual hard disk: a direct access block device over an image.

What it answers is what a real log shows a guest printing (vendor, product, revision, SPC-3, 4096 byte physical
blocks, DPO and FUA, mode data ``0f 00 10 00``); where no log says, OpenVMM's scsidisk decides.
"""

from __future__ import annotations

import struct
from typing import Final

from hvkernel.api.host import DiskError, DiskImage

from . import vsp_scsi as scsi
from .vsp_scsi import Command, Handler, Outcome, illegal

BLOCK: Final = 512
PHYSICAL_EXPONENT: Final = 3
"""A physical block is 2**3 logical ones (log 01: "4096-byte physical blocks")."""
MAX_WRITE_SAME: Final = 8 << 20
"""Bytes that one WRITE SAME may cover (OpenVMM scsidisk: VHDMP_MAX_WRITE_SAME_LENGTH_BYTES)."""
MAX_UNMAP_DESCRIPTORS: Final = 4096
"""Ranges of one UNMAP (OpenVMM scsidisk: UNMAP_RANGE_DESCRIPTOR_COUNT_MAX)."""
CACHING_PAGE: Final = 0x08
ALL_PAGES: Final = 0x3F
SAVED_VALUES: Final = 3
CHANGEABLE_VALUES: Final = 1
INQUIRY_DATA: Final = scsi.inquiry_data(0, 5, "Virtual Disk")
ZEROES: Final = bytes(1 << 20)


class HardDisk:
    """A disk of an image's size.

    :param disk_id: 16 bytes that identify it; VPD page 83 is made of them.
    :param serial: serial number, empty for none.
    """

    __slots__ = ("_handlers", "_last_sense", "blocks", "disk_id", "image", "serial", "write_cache")

    def __init__(self, image: DiskImage, disk_id: bytes, *, serial: str = "", write_cache: bool = True) -> None:
        if len(disk_id) != 16:
            raise ValueError(f"disk_id: {len(disk_id)} bytes, 16 are needed")
        self.image = image
        self.disk_id = disk_id
        self.serial = serial
        self.write_cache = write_cache
        self.blocks = image.size // BLOCK
        self._last_sense = b""
        self._handlers: dict[int, Handler] = {
            scsi.TEST_UNIT_READY: self._nothing,
            scsi.RESERVE_6: self._nothing,
            scsi.RELEASE_6: self._nothing,
            scsi.ALLOW_MEDIUM_REMOVAL: self._nothing,
            scsi.START_STOP: self._nothing,
            scsi.SEND_DIAGNOSTIC: self._send_diagnostic,
            scsi.REQUEST_SENSE: self._request_sense,
            scsi.INQUIRY: self._inquiry,
            scsi.MODE_SENSE: self._mode_sense,
            scsi.MODE_SENSE_10: self._mode_sense,
            scsi.MODE_SELECT: self._mode_select,
            scsi.MODE_SELECT_10: self._mode_select,
            scsi.READ_CAPACITY: self._read_capacity,
            scsi.SERVICE_ACTION_IN_16: self._service_action_in,
            scsi.READ_6: self._read,
            scsi.READ_10: self._read,
            scsi.READ_12: self._read,
            scsi.READ_16: self._read,
            scsi.WRITE_6: self._write,
            scsi.WRITE_10: self._write,
            scsi.WRITE_12: self._write,
            scsi.WRITE_16: self._write,
            scsi.VERIFY_10: self._verify,
            scsi.VERIFY_12: self._verify,
            scsi.VERIFY_16: self._verify,
            scsi.SYNCHRONIZE_CACHE: self._synchronize,
            scsi.SYNCHRONIZE_CACHE_16: self._synchronize,
            scsi.UNMAP: self._unmap,
            scsi.WRITE_SAME: self._write_same,
            scsi.WRITE_SAME_16: self._write_same,
        }

    def execute(self, command: Command) -> Outcome:
        """Do a command; an image that fails is a medium error."""
        outcome = scsi.run(self._handlers, command)
        if command.cdb[0] != scsi.REQUEST_SENSE:
            self._last_sense = outcome.sense
        return outcome

    # what it is

    def _nothing(self, command: Command) -> int:
        return 0

    def _send_diagnostic(self, command: Command) -> int:
        cdb = command.cdb
        if cdb[1] & 0xF0 or cdb[3] or cdb[4]:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        return 0

    def _request_sense(self, command: Command) -> int:
        sense = self._last_sense or scsi.sense_data(scsi.NO_SENSE, (0, 0))
        self._last_sense = b""
        return command.answer(sense, command.cdb[4])

    def _inquiry(self, command: Command) -> int:
        cdb = command.cdb
        allocation = int.from_bytes(cdb[3:5], "big")
        if cdb[1] & 1:
            body = self._vpd(cdb[2])
            if body is None:
                raise illegal(scsi.INVALID_FIELD_IN_CDB)
            return command.answer(scsi.vpd_page(0, cdb[2], body), allocation)
        if cdb[2]:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        return command.answer(INQUIRY_DATA, allocation)

    def _vpd(self, page: int) -> bytes | None:
        if page == 0x00:
            return bytes([0x00, *([0x80] if self.serial else []), 0x83, 0xB0, 0xB1, 0xB2])
        if page == 0x80 and self.serial:
            return self.serial.encode("ascii")
        if page == 0x83:
            # T10 vendor id with the disk's GUID, and an NAA name made of Microsoft's company id and 12 bytes of it.
            t10 = b"Msft    " + self.disk_id
            naa = bytes([0x60, 0x02, 0x24, 0x80]) + self.disk_id[:6] + self.disk_id[10:]
            return bytes([1, 1, 0, len(t10)]) + t10 + bytes([1, 3, 0, len(naa)]) + naa
        if page == 0xB0:
            body = bytearray(60)
            struct.pack_into(">I", body, 16, 0xFFFF_FFFF)
            struct.pack_into(">I", body, 20, MAX_UNMAP_DESCRIPTORS)
            struct.pack_into(">I", body, 24, 1)
            body[28] = 0x80
            struct.pack_into(">Q", body, 32, MAX_WRITE_SAME // BLOCK)
            return bytes(body)
        if page == 0xB1:
            return (1).to_bytes(2, "big") + bytes(58)
        if page == 0xB2:
            # UNMAP is supported, WRITE SAME with the unmap bit is not; thin provisioned.
            return bytes([max(1, (self.blocks >> 32).bit_length()), 0x80, 0x02, 0])
        return None

    def _mode_sense(self, command: Command) -> int:
        cdb = command.cdb
        ten = cdb[0] == scsi.MODE_SENSE_10
        allocation = int.from_bytes(cdb[7:9], "big") if ten else cdb[4]
        control, page = cdb[2] >> 6, cdb[2] & 0x3F
        if allocation == 0:
            return 0
        if allocation < (8 if ten else 4) or control == SAVED_VALUES or page not in (CACHING_PAGE, ALL_PAGES):
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        parameter = 0x10 | (0x80 if self.image.read_only else 0)
        caching = bytearray([CACHING_PAGE, 10]) + bytearray(10)
        if self.write_cache and control != CHANGEABLE_VALUES:
            caching[2] = 0x04
        if ten:
            header = struct.pack(">HBB4x", 6 + len(caching), 0, parameter)
        else:
            header = bytes([3 + len(caching), 0, parameter, 0])
        return command.answer(header + bytes(caching), allocation)

    def _mode_select(self, command: Command) -> int:
        """Accept what changes nothing; turning the write cache on or off is refused (OpenVMM scsidisk)."""
        cdb = command.cdb
        ten = cdb[0] == scsi.MODE_SELECT_10
        size = int.from_bytes(cdb[7:9], "big") if ten else cdb[4]
        header = 8 if ten else 4
        if size == 0:
            return 0
        if size < header + 12:
            raise illegal(scsi.PARAMETER_LIST_LENGTH_ERROR)
        if cdb[1] & 1:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        data = command.fetch(size)
        page = header + (int.from_bytes(data[6:8], "big") if ten else data[3])
        if size < page + 12:
            raise illegal(scsi.PARAMETER_LIST_LENGTH_ERROR)
        if data[page] & 0x3F != CACHING_PAGE or bool(data[page + 2] & 0x04) != self.write_cache:
            raise illegal(scsi.INVALID_FIELD_IN_PARAMETER_LIST)
        return size

    def _read_capacity(self, command: Command) -> int:
        if command.length < 8:
            raise illegal(scsi.INVALID_FIELD_IN_CDB, scsi.SRB_DATA_OVERRUN)
        return command.answer(struct.pack(">II", min(self.blocks - 1, 0xFFFF_FFFF), BLOCK))

    def _service_action_in(self, command: Command) -> int:
        cdb = command.cdb
        if cdb[1] & 0x1F != scsi.SAI_READ_CAPACITY_16:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        if command.length < 12:
            raise illegal(scsi.INVALID_FIELD_IN_CDB, scsi.SRB_DATA_OVERRUN)
        # Thin provisioned (LBPME); what was unmapped is not promised to read as zero (LBPRZ clear).
        data = struct.pack(">QIBBB17x", self.blocks - 1, BLOCK, 0, PHYSICAL_EXPONENT, 0x80)
        return command.answer(data, min(int.from_bytes(cdb[10:14], "big"), command.length))

    # data

    def _span(self, command: Command, *, moves: bool) -> tuple[int, int]:
        """(first block, count) of a command that names blocks, checked against the disk and the guest's memory."""
        cdb = command.cdb
        kind = cdb[0] >> 5
        if kind == 0:
            first, count = int.from_bytes(cdb[1:4], "big") & 0x1F_FFFF, cdb[4]
        elif kind in (1, 2):
            first, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big")
        elif kind == 5:
            first, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big")
        else:
            first, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
        if moves and (count == 0 or count * BLOCK > command.length):
            raise illegal(scsi.LBA_OUT_OF_RANGE)
        self._within(first, count)
        return first, count

    def _within(self, first: int, count: int) -> None:
        if first >= self.blocks or count > self.blocks - first:
            raise illegal(scsi.LBA_OUT_OF_RANGE)

    def _writable(self) -> None:
        if self.image.read_only:
            raise scsi.Refused(scsi.DATA_PROTECT, scsi.WRITE_PROTECTED)

    def _read(self, command: Command) -> int:
        first, count = self._span(command, moves=True)
        assert command.buffer is not None
        try:
            with command.buffer.views(0, count * BLOCK, writable=True) as views:
                self.image.readv(views, first * BLOCK)
        except (OSError, DiskError):
            raise scsi.Refused(scsi.MEDIUM_ERROR, scsi.UNRECOVERED_READ_ERROR) from None
        return count * BLOCK

    def _write(self, command: Command) -> int:
        first, count = self._span(command, moves=True)
        self._writable()
        assert command.buffer is not None
        try:
            with command.buffer.views(0, count * BLOCK, writable=False) as views:
                self.image.writev(views, first * BLOCK)
        except (OSError, DiskError):
            raise scsi.Refused(scsi.MEDIUM_ERROR, scsi.WRITE_FAULT) from None
        if command.cdb[0] != scsi.WRITE_6 and command.cdb[1] & 0x08:
            self._flush()
        return count * BLOCK

    def _store(self, data: bytes, offset: int) -> None:
        try:
            self.image.pwrite(data, offset)
        except (OSError, DiskError):
            raise scsi.Refused(scsi.MEDIUM_ERROR, scsi.WRITE_FAULT) from None

    def _flush(self) -> None:
        try:
            self.image.flush()
        except (OSError, DiskError):
            raise scsi.Refused(scsi.MEDIUM_ERROR, scsi.WRITE_FAULT) from None

    def _verify(self, command: Command) -> int:
        if command.cdb[1] & 0x06:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        self._span(command, moves=False)
        return 0

    def _synchronize(self, command: Command) -> int:
        self._span(command, moves=False)
        if not self.image.read_only:
            self._flush()
        return 0

    def _zero(self, first: int, count: int) -> None:
        offset, left = first * BLOCK, count * BLOCK
        while left:
            size = min(left, len(ZEROES))
            self._store(ZEROES[:size], offset)
            offset += size
            left -= size

    def _unmap(self, command: Command) -> int:
        """Zero the blocks. *unspecified*: what unmapped blocks read as; zeroes, as a new VHDX block would."""
        cdb = command.cdb
        size = int.from_bytes(cdb[7:9], "big")
        if cdb[1] & 1:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        if size == 0:
            return 0
        if size < 8:
            raise illegal(scsi.PARAMETER_LIST_LENGTH_ERROR)
        data = command.fetch(size)
        descriptors = int.from_bytes(data[2:4], "big")
        if descriptors % 16 or descriptors + 8 > size:
            raise illegal(scsi.INVALID_FIELD_IN_PARAMETER_LIST)
        if descriptors // 16 > MAX_UNMAP_DESCRIPTORS:
            raise illegal(scsi.INVALID_FIELD_IN_PARAMETER_LIST)
        ranges = [struct.unpack_from(">QI", data, at) for at in range(8, 8 + descriptors, 16)]
        for first, count in ranges:
            if count:
                self._within(first, count)
        self._writable()
        for first, count in ranges:
            self._zero(first, count)
        return size

    def _write_same(self, command: Command) -> int:
        if command.cdb[1] & 0x08:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        first, count = self._span(command, moves=False)
        self._writable()
        if count * BLOCK > MAX_WRITE_SAME:
            raise illegal(scsi.LBA_OUT_OF_RANGE)
        if count == 0:
            return 0
        if command.length < BLOCK or command.buffer is None:
            raise illegal(scsi.INVALID_FIELD_IN_CDB)
        self._store(command.buffer.read(0, BLOCK) * count, first * BLOCK)
        return BLOCK
