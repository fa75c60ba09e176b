"""Kbuild: which Hyper-V objects a configuration builds in, as modules, or not at all, and whether it links.

The table is that of the Makefiles of ``drivers/hv``, ``arch/*/hyperv`` and the drivers' directories. What the kernel's
``obj-$(subst m,y,$(CONFIG_HYPERV))`` does stands as ``builtin=True``: built in whenever the symbol is not n.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hvkernel.kconfig.build import Build
from hvkernel.kconfig.data import version_key
from hvkernel.kconfig.explain import Explanation

__all__ = [
    "OBJECTS",
    "KbuildObject",
    "Linkable",
    "Undefined",
    "Verdict",
    "is_hyperv",
    "link_check",
    "objects",
    "verdicts",
]

_HYPERV_NAME: Final = re.compile(r"(?:^|_)(?:HYPERV|MSHV)(?:_|$)")
State = Literal["y", "m", "n"]
How = Literal["built in", "module", "absent", "does not link"]


@dataclass(frozen=True, slots=True)
class KbuildObject:
    """One line of a Makefile.

    :ivar name: module name, or the object's when it is never one.
    :ivar symbol: Kconfig symbol that builds it.
    :ivar path: the object in the tree.
    :ivar builtin: built in whenever the symbol is y or m.
    :ivar also: further symbols that must be y (an inner Makefile's conditions).
    :ivar since: first release with this line, or None.
    :ivar until: last release with this line, or None.
    """

    name: str
    symbol: str
    path: str
    builtin: bool = False
    also: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None

    def exists(self, release: str) -> bool:
        """Whether the release's Makefiles have this line."""
        key = version_key(release)
        return (self.since is None or version_key(self.since) <= key) and (
            self.until is None or key <= version_key(self.until)
        )

    def state(self, build: Build) -> State:
        """y, m or n in a build."""
        value = build.value(self.symbol)
        if value not in ("y", "m") or not all(build.y(name) for name in self.also):
            return "n"
        return "y" if value == "y" or self.builtin else "m"


OBJECTS: Final = (
    KbuildObject("mshyperv", "HYPERVISOR_GUEST", "arch/x86/kernel/cpu/mshyperv.o"),
    KbuildObject("hv_init", "HYPERV", "arch/x86/hyperv/hv_init.o", builtin=True, also=("X86",)),
    KbuildObject("hv_apic", "HYPERV", "arch/x86/hyperv/hv_apic.o", builtin=True, also=("X86_64",)),
    KbuildObject(
        "hv_spinlock", "HYPERV", "arch/x86/hyperv/hv_spinlock.o", builtin=True, also=("X86_64", "PARAVIRT_SPINLOCKS")
    ),
    KbuildObject("hv_core", "HYPERV", "arch/arm64/hyperv/hv_core.o", builtin=True, also=("ARM64",)),
    KbuildObject("hv_common", "HYPERV", "drivers/hv/hv_common.o", builtin=True),
    KbuildObject("hyperv_timer", "HYPERV_TIMER", "drivers/clocksource/hyperv_timer.o"),
    KbuildObject("hyperv-iommu", "HYPERV_IOMMU", "drivers/iommu/hyperv-iommu.o"),
    KbuildObject("hv_vmbus", "HYPERV", "drivers/hv/hv_vmbus.o", until="6.17"),
    KbuildObject("hv_vmbus", "HYPERV_VMBUS", "drivers/hv/hv_vmbus.o", since="6.18"),
    KbuildObject("hv_utils", "HYPERV_UTILS", "drivers/hv/hv_utils.o"),
    KbuildObject("hv_balloon", "HYPERV_BALLOON", "drivers/hv/hv_balloon.o"),
    KbuildObject("mshv_root", "MSHV_ROOT", "drivers/hv/mshv_root.o", since="6.15"),
    KbuildObject("mshv_vtl", "MSHV_VTL", "drivers/hv/mshv_vtl.o", since="6.19"),
    KbuildObject("hv_storvsc", "HYPERV_STORAGE", "drivers/scsi/hv_storvsc.o"),
    KbuildObject("hv_netvsc", "HYPERV_NET", "drivers/net/hyperv/hv_netvsc.o"),
    KbuildObject("hyperv-keyboard", "HYPERV_KEYBOARD", "drivers/input/serio/hyperv-keyboard.o"),
    KbuildObject("hid-hyperv", "HID_HYPERV_MOUSE", "drivers/hid/hid-hyperv.o"),
    KbuildObject("hyperv_fb", "FB_HYPERV", "drivers/video/fbdev/hyperv_fb.o", until="6.19"),
    KbuildObject("hyperv_drm", "DRM_HYPERV", "drivers/gpu/drm/hyperv/hyperv_drm.o"),
    KbuildObject("pci-hyperv", "PCI_HYPERV", "drivers/pci/controller/pci-hyperv.o"),
    KbuildObject("pci-hyperv-intf", "PCI_HYPERV_INTERFACE", "drivers/pci/controller/pci-hyperv-intf.o"),
    KbuildObject("hv_sock", "HYPERV_VSOCKETS", "net/vmw_vsock/hv_sock.o"),
    KbuildObject("uio_hv_generic", "UIO_HV_GENERIC", "drivers/uio/uio_hv_generic.o"),
    KbuildObject("mana", "MICROSOFT_MANA", "drivers/net/ethernet/microsoft/mana/mana.o"),
)
"""Every object of the Hyper-V guest, early ones first; a name occurs twice where its symbol changed."""


_BUILDING: Final = frozenset(one.symbol for one in OBJECTS)


def is_hyperv(symbol: str) -> bool:
    """Whether a symbol is Hyper-V's own by its name or by what it builds: the Kconfig data have all of those."""
    return symbol in _BUILDING or _HYPERV_NAME.search(symbol) is not None


def objects(release: str) -> tuple[KbuildObject, ...]:
    """The objects that a release's Makefiles have."""
    return tuple(o for o in OBJECTS if o.exists(release))


@dataclass(frozen=True, slots=True)
class Linkable:
    """An object for the link check.

    :ivar name: how to call it in an error.
    :ivar state: y, m or n.
    :ivar exports: symbols that others may use: EXPORT_SYMBOL, or for built-in code any global.
    :ivar imports: symbols that it uses.
    """

    name: str
    state: State
    exports: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Undefined:
    """A reference that does not resolve: of ld for built-in code, of modpost for a module.

    :ivar obj: the object that refers.
    :ivar symbol: what it refers to.
    :ivar owner: the object that has the symbol but is a module or absent; None when none has it.
    :ivar owner_state: that object's state, or None.
    """

    obj: str
    symbol: str
    owner: str | None
    owner_state: State | None

    def __str__(self) -> str:
        if self.owner is None:
            return f"{self.obj}: undefined reference to {self.symbol}, which nothing exports"
        how = "a module" if self.owner_state == "m" else "not built"
        return f"{self.obj}: undefined reference to {self.symbol}, which is in {self.owner}, {how}"


def link_check(built: Iterable[Linkable]) -> tuple[Undefined, ...]:
    """The undefined references of a build, in the order of its objects.

    Built-in code may use built-in code, a module both; a symbol that an absent object has is undefined.

    :raises ValueError: two built objects export one symbol.
    """
    parts = tuple(built)
    owners: dict[str, Linkable] = {}
    for part in parts:
        for symbol in part.exports:
            other = owners.get(symbol)
            if other is not None and other.state != "n" and part.state != "n":
                raise ValueError(f"{symbol} is exported by {other.name} and by {part.name}")
            if other is None or other.state == "n":
                owners[symbol] = part
    found: list[Undefined] = []
    for part in parts:
        if part.state == "n":
            continue
        for symbol in part.imports:
            owner = owners.get(symbol)
            if owner is None:
                found.append(Undefined(part.name, symbol, None, None))
            elif owner.state == "n" or (part.state == "y" and owner.state == "m"):
                found.append(Undefined(part.name, symbol, owner.name, owner.state))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one object.

    :ivar obj: the object.
    :ivar how: built in, module, absent or does not link.
    :ivar explanation: why, for one that is absent.
    :ivar undefined: the references that fail, for one that does not link.
    """

    obj: KbuildObject
    how: How
    explanation: Explanation | None
    undefined: tuple[Undefined, ...] = ()


def verdicts(build: Build, linkables: Sequence[Linkable] = ()) -> tuple[Verdict, ...]:
    """What becomes of each Hyper-V object of the build's release and architecture.

    :param build: the evaluated configuration.
    :param linkables: exports and imports of the objects that are modelled, by module name.
    """
    undefined: dict[str, list[Undefined]] = {}
    for error in link_check(linkables):
        undefined.setdefault(error.obj, []).append(error)
    found = []
    for obj in objects(build.data_release):
        if obj.path.startswith("arch/") and not obj.path.startswith(f"arch/{build.arch}/"):
            continue
        state = obj.state(build)
        if obj.name in undefined and state != "n":
            found.append(Verdict(obj, "does not link", None, tuple(undefined[obj.name])))
        elif state == "n":
            needed = (obj.symbol, *obj.also) if build.enabled(obj.symbol) else (obj.symbol,)
            blocked = next((name for name in needed if not build.enabled(name)), obj.symbol)
            found.append(Verdict(obj, "absent", build.explain(blocked)))
        else:
            found.append(Verdict(obj, "built in" if state == "y" else "module", None))
    return tuple(found)
