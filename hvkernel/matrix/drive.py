"""Using what a guest has: the drives that plugins bring for their devices, all devices at the same time.

Every drive begins its threads, then all of them run: devices of different classes, and one device on several
processors, compete as they do in a machine under load. Time is used beside
them: on each of those processors a thread sleeps for a moment, and has to wake up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hvkernel.api.guest.arch import ArchBug
from hvkernel.api.matrix import Drive, Driven
from hvkernel.config.errors import InputError
from hvkernel.machine import Fault
from hvkernel.matrix.events import bound_devices
from hvkernel.matrix.run import GuestEnded, GuestRun, OverBudget, Stuck
from hvkernel.matrix.told import told

if TYPE_CHECKING:
    from hvkernel.api.guest import Kernel
    from hvkernel.boot.plugins import Plugins

__all__ = ["Drove", "drive_devices", "drives_of"]

T = TypeVar("T")

CPUS: Final = 4
"""Processors that drive one device at the same time, at most: the first ones and the last."""

SLEEP: Final = 1
"""Milliseconds for which a thread sleeps on each of them."""


@dataclass(slots=True)
class Drove:
    """What came of one driving of all devices."""

    said: list[tuple[str, list[str]]] = field(default_factory=list)
    """(drive, what went wrong): of each drive, then of its threads and tasks, in the order in which they were begun."""
    drives: dict[str, dict[str, bool]] = field(default_factory=dict)
    """By name of a device that has a driver: the drives of its class, and whether a thread of each ended on it."""

    @property
    def problems(self) -> Iterator[tuple[str, str]]:
        """(drive, what went wrong)."""
        return ((drive, text) for drive, texts in self.said for text in texts)

    @property
    def undriven(self) -> tuple[str, ...]:
        """Names of the devices that have a driver and no drive."""
        return tuple(name for name, drives in self.drives.items() if not drives)


def drives_of(plugins: Plugins, taken: Iterable[str]) -> tuple[Drive, ...]:
    """Return the drives that plugins bring (hook ``hv_matrix_drives``).

    :param taken: names of the invariants: what goes wrong is told by either.
    :raises InputError: two have one name, or one is called as an invariant is, or has no class.
    """
    found: dict[str, Drive] = {}
    names = set(taken)
    for info, brought in plugins.call("hv_matrix_drives"):
        for one in brought:
            if one.name in names or not one.classes:
                what = "it has no class" if one.name not in names else "there is a drive or an invariant of that name"
                raise InputError("plugins", "drive", one.name, f"{info.name}: {what}")
            names.add(one.name)
            found[one.name] = one
    return tuple(found.values())


def drive_devices(run: GuestRun, drives: Sequence[Drive], seed: str, values: Mapping[str, str]) -> Drove:
    """Use every device that has a driver, as the drives of its class do; returns when all threads have ended.

    :param seed: what is random is drawn from it.
    :param values: of the cell, by axis.
    :raises Stuck: a thread never ends.
    """
    by_class: dict[bytes, list[Driven]] = {}
    drove = Drove()
    bound = {(device.dev_type, device.dev_instance): device for _, device in bound_devices(run)}
    latest = {one.name: one for one in run.session.server.devices}  # of one that is offered again there may be two
    for offered in latest.values():
        device = bound.get((bytes(offered.spec.class_guid), bytes(offered.spec.instance_guid)))
        if device is not None:
            by_class.setdefault(device.dev_type, []).append(Driven(offered.name, device, offered.device))
            drove.drives[offered.name] = {}
    for drive in drives:
        devices = tuple(one for cls in drive.classes for one in by_class.get(bytes(cls), ()))
        for one in devices:
            drove.drives[one.name][drive.name] = False
        if devices:
            _begin(_Driving(run, drive, devices, Random(f"{seed}/{drive.name}"), values, drove), drive)
    kernel = run.session.kernel
    for cpu in _cpus(run):
        run.spawn(kernel.sched.msleep, SLEEP, name=f"sleep/{cpu}", cpu=kernel.cpus.cpu(cpu))
    run.wait("driving the devices")
    return drove


def _begin(driving: _Driving, drive: Drive) -> None:
    wrong = driving.record()
    try:
        wrong.extend(drive.drive(driving))
    except (OverBudget, Stuck, GuestEnded):
        raise
    except Exception as error:
        wrong.append(f"raised {told(error)}")


def _cpus(run: GuestRun) -> tuple[int, ...]:
    online = tuple(run.session.kernel.cpus.for_each_online_cpu())
    return online if len(online) <= CPUS else (*online[: CPUS - 1], online[-1])


class _Driving:
    """Implements :class:`hvkernel.api.matrix.Driving`, for one drive in one driving."""

    def __init__(
        self,
        run: GuestRun,
        drive: Drive,
        devices: tuple[Driven, ...],
        rng: Random,
        values: Mapping[str, str],
        drove: Drove,
    ) -> None:
        self.devices = devices
        self.rng = rng
        self.values = values
        self._run = run
        self._drive = drive
        self._drove = drove

    @property
    def kernel(self) -> Kernel:
        # As for plugins (hv_register_drivers): the whole kernel fits the Protocol that drivers see of it.
        kernel: Any = self._run.session.kernel
        found: Kernel = kernel
        return found

    @cached_property
    def cpus(self) -> tuple[int, ...]:
        return _cpus(self._run)

    def record(self) -> list[str]:
        """Return a new list for what goes wrong."""
        wrong: list[str] = []
        self._drove.said.append((self._drive.name, wrong))
        return wrong

    def spawn(
        self, device: Driven, work: Callable[..., Iterable[str] | None], *args: Any, cpu: int | None = None
    ) -> None:
        wrong = self.record()

        def thread() -> None:
            try:
                wrong.extend(work(*args) or ())
            except (Fault, ArchBug):
                raise  # an oops of the guest
            except Exception as error:
                wrong.append(f"{device.name}: raised {told(error)}")
            self._drove.drives[device.name][self._drive.name] = True

        on = None if cpu is None else self._run.session.kernel.cpus.cpu(cpu)
        self._run.spawn(thread, name=f"{self._drive.name} {device.name}", cpu=on)

    def host(self, work: Callable[..., Any], *args: Any) -> None:
        wrong = self.record()

        def task() -> None:
            try:
                work(*args)
            except Exception as error:
                wrong.append(f"the host raised {told(error)}")

        self._run.session.machine.spawn(task, name=f"{self._drive.name} host", side="host")

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        return self._run.call(fn, *args)
