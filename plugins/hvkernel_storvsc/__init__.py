"""Plugin ``hv_storvsc``: the synthetic SCSI and IDE controllers, driver and device.

The driver is drivers/scsi/storvsc_drv.c of Linux 6.1.192 (``vsc``); the device serves raw disk images (``vsp``).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from types import ModuleType
from typing import TYPE_CHECKING, Final

from hvkernel.api.hooks import hookimpl

if TYPE_CHECKING:
    from hvkernel.api.guest import Kernel
    from hvkernel.api.host import Device, DeviceRegistry, DeviceSlot
    from hvkernel.api.matrix import Axis, Drive, Invariant

HVKERNEL_CONTRACT: Final = "1.2"

__all__ = [
    "HVKERNEL_CONTRACT",
    "hv_abi",
    "hv_kconfig",
    "hv_matrix_axes",
    "hv_matrix_drives",
    "hv_matrix_invariants",
    "hv_register_devices",
    "hv_register_drivers",
]


@hookimpl
def hv_abi() -> Sequence[ModuleType]:
    """The storage protocol's structures."""
    from . import wire

    return (wire,)


@hookimpl
def hv_kconfig(release: str) -> str | None:
    """HYPERV_STORAGE. A file ``Kconfig.<release>`` beside ``Kconfig`` holds from that release on."""

    def key(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("."))

    here = files(__name__)
    found = [entry.name for entry in here.iterdir() if entry.name.startswith("Kconfig.")]
    versions = sorted((name.removeprefix("Kconfig.") for name in found), key=key)
    usable = [version for version in versions if key(version) <= key(release)]
    name = f"Kconfig.{usable[-1]}" if usable else "Kconfig"
    return here.joinpath(name).read_text("utf-8")


@hookimpl
def hv_register_drivers(kernel: Kernel) -> None:
    """The module hv_storvsc."""
    from .vsc import Storvsc

    kernel.register_object(Storvsc(kernel).kernel_object())


@hookimpl
def hv_register_devices(registry: DeviceRegistry) -> None:
    """The synthetic SCSI controller and the disks of the synthetic IDE controller."""
    from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID

    from .vsp import StorageController

    def scsi_controller(slot: DeviceSlot) -> Device:
        return StorageController(slot)

    def ide_disk(slot: DeviceSlot) -> Device:
        return StorageController(slot, ide=True)

    registry.register(HV_SCSI_GUID, scsi_controller, owner="hv_storvsc")
    registry.register(HV_IDE_GUID, ide_disk, owner="hv_storvsc")


@hookimpl
def hv_matrix_axes() -> Sequence[Axis]:
    """How large the disks are."""
    from .matrix import AXES

    return AXES


@hookimpl
def hv_matrix_drives() -> Sequence[Drive]:
    """Every unit of the controllers is written and read."""
    from .drive import DRIVES

    return DRIVES


@hookimpl
def hv_matrix_invariants() -> Sequence[Invariant]:
    """What a controller and its driver owe one another."""
    from .matrix import INVARIANTS

    return INVARIANTS
