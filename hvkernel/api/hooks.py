"""The plugin contract: every hook, by phase of a machine's life.

A plugin is a package behind one entry point of group ``hvkernel``. It implements any of the hooks below with
:data:`hookimpl`, and says which contract it was written for in a module attribute::

    HVKERNEL_CONTRACT = "1.0"

Hooks are called once per guest, plugin by plugin in the order of their entry-point names. A plugin that raises is
named in the report (``distribution[entry point]``); its other hooks and the other plugins go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from hvkernel.api.guest import Arch, Kernel
    from hvkernel.api.host import ArchHost, DeviceRegistry
    from hvkernel.api.matrix import Axis, Drive, Invariant

__all__ = [
    "CONTRACT",
    "GROUP",
    "ArchPlugin",
    "DefaultHost",
    "hookimpl",
    "hookspec",
    "hv_abi",
    "hv_arch",
    "hv_kconfig",
    "hv_matrix_axes",
    "hv_matrix_drives",
    "hv_matrix_invariants",
    "hv_register_devices",
    "hv_register_drivers",
]

GROUP: Final = "hvkernel"
"""The entry-point group and the pluggy project name."""

CONTRACT: Final = (1, 2)
"""Version of this contract: the major number changes when an old plugin would break, the minor when hooks are added."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Marks a function of a plugin as the implementation of the hook with the same name."""


@dataclass(frozen=True, slots=True)
class DefaultHost:
    """A machine that an architecture's guests are booted on when the user names none."""

    profile: str
    """Name of the host profile."""
    generation: int
    """1 or 2."""
    needs: tuple[str, ...] = ()
    """Kconfig symbols that must be ``y`` for this row to apply."""


@dataclass(frozen=True, slots=True)
class ArchPlugin:
    """What an architecture brings: its name and the makers of its two halves."""

    name: str
    """The kernel's name of the architecture, as in ``arch/<name>``."""
    abi: str
    """The name under which ``hvkernel abi --arch`` shows it (``x86_64``, ``arm64``)."""
    bits: tuple[int, ...]
    """Word sizes that a guest may have."""
    page_sizes: tuple[int, ...]
    """Guest page sizes in bytes, the default first."""
    default_hosts: tuple[DefaultHost, ...]
    """Tried in order; the first row whose needs are met is taken."""
    guest: Callable[[int], Arch]
    """Makes the guest's half for a word size in bits."""
    host: Callable[[], ArchHost]
    """Makes the hypervisor's half."""


# describe ------------------------------------------------------------------------------------------------------


@hookspec
def hv_abi() -> Sequence[ModuleType]:
    """Return the plugin's wire modules, so that ``hvkernel abi`` shows and checks them too.

    What ``hvkernel decode`` and the Wireshark dissector make of the plugin's packets, the modules say themselves: see
    :mod:`hvkernel.abi.meaning`.

    Called only when the ABI is printed or tested, never on a boot. An exception drops this plugin's items only.
    """
    raise NotImplementedError


@hookspec
def hv_kconfig(release: str) -> str | None:
    """Return the plugin's own Kconfig text: the symbols that it owns and the core data leaves out.

    :param release: kernel release whose Kconfig data are in use, as ``"6.1"``.

    Called before the ``.config`` is evaluated. ``None`` means that the plugin has no symbol in that release. A syntax
    error in the text is an input error that names the plugin and the line.
    """
    raise NotImplementedError


@hookspec
def hv_arch() -> ArchPlugin | None:
    """Return the architecture that the plugin brings.

    Called first of all. Two plugins that bring one name are a fault of the second.
    """
    raise NotImplementedError


# boot ----------------------------------------------------------------------------------------------------------


@hookspec
def hv_register_drivers(kernel: Kernel) -> None:
    """Declare the plugin's kernel objects (modules) to the build.

    :param kernel: the guest kernel, before its first instruction ran; nothing but registration is allowed yet.

    Called once per guest, before boot. Each object says its Kconfig symbol; whether it is built in, a module or absent
    follows from the ``.config``, and its ``init`` runs at its initcall level or when it is loaded.
    """
    raise NotImplementedError


# offer ---------------------------------------------------------------------------------------------------------


@hookspec
def hv_register_devices(registry: DeviceRegistry) -> None:
    """Declare the devices that the plugin can be on the host's side of the bus.

    :param registry: the host's table of device classes, still open for registration.

    Called once per machine, before the VMBus server makes its offers. A class that no plugin declares is still
    offered where the profile says so; it opens as a ring that answers nothing.
    """
    raise NotImplementedError


# matrix --------------------------------------------------------------------------------------------------------


@hookspec
def hv_matrix_axes() -> Sequence[Axis]:
    """Return what ``hvkernel matrix`` may vary besides its own axes; see :class:`hvkernel.api.matrix.Axis`.

    Called once by each process of a run, never on a boot; a plugin returns the same axes each time. An axis with the
    name of another is a fault of the second. An exception drops this plugin's axes.
    """
    raise NotImplementedError


@hookspec
def hv_matrix_drives() -> Sequence[Drive]:
    """Return how ``hvkernel matrix`` uses the plugin's devices; see :class:`hvkernel.api.matrix.Drive`.

    Called once by each process of a run, never on a boot. Two drives of one name are a fault of the second, and so is
    one that is called as an invariant is. A class may have several drives, of several plugins. A drive that raises is
    broken in that cell; an exception of the hook itself drops this plugin's drives.
    """
    raise NotImplementedError


@hookspec
def hv_matrix_invariants() -> Sequence[Invariant]:
    """Return what must hold in every cell besides the built-in invariants; see :class:`hvkernel.api.matrix.Invariant`.

    Called once by each process of a run, never on a boot. An invariant that raises is broken in that cell; an exception
    of the hook itself drops this plugin's invariants.
    """
    raise NotImplementedError
