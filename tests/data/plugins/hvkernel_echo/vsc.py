"""The driver."""

from __future__ import annotations

from typing import Any

from hvkernel.abi.ring import VmbusPacketType
from hvkernel.api.guest import Import, Kernel, KernelObject
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus
from hvkernel_echo.wire import CLASS, EchoMessage


class EchoDriver:
    """Module hv_echo."""

    def __init__(self) -> None:
        self.driver = HvDriver("hv_echo", (HvVmbusDeviceId(CLASS),), self.probe)

    def kernel_object(self) -> KernelObject:
        return KernelObject(
            "hv_echo",
            "HYPERV_ECHO",
            "drivers/misc/hv_echo.o",
            self.init,
            imports=(Import(Vmbus, ("__vmbus_driver_register",)),),
            aliases=(f"vmbus:{CLASS.hex()}",),
        )

    def init(self, kernel: Kernel) -> int:
        self.kernel = kernel
        self.vmbus = kernel.symbol(Vmbus)
        return self.vmbus.vmbus_driver_register(self.driver, "hv_echo")

    def probe(self, dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        size = self.vmbus.VMBUS_RING_SIZE(4096)
        ret = self.vmbus.vmbus_open(dev.channel, size, size, b"", self.on_channel, dev)
        if ret:
            return ret
        message = EchoMessage(asked=21, answered=0).pack()
        return self.vmbus.vmbus_sendpacket(dev.channel, message, 1, VmbusPacketType.VM_PKT_DATA_INBAND, 1)

    def on_channel(self, dev: Any) -> None:
        for packet in self.vmbus.foreach_vmbus_pkt(dev.channel):
            message = EchoMessage.unpack(bytes(self.vmbus.hv_pkt_data(packet)))
            self.kernel.printk.dev_info(dev, f"asked {message.asked}, got {message.answered}")
