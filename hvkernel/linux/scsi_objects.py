"""The SCSI modules of the slice: scsi_mod, sd_mod, sr_mod, sg, scsi_transport_fc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.api.guest.kernel import Export, Import, KernelObject
from hvkernel.api.guest.scsi import Scsi as ScsiApi
from hvkernel.linux.scsi_cdrom import ScsiGeneric, SrDriver
from hvkernel.linux.scsi_sd import SdDriver

if TYPE_CHECKING:
    from hvkernel.linux.kernel import Kernel

_EXPORTS = (
    Export(
        ScsiApi,
        (
            "scsi_host_alloc",
            "scsi_add_host_with_dma",
            "scsi_scan_host",
            "__scsi_add_device",
            "scsi_remove_device",
            "scsi_remove_host",
            "scsi_host_put",
            "scsi_rescan_device",
            "scsi_device_lookup",
            "__scsi_iterate_devices",
            "scsi_done",
            "scsi_change_queue_depth",
            "scsi_block_requests",
            "scsi_unblock_requests",
        ),
    ),
)


def register(kernel: Kernel) -> None:
    """Declare them."""
    needs = (Import(ScsiApi, ("scsi_register_driver",)),)

    def link(k: Kernel) -> None:
        k.symbols.export(ScsiApi, k.scsi, "scsi_mod")

    def init_sd(k: Kernel) -> int:
        driver = SdDriver(k, k.scsi.bus)
        k.scsi.bus.shutdown = _shutdown
        return k.driver.driver_register(driver)

    def init_sr(k: Kernel) -> int:
        return k.driver.driver_register(SrDriver(k, k.scsi.bus))

    def init_sg(k: Kernel) -> int:
        generic = ScsiGeneric(k)
        k.scsi.interfaces.append(generic.add)
        for host in k.scsi.hosts:
            for sdev in tuple(host.devices):
                if sdev.registered:
                    generic.add(sdev)
        return 0

    # drivers/scsi/Kconfig: CHR_DEV_SG depends on SCSI. The modelled graph has it not, so it comes as the file says.
    sg = min("CHR_DEV_SG", "SCSI", key=lambda name: "nmy".find(kernel.config.value(name)))
    for obj in (
        KernelObject(
            "scsi_mod", "SCSI", "drivers/scsi/scsi_mod.o", lambda k: k.scsi.init_scsi(), level="subsys", link=link,
            exports=_EXPORTS, function="init_scsi",
        ),
        KernelObject(
            "sd_mod", "BLK_DEV_SD", "drivers/scsi/sd_mod.o", init_sd, imports=needs, function="init_sd",
            aliases=("scsi:t-0x00*", "scsi:t-0x07*", "scsi:t-0x0e*", "scsi:t-0x14*"),
        ),
        KernelObject(
            "sr_mod", "BLK_DEV_SR", "drivers/scsi/sr_mod.o", init_sr, imports=needs, function="init_sr",
            aliases=("scsi:t-0x04*", "scsi:t-0x05*"),
        ),
        KernelObject("sg", sg, "drivers/scsi/sg.o", init_sg, imports=needs, function="init_sg"),
    ):  # fmt: skip
        kernel.register_object(obj)


def _shutdown(dev: object) -> None:
    driver = getattr(dev, "driver", None)
    shutdown = getattr(driver, "shutdown", None)
    if shutdown is not None:
        shutdown(dev)
