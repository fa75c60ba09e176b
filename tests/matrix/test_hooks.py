"""What plugins bring to a matrix."""

from __future__ import annotations

from typing import Any

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.boot.plugins import load


class Asked:
    """Stands for a plan: remembers what it was asked for."""

    def __init__(self) -> None:
        self.vm_keys: list[tuple[str, Any]] = []
        self.protocols: list[tuple[str, str]] = []

    def set_config(self, symbol: str, value: str) -> None:
        raise AssertionError(symbol)

    def set_vm(self, key: str, value: Any) -> None:
        self.vm_keys.append((key, value))

    def set_protocol(self, kind: str, highest: str) -> None:
        self.protocols.append((kind, highest))

    def add_event(self, name: str) -> None:
        raise AssertionError(name)


def test_hv_matrix_axes() -> None:
    axes = {axis.name: axis for _, brought in load().call("hv_matrix_axes") for axis in brought}
    axis = axes["disk_size"]
    assert axis.values == ("64M", "3T")
    plan = Asked()
    axis.apply(plan, "3T")
    axes["dvd"].apply(plan, "empty")
    axes["dvd"].apply(plan, "medium")
    assert plan.vm_keys == [("disks", [{"size": "3T"}]), ("dvd", {"size": "2M"})]
    versions = axes["storvsc_version"]
    for value in versions.values:
        versions.apply(plan, value)
    assert plan.protocols == [(kind, value) for value in versions.values[1:] for kind in ("scsi", "ide")]
    assert set(versions.needs) == {"4.2", "2.0"}


def test_hv_matrix_drives() -> None:
    drives = {drive.name: drive for _, brought in load().call("hv_matrix_drives") for drive in brought}
    assert drives["storage-data"].classes == (HV_SCSI_GUID, HV_IDE_GUID)
    assert all(one.about.endswith(".") for one in drives.values())


def test_hv_matrix_invariants() -> None:
    brought = [(info.name, one) for info, all_ in load().call("hv_matrix_invariants") for one in all_]
    assert ("hv_storvsc", "storvsc-controllers") in [(name, one.name) for name, one in brought]
    assert all(one.about.endswith(".") and one.moments for _, one in brought)
