"""drivers/scsi/sd.c: SCSI disks as block devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.block import BlockError
from hvkernel.api.guest.mm import Page
from hvkernel.api.guest.scsi import DmaDirection, HostByte, ScsiDevice
from hvkernel.linux import scsi_proto as proto
from hvkernel.linux.block import SECTOR, Disk
from hvkernel.linux.errno import EINVAL, EIO, ENODEV, ENOMEM, EOPNOTSUPP
from hvkernel.linux.printk import KERN_DEBUG, KERN_ERR, KERN_INFO, KERN_NOTICE, KERN_WARNING
from hvkernel.linux.scsi import Result, Scsi

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

SD_BUF_SIZE: Final = 512
SD_MAX_RETRIES: Final = 5
SD_DEF_XFER_BLOCKS: Final = 0xFFFF
"""Source: drivers/scsi/sd.h."""
BLK_DEF_MAX_SECTORS: Final = 2560
"""Source: include/linux/blkdev.h."""
SECTOR_SIZES: Final = (512, 1024, 2048, 4096)


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
        return self._scsi.execute(self.sdev, cdb, read=read, retries=SD_MAX_RETRIES)

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
        self.disk.capacity = self.capacity * self.sdev.sector_size // SECTOR
        self.disk.logical_block_size = self.sdev.sector_size
        self.disk.read_only = self.write_prot

    def _no_media(self, got: Result) -> bool:
        """media_not_present(): remembers it."""
        if not got.check_condition or got.sense is None:
            return False
        if got.sense.key in (proto.UNIT_ATTENTION, proto.NOT_READY) and got.sense.asc == 0x3A:
            self.media_present = False
            self.capacity = 0
            return True
        return False

    def _spinup(self) -> None:
        """sd_spinup_disk(). A disk that is becoming ready is asked again each second, 100 times."""
        waited = 0
        while True:
            for _ in range(3):
                had_media = self.media_present
                got = self._run(bytes(6))
                if self._no_media(got):
                    if had_media:
                        self.printk(KERN_NOTICE, "Media removed, stopped polling")
                    return
                unit_attention = got.sense is not None and got.sense.key == proto.UNIT_ATTENTION
                if not got.result or (got.check_condition and not unit_attention):
                    break
            if not got.check_condition:
                if got.result:
                    self._print_result("Test Unit Ready failed", got)
                return
            sense = got.sense
            if sense is None or sense.key != proto.NOT_READY:
                if not waited:
                    self.printk(KERN_NOTICE, "Unit Not Ready")
                    self._print_sense(KERN_NOTICE, got)
                return
            if sense.asc == 4 and sense.ascq in (3, 0xB, 0xC, 0x1B, 0x24, 0x25):
                return
            if not waited:
                self.printk(KERN_NOTICE, "Spinning up disk...")
                self._run(bytes([proto.START_STOP, 1, 0, 0, 1, 0]))
            waited += 1
            if waited > 100:
                return
            self._kernel.sched.msleep(1000)

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
                if got.check_condition:
                    self._print_sense(KERN_NOTICE, got)
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
        self.physical_block_size = (1 << (data[13] & 0xF)) * size
        alignment = ((data[14] & 0x3F) << 8 | data[15]) * size
        if alignment and self.first_scan:
            self.printk(KERN_NOTICE, f"physical block alignment offset: {alignment}")
        self.lbpme = bool(data[14] & 0x80)
        self.capacity = int.from_bytes(data[0:8], "big") + 1
        return size

    def _capacity_10(self) -> int:
        got = self._capacity(bytes([proto.READ_CAPACITY, *bytes(9)]), 8, "Read Capacity(10)")
        if isinstance(got, int):
            return got
        size = int.from_bytes(got.data[4:8], "big")
        self.capacity = int.from_bytes(got.data[0:4], "big") + 1
        self.physical_block_size = size
        return size

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

    def mode_sense(self, page: int, length: int) -> Mode | Result:
        """MODE SENSE(6); the Result when it failed. Source: scsi_lib.c:scsi_mode_sense."""
        got = self._run(bytes([proto.MODE_SENSE, 0, page, 0, length, 0]), length)
        return got if got.result or len(got.data) < 4 else Mode(got.data, False)

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
        mode = self.mode_sense(8, 4)
        if isinstance(mode, Mode) and mode.length >= 3:
            length = mode.length
            if length > SD_BUF_SIZE:
                self._first(KERN_NOTICE, f"Truncating mode parameter data from {length} to {SD_BUF_SIZE} bytes")
                length = SD_BUF_SIZE
            if length > 4:
                mode = self.mode_sense(8, min(length, 255))
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
        limit = min(limit, host.max_sectors or limit)
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
        ratio = self.sdev.sector_size // SECTOR
        read = direction == DmaDirection.DMA_FROM_DEVICE
        ten, sixteen = (proto.READ_10, proto.READ_16) if read else (proto.WRITE_10, proto.WRITE_16)
        cdb = self._cdb(ten, sixteen, sector // ratio, count // ratio)
        self._io(cdb, direction, pages, count * SECTOR, sector, "READ" if read else "WRITE")

    def _io(self, cdb: bytes, direction: DmaDirection, pages: list[Page], size: int, sector: int, what: str) -> None:
        """One request: retried after a unit attention, reported and raised when it fails for good."""
        attempts = SD_MAX_RETRIES
        while True:
            cmd = self._scsi.run(self.sdev, cdb, direction, pages, size, None, SD_MAX_RETRIES)
            if not cmd.result:
                return
            got = Result(cmd.result, b"", cmd.sense_buffer, cmd.resid)
            if got.sense is not None and got.check_condition:
                if got.sense.key == 1:  # RECOVERED_ERROR
                    return
                if got.sense.key == proto.UNIT_ATTENTION and attempts:
                    attempts -= 1
                    continue
            break
        tag = f"tag#{cmd.tag & 0xFFFF}"
        driver = "DRIVER_OK"
        name = HostByte(got.host_byte).name if got.host_byte in HostByte._value2member_map_ else hex(got.host_byte)
        self.printk(KERN_INFO, f"{tag} FAILED Result: hostbyte={name} driverbyte={driver} cmd_age=0s")
        if got.check_condition and got.sense is not None:
            self._print_sense(KERN_INFO, got, tag + " ")
        text = proto.COMMANDS.get(cdb[0], f"opcode=0x{cdb[0]:x}")
        self.printk(KERN_INFO, f"{tag} CDB: {text} {cdb.hex(' ')}")
        op = {"READ": "0x0:(READ)", "WRITE": "0x1:(WRITE)", "FLUSH": "0x2:(FLUSH)", "DISCARD": "0x3:(DISCARD)"}[what]
        self._kernel.printk.pr_err(
            f"{'critical target' if got.check_condition else 'I/O'} error, dev {self.disk.name}, sector {sector} "
            f"op {op} flags 0x0 phys_seg {max(1, len(pages))} prio class 2"
        )
        raise BlockError(EIO, f"{self.disk.name}: {what} of sector {sector} failed: {got.sense or name}")

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
        name = HostByte(got.host_byte).name if got.host_byte in HostByte._value2member_map_ else hex(got.host_byte)
        self.printk(KERN_NOTICE, f"{text}: Result: hostbyte={name} driverbyte=DRIVER_OK")

    def _print_sense(self, level: int, got: Result, tag: str = "") -> None:
        sense = got.sense
        if sense is None:
            return
        deferred = "deferred" if sense.response_code & 1 else "current"
        self.printk(level, f"{tag}Sense Key : {proto.SENSE_KEYS[sense.key]} [{deferred}] ")
        self.printk(level, f"{tag}Add. Sense: {sense}")
