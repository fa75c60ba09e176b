"""drivers/scsi/sd.c: SCSI disks as block devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.block import BlockError
from hvkernel.api.guest.errno import EINVAL, EIO, ENODEV, ENOMEM, EOPNOTSUPP
from hvkernel.api.guest.mm import Page
from hvkernel.api.guest.sched import Completion
from hvkernel.api.guest.scsi import DmaDirection, HostByte, ScsiDevice
from hvkernel.linux import scsi_proto as proto
from hvkernel.linux.block import SECTOR, Disk
from hvkernel.linux.printk import KERN_DEBUG, KERN_ERR, KERN_INFO, KERN_NOTICE, KERN_WARNING
from hvkernel.linux.scsi import SD_TIMEOUT, Result, Scsi

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

SD_BUF_SIZE: Final = 512
SD_MAX_RETRIES: Final = 5
SD_DEF_XFER_BLOCKS: Final = 0xFFFF
"""Source: drivers/scsi/sd.h."""
BLK_DEF_MAX_SECTORS: Final = 2560
"""Source: include/linux/blkdev.h."""
SECTOR_SIZES: Final = (512, 1024, 2048, 4096)


def _s32(value: int) -> int:
    """A u32 that the kernel keeps in an int: a sector size of 2 GiB or more becomes an error number."""
    return value - (1 << 32) if value >> 31 else value


class Mode:
    """struct scsi_mode_data, with the bytes."""

    __slots__ = ("block_descriptor_length", "data", "device_specific", "header_length", "length")

    def __init__(self, data: bytes, ten: bool) -> None:
        self.data = data
        if ten:
            self.length = int.from_bytes(data[0:2], "big") + 2
            self.device_specific = data[3]
            self.header_length = 8
            self.block_descriptor_length = int.from_bytes(data[6:8], "big")
        else:
            self.length = data[0] + 1
            self.device_specific = data[2]
            self.header_length = 4
            self.block_descriptor_length = data[3]


class ScsiDisk:
    """struct scsi_disk, and the block driver of its gendisk."""

    def __init__(self, kernel: Kernel, sdev: ScsiDevice, name: str) -> None:
        self._kernel = kernel
        self._scsi: Scsi = kernel.scsi
        self.sdev = sdev
        self.disk = Disk(name, 0, 512, self)
        self.disk.driver_name = "sd"
        self.disk.parent = sdev
        self.capacity = 0
        """Logical blocks."""
        self.physical_block_size = 512
        self.media_present = True
        self.write_prot = False
        self.wce = self.rcd = self.dpofua = False
        self.first_scan = True
        self.lbpme = False
        self.max_unmap_blocks = 0
        self.max_xfer_blocks = 0
        self.opt_xfer_blocks = 0
        self.max_sectors = 0
        """Largest request, sectors of 512 bytes."""

    def printk(self, level: int, text: str) -> None:
        self._scsi.sdev_printk(level, self.sdev, text, self.disk.name)

    def _first(self, level: int, text: str) -> None:
        if self.first_scan:
            self.printk(level, text)

    def _run(self, cdb: bytes, read: int = 0) -> Result:
        timeout = SD_TIMEOUT * self._kernel.timers.HZ
        return self._scsi.execute(self.sdev, cdb, read=read, timeout=timeout, retries=SD_MAX_RETRIES)

    # what the disk is ------------------------------------------------------------------------------------------

    def revalidate(self) -> None:
        """sd_revalidate_disk()."""
        if self.sdev.gone:
            return
        old = self.capacity
        self._spinup()
        if self.media_present:
            self._read_capacity()
            self._block_limits()
            self._print_capacity(old)
            self._write_protect()
            self._cache_type()
        self._limits()
        self.first_scan = False
        self.disk.capacity = self.capacity * (self.sdev.sector_size // SECTOR) & 0xFFFFFFFFFFFFFFFF
        self.disk.logical_block_size = self.sdev.sector_size
        self.disk.read_only = self.write_prot

    def _set_no_media(self) -> None:
        """set_media_not_present(): only a removable disk can lose its medium."""
        if self.sdev.removable:
            self.media_present = False
            self.capacity = 0

    def _no_media(self, got: Result) -> bool:
        """media_not_present(): remembers it."""
        sense = got.sense
        if sense is None or sense.key not in (proto.UNIT_ATTENTION, proto.NOT_READY) or sense.asc != 0x3A:
            return False
        self._set_no_media()
        return True

    def _spinup(self) -> None:
        """sd_spinup_disk(). A disk that is becoming ready is asked again each second, for 100 seconds.

        The dots and the last word are KERN_CONT in the kernel; here the line is printed when it is complete.
        """
        timers = self._kernel.timers
        expires: int | None = None
        line = ""
        while True:
            for _ in range(3):
                had_media = self.media_present
                got = self._run(bytes(6))
                if self._no_media(got):
                    if had_media:
                        self.printk(KERN_NOTICE, "Media removed, stopped polling")
                    return
                if got.good:
                    break
            sense = got.sense
            if not got.check_condition:
                if expires is None and not got.good:
                    self._print_result("Test Unit Ready failed", got)
                break
            if sense is not None and sense.key == proto.NOT_READY:
                if sense.asc == 4 and sense.ascq in (3, 0xB, 0xC, 0x1B, 0x24, 0x25):
                    break
                if expires is None:
                    line = "Spinning up disk..."
                    self._run(bytes([proto.START_STOP, 1, 0, 0, 1, 0]))
                    expires = timers.jiffies + 100 * timers.HZ
                self._kernel.sched.msleep(1000)
                line += "."
            elif sense is not None and sense.key == proto.UNIT_ATTENTION and sense.asc == 0x28:
                if expires is None:
                    expires = timers.jiffies + 5 * timers.HZ
                self._kernel.sched.msleep(1000)
            else:
                if expires is None:
                    self.printk(KERN_NOTICE, "Unit Not Ready")
                    self._print_sense(got)
                break
            if timers.jiffies > expires:
                break
        if expires is not None:
            line += "ready" if got.good else "not responding..."
            if line.startswith("Spinning"):
                self.printk(KERN_NOTICE, line)
            else:
                self._kernel.printk.printk(KERN_NOTICE, line)

    def _read_capacity(self) -> None:
        """sd_read_capacity(): 16 first for SPC-3, and for what does not fit in 32 bits."""
        sdev = self.sdev
        if sdev.host.max_cmd_len >= 16 and sdev.scsi_level > proto.SCSI_SPC_2:
            size = self._capacity_16()
            if size == -ENODEV:
                return
            if size < 0:
                size = self._capacity_10()
        else:
            size = self._capacity_10()
            if size > 0 and self.capacity > 0xFFFFFFFF:
                self.printk(KERN_NOTICE, "Very big device. Trying to use READ CAPACITY(16).")
                old = size
                size = self._capacity_16()
                if size < 0:
                    self.printk(KERN_NOTICE, "Using 0xffffffff as device size")
                    self.capacity = 1 << 32
                    size = old
        if size < 0:
            return
        if size == 0:
            size = 512
            self.printk(KERN_NOTICE, "Sector size 0 reported, assuming 512.")
        if size not in SECTOR_SIZES:
            self.printk(KERN_NOTICE, f"Unsupported sector size {size}.")
            self.capacity = 0
            size = 512
        sdev.sector_size = size
        sdev.use_16_for_rw = self.capacity > 0xFFFFFFFF

    def _capacity(self, cdb: bytes, length: int, name: str) -> Result | int:
        """The answer, or -ENODEV without medium, -EINVAL when the disk refuses."""
        retries, resets = 3, 10
        while True:
            got = self._run(cdb, length)
            if self._no_media(got):
                return -ENODEV
            sense = got.sense
            if got.check_condition and sense is not None:
                if sense.key == proto.ILLEGAL_REQUEST and sense.asc in (0x20, 0x24) and not sense.ascq and length > 8:
                    return -EINVAL
                if sense.key == proto.UNIT_ATTENTION and sense.asc == 0x29 and not sense.ascq:
                    resets -= 1
                    if resets > 0:
                        continue
            retries -= 1
            if not got.result:
                return got
            if not retries:
                self._print_result(f"{name} failed", got)
                if sense is not None:
                    self._print_sense(got)
                    if sense.key == proto.NOT_READY:
                        self._set_no_media()
                else:
                    self.printk(KERN_NOTICE, "Sense not available.")
                self.capacity = 0
                return -EINVAL

    def _capacity_16(self) -> int:
        cdb = bytes([proto.SERVICE_ACTION_IN_16, proto.SAI_READ_CAPACITY_16, *bytes(11), 32, 0, 0])
        got = self._capacity(cdb, 32, "Read Capacity(16)")
        if isinstance(got, int):
            return got
        data = got.data
        size = int.from_bytes(data[8:12], "big")
        self.physical_block_size = (1 << (data[13] & 0xF)) * size & 0xFFFFFFFF
        alignment = ((data[14] & 0x3F) << 8 | data[15]) * size & 0xFFFFFFFF
        if alignment and self.first_scan:
            self.printk(KERN_NOTICE, f"physical block alignment offset: {alignment}")
        self.lbpme = bool(data[14] & 0x80)
        self.capacity = (int.from_bytes(data[0:8], "big") + 1) & 0xFFFFFFFFFFFFFFFF
        return _s32(size)

    def _capacity_10(self) -> int:
        got = self._capacity(bytes([proto.READ_CAPACITY, *bytes(9)]), 8, "Read Capacity(10)")
        if isinstance(got, int):
            return got
        size = int.from_bytes(got.data[4:8], "big")
        self.capacity = int.from_bytes(got.data[0:4], "big") + 1
        self.physical_block_size = size
        return _s32(size)

    def _block_limits(self) -> None:
        """sd_read_block_limits(), what requests need of VPD page B0."""
        page = self.sdev.vpd.get(0xB0, b"")
        if len(page) >= 16:
            self.max_xfer_blocks = int.from_bytes(page[8:12], "big")
            self.opt_xfer_blocks = int.from_bytes(page[12:16], "big")
        if len(page) >= 64 and self.lbpme:
            blocks, descriptors = int.from_bytes(page[20:24], "big"), int.from_bytes(page[24:28], "big")
            if blocks and descriptors:
                self.max_unmap_blocks = blocks

    def _print_capacity(self, old: int) -> None:
        if not self.first_scan and old == self.capacity:
            return
        size = self.sdev.sector_size
        ten = proto.string_get_size(self.capacity, size, False)
        two = proto.string_get_size(self.capacity, size, True)
        self.printk(KERN_NOTICE, f"{self.capacity} {size}-byte logical blocks: ({ten}/{two})")
        if self.physical_block_size != size:
            self.printk(KERN_NOTICE, f"{self.physical_block_size}-byte physical blocks")

    def mode_sense(self, page: int, length: int, dbd: int = 0) -> Mode | Result:
        """MODE SENSE(6), above 255 bytes MODE SENSE(10); the Result when it failed. Source: scsi_lib.c:scsi_mode_sense.

        :param dbd: 8 asks for no block descriptors.
        """
        ten = length > 255
        if ten:
            cdb = bytes([proto.MODE_SENSE_10, dbd, page, *bytes(4)]) + length.to_bytes(2, "big") + b"\0"
        else:
            cdb = bytes([proto.MODE_SENSE, dbd, page, 0, length, 0])
        for _ in range(SD_MAX_RETRIES + 1):
            got = self._run(cdb, length)
            if not got.check_condition or got.sense is None or got.sense.key != proto.UNIT_ATTENTION:
                break
        return Mode(got.data, ten) if got.good and len(got.data) >= 4 else got

    def _write_protect(self) -> None:
        """sd_read_write_protect_flag()."""
        old = self.write_prot
        mode: Mode | Result = self.mode_sense(0x3F, 4)
        if isinstance(mode, Result):
            mode = self.mode_sense(0, 4)
        if isinstance(mode, Result):
            mode = self.mode_sense(0x3F, 255)
        if isinstance(mode, Result):
            self._first(KERN_WARNING, "Test WP failed, assume Write Enabled")
            return
        self.write_prot = bool(mode.device_specific & 0x80)
        if self.first_scan or old != self.write_prot:
            self.printk(KERN_NOTICE, f"Write Protect is {'on' if self.write_prot else 'off'}")
            self.printk(KERN_DEBUG, f"Mode Sense: {mode.data[:4].hex(' ')}")

    def _cache_type(self) -> None:
        """sd_read_cache_type()."""
        old = (self.wce, self.rcd, self.dpofua)
        page, dbd = (6, 8) if self.sdev.type == proto.TYPE_RBC else (8, 0)
        mode = self.mode_sense(page, 4, dbd)
        if isinstance(mode, Mode) and mode.length >= 3:
            length = mode.length
            if length > SD_BUF_SIZE:
                self._first(KERN_NOTICE, f"Truncating mode parameter data from {length} to {SD_BUF_SIZE} bytes")
                length = SD_BUF_SIZE
            if length > 4:
                mode = self.mode_sense(page, length, dbd)
            if isinstance(mode, Mode):
                if self._cache_page(mode, length):
                    if self.first_scan or old != (self.wce, self.rcd, self.dpofua):
                        self._print_cache()
                    return
                self._assume_write_through()
                return
        sense = mode.sense if isinstance(mode, Result) else None
        if sense is not None and sense.key == proto.ILLEGAL_REQUEST and sense.asc == 0x24 and not sense.ascq:
            self._first(KERN_NOTICE, "Cache data unavailable")
        else:
            self._first(KERN_ERR, "Asking for cache data failed")
        self._assume_write_through()

    def _cache_page(self, mode: Mode, length: int) -> bool:
        data = mode.data
        offset = mode.header_length + mode.block_descriptor_length
        while offset < min(length, len(data)):
            code, spf = data[offset] & 0x3F, data[offset] & 0x40
            if code in (8, 6):
                if length - offset <= 2 or offset + 2 >= len(data):
                    self._first(KERN_ERR, "Incomplete mode parameter data")
                    return False
                flags = data[offset + 2]
                self.wce = bool(flags & 4) if code == 8 else not flags & 1
                self.rcd = bool(flags & 1) if code == 8 else False
                self.dpofua = bool(mode.device_specific & 0x10)
                if self.wce and self.write_prot:
                    self.wce = False
                return True
            if spf and length - offset > 3 and offset + 3 < len(data):
                offset += 4 + (data[offset + 2] << 8) + data[offset + 3]
            elif not spf and length - offset > 1 and offset + 1 < len(data):
                offset += 2 + data[offset + 1]
            else:
                self._first(KERN_ERR, "Incomplete mode parameter data")
                return False
        self._first(KERN_WARNING, "No Caching mode page found")
        return False

    def _assume_write_through(self) -> None:
        self._first(KERN_WARNING, "Assuming drive cache: write through")
        self.wce = self.rcd = self.dpofua = False

    def _print_cache(self) -> None:
        fua = "supports DPO and FUA" if self.dpofua else "doesn't support DPO or FUA"
        write, read = "enabled" if self.wce else "disabled", "disabled" if self.rcd else "enabled"
        self.printk(KERN_NOTICE, f"Write cache: {write}, read cache: {read}, {fua}")

    def _limits(self) -> None:
        """The request size: what CDBs, the disk and the controller allow."""
        ratio = self.sdev.sector_size // SECTOR
        device = SD_DEF_XFER_BLOCKS
        if self.max_xfer_blocks:
            device = min(device, self.max_xfer_blocks)
        limit = min(device * ratio, BLK_DEF_MAX_SECTORS)
        page = self._kernel.mm.PAGE_SIZE // SECTOR
        host = self.sdev.host
        limit = min(limit, self._scsi.scan.max_hw_sectors(host))
        if host.sg_tablesize:
            limit = min(limit, max(1, host.sg_tablesize - 1) * page)
        self.max_sectors = max(ratio, limit // ratio * ratio)

    # requests --------------------------------------------------------------------------------------------------

    def _cdb(self, ten: int, sixteen: int, lba: int, blocks: int) -> bytes:
        if self.sdev.use_16_for_rw or lba + blocks > 0xFFFFFFFF or blocks > 0xFFFF:
            return bytes([sixteen, 0]) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + b"\0\0"
        return bytes([ten, 0]) + lba.to_bytes(4, "big") + b"\0" + blocks.to_bytes(2, "big") + b"\0"

    def read_sectors(self, sector: int, count: int) -> bytes:
        """Through as many commands as the limits ask for."""
        out = []
        pages = self._buffer(min(count, self.max_sectors))
        try:
            while count:
                take = min(count, self.max_sectors)
                self._transfer(sector, take, DmaDirection.DMA_FROM_DEVICE, pages)
                out.append(self._scsi.copy_from(pages, take * SECTOR))
                sector += take
                count -= take
        finally:
            self._scsi.free_buffer(pages)
        return b"".join(out)

    def write_sectors(self, sector: int, data: bytes) -> None:
        count = len(data) // SECTOR
        pages = self._buffer(min(count, self.max_sectors))
        at = 0
        try:
            while count:
                take = min(count, self.max_sectors)
                self._scsi.copy_to(pages, data[at : at + take * SECTOR])
                self._transfer(sector, take, DmaDirection.DMA_TO_DEVICE, pages)
                at += take * SECTOR
                sector += take
                count -= take
        finally:
            self._scsi.free_buffer(pages)

    def _buffer(self, sectors: int) -> list[Page]:
        pages = self._scsi.alloc_buffer(sectors * SECTOR)
        if pages is None:
            raise BlockError(ENOMEM, f"{self.disk.name}: no memory for {sectors} sectors")
        return pages

    def _transfer(self, sector: int, count: int, direction: DmaDirection, pages: list[Page]) -> None:
        """One request of ``count`` sectors; what the device leaves out is asked for again.

        Source: scsi_lib.c:scsi_io_completion. A device that moves nothing and calls it success is asked for ever by
        the kernel; the model says so in a finding and waits, which comes to the same.
        """
        ratio = self.sdev.sector_size // SECTOR
        read = direction == DmaDirection.DMA_FROM_DEVICE
        ten, sixteen = (proto.READ_10, proto.READ_16) if read else (proto.WRITE_10, proto.WRITE_16)
        cdb = self._cdb(ten, sixteen, sector // ratio, count // ratio)
        size = count * SECTOR
        resid = self._io(cdb, direction, pages, size, sector, "READ" if read else "WRITE")
        if not resid:
            return
        left = -(-resid // self.sdev.sector_size) * ratio
        if left >= count:
            what = f"{self.disk.name}: sectors {sector} to {sector + count}: success without any data"
            self._kernel.finding("scsi-no-progress", what)
            self._kernel.sched.wait_for_completion(Completion())
        done = count - left
        rest = self._buffer(left)
        try:
            if not read:
                self._scsi.copy_to(rest, self._scsi.copy_from(pages, size)[done * SECTOR :])
            self._transfer(sector + done, left, direction, rest)
            if read:
                first = self._scsi.copy_from(pages, size)[: done * SECTOR]
                self._scsi.copy_to(pages, first + self._scsi.copy_from(rest, left * SECTOR))
        finally:
            self._scsi.free_buffer(rest)

    def _io(self, cdb: bytes, direction: DmaDirection, pages: list[Page], size: int, sector: int, what: str) -> int:
        """One request: retried after a unit attention, reported and raised when it fails for good.

        Bytes that were not moved come back.
        """
        timers = self._kernel.timers
        started, attempts = timers.jiffies, SD_MAX_RETRIES
        while True:
            cmd = self._scsi.run(self.sdev, cdb, direction, pages, size, None, SD_MAX_RETRIES)
            if cmd.resid & (self.sdev.sector_size - 1) and what in ("READ", "WRITE"):
                text = f"Unaligned partial completion (resid={cmd.resid}, sector_sz={self.sdev.sector_size})"
                self.printk(KERN_INFO, text)
                self._print_command(cmd.tag, cdb)
            if not cmd.result:
                return cmd.resid
            got = Result(cmd.result, b"", cmd.sense_buffer, cmd.resid)
            sense = got.sense if got.check_condition else None
            if sense is None or not attempts:
                break
            if sense.key == proto.RECOVERED_ERROR and not sense.deferred:
                self._print_sense(got, f"tag#{cmd.tag & 0xFFFF} ")
                return 0
            again = sense.key == proto.UNIT_ATTENTION and not self.sdev.removable
            if not again and not proto.wants_retry(sense):
                break
            attempts -= 1
        tag, name = f"tag#{cmd.tag & 0xFFFF}", _host_byte(got)
        age = (timers.jiffies - started) // timers.HZ
        self.printk(KERN_INFO, f"{tag} FAILED Result: hostbyte={name} driverbyte=DRIVER_OK cmd_age={age}s")
        if sense is not None:
            self._print_sense(got, tag + " ")
        self._print_command(cmd.tag, cdb)
        op = {"READ": "0x0:(READ)", "WRITE": "0x1:(WRITE)", "FLUSH": "0x2:(FLUSH)", "DISCARD": "0x3:(DISCARD)"}[what]
        status = proto.block_status(sense) if sense is not None else "I/O"
        self._kernel.printk.pr_err(
            f"{status} error, dev {self.disk.name}, sector {sector} "
            f"op {op} flags 0x0 phys_seg {max(1, len(pages))} prio class 2"
        )
        raise BlockError(EIO, f"{self.disk.name}: {what} of sector {sector} failed: {got.sense or name}")

    def _print_command(self, tag: int, cdb: bytes) -> None:
        """Source: scsi_logging.c:scsi_print_command."""
        text = proto.COMMANDS.get(cdb[0], f"opcode=0x{cdb[0]:x}")
        self.printk(KERN_INFO, f"tag#{tag & 0xFFFF} CDB: {text} {cdb.hex(' ')}")

    def synchronize(self) -> None:
        """sd_sync_cache(): three attempts; a failure is told."""
        timeout = 2 * (self.sdev.timeout or SD_TIMEOUT * self._kernel.timers.HZ)
        for _ in range(3):
            cdb = bytes([proto.SYNCHRONIZE_CACHE, *bytes(9)])
            got = self._scsi.execute(self.sdev, cdb, timeout=timeout, retries=SD_MAX_RETRIES)
            if not got.result:
                return
        self._print_result("Synchronize Cache(10) failed", got)
        if got.check_condition:
            self._print_sense(got)

    def flush(self) -> None:
        """SYNCHRONIZE CACHE, when there is a write cache."""
        if self.wce:
            self._io(bytes([proto.SYNCHRONIZE_CACHE, *bytes(9)]), DmaDirection.DMA_NONE, [], 0, 0, "FLUSH")

    def discard_sectors(self, sector: int, count: int) -> None:
        """UNMAP, for disks that say they can."""
        if not self.lbpme or not self.max_unmap_blocks:
            raise BlockError(EOPNOTSUPP, f"{self.disk.name}: discard is not supported")
        ratio = self.sdev.sector_size // SECTOR
        lba, blocks = sector // ratio, count // ratio
        while blocks:
            take = min(blocks, self.max_unmap_blocks)
            body = lba.to_bytes(8, "big") + take.to_bytes(4, "big") + bytes(4)
            data = (6 + len(body)).to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes(4) + body
            cdb = bytes([proto.UNMAP, *bytes(6)]) + len(data).to_bytes(2, "big") + b"\0"
            pages = self._buffer(1)
            try:
                self._scsi.copy_to(pages, data)
                self._io(cdb, DmaDirection.DMA_TO_DEVICE, pages, len(data), lba * ratio, "DISCARD")
            finally:
                self._scsi.free_buffer(pages)
            lba += take
            blocks -= take

    # messages --------------------------------------------------------------------------------------------------

    def _print_result(self, text: str, got: Result) -> None:
        """Source: sd.c:sd_print_result."""
        self.printk(KERN_INFO, f"{text}: Result: hostbyte={_host_byte(got)} driverbyte=DRIVER_OK")

    def _print_sense(self, got: Result, tag: str = "") -> None:
        """Source: scsi_logging.c:scsi_log_print_sense_hdr."""
        if got.sense is not None:
            self.printk(KERN_INFO, tag + got.sense.header)
            self.printk(KERN_INFO, tag + got.sense.additional)


def _host_byte(got: Result) -> str:
    known = got.host_byte in HostByte._value2member_map_
    return HostByte(got.host_byte).name if known else f"0x{got.host_byte:02x}"
