"""Where the disks of a VM stand: the boot disk by generation, the others, the DVD drive, the sub-channels."""

from __future__ import annotations

from typing import Any

import pytest

from hvkernel.api.host import DiskImage
from hvkernel.boot.disks import parameters
from hvkernel.config.errors import InputError
from hvkernel.config.profile import load_profile
from hvkernel.config.vm import VmConfig


def places(host: str, generation: int, disks: list[Any], cpus: int = 4) -> dict[str, list[tuple[str, int]]]:
    vm = VmConfig.model_validate({"disks": disks, "cpus": cpus})
    images = tuple(DiskImage(f"disk{number}", -1, 512, False) for number in range(len(disks)))
    profile = load_profile(host)
    found = parameters(vm, profile, generation, profile.devices(generation), images, "vm.toml")
    return {
        name: [(unit.image.name if unit.image else unit.kind, unit.lun) for unit in given.get("units", ())]
        for name, given in found.items()
    }


@pytest.mark.parametrize(
    ("host", "generation", "disks", "wanted"),
    [
        ("ws2022", 2, ["a"], {"scsi0": [("disk0", 0)]}),
        ("ws2022", 1, ["a", "b"], {"ide0": [("disk0", 0)], "scsi0": [("disk1", 0)]}),
        ("ws2022", 1, [{"path": "a", "controller": "scsi"}], {"scsi0": [("disk0", 0)]}),
        ("azure-gen2", 2, [], {"scsi0": [("dvd", 2)], "scsi1": []}),
        (
            "azure-gen2",
            2,
            ["a", "b", "c"],
            {"scsi0": [("disk0", 0), ("disk1", 1), ("disk2", 3), ("dvd", 2)], "scsi1": []},
        ),
    ],
)
def test_places(host: str, generation: int, disks: list[Any], wanted: dict[str, Any]) -> None:
    assert places(host, generation, disks) == wanted


def test_more_disks_than_places() -> None:
    assert len(places("ws2022", 2, ["a"] * 64)["scsi0"]) == 64
    with pytest.raises(
        InputError, match=r"vm.toml: disks\[64\] = 'disk64': ws2022 has no place for one more SCSI disk"
    ):
        places("ws2022", 2, ["a"] * 65)
    ide = {"path": "a", "controller": "ide"}
    with pytest.raises(InputError, match=r"vm.toml: disks\[1\] = 'disk1': ws2022 has no place for one more IDE disk"):
        places("ws2022", 1, [ide, ide])
    with pytest.raises(InputError, match=r"vm.toml: disks\[0\] = 'disk0': ws2022 has no place"):
        places("ws2022", 2, [ide])


@pytest.mark.parametrize(("cpus", "wanted"), [(1, 0), (16, 0), (17, 1), (64, 3), (240, 14)])
def test_a_scsi_controller_has_a_channel_for_16_processors(cpus: int, wanted: int) -> None:
    vm = VmConfig.model_validate({"cpus": cpus})
    profile = load_profile("ws2022")
    found = parameters(vm, profile, 2, profile.devices(2), (), "vm.toml")
    assert found["scsi0"]["subchannels"] == wanted
