"""What a plugin brings to ``hvkernel matrix``: axes to vary, drives that use its devices, invariants that must hold.

An axis is a name with values and a function that asks for a value; a drive is a function that uses the devices of some
classes and says what went wrong; an invariant is a function that looks at a guest and says what is wrong. They come
through the hooks ``hv_matrix_axes``, ``hv_matrix_drives`` and ``hv_matrix_invariants`` of :mod:`hvkernel.api.hooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from random import Random

    from hvkernel.abi.wire import Guid
    from hvkernel.api.guest import Kernel
    from hvkernel.api.guest.hyperv import HvDevice

__all__ = [
    "Axis",
    "Clash",
    "Drive",
    "Driven",
    "Driving",
    "Evidence",
    "Invariant",
    "Moment",
    "Noticed",
    "Plan",
    "Reached",
    "SeenChannel",
    "SeenDevice",
]

T = TypeVar("T")

Moment = Literal["booted", "up", "events", "unbound", "ended"]
"""When an invariant is looked at. ``booted``: the boot is over, however it ended. ``up``: the guest is up and its
devices were driven. ``events``: an event is over and the devices were driven again; without events, as ``up``.
``unbound``: no VMBus device has a driver any more. ``ended``: the modules are unloaded, and Hyper-V has back what the
kernel can give back. A guest that did not come up has ``booted`` alone."""


# axes ----------------------------------------------------------------------------------------------------------


class Plan(Protocol):
    """What a cell asks for. Each axis adds to it; the later of two axes wins."""

    def set_config(self, symbol: str, value: str) -> None:
        """Lay ``CONFIG_symbol=value`` over the base ``.config``: ``y``, ``m``, ``n``, a number or a text.

        Cells in which it would not come out of the evaluation like that are never made.
        """
        ...

    def set_vm(self, key: str, value: Any) -> None:
        """Set a key of the VM file, as ``cpus``, ``memory``, ``disks``."""
        ...

    def set_protocol(self, kind: str, highest: str) -> None:
        """Let the host's devices of a kind, as ``scsi``, accept no version of their protocol above this, as ``5.1``.

        Cells are made only with hosts that have that version.
        """
        ...

    def add_event(self, name: str) -> None:
        """Let an event happen once the guest is up, after those that were asked for before."""
        ...


@dataclass(frozen=True, slots=True)
class Clash:
    """Values of two axes that no machine has together: the cell is never made."""

    value: str
    """Of the axis that says it."""
    axis: str
    """Name of the other axis."""
    values: tuple[str, ...]
    """Of the other axis."""
    why: str


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that is varied."""

    name: str
    """As written on the command line: lower case, no ``=`` and no ``,``."""
    values: tuple[str, ...]
    """The first is the default, which a cell has where a spec does not name the axis."""
    apply: Callable[[Plan, str], None]
    """Asks a plan for a value."""
    about: str
    """One sentence."""
    clashes: tuple[Clash, ...] = ()
    needs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Values that not every kernel has, and the capability that it takes (:meth:`hvkernel.api.guest.Release.has`)."""


# drives --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Driven:
    """One device that is to be driven, from both sides."""

    name: str
    """The host's name for it, as ``scsi0``."""
    guest: HvDevice
    """What its driver was probed with."""
    host: Any
    """What the plugin's factory made for it (:class:`hvkernel.api.host.Device`); made anew when it is offered again."""


class Driving(Protocol):
    """How a drive uses devices: it begins kernel threads and host tasks, which run once all drives have begun."""

    @property
    def kernel(self) -> Kernel: ...
    @property
    def devices(self) -> Sequence[Driven]:
        """Those of the drive's classes that have a driver, in the order in which the host has them; at least one."""
        ...

    @property
    def cpus(self) -> Sequence[int]:
        """Processors to drive a device from at the same time: at most four, the first ones and the last."""
        ...

    @property
    def rng(self) -> Random:
        """What is random in it; other numbers in each driving of a cell."""
        ...

    @property
    def values(self) -> Mapping[str, str]:
        """The cell's value by axis."""
        ...

    def spawn(
        self, device: Driven, work: Callable[..., Iterable[str] | None], *args: Any, cpu: int | None = None
    ) -> None:
        """Begin a kernel thread that drives ``device``: it runs ``work(*args)``, which may sleep.

        What ``work`` yields, or returns, is what went wrong, a sentence each. The cell waits until all threads have
        ended; one that never does is a problem of ``stays-up``.

        :param cpu: one of :attr:`cpus`; ``None``: the boot processor.
        """
        ...

    def host(self, work: Callable[..., Any], *args: Any) -> None:
        """Begin a task of the host that runs ``work(*args)``, as a method of the device that sends to the guest.

        From a drive or from a thread that it began; nobody waits for it but who looks for what it does.
        """
        ...

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run ``fn`` as a kernel thread at once, and return its value; from a drive, not from a thread of it."""
        ...


@dataclass(frozen=True, slots=True)
class Drive:
    """The use of the devices of some classes: once the guest is up, and again after each event.

    It is called wherever devices of these classes have a driver, and has to begin a thread for each of them: one that
    it leaves out is a problem of the invariant ``driven``.
    """

    name: str
    """What reports call what goes wrong in it: lower case with hyphens."""
    classes: tuple[Guid, ...]
    """Of the devices."""
    drive: Callable[[Driving], Iterable[str]]
    """Begins the threads. Returns what it sees is wrong, a sentence each. One that raises is broken."""
    about: str
    """One sentence."""


# invariants ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noticed:
    """A finding of the guest, the host or the machine."""

    kind: str
    side: str
    """``guest`` or ``host``."""
    text: str
    where: tuple[str, ...]
    """The guest's call chain, innermost first."""


