"""The driver, module ``hv_lantern``. It is sound; :data:`FAULT` makes it one of those that are not."""

from __future__ import annotations

import os
import signal
from typing import Any, Final
from zlib import crc32

from hvkernel.abi.ring import VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED, VmbusPacketType
from hvkernel.api.guest import Completion, Import, Kernel, KernelObject, Page
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus, VmbusGpadl
from hvkernel_lantern.wire import CLASS, FLASH, LanternMessage

FAULT: Final[str] = ""
"""``ring``: the ring is five pages of 4 KiB, whatever PAGE_SIZE is. ``pages``: the device is told how many pages of
PAGE_SIZE there are. ``gpadl``: the buffer is freed and never taken back from the host. ``leak``: it is taken back and
never freed. ``module``: what the module allocates at its start stays when it is unloaded. ``two``: as ``pages``, where
the number of processors is odd. ``raise``: the channel's callback raises. ``race``: every question has the same number,
so that of two at a time one is never answered. ``deaf``: what the device says of its own accord is lost. In the probe,
with 64K pages alone, ``kill``: a signal kills the interpreter; ``exit``: it ends; ``spin``: it never ends."""

EIO: Final = 5
ENOMEM: Final = 12
HV_HYP_PAGE_SIZE: Final = 4096
RING_BYTES: Final = 16384
BUFFER_BYTES: Final = 65536


class Lantern:
    """One device."""

    def __init__(self, driver: LanternDriver) -> None:
        self.driver = driver
        self.page: Page | None = None
        self.gpadl = VmbusGpadl()
        self.asked: dict[int, Question] = {}
        self.next = 1
        self.flashes = 0


class Question:
    """One that waits for its answer."""

    def __init__(self) -> None:
        self.done = Completion()
        self.answer: LanternMessage | None = None


class LanternDriver:
    """The module."""

    def __init__(self) -> None:
        self.driver = HvDriver("hv_lantern", (HvVmbusDeviceId(CLASS),), self.probe, remove=self.remove)
        self.page: Page | None = None

    def kernel_object(self) -> KernelObject:
        return KernelObject(
            "hv_lantern",
            "HYPERV_LANTERN",
            "drivers/misc/hv_lantern.o",
            self.init,
            exit=self.exit,
            imports=(Import(Vmbus, ("__vmbus_driver_register", "vmbus_open", "vmbus_establish_gpadl")),),
            aliases=(f"vmbus:{CLASS.hex()}",),
        )

    def init(self, kernel: Kernel) -> int:
        self.kernel = kernel
        self.vmbus: Vmbus = kernel.symbol(Vmbus)
        self.page = kernel.mm.alloc_pages(0, zero=True, lowmem=True)
        return -ENOMEM if self.page is None else self.vmbus.vmbus_driver_register(self.driver, "hv_lantern")

    def exit(self, kernel: Kernel) -> None:
        self.vmbus.vmbus_driver_unregister(self.driver)
        if self.page is not None and FAULT != "module":
            kernel.mm.free_pages(self.page)

    def probe(self, dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        if self.kernel.mm.PAGE_SIZE == 65536:
            self.end_the_interpreter()
        lantern = Lantern(self)
        size = self.vmbus.VMBUS_RING_SIZE(RING_BYTES)
        if FAULT == "ring":
            size = 5 * HV_HYP_PAGE_SIZE
        ret = self.vmbus.vmbus_open(dev.channel, size, size, b"", self.on_channel, (dev, lantern))
        if ret:
            return ret
        dev.driver_data = lantern
        ret = self.share(dev, lantern)
        if ret:
            self.remove(dev)
        return ret

    def share(self, dev: HvDevice, lantern: Lantern) -> int:
        """Let the device read a buffer; -EIO when it read another one."""
        mm = self.kernel.mm
        page = lantern.page = mm.alloc_pages((BUFFER_BYTES - 1 >> mm.PAGE_SHIFT).bit_length(), zero=True, lowmem=True)
        if page is None:
            return -ENOMEM
        data = bytes(at * 251 // 4096 & 0xFF for at in range(page.size))
        mm.memory.write(page.gpa, data)
        ret = self.vmbus.vmbus_establish_gpadl(dev.channel, page.gpa, page.size, lantern.gpadl)
        if ret:
            return ret
        return self.check(dev, 0, page.size)

    def check(self, dev: HvDevice, first: int, size: int) -> int:
        """Ask the device for the checksum of a part of the buffer; -EIO when it read another one.

        :param first: first page of HV_HYP_PAGE_SIZE.
        :param size: bytes, whole pages.
        """
        lantern: Lantern = dev.driver_data
        assert lantern.page is not None
        mm = self.kernel.mm
        unit = mm.PAGE_SIZE if self.in_native_pages() else HV_HYP_PAGE_SIZE
        message = LanternMessage(lantern.gpadl.gpadl_handle, size // unit, 0, first)
        question = Question()
        number = 1 if FAULT == "race" else lantern.next
        lantern.next += 1
        lantern.asked[number] = question
        ret = self.vmbus.vmbus_sendpacket(
            dev.channel,
            message.pack(),
            number,
            VmbusPacketType.VM_PKT_DATA_INBAND,
            VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
        )
        if ret:
            return ret
        self.kernel.sched.wait_for_completion(question.done)
        expected = crc32(mm.memory.read(lantern.page.gpa + first * HV_HYP_PAGE_SIZE, size))
        return 0 if question.answer is not None and question.answer.checksum == expected else -EIO

    def in_native_pages(self) -> bool:
        """Whether this driver has that fault."""
        return FAULT == "pages" or (FAULT == "two" and self.kernel.cpus.num_online_cpus() % 2 == 1)

    def end_the_interpreter(self) -> None:
        """Do it, if this driver has such a fault."""
        match FAULT:
            case "kill":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                print("good bye")
                os._exit(3)
            case "spin":
                while True:
                    pass

    def remove(self, dev: HvDevice) -> None:
        lantern: Lantern = dev.driver_data
        if lantern.gpadl.gpadl_handle and FAULT != "gpadl":
            self.vmbus.vmbus_teardown_gpadl(dev.channel, lantern.gpadl)
        self.vmbus.vmbus_close(dev.channel)
        if lantern.page is not None and FAULT != "leak":
            self.kernel.mm.free_pages(lantern.page)

    def on_channel(self, context: Any) -> None:
        dev, lantern = context
        if FAULT == "raise":
            raise KeyError("lantern")
        for packet in self.vmbus.foreach_vmbus_pkt(dev.channel):
            data = bytes(self.vmbus.hv_pkt_data(packet))
            if packet.type == VmbusPacketType.VM_PKT_DATA_INBAND:
                lantern.flashes += data == FLASH and FAULT != "deaf"
                continue
            question = lantern.asked.pop(packet.trans_id, None)
            if question is not None:
                question.answer = LanternMessage.unpack(data[: LanternMessage.SIZE])
                self.kernel.sched.complete(question.done)
