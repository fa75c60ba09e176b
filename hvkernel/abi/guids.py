"""GUIDs of the device classes that a host offers, under the kernel's names.

Each is a `~hvkernel.abi.wire.Guid`: 16 bytes in wire order whose text is the canonical form.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from hvkernel.abi.wire import Guid

HV_NIC_GUID: Final = Guid.parse("f8615163-df3e-46c5-913f-f2d2f965ed0e")
"""Synthetic network adapter. (include/linux/hyperv.h:1386 @6.1.192)"""
HV_IDE_GUID: Final = Guid.parse("32412632-86cb-44a2-9b5c-50d1417354f5")
"""Disks of the IDE controller, in their accelerated form. (include/linux/hyperv.h:1394 @6.1.192)"""
HV_SCSI_GUID: Final = Guid.parse("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f")
"""Synthetic SCSI controller. (include/linux/hyperv.h:1402 @6.1.192)"""
HV_SHUTDOWN_GUID: Final = Guid.parse("0e0b6031-5213-4934-818b-38d90ced39db")
"""Guest shutdown service. (include/linux/hyperv.h:1410 @6.1.192)"""
HV_TS_GUID: Final = Guid.parse("9527e630-d0ae-497b-adce-e80ab0175caf")
"""Time synchronisation service. (include/linux/hyperv.h:1418 @6.1.192)"""
HV_HEART_BEAT_GUID: Final = Guid.parse("57164f39-9115-4e78-ab55-382f3bd5422d")
"""Heartbeat service. (include/linux/hyperv.h:1426 @6.1.192)"""
HV_KVP_GUID: Final = Guid.parse("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6")
"""Key/value data exchange service. (include/linux/hyperv.h:1434 @6.1.192)"""
HV_DM_GUID: Final = Guid.parse("525074dc-8985-46e2-8057-a307dc18a502")
"""Dynamic memory. (include/linux/hyperv.h:1442 @6.1.192)"""
HV_MOUSE_GUID: Final = Guid.parse("cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a")
"""Synthetic mouse. (include/linux/hyperv.h:1450 @6.1.192)"""
HV_KBD_GUID: Final = Guid.parse("f912ad6d-2b17-48ea-bd65-f927a61c7684")
"""Synthetic keyboard. (include/linux/hyperv.h:1458 @6.1.192)"""
HV_VSS_GUID: Final = Guid.parse("35fa2e29-ea23-4236-96ae-3a6ebacba440")
"""Volume shadow copy (backup) service. (include/linux/hyperv.h:1465 @6.1.192)"""
HV_SYNTHVID_GUID: Final = Guid.parse("da0a7802-e377-4aac-8e77-0558eb1073f8")
"""Synthetic video. (include/linux/hyperv.h:1472 @6.1.192)"""
HV_SYNTHFC_GUID: Final = Guid.parse("2f9bcc4a-0069-4af3-b76b-6fd0be528cda")
"""Synthetic fibre channel adapter. (include/linux/hyperv.h:1480 @6.1.192)"""
HV_FCOPY_GUID: Final = Guid.parse("34d14be3-dee4-41c8-9ae7-6b174977c192")
"""Guest file copy service. (include/linux/hyperv.h:1489 @6.1.192)"""
HV_ND_GUID: Final = Guid.parse("8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501")
"""Network Direct (RDMA). (include/linux/hyperv.h:1497 @6.1.192)"""
HV_PCIE_GUID: Final = Guid.parse("44c4f61d-4444-4400-9d52-802e27ede19f")
"""PCI Express pass-through. (include/linux/hyperv.h:1506 @6.1.192)"""
HV_AVMA1_GUID: Final = Guid.parse("f8e65716-3cb3-4a06-9a60-1889c5cccab5")
"""Automatic virtual machine activation, first channel; Linux has no driver. (include/linux/hyperv.h:1521 @6.1.192)"""
HV_AVMA2_GUID: Final = Guid.parse("3375baf4-9e15-4b30-b765-67acb10d607b")
"""Automatic virtual machine activation, second channel; Linux has no driver. (include/linux/hyperv.h:1525 @6.1.192)"""
HV_RDV_GUID: Final = Guid.parse("276aacf4-ac15-426c-98dd-7521ad3f01fe")
"""Remote desktop virtualisation; Linux has no driver. (include/linux/hyperv.h:1529 @6.1.192)"""
HV_IMC_GUID: Final = Guid.parse("c376c1c3-d276-48d2-90a9-c04748072c60")
"""Initial machine configuration; Linux has no driver. (include/linux/hyperv.h:1533 @6.1.192)"""
srv_id_template: Final = Guid.parse("00000000-facb-11e6-bd58-64006a7986d3")
"""Template of vsock service ids: the port is its first four bytes. (net/vmw_vsock/hyperv_transport.c:154 @6.1.192)"""

GUIDS: Final = MappingProxyType(
    {
        "HV_NIC_GUID": HV_NIC_GUID,
        "HV_IDE_GUID": HV_IDE_GUID,
        "HV_SCSI_GUID": HV_SCSI_GUID,
        "HV_SHUTDOWN_GUID": HV_SHUTDOWN_GUID,
        "HV_TS_GUID": HV_TS_GUID,
        "HV_HEART_BEAT_GUID": HV_HEART_BEAT_GUID,
        "HV_KVP_GUID": HV_KVP_GUID,
        "HV_DM_GUID": HV_DM_GUID,
        "HV_MOUSE_GUID": HV_MOUSE_GUID,
        "HV_KBD_GUID": HV_KBD_GUID,
        "HV_VSS_GUID": HV_VSS_GUID,
        "HV_SYNTHVID_GUID": HV_SYNTHVID_GUID,
        "HV_SYNTHFC_GUID": HV_SYNTHFC_GUID,
        "HV_FCOPY_GUID": HV_FCOPY_GUID,
        "HV_ND_GUID": HV_ND_GUID,
        "HV_PCIE_GUID": HV_PCIE_GUID,
        "HV_AVMA1_GUID": HV_AVMA1_GUID,
        "HV_AVMA2_GUID": HV_AVMA2_GUID,
        "HV_RDV_GUID": HV_RDV_GUID,
        "HV_IMC_GUID": HV_IMC_GUID,
        "srv_id_template": srv_id_template,
    }
)
"""Every GUID of this module by its kernel name (include/linux/hyperv.h:1386 @6.1.192 and the sources above)."""

_BY_VALUE: Final = MappingProxyType({value: name for name, value in GUIDS.items()})


def guid_name(guid: bytes) -> str | None:
    """Return the kernel's name of a class GUID given as its 16 wire bytes, or None when it has none."""
    return _BY_VALUE.get(Guid(guid))
