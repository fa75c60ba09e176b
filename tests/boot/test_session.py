"""Boots as a program makes them: the default VM of each real config, jit, numbers that differ, the initramfs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot import session
from hvkernel.boot.initrd import Initrd
from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import boot
from hvkernel.config import VmConfig
from hvkernel.machine import VpTopology

DATA = Path(__file__).parents[1] / "data"
CONFIGS = sorted(path.name.removesuffix(".config.gz") for path in (DATA / "configs").glob("*.config.gz"))
DEFCONFIGS = ("arm64_defconfig_6.1", "x86_64_defconfig_6.1")
CLOUD = "debian12-6.1.192-cloud-amd64"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_default_vm_of_each_real_config(name: str, start: Any) -> None:
    guest = start(name)
    report = guest.report()
    if name in DEFCONFIGS:
        assert (report.outcome, report.host.generation) == ("panic", 2)
        assert report.reason == "VFS: Unable to mount root fs on unknown-block(0,0)"
        return
    assert report.outcome == "up"
    (disk,) = guest.kernel.block.disks
    sector = guest.call(guest.kernel.block.read, disk, 1, 1)
    assert sector == guest.disks[0].pread(512, 512)
    assert sector.startswith(b"EFI PART")
    assert {device.state for device in report.devices} <= {"bound", "not-modelled"}


@pytest.mark.parametrize("name", [CLOUD, "azurelinux3-64k-aarch64", "alpine-virt.x86"])
def test_jit_changes_no_byte_of_the_report(name: str, config: Any) -> None:
    plain, jit = (boot(BootRequest(config=config(name), vm=VmConfig(), jit=jit)) for jit in (False, True))
    assert plain.to_json() == jit.to_json()


@pytest.mark.parametrize("name", [CLOUD, "debian12-6.1.192-cloud-arm64"])
def test_cpu_number_hardware_id_and_vp_index_are_three_numbers(name: str, start: Any) -> None:
    vps = [VpTopology(2, 8), VpTopology(0, 3), VpTopology(3, 21), VpTopology(1, 5)]
    guest = start(name, vps=vps)
    assert guest.report().outcome == "up"
    cpus = [(cpu.cpu, cpu.vp.hw_id, cpu.vp.vp_index) for cpu in guest.kernel.cpus.cpus]
    assert [number for number, _, _ in cpus] == [0, 1, 2, 3]
    assert cpus[0][1:] == (8, 2)
    assert sorted(pair[1:] for pair in cpus) == [(3, 0), (5, 1), (8, 2), (21, 3)]
    simps = {share.cpu for share in guest.report().sharing if share.via == "simp"}
    assert simps == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("modules", "outcome", "reason"),
    [
        (None, "up", None),
        (("hv_vmbus", "hv_storvsc", "sd_mod"), "up", None),
        (("hv_storvsc", "sd_mod", "hv_vmbus", "ext4"), "up", None),
        (("hv_vmbus", "sd_mod"), "hung", "initramfs: root device not found"),
        (("hv_storvsc",), "hung", "initramfs: root device not found"),
        ((), "hung", "initramfs: root device not found"),
    ],
)
def test_what_the_initramfs_holds_decides(
    modules: tuple[str, ...] | None, outcome: str, reason: str | None, config: Any
) -> None:
    report = boot(BootRequest(config=config(CLOUD), vm=VmConfig(), initrd=Initrd(modules)))
    assert (report.outcome, report.reason) == (outcome, reason)


def test_the_command_line_reaches_architecture_code(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def spinlocks() -> list[str]:
        texts = [line.text for line in start(CLOUD).report().dmesg]
        return [text for text in texts if text.startswith("Hyper-V: PV spinlocks ")]

    assert spinlocks() == ["Hyper-V: PV spinlocks enabled"]
    monkeypatch.setattr(session, "COMMAND_LINE", b"console=ttyS0 hv_nopvspin")
    assert spinlocks() == ["Hyper-V: PV spinlocks disabled"]


def test_a_kernel_alone_whose_drivers_are_modules_panics(config: Any) -> None:
    report = boot(BootRequest(config=config(CLOUD), vm=VmConfig(), initrd=Initrd((), exists=False)))
    assert (report.outcome, report.reason) == ("panic", "VFS: Unable to mount root fs on unknown-block(0,0)")


def test_nothing_is_left_shared_but_what_a_running_guest_needs(start: Any) -> None:
    report = start(CLOUD).report()
    kinds = sorted({share.via.partition(" 0x")[0] for share in report.sharing})
    assert kinds == ["gpadl", "hypercall page", "monitor", "reference tsc", "siefp", "simp", "vp assist"]
