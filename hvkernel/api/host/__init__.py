"""The host's half of the plugin contract: what a device on the bus and an architecture see of the hypervisor."""

from __future__ import annotations

from hvkernel.api.host.arch import (
    ArchFeatures,
    ArchHost,
    FeatureWords,
    FirmwareShape,
    Partition,
    PendingCall,
    ProcessorView,
    SyntheticRegister,
)
from hvkernel.api.host.disk import SECTOR_SIZE, DiskError, DiskImage, StorageUnit
from hvkernel.api.host.vmbus import (
    STATUS_SUCCESS,
    STATUS_UNSUCCESSFUL,
    Channel,
    Device,
    DeviceFactory,
    DeviceRegistry,
    DeviceSlot,
    GuestBuffer,
    Offer,
    Packet,
    Services,
    Timer,
)

__all__ = [
    "SECTOR_SIZE",
    "STATUS_SUCCESS",
    "STATUS_UNSUCCESSFUL",
    "ArchFeatures",
    "ArchHost",
    "Channel",
    "Device",
    "DeviceFactory",
    "DeviceRegistry",
    "DeviceSlot",
    "DiskError",
    "DiskImage",
    "FeatureWords",
    "FirmwareShape",
    "GuestBuffer",
    "Offer",
    "Packet",
    "Partition",
    "PendingCall",
    "ProcessorView",
    "Services",
    "StorageUnit",
    "SyntheticRegister",
    "Timer",
]
