"""scsi_host.h, scsi_device.h, scsi_cmnd.h: hosts, devices, commands and their completion.

One command is one request; there is no merging and no plugging. Source: drivers/scsi/hosts.c, scsi_lib.c, scsi_error.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.guest.device import BusType, Device
from hvkernel.api.guest.errno import EINVAL
from hvkernel.api.guest.mm import Page
from hvkernel.api.guest.sched import Completion
from hvkernel.api.guest.scsi import (
    SAM_STAT_BUSY,
    SAM_STAT_CHECK_CONDITION,
    SAM_STAT_TASK_SET_FULL,
    SCSI_SENSE_BUFFERSIZE,
    DmaDirection,
    HostByte,
    ScatterSegment,
    ScsiCmnd,
    ScsiDevice,
    ScsiHost,
    ScsiHostTemplate,
)
from hvkernel.api.guest.time import TimerList
from hvkernel.linux.printk import KERN_ERR, KERN_INFO, KERN_WARNING
from hvkernel.linux.scsi_proto import UNIT_ATTENTION, Sense, normalize_sense, unit_attention_text
from hvkernel.linux.scsi_scan import Scan

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

SD_TIMEOUT: Final = 30
"""Seconds a command may take when the driver says nothing. Source: drivers/scsi/sd.h."""

SCSI_QUEUE_DELAY: Final = 3
"""Milliseconds before a refused command is tried again. Source: drivers/scsi/scsi_lib.c."""

_RETRIED: Final = frozenset(
    {
        HostByte.DID_BUS_BUSY,
        HostByte.DID_ERROR,
        HostByte.DID_PARITY,
        HostByte.DID_SOFT_ERROR,
        HostByte.DID_TRANSPORT_DISRUPTED,
    }
)
"""Tried again at once, as often as the caller allows. Source: scsi_error.c:scsi_decide_disposition."""
_REQUEUED: Final = frozenset({HostByte.DID_REQUEUE, HostByte.DID_IMM_RETRY})
_BUSY: Final = frozenset({SAM_STAT_BUSY, SAM_STAT_TASK_SET_FULL})
_GOOD: Final = frozenset({0x00, 0x04, 0x10, 0x14, 0x22})
"""Status bytes that are no error. Source: include/scsi/scsi_status.h, scsi.h:scsi_status_is_good."""


class Result:
    """How a command ended."""

    __slots__ = ("data", "resid", "result", "sense")

    def __init__(self, result: int, data: bytes, sense: bytes, resid: int) -> None:
        self.result = result
        """status byte | host byte << 16; 0 is success."""
        self.data = data
        self.sense: Sense | None = normalize_sense(sense) if sense else None
        self.resid = resid

    @property
    def check_condition(self) -> bool:
        return self.result & 0xFE == SAM_STAT_CHECK_CONDITION

    @property
    def host_byte(self) -> int:
        return self.result >> 16 & 0xFF

    @property
    def good(self) -> bool:
        """scsi_status_is_good(): a unit that is not there is not good, any other host byte does not count."""
        return self.host_byte != HostByte.DID_NO_CONNECT and self.result & 0xFE in _GOOD


class Scsi:
    """``kernel.scsi``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = kernel.machine
        self._hosts: list[ScsiHost] = []
        self._next_host = 0
        self._tags: dict[ScsiHost, dict[int, list[int]]] = {}
        self._idle: dict[ScsiHost, Any] = {}
        self._watch: dict[ScsiHost, TimerList] = {}
        self._blocked: dict[ScsiHost, bool] = {}
        self.bus = BusType("scsi", match=self._match, probe=self._probe, remove=self._remove, uevent=self._uevent)
        self.interfaces: list[Callable[[ScsiDevice], None]] = []
        """Called for every device that becomes visible (class interfaces, sg)."""
        self.scan = Scan(kernel, self)

    def init_scsi(self) -> int:
        """subsys_initcall of scsi_mod. Source: drivers/scsi/scsi.c:init_scsi."""
        self._kernel.driver.bus_register(self.bus)
        self._kernel.printk.pr_notice("SCSI subsystem initialized")
        return 0

    # bus -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _match(dev: Device, drv: Any) -> bool:
        del drv
        return isinstance(dev, ScsiDevice) and dev.inquiry[0] >> 5 == 0

    @staticmethod
    def _probe(dev: Device) -> int:
        drv: Any = dev.driver
        ret: int = drv.probe(dev)
        return ret

    @staticmethod
    def _remove(dev: Device) -> None:
        drv: Any = dev.driver
        drv.remove(dev)

    @staticmethod
    def _uevent(dev: Device, env: dict[str, str]) -> int:
        if isinstance(dev, ScsiDevice):
            env["DEVTYPE"] = "scsi_device"
            env["MODALIAS"] = f"scsi:t-0x{dev.type:02x}"
        return 0

    # hosts -----------------------------------------------------------------------------------------------------

    @property
    def hosts(self) -> tuple[ScsiHost, ...]:
        """Registered hosts, by number."""
        return tuple(self._hosts)

    def scsi_host_alloc(self, template: ScsiHostTemplate) -> ScsiHost | None:
        """A host with the next number."""
        host = ScsiHost(self._next_host, template)
        self._next_host += 1
        host.scan_mutex = self._kernel.locking.mutex_init("shost->scan_mutex", check=False)
        return host

    def scsi_add_host(self, host: ScsiHost, parent: Device) -> int:
        """``scsi hostN: name``; -EINVAL for a host that can queue nothing. Source: hosts.c:scsi_add_host_with_dma."""
        pr = self._kernel.printk
        pr.printk(KERN_INFO, f"scsi host{host.host_no}: {host.hostt.name}")
        if not host.can_queue:
            pr.pr_err(f"scsi host{host.host_no}: can_queue = 0 no longer supported")
            return -EINVAL
        host.parent = parent
        self._tags[host] = {}
        self._idle[host] = self._kernel.sched.init_waitqueue_head()
        self._hosts.append(host)
        return self._kernel.driver.device_register(host)

    def scsi_remove_host(self, host: ScsiHost) -> None:
        """Take all its devices away, youngest first, then the host."""
        if host.removed or host not in self._hosts:
            return
        with host.scan_mutex:
            host.removed = True
            for sdev in reversed(tuple(host.devices)):
                self._remove_device(sdev)
        self._hosts.remove(host)
        timer = self._watch.pop(host, None)
        if timer is not None:
            self._kernel.timers.del_timer_sync(timer)
        self._kernel.driver.device_unregister(host)

    def scsi_host_put(self, host: ScsiHost) -> None:
        """The driver's reference goes; nothing is left to do for memory that Python frees."""
        self._tags.pop(host, None)
        self._idle.pop(host, None)

    # devices ---------------------------------------------------------------------------------------------------

    def scsi_scan_host(self, host: ScsiHost) -> None:
        self.scan.scan_host(host)

    def scsi_add_device(self, host: ScsiHost, channel: int, target: int, lun: int) -> int:
        """Scan one unit now; 0 or -ENODEV when there is none."""
        return self.scan.add_device(host, channel, target, lun)

    def scsi_device_lookup(self, host: ScsiHost, channel: int, target: int, lun: int) -> ScsiDevice | None:
        for sdev in host.devices:
            if (sdev.channel, sdev.id, sdev.lun) == (channel, target, lun) and not sdev.gone:
                return sdev
        return None

    def shost_for_each_device(self, host: ScsiHost) -> Iterator[ScsiDevice]:
        for sdev in tuple(host.devices):
            if not sdev.gone:
                yield sdev

    def make_visible(self, sdev: ScsiDevice) -> int:
        """scsi_sysfs_add_sdev(): register the device, let interfaces see it, bind a driver."""
        driver = self._kernel.driver
        sdev.bus = self.bus
        driver.device_add(sdev)
        for interface in tuple(self.interfaces):
            interface(sdev)
        driver.bus_probe_device(sdev)
        return 0

    def scsi_remove_device(self, sdev: ScsiDevice) -> None:
        with sdev.host.scan_mutex:
            self._remove_device(sdev)

    def _remove_device(self, sdev: ScsiDevice) -> None:
        if sdev.gone:
            return
        if sdev.registered:
            self._kernel.driver.device_unregister(sdev)
        sdev.gone = True
        if sdev in sdev.host.devices:
            sdev.host.devices.remove(sdev)
        if sdev.host.hostt.slave_destroy is not None:
            sdev.host.hostt.slave_destroy(sdev)

    def scsi_rescan_device(self, sdev: ScsiDevice) -> None:
        """Ask for the VPD pages again and let the driver look at the medium."""
        if sdev.gone:
            return
        self.scan.attach_vpd(sdev)
        rescan = getattr(sdev.driver, "rescan", None)
        if rescan is not None:
            rescan(sdev)

    def scsi_test_unit_ready(self, sdev: ScsiDevice, timeout: int, retries: int) -> int:
        """TEST UNIT READY, again while a removable unit says attention; the result. Source: scsi_lib.c."""
        while True:
            got = self.execute(sdev, bytes(6), timeout=timeout, retries=1)
            attention = got.sense is not None and got.sense.key == UNIT_ATTENTION
            retries -= 1
            if not attention or retries <= 0:
                return got.result

    def scsi_change_queue_depth(self, sdev: ScsiDevice, depth: int) -> int:
        """The depth that holds from now on."""
        if depth > 0:
            sdev.queue_depth = depth
        return sdev.queue_depth

    def scsi_block_requests(self, host: ScsiHost) -> None:
        """Let new commands wait."""
        self._blocked[host] = True

    def scsi_unblock_requests(self, host: ScsiHost) -> None:
        self._blocked.pop(host, None)
        if host in self._idle:
            self._kernel.sched.wake_up_all(self._idle[host])

    def sdev_printk(self, level: int, sdev: ScsiDevice, text: str, disk: str = "") -> None:
        """``sd 0:0:0:0: [sda] text``."""
        self._kernel.printk.dev_printk(level, sdev, f"[{disk}] {text}" if disk else text)

    # commands --------------------------------------------------------------------------------------------------

    def execute(
        self,
        sdev: ScsiDevice,
        cdb: bytes,
        *,
        read: int = 0,
        write: bytes = b"",
        timeout: int | None = None,
        retries: int = 3,
    ) -> Result:
        """scsi_execute_req(): run a command and wait for it.

        :param read: bytes to read. :param write: data to send. :param timeout: jiffies.

        A Result with DID_ERROR when there is no memory for the data. What the device did not send is zero.
        """
        size = read or len(write)
        pages = self.alloc_buffer(size)
        if pages is None:
            return Result(HostByte.DID_ERROR << 16, b"", b"", size)
        try:
            if size:
                self.copy_to(pages, write or bytes(size))
            direction = (
                DmaDirection.DMA_FROM_DEVICE if read else DmaDirection.DMA_TO_DEVICE if write else DmaDirection.DMA_NONE
            )
            cmd = self.run(sdev, cdb, direction, pages, size, timeout, retries)
            data = self.copy_from(pages, read) if read and not cmd.result else b""
            if cmd.resid and data:
                data = data[: max(0, read - cmd.resid)].ljust(read, b"\0")
            return Result(cmd.result, data, cmd.sense_buffer, cmd.resid)
        finally:
            self.free_buffer(pages)

    def alloc_buffer(self, size: int) -> list[Page] | None:
        """Pages for ``size`` bytes, any way they come; None without memory."""
        mm = self._kernel.mm
        pages: list[Page] = []
        for _ in range(-(-size // mm.PAGE_SIZE)):
            page = mm.alloc_pages(0)
            if page is None:
                self.free_buffer(pages)
                return None
            pages.append(page)
        return pages

    def free_buffer(self, pages: list[Page]) -> None:
        for page in pages:
            self._kernel.mm.free_pages(page)

    def copy_to(self, pages: list[Page], data: bytes) -> None:
        """Fill a buffer."""
        size = self._kernel.mm.PAGE_SIZE
        write = self._kernel.mm.memory.write
        if len(data) <= size:
            if data:
                write(pages[0].gpa, data)
            return
        for i, page in enumerate(pages):
            part = data[i * size : (i + 1) * size]
            if part:
                write(page.gpa, part)

    def copy_from(self, pages: list[Page], count: int) -> bytes:
        """Read a buffer."""
        size = self._kernel.mm.PAGE_SIZE
        memory = self._kernel.mm.memory
        if count <= size:
            return memory.read(pages[0].gpa, count)
        return b"".join(
            memory.read(page.gpa, min(size, count - i * size)) for i, page in enumerate(pages) if i * size < count
        )

    def run(
        self,
        sdev: ScsiDevice,
        cdb: bytes,
        direction: DmaDirection,
        pages: list[Page],
        size: int,
        timeout: int | None,
        retries: int,
    ) -> ScsiCmnd:
        """Send a command over ``pages`` and wait for it, with the retries of scsi_decide_disposition().

        A check condition is never retried here: that is the caller's business.
        """
        kernel = self._kernel
        kernel.sched.might_sleep()
        limit = timeout or sdev.timeout or SD_TIMEOUT * kernel.timers.HZ
        host = sdev.host
        started, allowed = kernel.timers.jiffies, retries
        while True:
            cmd = ScsiCmnd(sdev, cdb, direction, self._segments(pages, size), limit)
            cmd.allowed = allowed
            if sdev.gone:  # a host that is being removed still lets its disks write their caches back
                cmd.result = HostByte.DID_NO_CONNECT << 16
                return cmd
            done = cmd.waiter = Completion()
            self._dispatch(host, cmd)
            kernel.sched.wait_for_completion(done)
            if not cmd.result or not self._again(cmd, started, retries):
                return cmd
            if cmd.result >> 16 & 0xFF in _RETRIED:
                retries -= 1
            else:
                kernel.sched.msleep(SCSI_QUEUE_DELAY)

    def _again(self, cmd: ScsiCmnd, started: int, retries: int) -> bool:
        """Whether a command that failed is sent again. Source: scsi_lib.c:scsi_complete, scsi_error.c.

        :param started: jiffies when it was sent first. :param retries: how often it may still be.
        """
        host_byte, status = cmd.result >> 16 & 0xFF, cmd.result & 0xFE
        if host_byte == HostByte.DID_PASSTHROUGH:
            cmd.result &= 0xFF00FFFF
            return False
        if host_byte == HostByte.DID_OK and status == SAM_STAT_CHECK_CONDITION:
            self._report_sense(cmd)
        if host_byte in _RETRIED:
            again = retries > 0
        else:
            again = host_byte in _REQUEUED or (host_byte == HostByte.DID_OK and status in _BUSY)
        timers = self._kernel.timers
        wait_for = (cmd.allowed + 1) * cmd.timeout
        if again and started + wait_for < timers.jiffies:
            text = f"tag#{cmd.tag & 0xFFFF} timing out command, waited {wait_for // timers.HZ}s"
            self.sdev_printk(KERN_ERR, cmd.device, text, self._disk_name(cmd.device))
            return False
        return again

    @staticmethod
    def _disk_name(sdev: ScsiDevice) -> str:
        """scmd_name()."""
        data = sdev.driver_data
        return data if isinstance(data, str) else str(data.disk.name) if data is not None else ""

    def _report_sense(self, cmd: ScsiCmnd) -> None:
        """What a unit attention is told as. Source: scsi_error.c:scsi_report_sense."""
        sense = normalize_sense(cmd.sense_buffer)
        text = unit_attention_text(sense) if sense is not None and sense.key == UNIT_ATTENTION else None
        if text is not None:
            self.sdev_printk(KERN_WARNING, cmd.device, text)

    def _segments(self, pages: list[Page], size: int) -> list[ScatterSegment]:
        """One segment a page; neighbours are not joined, which no driver here can tell from joined ones."""
        page_size = self._kernel.mm.PAGE_SIZE
        if size <= page_size:
            return [ScatterSegment(pages[0], 0, size)] if size > 0 and pages else []
        out = []
        for page in pages:
            take = min(size, page_size)
            if take <= 0:
                break
            out.append(ScatterSegment(page, 0, take))
            size -= take
        return out

    def _dispatch(self, host: ScsiHost, cmd: ScsiCmnd) -> None:
        """Get a tag, hand the command to the driver, and again after a while when it says busy."""
        kernel = self._kernel
        inflight = host.inflight
        if host in self._blocked or len(inflight) >= host.can_queue:
            kernel.sched.wait_event(
                self._idle[host], lambda: host not in self._blocked and len(inflight) < host.can_queue
            )
        hwq = kernel.cpus.smp_processor_id() % host.nr_hw_queues
        free = self._tags[host].setdefault(hwq, [])
        tag = hwq << 16 | (free.pop() if free else sum(1 for tag in inflight if tag >> 16 == hwq))
        while tag in inflight:
            tag += 1
        cmd.hwq = hwq
        cmd.tag = tag
        inflight[tag] = cmd
        self._arm(host, cmd)
        while host.hostt.queuecommand(host, cmd):
            kernel.sched.msleep(SCSI_QUEUE_DELAY)

    def scsi_done(self, cmd: ScsiCmnd) -> None:
        """The driver has finished ``cmd``; from any context. A second time is a finding."""
        host = cmd.device.host
        if cmd.done or host.inflight.get(cmd.tag) is not cmd:
            self._kernel.finding(
                "scsi-double-completion", f"BUG: scsi_done() of a command that is not in flight: tag {cmd.tag:#x}"
            )
            return
        cmd.done = True
        del host.inflight[cmd.tag]
        if cmd.sense_buffer:
            cmd.sense_buffer = cmd.sense_buffer[:SCSI_SENSE_BUFFERSIZE]
        self._tags[host][cmd.hwq].append(cmd.tag & 0xFFFF)
        idle = self._idle.get(host)
        if idle is not None and idle.tasks:
            self._kernel.sched.wake_up_all(idle)
        self._kernel.sched.complete(cmd.waiter)

    # timeouts --------------------------------------------------------------------------------------------------

    def _arm(self, host: ScsiHost, cmd: ScsiCmnd) -> None:
        """One timer a host, as one a queue in blk-mq: it looks at everything in flight when it fires."""
        timers = self._kernel.timers
        now = cmd.issued = timers.jiffies
        timer = self._watch.get(host)
        if timer is None:
            timer = self._watch[host] = TimerList(self._timed_out, host)
        expires = now + cmd.timeout
        if timer.base is None or expires < timer.expires:
            timers.mod_timer(timer, expires)

    def _timed_out(self, timer: TimerList) -> None:
        """Ask the driver about commands that are late. Source: scsi_error.c:scsi_timeout, blk-mq.c."""
        host: ScsiHost = timer.data
        timers = self._kernel.timers
        now = timers.jiffies
        soonest: int | None = None
        for cmd in list(host.inflight.values()):
            due = cmd.issued + cmd.timeout
            if due <= now:
                again = host.hostt.eh_timed_out is not None and host.hostt.eh_timed_out(cmd)
                if not again:
                    self._kernel.finding("scsi-timeout", f"{cmd.device.name}: command {cmd.cmnd.hex(' ')} timed out")
                    cmd.result = HostByte.DID_TIME_OUT << 16
                    self.scsi_done(cmd)
                    continue
                cmd.issued = now
                due = now + cmd.timeout
            soonest = due if soonest is None else min(soonest, due)
        if soonest is not None:
            timers.mod_timer(timer, soonest)
