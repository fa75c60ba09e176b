"""What ``hvkernel matrix`` varies and checks of storage."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.api.matrix import Axis, Evidence, Invariant, Plan

__all__ = ["AXES", "INVARIANTS"]

CONTROLLERS: Final = (str(HV_SCSI_GUID), str(HV_IDE_GUID))


VERSIONS: Final = ("6.2", "6.0", "5.1", "4.2", "2.0")
"""Versions of the protocol, in the order in which the driver asks for them (storvsc_drv.c: protocol_version[])."""

OLD: Final = MappingProxyType({"4.2": "storvsc_win7", "2.0": "storvsc_win7"})
"""Those that 5.19 and later do not ask for any more."""


def _disk_size(plan: Plan, value: str) -> None:
    plan.set_vm("disks", [{"size": value}])


def _version(plan: Plan, value: str) -> None:
    if value != "host":
        for kind in ("scsi", "ide"):
            plan.set_protocol(kind, value)


def _dvd(plan: Plan, value: str) -> None:
    if value == "medium":
        plan.set_vm("dvd", {"size": "2M"})


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
    release = evidence.kernel.release
    asked = [version for version in VERSIONS if version not in OLD or release.has(OLD[version])]
    for device in bound:
        best = next((version for version in asked if version in device.accepts), None)
        if device.accepts and device.protocol != best:
            yield f"{device.name} speaks {device.protocol}; the driver asks for {best} before"
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
    Axis(
        "storvsc_version",
        ("host", *VERSIONS),
        _version,
        "Highest version of the storage protocol that the host accepts.",
        needs=OLD,
    ),
    Axis("dvd", ("empty", "medium"), _dvd, "What is in the DVD drive, on hosts that have one."),
)

INVARIANTS: Final = (
    Invariant(
        "storvsc-controllers",
        ("up", "events", "unbound"),
        _controllers,
        "Each bound storage controller has agreed on the highest protocol that both sides have, and is one SCSI host.",
    ),
)
