"""The kernel as a driver sees it: one object, split by kernel header.

``kernel.workqueue.queue_work(...)`` is what a driver calls; the parts are in :mod:`~hvkernel.api.guest.mm`,
:mod:`~hvkernel.api.guest.sched`, :mod:`~hvkernel.api.guest.time`, :mod:`~hvkernel.api.guest.smp`,
:mod:`~hvkernel.api.guest.device`, :mod:`~hvkernel.api.guest.block` and :mod:`~hvkernel.api.guest.scsi`.
What another separately built object exports is reached through :meth:`Kernel.symbol`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .block import Block
from .device import Acpi, Device, DriverCore, IoResources, Notifiers
from .mm import Mm
from .sched import Locking, Sched, Softirq, WorkqueueApi
from .scsi import Scsi
from .smp import Cpuhp, Cpus, Irq, PerCpuApi
from .sysfs import Debugfs
from .time import Clocksources, Timers
from .tracing import Tracing

if TYPE_CHECKING:
    from .arch import Arch

T = TypeVar("T")


class Build(Protocol):
    """What the configuration built: the values of the ``.config``, without the ``CONFIG_`` prefix."""

    def value(self, name: str, /) -> str:
        """``"y"``, ``"m"``, ``"n"``, or the text of a string or number symbol (``""`` when unset)."""
        ...

    def y(self, name: str, /) -> bool: ...
    def m(self, name: str, /) -> bool: ...


class Release(Protocol):
    """Which kernel it is. Behaviour is asked for by capability, never by number."""

    @property
    def version(self) -> str:
        """As ``6.1.192``; only ever printed."""
        ...

    def has(self, capability: str, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Export:
    """A Protocol that an object offers to others, and the EXPORT_SYMBOL names that stand for it in messages."""

    proto: type[Any]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Import:
    """A Protocol that an object calls, and the function names it references (for the link error's text)."""

    proto: type[Any]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModuleParam:
    """module_param(): a variable of a module that user space sees below ``/sys/module/<module>/parameters``."""

    name: str
    kind: str
    """``int`` or ``uint``."""
    mode: int
    """Permission bits, as 0o444; with 0 there is no file."""
    get: Callable[[], int]
    set: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class KernelObject:
    """One separately built object: a module when its symbol is ``m``, linked in when ``y``, absent when ``n``."""

    name: str
    """Module name, as in /proc/modules: ``hv_storvsc``."""
    config: str
    """Kconfig symbol without prefix; empty: always built in."""
    path: str
    """Object file, ``drivers/scsi/storvsc_drv.o``: its place in the link order."""
    init: Callable[[Any], int]
    """``init(kernel)``: 0 or a negative errno."""
    level: str = "device"
    """Initcall level when built in: early pure core postcore arch subsys fs rootfs device late, or the ``_sync`` of
    one. A module's init runs when it is loaded, whatever this says."""
    exit: Callable[[Any], None] | None = None
    link: Callable[[Any], None] | None = None
    """Called when the object becomes part of the kernel and before any init: create the state and
    ``kernel.symbols.export(...)`` here, so that others can call it."""
    exports: tuple[Export, ...] = ()
    imports: tuple[Import, ...] = ()
    aliases: tuple[str, ...] = ()
    """MODULE_DEVICE_TABLE patterns: ``vmbus:d96361baa104294db60572e2ffb1dc7f``, ``acpi*:VMBUS:*`` (shell wildcards)."""
    softdeps: tuple[str, ...] = ()
    """Names of modules to load before it (MODULE_SOFTDEP pre:)."""
    function: str = ""
    """C name of the init function; shown when it fails."""
    parameters: tuple[ModuleParam, ...] = ()


class Printk(Protocol):
    """``kernel.printk``. ``text`` is the finished line, without newline."""

    def printk(self, level: int, text: str) -> None: ...
    def pr_emerg(self, text: str) -> None: ...
    def pr_alert(self, text: str) -> None: ...
    def pr_crit(self, text: str) -> None: ...
    def pr_err(self, text: str) -> None: ...
    def pr_warn(self, text: str) -> None: ...
    def pr_notice(self, text: str) -> None: ...
    def pr_info(self, text: str) -> None: ...
    def pr_debug(self, text: str) -> None:
        """Dropped unless dynamic debug was switched on for the run."""
        ...

    def dev_err(self, dev: Device, text: str) -> None: ...
    def dev_warn(self, dev: Device, text: str) -> None: ...
    def dev_notice(self, dev: Device, text: str) -> None: ...
    def dev_info(self, dev: Device, text: str) -> None: ...
    def dev_dbg(self, dev: Device, text: str) -> None: ...
    def prefixed(self, pr_fmt: str) -> Printk:
        """The same with ``pr_fmt`` before every text (not before dev_* lines)."""
        ...


class Symbols(Protocol):
    """``kernel.symbols``: the modelled symbol table."""

    def export(self, proto: type[Any], impl: Any, owner: str) -> None: ...
    def resolve(self, proto: type[T]) -> T: ...


class Modules(Protocol):
    """``kernel.module``."""

    def request_module(self, name: str) -> int: ...
    def module_loaded(self, name: str) -> bool: ...


class Reboot(Protocol):
    """``kernel.reboot``."""

    def panic(self, text: str) -> None:
        """panic(): does not return to its caller."""
        ...

    def orderly_poweroff(self, force: bool = False) -> None: ...
    def orderly_reboot(self) -> None: ...
    def emergency_restart(self) -> None: ...


class Kernel(Protocol):
    """The guest kernel, handed to every ``init``."""

    @property
    def config(self) -> Build: ...
    @property
    def release(self) -> Release: ...
    @property
    def arch(self) -> Arch: ...
    @property
    def printk(self) -> Printk: ...
    @property
    def mm(self) -> Mm: ...
    @property
    def percpu(self) -> PerCpuApi: ...
    @property
    def cpus(self) -> Cpus: ...
    @property
    def cpuhp(self) -> Cpuhp: ...
    @property
    def irq(self) -> Irq: ...
    @property
    def softirq(self) -> Softirq: ...
    @property
    def workqueue(self) -> WorkqueueApi: ...
    @property
    def sched(self) -> Sched: ...
    @property
    def locking(self) -> Locking: ...
    @property
    def timers(self) -> Timers: ...
    @property
    def clocksource(self) -> Clocksources: ...
    @property
    def module(self) -> Modules: ...
    @property
    def symbols(self) -> Symbols: ...
    @property
    def driver(self) -> DriverCore: ...
    @property
    def debugfs(self) -> Debugfs: ...
    @property
    def notifier(self) -> Notifiers: ...
    @property
    def acpi(self) -> Acpi: ...
    @property
    def ioport(self) -> IoResources: ...
    @property
    def scsi(self) -> Scsi: ...
    @property
    def block(self) -> Block: ...
    @property
    def reboot(self) -> Reboot: ...
    @property
    def tracing(self) -> Tracing: ...

    def symbol(self, proto: type[T]) -> T:
        """What another object exports, for example ``kernel.symbol(Vmbus)``.

        :raises LookupError: no such export; the link check would have refused the object.
        """
        ...

    def register_object(self, obj: KernelObject) -> None:
        """Declare an object to the build; before boot only."""
        ...

    def random(self, name: str) -> Any:
        """get_random_*: a ``random.Random`` seeded from the machine's seed and ``name``."""
        ...


__all__ = [
    "Build",
    "Export",
    "Import",
    "Kernel",
    "KernelObject",
    "ModuleParam",
    "Modules",
    "Printk",
    "Reboot",
    "Release",
    "Symbols",
]
