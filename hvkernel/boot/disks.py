"""Which devices a VM has, and where its disks are attached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final

from hvkernel.api.host import DiskError, DiskImage, StorageUnit
from hvkernel.api.host.disk import BLANK_SIZE
from hvkernel.config.devices import vm_devices
from hvkernel.config.errors import InputError
from hvkernel.config.vm import Disk

if TYPE_CHECKING:
    from hvkernel.boot.request import BootRequest
    from hvkernel.config.profile import Device, HostProfile
    from hvkernel.config.vm import VmConfig

__all__ = ["close_disks", "open_disks", "open_medium", "parameters", "settle_devices"]

LUNS: Final = 64
"""Disks of one SCSI controller (Microsoft's documentation of Hyper-V storage I/O performance)."""


def settle_devices(request: BootRequest, profile: HostProfile, generation: int) -> tuple[Device, ...]:
    """Return the devices of the VM, in the profile's order.

    :raises InputError: they contradict one another.
    """
    try:
        return vm_devices(request.vm, profile, generation)
    except ValueError as error:
        raise InputError(request.vm_file or request.where, "device", limit=str(error)) from None


def parameters(
    vm: VmConfig,
    profile: HostProfile,
    generation: int,
    devices: Sequence[Device],
    disks: tuple[DiskImage, ...],
    where: str,
    medium: DiskImage | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what each device is told, by its name, above all its disks.

    The first disk stands where the generation boots from, the others behind the first SCSI controller. Generation 1
    boots from the first device of the IDE class (each of them is one disk), generation 2 from the SCSI controller,
    which also has the profile's DVD drive.

    :param medium: what is in that drive.
    :raises InputError: more disks than there are places, or no drive for the medium.
    """
    ide = [device.name for device in devices if device.kind == "ide"]
    scsi = [device.name for device in devices if device.kind == "scsi"]
    luns = [lun for lun in range(LUNS) if lun != profile.storage.dvd_lun]
    owner = profile.name if vm.devices is None else "this VM"
    none = "" if vm.disks is not None or ide or scsi else "; disks = [] makes one without disks"
    found: dict[str, dict[str, Any]] = {}
    for number, image in enumerate(disks):
        wanted = vm.disks[number].controller if vm.disks else None
        if wanted == "ide" or (wanted is None and number == 0 and generation == 1 and ide):
            if not ide:
                limit = f"{owner} has no place for one more IDE disk{none}"
                raise InputError(where, f"disks[{number}]", image.name, limit)
            found[ide.pop(0)] = {"units": (StorageUnit(image=image),)}
        else:
            if not scsi or not luns:
                limit = f"{owner} has no place for one more SCSI disk{none}"
                raise InputError(where, f"disks[{number}]", image.name, limit)
            given = found.setdefault(scsi[0], {"units": ()})
            given["units"] = (*given["units"], StorageUnit(image=image, lun=luns.pop(0)))
    if scsi and profile.storage.dvd_lun is not None and generation == 2:
        given = found.setdefault(scsi[0], {"units": ()})
        given["units"] = (*given["units"], StorageUnit("dvd", medium, lun=profile.storage.dvd_lun))
    elif medium is not None:
        limit = f"{owner} has no DVD drive" if scsi else "a DVD drive needs a SCSI controller"
        raise InputError(where, "dvd", medium.name, f"{limit} (host {profile.name}, generation {generation})")
    for device in devices:
        if device.kind == "scsi" and not device.subchannels:
            found.setdefault(device.name, {})["subchannels"] = -(-vm.cpus // profile.storage.vps_per_channel) - 1
    return found


def open_disks(vm: VmConfig, where: str) -> tuple[DiskImage, ...]:
    """Open the images of the VM's disks, or make blank ones.

    :raises InputError: an image cannot be used, or is given twice and written to.
    """
    opened: list[DiskImage] = []
    try:
        for number, disk in enumerate(vm.disks if vm.disks is not None else (Disk(path=""),)):
            if disk.path:
                opened.append(DiskImage.open(disk.path, read_only=disk.read_only))
            else:
                opened.append(DiskImage.blank(Random(f"{vm.seed}/disk {number}"), disk.size or BLANK_SIZE))
    except DiskError as error:
        close_disks(opened)
        raise InputError(str(error.name), limit=error.problem) from None
    for number, image in enumerate(opened):
        twin = next((n for n in range(number) if image.same_file(opened[n])), None)
        if twin is not None and not (image.read_only and opened[twin].read_only):
            close_disks(opened)
            limit = f"is disks[{twin}] too; an image that is written to belongs to one disk"
            raise InputError(where, f"disks[{number}]", image.name, limit)
    return tuple(opened)


def open_medium(vm: VmConfig, disks: Iterable[DiskImage], where: str) -> DiskImage | None:
    """Open what is in the DVD drive, or make a blank medium.

    :param disks: the VM's, open.
    :raises InputError: the image cannot be used, or is a disk that is written to.
    """
    if vm.dvd is None:
        return None
    if vm.dvd.size is not None:
        return DiskImage.blank(Random(f"{vm.seed}/dvd"), vm.dvd.size)
    try:
        medium = DiskImage.open(vm.dvd.path, read_only=True)
    except DiskError as error:
        raise InputError(str(error.name), limit=error.problem) from None
    twin = next((number for number, disk in enumerate(disks) if not disk.in_memory and disk.same_file(medium)), None)
    if twin is not None:
        medium.close()
        raise InputError(where, "dvd", medium.name, f"is disks[{twin}] too")
    return medium


def close_disks(disks: Iterable[DiskImage]) -> None:
    """Close images; what was written is in the files."""
    for disk in disks:
        disk.close()
