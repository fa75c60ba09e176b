"""What ``hvkernel matrix`` varies and checks of storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.api.matrix import Axis, Evidence, Invariant, Plan

__all__ = ["AXES", "INVARIANTS"]

CONTROLLERS: Final = (str(HV_SCSI_GUID), str(HV_IDE_GUID))


def _disk_size(plan: Plan, value: str) -> None:
    plan.set_vm("disks", [{"size": value}])


def _controllers(evidence: Evidence) -> Iterator[str]:
    """Whoever is bound has agreed on a protocol, and all on one: the driver has one variable for all of them.

    Source: storvsc_drv.c storvsc_channel_init, vmstor_proto_version.
    """
    bound = [device for device in evidence.devices if device.class_guid in CONTROLLERS and device.driver is not None]
    for device in bound:
        if device.protocol is None:
            yield f"{device.name} is bound to {device.driver} and has no protocol version"
    versions = sorted({device.protocol for device in bound if device.protocol is not None})
    if len(versions) > 1:
        yield f"the controllers speak {' and '.join(versions)}; the driver has one version for all"
    hosts = len(evidence.kernel.scsi.hosts)
    if hosts != len(bound):
        yield f"{hosts} SCSI hosts for {len(bound)} controllers that are bound"


AXES: Final = (
    Axis(
        "disk_size",
        ("64M", "3T"),
        _disk_size,
        "Size of the root disk; 3T is beyond what 32-bit block numbers of 512 bytes reach: READ CAPACITY (16) "
        "and sixteen-byte commands.",
    ),
)

INVARIANTS: Final = (
    Invariant(
        "storvsc-controllers",
        ("up", "events", "unbound"),
        _controllers,
        "Each bound storage controller has agreed on a protocol, all on the same, and each is one SCSI host.",
    ),
)
