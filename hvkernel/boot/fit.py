"""Whether a kernel can run on a VM at all: what a real host would not even start, or what is not modelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hvkernel.config.errors import InputError

if TYPE_CHECKING:
    from hvkernel.api.hooks import ArchPlugin, DefaultHost
    from hvkernel.config.profile import HostProfile
    from hvkernel.config.vm import VmConfig
    from hvkernel.kconfig import Build

__all__ = ["EMULATED_IDE", "settle_host", "unfit"]

EMULATED_IDE: Final = "boots from emulated IDE, not modelled"
"""What is said of a kernel that a real host does run, and the model does not."""


def settle_host(
    vm: VmConfig,
    build: Build,
    defaults: Sequence[DefaultHost],
    where: str,
    load: Callable[[str, str], HostProfile],
) -> tuple[HostProfile, int]:
    """Return the host profile and generation of ``vm``; what it leaves open follows from the kernel.

    :param defaults: the architecture's own choice of hosts, tried in order.
    :param where: where the VM was described, for the error.
    :param load: gives the profile of a name; its second argument is ``where``.
    :raises InputError: no such profile, or a generation, processor count or protocol version that it does not have.
    """
    generation: int | None = vm.generation
    if vm.host is not None:
        profile = load(vm.host, where)
    else:
        rows = [row for row in defaults if all(build.y(name) for name in row.needs)]
        row = next((row for row in rows if generation in (None, *load(row.profile, where).generations)), rows[0])
        profile = load(row.profile, where)
        generation = generation or row.generation
    chosen = generation or profile.default_generation
    if chosen not in profile.generations:
        has = " and ".join(map(str, profile.generations))
        raise InputError(where, "generation", chosen, f"host {profile.name} has generation {has} only")
    if vm.cpus > profile.cpuid.max_vps:
        raise InputError(where, "cpus", vm.cpus, f"host {profile.name} has at most {profile.cpuid.max_vps}")
    if vm.vmbus is not None:
        try:
            profile = profile.model_copy(update={"vmbus": profile.vmbus.capped(vm.vmbus)})
        except ValueError as error:
            raise InputError(where, "vmbus", f"{vm.vmbus >> 16}.{vm.vmbus & 0xFFFF}", str(error)) from None
    for kind, highest in vm.protocols.items():
        try:
            profile = profile.capped(kind, highest)
        except ValueError as error:
            raise InputError(where, f"protocols.{kind}", f"{highest >> 16}.{highest & 0xFFFF}", str(error)) from None
    return profile, chosen


def unfit(vm: VmConfig, build: Build, profile: HostProfile, generation: int, arch: ArchPlugin) -> str | None:
    """Return why the kernel cannot run on this VM, ``None`` when it can."""
    if arch.name not in profile.architectures:
        runs = ", ".join(profile.architectures)
        return f"host {profile.name} runs {runs} guests, this kernel is {build.arch}"
    if build.bits not in arch.bits:
        return f"{arch.name} guests are {' or '.join(map(str, arch.bits))}-bit, this kernel is {build.bits}-bit"
    if vm.page_size is not None and vm.page_size != build.page_size:
        return f"the VM wants {vm.page_size // 1024}K pages, this kernel has {build.page_size // 1024}K"
    if generation == 2 and build.bits != 64:
        return f"generation 2 starts 64-bit kernels only; this one is {build.bits}-bit"
    if generation == 2 and not profile.acpi.direct_boot and not build.y("EFI"):
        return f"generation 2 has UEFI only; this kernel has EFI={build.value('EFI')}"
    if generation == 1 and not build.enabled("HYPERV_STORAGE") and build.enabled("ATA_PIIX"):
        return EMULATED_IDE
    return None
