"""Whether a guest should come up: the rules of ``hvkernel check``, and what of it is no matter of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hvkernel.check.rules import broken_boot_rules
from hvkernel.config.targets import Target, load_target

if TYPE_CHECKING:
    from hvkernel.boot.request import BootRequest
    from hvkernel.boot.session import Session
    from hvkernel.config.profile import HostProfile
    from hvkernel.config.releases import KernelRelease
    from hvkernel.kconfig import Build

__all__ = ["Oracle", "vm_obstacle"]

FIRST_VERSION: Final = 2 << 16 | 4
"""Lowest VMBus version that a kernel without capability ``vmbus_win7`` asks for: VERSION_WIN8.

Source: drivers/hv/connection.c:vmbus_versions of 6.1.192.
"""


class Oracle:
    """The targets that it judges by, each read once."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}

    def obstacle(self, request: BootRequest, build: Build, profile: HostProfile, generation: int) -> str:
        """Return what of the configuration keeps the guest from coming up on a host; empty: nothing does."""
        broken = broken_boot_rules(build, self._target(profile, generation), request.initrd)
        return f"{broken[0]} is {build.value(broken[0])}" if broken and broken[0].isupper() else "".join(broken[:1])

    def _target(self, profile: HostProfile, generation: int) -> Target:
        name = "wsl2" if profile.acpi.direct_boot else f"hyperv-gen{generation}"
        target = self._targets.get(name)
        if target is None:
            # The cell says whether there is an initramfs: WSL itself has none, a VM of that profile may. And of the
            # architectures that WSL runs on, the modelled host has its own.
            change = {"initrd": "any", "arches": profile.architectures} if name == "wsl2" else {"initrd": "any"}
            target = self._targets[name] = load_target(name).model_copy(update=change)
        return target


def vm_obstacle(session: Session, release: KernelRelease) -> str:
    """Return what of the VM keeps a guest from coming up whose configuration is as it should be; empty: nothing."""
    versions = session.host.profile.vmbus.versions
    if not release.has("vmbus_win7") and max(versions, default=0) < FIRST_VERSION:
        return f"the host speaks VMBus {max(versions) >> 16}.{max(versions) & 0xFFFF} at most"
    if not session.disks:
        return "the VM has no disk"
    return ""