@dataclass(frozen=True, slots=True)
class SeenDevice:
    """One device that the host offers or has offered, seen from both sides."""

    name: str
    """The host's name for it, as ``scsi0``."""
    class_guid: str
    instance_guid: str
    driver: str | None
    """Driver that is bound now."""
    module: str | None
    built: str | None
    """``y``, ``m`` or ``n``; ``None`` where no plugin has a driver for the class."""
    state: str
    """As in the report of ``hvkernel boot``."""
    protocol: str | None
    """What driver and device agreed on, as the device says."""
    accepts: tuple[str, ...] = ()
    """Versions that the device accepts, ascending, as ``"5.1"``; empty where the host has no list."""
    drives: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """The drives of its class by name, and whether each drove it when devices were driven last."""


@dataclass(frozen=True, slots=True)
class SeenChannel:
    """One channel of the guest or of the host."""

    relid: int
    is_open: bool
    target_vp: int | None
    """VP that it interrupts while it is open."""


@dataclass(frozen=True, slots=True)
class Reached:
    """Guest memory that the host can reach now."""

    gpa: int
    pages: int
    """4 KiB pages."""
    via: str


class Evidence(Protocol):
    """A guest at one moment of a cell, as an invariant sees it."""

    @property
    def moment(self) -> Moment: ...
    @property
    def values(self) -> Mapping[str, str]:
        """Value by axis."""
        ...

    @property
    def seed(self) -> int: ...
    @property
    def outcome(self) -> str:
        """``up``, ``panic``, ``hung`` or ``unsupported``."""
        ...

    @property
    def reason(self) -> str: ...
    @property
    def kernel(self) -> Kernel:
        """The guest's kernel."""
        ...

    @property
    def dmesg(self) -> Sequence[str]:
        """Texts of the log, oldest first."""
        ...

    @property
    def findings(self) -> Sequence[Noticed]: ...
    @property
    def devices(self) -> Sequence[SeenDevice]: ...
    @property
    def vmbus_version(self) -> int:
        """Version that guest and host agreed on last, ``major << 16 | minor``; 0 before there was one."""
        ...

    @property
    def guest_channels(self) -> Sequence[SeenChannel]:
        """By relid; empty while hv_vmbus is not loaded."""
        ...

    @property
    def host_channels(self) -> Sequence[SeenChannel]:
        """Those that are offered, by relid."""
        ...

    @property
    def gpadls(self) -> int:
        """GPADLs that the host has."""
        ...

    @property
    def shares(self) -> Sequence[Reached]:
        """What of the guest's memory the host can reach, oldest first."""
        ...

    @property
    def pages(self) -> Mapping[str, int]:
        """Allocations of guest pages that live now: the function that made them, and how many."""
        ...

    @property
    def kept(self) -> Mapping[str, int]:
        """Of :attr:`pages` those that built-in drivers keep from their init on; known once no device has a driver."""
        ...

    @property
    def memory(self) -> dict[str, Any]:
        """What one invariant keeps from one moment of a cell to the next; each has its own."""
        ...

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run ``fn`` as a kernel thread of the guest, and return its value."""
        ...


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that holds in every cell."""

    name: str
    """What reports call it: lower case with hyphens."""
    moments: tuple[Moment, ...]
    check: Callable[[Evidence], Iterable[str]]
    """Returns what is wrong, a sentence each; nothing where it holds. One that raises is broken."""
    about: str
    """One sentence."""
