"""Random values of graph symbols on real configurations: the rules and the modelled boot say the same of each."""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import pytest

from hvkernel.boot.fit import EMULATED_IDE
from hvkernel.boot.initrd import Initrd
from hvkernel.boot.plugins import Plugins
from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import Session, boot, configure
from hvkernel.config.profile import load_profile
from hvkernel.config.report import BootReport
from hvkernel.config.vm import VmConfig
from hvkernel.kconfig import ConfigError
from hvkernel.kconfig.data import RELEASES, load_data
from hvkernel.kconfig.overlay import lay_over
from hvkernel.matrix.expect import Oracle, vm_obstacle

CONFIGS = sorted((Path(__file__).parents[1] / "data" / "configs").glob("*.gz"))
CASES, PARTS, SEED = 200, 4, 4
ON_THE_WAY = (
    "ACPI", "BLK_DEV_INITRD", "BLK_DEV_SD", "BLOCK", "EFI", "HYPERV", "HYPERVISOR_GUEST", "HYPERV_STORAGE",
    "HYPERV_VMBUS", "HYPERV_VTL_MODE", "MODULES", "NET", "PARAVIRT", "PCI", "SCSI", "SCSI_FC_ATTRS", "SCSI_LOWLEVEL",
    "SMP", "X86_LOCAL_APIC", "X86_X2APIC",
)  # fmt: skip
"""Drawn in more than half of the cases, so that many of them do not come up."""
HOSTS = {
    "x86": (("ws2022", 1), ("ws2022", 2), ("azure-gen1", 1), ("azure-gen2", 2), ("wsl2", 2), ("ws2012r2", 1)),
    "arm64": (("azure-arm64", 2),),
}
INITRDS = (Initrd(), Initrd(), Initrd((), exists=False), Initrd(("hv_vmbus", "scsi_mod", "sd_mod")))


def draw(rng: random.Random) -> BootRequest:
    """One configuration, changed at random, on one host."""
    path = rng.choice(CONFIGS)
    text = gzip.decompress(path.read_bytes()).decode()
    arch = "arm64" if "CONFIG_ARM64=y" in text else "x86"
    release = rng.choice((None, None, *RELEASES))
    names = re.findall(r"(?m)^config (\w+)", load_data(release or "6.1", arch).text.partition("# Outside:")[0])
    values = {
        rng.choice(ON_THE_WAY if rng.random() < 0.6 else names): rng.choice("nnmy") for _ in range(rng.randint(1, 4))
    }
    profile, generation = rng.choice(HOSTS[arch])
    vm = VmConfig.model_validate({"host": profile, "generation": generation})
    told = f"{path.name} with {values}"
    return BootRequest(lay_over(text, values), vm, told, arch=arch, release=release, initrd=rng.choice(INITRDS))


def obstacle_and_report(request: BootRequest, plugins: Plugins, oracle: Oracle) -> tuple[str, BootReport]:
    """What keeps the guest from coming up by the rules, or nothing; and what became of it."""
    vm = request.vm
    assert vm.host is not None
    assert vm.generation is not None
    build = configure(request, plugins)
    obstacles = [oracle.obstacle(request, build, load_profile(vm.host), vm.generation)]

    def ask(session: Session, _: BootReport) -> None:
        obstacles.append(vm_obstacle(session, plugins.workshop.release(build.release)))

    report = boot(request, plugins, ask)
    return next(filter(None, obstacles), ""), report


@pytest.mark.parametrize("part", range(PARTS))
def test_the_rules_and_the_modelled_boot_agree(part: int, plugins: Plugins) -> None:
    rng = random.Random(f"{SEED} {part}")
    oracle, one = Oracle(), plugins.for_one_guest()
    outcomes, wrong = [], []
    for _ in range(CASES // PARTS):
        request = draw(rng)
        try:
            obstacle, report = obstacle_and_report(request, one, oracle)
        except ConfigError:
            continue  # big-endian: refused before anything is built
        if report.reason == EMULATED_IDE:
            continue
        outcomes.append(report.outcome == "up")
        if (report.outcome == "up") == bool(obstacle):
            where = f"{request.config_name} on {request.vm.host}/gen{request.vm.generation}, {request.initrd}"
            wrong.append(f"{where}: {report.outcome} ({report.reason}), the rules say {obstacle or 'nothing'}")
    assert wrong == []
    assert min(outcomes.count(True), outcomes.count(False)) >= 5
