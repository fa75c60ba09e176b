"""The table of device classes that ``drivers/hv/channel_mgmt.c`` knows, and what the guest does with each."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, NamedTuple

from hvkernel.abi import guids
from hvkernel.abi.vmbus import VmbusDeviceType as Dev

__all__ = ["VMBUS_DEVS", "VMBUS_UNSUPPORTED_DEVS", "VmbusDevice", "device_type_of"]


class VmbusDevice(NamedTuple):
    """``struct vmbus_device``."""

    dev_type: Dev
    guid: bytes | None
    """Class in wire order; ``None`` in the row of the unknown classes."""
    perf_device: bool
    """Spread its channels over the CPUs; others stay on the connect CPU."""
    allowed_in_isolated: bool
    pref_ring_size: int = 0
    """Bytes; 0 means that the driver has its own idea."""


VMBUS_DEVS: Final[tuple[VmbusDevice, ...]] = (
    VmbusDevice(Dev.HV_IDE, guids.HV_IDE_GUID, True, False),
    VmbusDevice(Dev.HV_SCSI, guids.HV_SCSI_GUID, True, True),
    VmbusDevice(Dev.HV_FC, guids.HV_SYNTHFC_GUID, True, False),
    VmbusDevice(Dev.HV_NIC, guids.HV_NIC_GUID, True, True),
    VmbusDevice(Dev.HV_ND, guids.HV_ND_GUID, True, False),
    VmbusDevice(Dev.HV_PCIE, guids.HV_PCIE_GUID, False, False),
    VmbusDevice(Dev.HV_FB, guids.HV_SYNTHVID_GUID, False, False),
    VmbusDevice(Dev.HV_KBD, guids.HV_KBD_GUID, False, False),
    VmbusDevice(Dev.HV_MOUSE, guids.HV_MOUSE_GUID, False, False),
    VmbusDevice(Dev.HV_KVP, guids.HV_KVP_GUID, False, False),
    VmbusDevice(Dev.HV_TS, guids.HV_TS_GUID, False, True),
    VmbusDevice(Dev.HV_HB, guids.HV_HEART_BEAT_GUID, False, True),
    VmbusDevice(Dev.HV_SHUTDOWN, guids.HV_SHUTDOWN_GUID, False, True),
    VmbusDevice(Dev.HV_FCOPY, guids.HV_FCOPY_GUID, False, False, 0x4000),
    VmbusDevice(Dev.HV_BACKUP, guids.HV_VSS_GUID, False, False),
    VmbusDevice(Dev.HV_DM, guids.HV_DM_GUID, False, False),
    VmbusDevice(Dev.HV_UNKNOWN, None, False, False, 0x11000),
)
"""Indexed by ``enum vmbus_device_type`` (drivers/hv/channel_mgmt.c:vmbus_devs)."""

VMBUS_UNSUPPORTED_DEVS: Final = (guids.HV_AVMA1_GUID, guids.HV_AVMA2_GUID, guids.HV_RDV_GUID, guids.HV_IMC_GUID)
"""Classes that the guest passes over in silence (drivers/hv/channel_mgmt.c:vmbus_unsupported_devs)."""

_BY_GUID: Final = MappingProxyType({bytes(row.guid): int(row.dev_type) for row in VMBUS_DEVS if row.guid is not None})


def device_type_of(guid: bytes) -> int | None:
    """Return the device type of a class, ``None`` for an unknown one."""
    return _BY_GUID.get(guid)
