"""What plugins bring to a matrix."""

from __future__ import annotations

from typing import Any

from hvkernel.abi.guids import HV_IDE_GUID, HV_SCSI_GUID
from hvkernel.boot.plugins import load


class Asked:
    """Stands for a plan: remembers what it was asked for."""

    def __init__(self) -> None:
        self.vm_keys: list[tuple[str, Any]] = []

    def set_config(self, symbol: str, value: str) -> None:
        raise AssertionError(symbol)

    def set_vm(self, key: str, value: Any) -> None:
        self.vm_keys.append((key, value))

    def add_event(self, name: str) -> None:
        raise AssertionError(name)


def test_hv_matrix_axes() -> None:
    axes = {axis.name: axis for _, brought in load().call("hv_matrix_axes") for axis in brought}
    axis = axes["disk_size"]
    assert axis.values == ("64M", "3T")
    plan = Asked()
    axis.apply(plan, "3T")
    assert plan.vm_keys == [("disks", [{"size": "3T"}])]


def test_hv_matrix_drives() -> None:
    drives = {drive.name: drive for _, brought in load().call("hv_matrix_drives") for drive in brought}
    assert drives["storage-data"].classes == (HV_SCSI_GUID, HV_IDE_GUID)
    assert all(one.about.endswith(".") for one in drives.values())


def test_hv_matrix_invariants() -> None:
    brought = [(info.name, one) for info, all_ in load().call("hv_matrix_invariants") for one in all_]
    assert ("hv_storvsc", "storvsc-controllers") in [(name, one.name) for name, one in brought]
    assert all(one.about.endswith(".") and one.moments for _, one in brought)
