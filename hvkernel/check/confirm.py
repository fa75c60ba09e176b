"""A verdict held against the modelled boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.boot.fit import EMULATED_IDE
from hvkernel.boot.initrd import Initrd
from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import boot
from hvkernel.config.checkreport import Boot
from hvkernel.config.vm import VmConfig, change_vm

if TYPE_CHECKING:
    from pathlib import Path

    from hvkernel.boot.plugins import Plugins
    from hvkernel.check.judge import TargetVerdict
    from hvkernel.kconfig import Build

__all__ = ["confirm"]


def confirm(verdict: TargetVerdict, config: Path | str, build: Build, initrd: Initrd, plugins: Plugins) -> Boot | None:
    """Boot the kernel on the target's host, and say whether it comes up just where the rules for the boot hold.

    :param config: path of the ``.config``, or its text.
    :returns: ``None`` for a target that the kernel does not fit.
    """
    if verdict.state == "unfit":
        return None
    target = verdict.target
    host = target.modelled_host(build.arch, efi=build.y("EFI"))
    if host is None:
        reason = f"{target.name} on {build.arch} is not modelled"
        return Boot(outcome="not-modelled", reason=reason, host="", agrees=None)
    name, _, generation = host.partition("/gen")
    request = BootRequest(
        config,
        change_vm(VmConfig(host=name), {"generation": int(generation)} if generation else {}, where=target.name),
        config_name=build.source,
        arch=build.arch,
        release=build.release,
        initrd=Initrd((), exists=False) if target.initrd == "none" else initrd,
    )
    report = boot(request, plugins)
    if report.reason == EMULATED_IDE:
        return Boot(outcome="not-modelled", reason=EMULATED_IDE, host=host, agrees=None)
    expected = not any(problem.rule.boot for problem in verdict.problems)
    agrees = (report.outcome == "up") == expected
    return Boot(outcome=report.outcome, reason=report.reason or "", host=host, agrees=agrees)
