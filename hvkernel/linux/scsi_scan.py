"""drivers/scsi/scsi_scan.c: finding the units of a host, synchronously or in another task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.api.guest.device import Device
from hvkernel.api.guest.errno import ENODEV, ENXIO
from hvkernel.api.guest.sched import Completion
from hvkernel.api.guest.scsi import (
    BLIST_LARGELUN,
    BLIST_NOREPORTLUN,
    BLIST_REPORTLUN2,
    BLIST_SPARSELUN,
    BLIST_TRY_VPD_PAGES,
    ScsiDevice,
    ScsiHost,
)
from hvkernel.linux import scsi_proto as proto
from hvkernel.linux.printk import KERN_ERR, KERN_INFO, KERN_NOTICE, KERN_WARNING

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel
    from hvkernel.linux.scsi import Scsi

NO_RESPONSE: Final = 0
TARGET_PRESENT: Final = 1
LUN_PRESENT: Final = 2
"""SCSI_SCAN_*. Source: scsi_scan.c."""

INQ_TIMEOUT: Final = 20
"""Seconds beyond half of one that an INQUIRY may take. Source: scsi_scan.c:SCSI_TIMEOUT."""
REPORT_LUNS_SIZE: Final = (511 + 1) * 8
SCSI_VPD_LIST_SIZE: Final = 36
"""Source: drivers/scsi/scsi.c."""
VPD_KEPT: Final = frozenset({0x00, 0x80, 0x83, 0x89, 0xB0, 0xB1, 0xB2})


class Scan:
    """The scanner of one kernel."""

    def __init__(self, kernel: Kernel, scsi: Scsi) -> None:
        self._kernel = kernel
        self._scsi = scsi
        self._scanning: list[tuple[ScsiHost, Completion]] = []
        """Hosts that are scanned in another task, oldest first, and what each waits for before it shows its devices."""
        self._targets: dict[tuple[int, int, int], Device] = {}
        self._short_inquiry: list[ScsiHost] = []
        """Hosts that were told of already."""
        self._warned: set[str] = set()
        """dev_warn_once() of the functions that read VPD pages."""

    def _type(self) -> str:
        text = self._kernel.cmdline.get("scsi_mod.scan")
        return text or ("async" if self._kernel.config.y("SCSI_SCAN_ASYNC") else "sync")

    # whole hosts -----------------------------------------------------------------------------------------------

    def scan_host(self, host: ScsiHost) -> None:
        """scsi_scan_host()."""
        kind = self._type()
        if kind in ("none", "manual"):
            return
        if kind == "sync":
            self._selected(host)
            return
        with host.scan_mutex:
            if host.async_scan:
                return
            host.async_scan = True
        previous = Completion()
        if not self._scanning:
            self._kernel.sched.complete(previous)
        entry = (host, previous)
        self._scanning.append(entry)
        self._kernel.async_.async_schedule(lambda: self._do_scan_async(entry), f"scan host{host.host_no}")

    def _do_scan_async(self, entry: tuple[ScsiHost, Completion]) -> None:
        host, previous = entry
        self._selected(host)
        with host.scan_mutex:
            self._kernel.sched.wait_for_completion(previous)
            for sdev in tuple(host.devices):
                if not sdev.registered and not sdev.gone and not host.removed:
                    self._scsi.make_visible(sdev)
            host.async_scan = False
        self._scanning.remove(entry)
        if self._scanning:
            self._kernel.sched.complete(self._scanning[0][1])

    def complete_async_scans(self) -> None:
        """scsi_complete_async_scans(): wait until no host is being scanned."""
        while self._scanning:
            self._kernel.sched.usleep_range(100, 200)

    def _selected(self, host: ScsiHost) -> None:
        """scsi_scan_host_selected() with wild cards."""
        with host.scan_mutex:
            if not host.async_scan:
                self.complete_async_scans()
            for channel in range(host.max_channel + 1):
                for target in range(host.max_id):
                    if host.removed:
                        return
                    self._target(host, channel, target)

    def add_device(self, host: ScsiHost, channel: int, target: int, lun: int) -> int:
        """scsi_add_device()."""
        if self._type() == "none":
            return -ENODEV
        with host.scan_mutex:
            if not host.async_scan:
                self.complete_async_scans()
            if host.removed:
                return -ENODEV
            res = self._probe_and_add(host, channel, target, lun)[0]
        return 0 if res == LUN_PRESENT else -ENODEV

    # one target ------------------------------------------------------------------------------------------------

    def _target(self, host: ScsiHost, channel: int, target: int) -> None:
        """__scsi_scan_target() of all units."""
        if host.this_id == target:
            return
        res, flags, level = self._probe_and_add(host, channel, target, 0)
        if res == NO_RESPONSE:
            return
        if self._report_luns(host, channel, target, flags, level):
            self._sequential(host, channel, target, flags, level)

    def _sequential(self, host: ScsiHost, channel: int, target: int, flags: int, level: int) -> None:
        """scsi_sequential_lun_scan(): from 1 on until there is none."""
        limit = min(host.max_lun, 8 if level < proto.SCSI_3 and not flags & BLIST_LARGELUN else 256)
        for lun in range(1, limit):
            res = self._probe_and_add(host, channel, target, lun)[0]
            if res != LUN_PRESENT and not flags & BLIST_SPARSELUN:
                return

    def _report_luns(self, host: ScsiHost, channel: int, target: int, flags: int, level: int) -> bool:
        """scsi_report_lun_scan(); True: it could not be done so."""
        if flags & BLIST_NOREPORTLUN or (level < proto.SCSI_2 and level != proto.SCSI_UNKNOWN):
            return True
        if level < proto.SCSI_3 and (not flags & BLIST_REPORTLUN2 or host.max_lun <= 8):
            return True
        sdev = self._scsi.scsi_device_lookup(host, channel, target, 0)
        if sdev is None:
            sdev = ScsiDevice(host, channel, target, 0)
            sdev.bus = self._scsi.bus
            if host.hostt.slave_alloc is not None and host.hostt.slave_alloc(sdev):
                return False
        size = REPORT_LUNS_SIZE
        while True:
            if size > kmalloc_max_size(self._kernel.mm.PAGE_SIZE):
                self._allocation_failure("scsi_report_lun_scan")
                return False
            cdb = bytes([proto.REPORT_LUNS, 0, 0, 0, 0, 0]) + size.to_bytes(4, "big") + b"\0\0"
            for _ in range(3):
                if size > self.max_hw_sectors(host) << 9:  # blk_rq_map_kern() refuses
                    return True
                got = self._scsi.execute(sdev, cdb, read=size, timeout=30 * self._kernel.timers.HZ)
                if not got.result or (got.sense is not None and got.sense.key != proto.UNIT_ATTENTION):
                    break
            if got.result:
                return True
            length = int.from_bytes(got.data[:4], "big")
            if length + 8 <= size:
                break
            size = length + 8
        for n in range(1, length // 8 + 1):
            lun = proto.scsilun_to_int(got.data[8 * n : 8 * n + 8])
            if lun > host.max_lun:
                self._scsi.sdev_printk(
                    KERN_WARNING, sdev, f"lun{lun} has a LUN larger than allowed by the host adapter"
                )
                continue
            res = self._probe_and_add(host, channel, target, lun)[0]
            if res == NO_RESPONSE:
                self._scsi.sdev_printk(
                    KERN_ERR, sdev, f"Unexpected response from lun {lun} while scanning, scan aborted"
                )
                break
        return False

    # one unit --------------------------------------------------------------------------------------------------

    def _probe_and_add(self, host: ScsiHost, channel: int, target: int, lun: int) -> tuple[int, int, int]:
        """scsi_probe_and_add_lun(): (SCSI_SCAN_*, flags, scsi_level)."""
        have = self._scsi.scsi_device_lookup(host, channel, target, lun)
        if have is not None:
            return LUN_PRESENT, have.sdev_bflags, have.scsi_level
        sdev = ScsiDevice(host, channel, target, lun)
        sdev.bus = self._scsi.bus
        sdev.queue_depth = host.cmd_per_lun or 1
        if self.max_hw_sectors(host) > host.max_sectors:
            text = f"blk_queue_max_hw_sectors: set to minimum {self.max_hw_sectors(host)}"
            self._kernel.printk.printk(KERN_INFO, text)
        hostt = host.hostt
        if hostt.slave_alloc is not None:
            ret = hostt.slave_alloc(sdev)
            if ret:
                if ret != -ENXIO:
                    self._allocation_failure("scsi_alloc_sdev")
                return NO_RESPONSE, 0, proto.SCSI_UNKNOWN
        inquiry = self._inquiry(sdev)
        res = NO_RESPONSE
        if inquiry is not None:
            qualifier, kind = inquiry[0] >> 5, inquiry[0] & 0x1F
            if qualifier == 3 or (qualifier == 1 and kind == 0x1F):
                res = TARGET_PRESENT
            else:
                res = self._add_lun(sdev, inquiry)
        if res != LUN_PRESENT and hostt.slave_destroy is not None:
            hostt.slave_destroy(sdev)
        return res, sdev.sdev_bflags, sdev.scsi_level

    def max_hw_sectors(self, host: ScsiHost) -> int:
        """Sectors of a request at most: a page at least. Source: block/blk-settings.c:blk_queue_max_hw_sectors."""
        return max(host.max_sectors, self._kernel.mm.PAGE_SIZE >> 9)

    def _allocation_failure(self, function: str) -> None:
        """ALLOC_FAILURE_MSG."""
        self._kernel.printk.printk(
            KERN_ERR,
            f"{function}: Allocation failure during SCSI scanning, some SCSI devices might not be configured",
        )

    def _inquiry(self, sdev: ScsiDevice) -> bytes | None:
        """scsi_probe_lun(): 36 bytes first, then as many as there are."""
        timeout = self._kernel.timers.HZ // 2 + INQ_TIMEOUT * self._kernel.timers.HZ
        size, step = 36, 1
        data = b""
        response = 0
        while True:
            for _ in range(3):
                got = self._scsi.execute(sdev, bytes([proto.INQUIRY, 0, 0, 0, size, 0]), read=size, timeout=timeout)
                if got.check_condition and got.sense is not None:
                    if got.sense.key == proto.UNIT_ATTENTION and got.sense.asc in (0x28, 0x29) and not got.sense.ascq:
                        continue
                elif not got.result and got.resid == size:
                    continue
                break
            if not got.result:
                data = _sanitize(got.data)
                response = data[4] + 5
                if response > 255:
                    response = 36
                if step == 1 and response > size:
                    size, step = response, 2
                    continue
                break
            if step != 2:
                return None
            self._scsi.sdev_printk(
                KERN_INFO,
                sdev,
                f"scsi scan: {size} byte inquiry failed.  Consider BLIST_INQUIRY_36 for this device",
            )
            size, step = 36, 3
        length = min(size, response)
        if length < 36:
            if sdev.host not in self._short_inquiry:
                self._short_inquiry.append(sdev.host)
                self._kernel.printk.printk(
                    KERN_INFO,
                    f"scsi host{sdev.host.host_no}: scsi scan: INQUIRY result too short ({length}), using 36",
                )
            length = 36
        level = data[2] & 7
        if level >= 2 or (level == 1 and data[3] & 0xF == 1):
            level += 1
        sdev.scsi_level = level
        return data[: max(36, length)]

    def _add_lun(self, sdev: ScsiDevice, inquiry: bytes) -> int:
        """scsi_add_lun()."""
        sdev.inquiry = inquiry
        sdev.vendor, sdev.model, sdev.rev = (inquiry[a:b].decode("latin-1") for a, b in ((8, 16), (16, 32), (32, 36)))
        sdev.type = inquiry[0] & 0x1F
        sdev.removable = bool(inquiry[1] & 0x80)
        if sdev.type in (proto.TYPE_RBC, proto.TYPE_ROM) and not sdev.sdev_bflags & BLIST_REPORTLUN2:
            sdev.sdev_bflags |= BLIST_NOREPORTLUN
        ccs = " CCS" if inquiry[3] & 0xF == 1 else ""
        self._scsi_printk(
            sdev,
            f"{proto.scsi_device_type(sdev.type)} {sdev.vendor} {sdev.model} {sdev.rev} "
            f"PQ: {inquiry[0] >> 5} ANSI: {inquiry[2] & 7}{ccs}",
        )
        hostt = sdev.host.hostt
        if hostt.slave_configure is not None:
            ret = hostt.slave_configure(sdev)
            if ret:
                if ret != -ENXIO:
                    self._kernel.printk.pr_err(f"scsi {sdev.name}: failed to configure device")
                return NO_RESPONSE
        if sdev.scsi_level >= proto.SCSI_3:
            self.attach_vpd(sdev)
        sdev.parent = self._target_device(sdev)
        sdev.host.devices.append(sdev)
        if not sdev.host.async_scan:
            self._scsi.make_visible(sdev)
        return LUN_PRESENT

    def _scsi_printk(self, sdev: ScsiDevice, text: str) -> None:
        self._kernel.printk.printk(KERN_NOTICE, f"scsi {sdev.name}: {text}")

    def _target_device(self, sdev: ScsiDevice) -> Device:
        key = (sdev.host.host_no, sdev.channel, sdev.id)
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = Device(f"target{key[0]}:{key[1]}:{key[2]}", parent=sdev.host)
        return target

    # vital product data ------------------------------------------------------------------------------------------

    def supports_vpd(self, sdev: ScsiDevice) -> bool:
        """scsi_device_supports_vpd()."""
        return bool(sdev.sdev_bflags & BLIST_TRY_VPD_PAGES) or sdev.scsi_level >= proto.SCSI_SPC_2

    def attach_vpd(self, sdev: ScsiDevice) -> None:
        """scsi_attach_vpd(): the pages that the kernel keeps, as far as the device has them."""
        if not self.supports_vpd(sdev):
            return
        pages = self._vpd_page(sdev, 0)
        if pages is None:
            return
        for page in pages[4:]:
            if page in VPD_KEPT:
                data = self._vpd_page(sdev, page)
                if data is not None:
                    sdev.vpd[page] = data

    def _warn_once(self, sdev: ScsiDevice, function: str, text: str) -> None:
        if function not in self._warned:
            self._warned.add(function)
            self._kernel.printk.dev_warn(sdev, f"{function}: {text}")

    def _vpd_page(self, sdev: ScsiDevice, page: int) -> bytes | None:
        """scsi_get_vpd_buf(): its header first, then the whole, again when it has grown meanwhile."""
        if page:
            supported = self._vpd_inquiry(sdev, 0, SCSI_VPD_LIST_SIZE)
            if supported is None:
                return None
            if supported[0] > SCSI_VPD_LIST_SIZE:
                self._warn_once(sdev, "scsi_get_vpd_size", f"long VPD page 0 length: {supported[0]} bytes")
            if page not in supported[1][4 : supported[0]]:
                return None
        head = self._vpd_inquiry(sdev, page, 4)
        if head is None:
            return None
        size = head[0]
        while True:
            got = self._vpd_inquiry(sdev, page, size)
            if got is None:
                return None
            if got[0] <= size:
                return got[1][: got[0]]
            self._warn_once(sdev, "scsi_get_vpd_buf", f"VPD page 0x{page:02x} result {got[0]} > {size} bytes")
            size = got[0]

    def _vpd_inquiry(self, sdev: ScsiDevice, page: int, size: int) -> tuple[int, bytes] | None:
        """(length that the page says, data); None when the device refuses or answers with another page."""
        cdb = bytes([proto.INQUIRY, 1, page]) + (size & 0xFFFF).to_bytes(2, "big") + b"\0"
        got = self._scsi.execute(sdev, cdb, read=size, timeout=30 * self._kernel.timers.HZ)
        if got.result or got.data[1] != page:
            return None
        length = int.from_bytes(got.data[2:4], "big")
        return (length + 4, got.data) if length else None


def kmalloc_max_size(page_size: int) -> int:
    """KMALLOC_MAX_SIZE with the default MAX_ORDER of each page size: 4, 32 and 512 MiB. Source: linux/slab.h,
    arch/arm64/Kconfig (ARCH_FORCE_MAX_ORDER)."""
    return {4096: 1 << 22, 16384: 1 << 25}.get(page_size, 1 << 29)


_PRINTABLE: Final = bytes(n if 0x20 <= n <= 0x7E else 0x20 for n in range(256))


def _sanitize(data: bytes) -> bytes:
    """scsi_sanitize_inquiry_string() on vendor, model and revision: printable, blank after a NUL."""
    data = data.ljust(36, b"\0")
    strings = data[8:36]
    if 0 not in strings:
        return data[:8] + strings.translate(_PRINTABLE) + data[36:]
    parts = [data[:8]]
    for start, end in ((8, 16), (16, 32), (32, 36)):
        text = data[start:end].split(b"\0", 1)[0].translate(_PRINTABLE)
        parts.append(text.ljust(end - start))
    return b"".join((*parts, data[36:]))
