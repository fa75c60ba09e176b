"""What the fixtures hand to a test: a guest, the host that it runs on, and the time of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hvkernel.boot.session import Session, Unsupported, compose, configure
from hvkernel.matrix.axes import request_of
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.events import EVENTS
from hvkernel.matrix.evidence import SessionEvidence
from hvkernel.matrix.expect import Oracle, vm_obstacle
from hvkernel.matrix.run import SECOND, GuestEnded, GuestRun, OverBudget, Stuck

if TYPE_CHECKING:
    from hvkernel.api.host import DiskImage
    from hvkernel.boot.plugins import PluginFault, Plugins
    from hvkernel.config.report import BootReport
    from hvkernel.host.partition import Host
    from hvkernel.host.vmbus.server import VmbusServer
    from hvkernel.linux.cpu import Cpu
    from hvkernel.linux.kernel import Kernel
    from hvkernel.machine import Machine, Task
    from hvkernel.machine.report import Finding
    from hvkernel.testing.cases import Case

__all__ = [
    "Guest",
    "GuestClock",
    "GuestEnded",
    "GuestHost",
    "NoSuchGuest",
    "NotLinked",
    "OverBudget",
    "Stuck",
    "Wrong",
]

T = TypeVar("T")

MOST_SHOWN: Final = 20
"""Most sentences of one :exc:`Wrong`."""


class NoSuchGuest(Exception):
    """The case asks for a guest that no machine would start, or that is not meant to come up."""


class NotLinked(Exception):
    """The case's kernel does not link: a fault of the kernel that is tested."""


class Wrong(AssertionError):
    """Something that holds for every healthy guest does not hold for this one."""

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:MOST_SHOWN])
        if len(problems) > MOST_SHOWN:
            shown.append(f"... and {len(problems) - MOST_SHOWN} more")
        super().__init__("\n".join(shown))


class Guest:
    """The guest of a test: fixture ``hv_guest``."""

    def __init__(self, case: Case, plugins: Plugins) -> None:
        """Build and compose it.

        :param case: what it is built and booted from.
        :param plugins: loaded plugins.
        :raises NoSuchGuest: no machine would start it.
        :raises NotLinked: its kernel does not link.
        :raises ValueError: the case's values contradict one another (an InputError).
        """
        self.case = case
        self._loaded = len(plugins.faults)
        cells = CellRunner(case.spec, plugins)
        self._invariants = cells.invariants
        plan, request = request_of(case.spec, cells.axes, case.cell)
        self.events = plan.events
        """Events that the case asks for; they are over when the test begins."""
        build = configure(request, plugins)
        composed = compose(request, plugins)
        if isinstance(composed, Unsupported):
            reason = composed.report.reason or ""
            raise NotLinked(reason) if reason.startswith("does not link") else NoSuchGuest(reason)
        self.session: Session = composed
        """The composed VM: everything that hvkernel has of it."""
        self.was_up = False
        """Whether it has been up: what holds for every guest holds for such ones."""
        budget = case.spec.budget
        self.run = GuestRun(composed, round(budget.seconds * SECOND), budget.steps)
        """Runs the guest, within the case's budget of time and steps."""
        host = composed.host
        self._obstacle = Oracle().obstacle(request, build, host.profile, host.generation)
        self._obstacle = self._obstacle or vm_obstacle(composed, plugins.workshop.release(build.release))

    @property
    def values(self) -> Mapping[str, str]:
        """Value by axis; axes that the mark does not name are not in it."""
        return self.case.cell.by_axis

    @property
    def kernel(self) -> Kernel:
        """The guest's kernel: one attribute per subsystem, named as its header, with the kernel's functions."""
        return self.session.kernel

    @property
    def machine(self) -> Machine:
        """The machine under both sides: memory, processors, time."""
        return self.session.machine

    @property
    def outcome(self) -> str:
        """``up``, ``panic`` or ``hung``; empty before the boot."""
        found = self.session.kernel.outcome
        return found.state if found is not None else ""

    @property
    def reason(self) -> str:
        """Why it is not up; empty where it is."""
        found = self.session.kernel.outcome
        return found.reason or "" if found is not None else ""

    @property
    def dmesg(self) -> tuple[str, ...]:
        """The texts of the log until now, without their times."""
        return tuple(line.text for line in self.session.kernel.printk.log)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the sanitizers and both sides noticed until now."""
        return tuple(self.session.machine.findings)

    @property
    def faults(self) -> tuple[PluginFault, ...]:
        """What plugins raised in this guest until now; the guest goes on without what they would have brought."""
        return tuple(self.session.plugins.faults[self._loaded :])

    def report(self) -> BootReport:
        """Return the report of ``hvkernel boot`` as of now: devices, sharing, findings, log."""
        return self.session.report()

    # doing things in it ----------------------------------------------------------------------------------------

    def boot(self) -> str:
        """Boot, let the case's events happen, and return the outcome.

        Only for a test with ``@pytest.mark.hv_guest(boot=False)``; for all others this was done already.

        :raises OverBudget: it takes more virtual time or more steps than the case may.
        :raises Wrong: an event went wrong.
        """
        outcome = self.run.boot()
        if outcome == "up":
            self.was_up = True
            for name in self.events:
                self.happen(name)
        return outcome

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run ``fn`` as a kernel thread until it is done, and return its value; what it raises is raised here.

        :raises GuestEnded: the guest panicked, or ``fn`` died of an oops.
        :raises Stuck: it waits for something that will never be.
        :raises OverBudget: it takes more virtual time or more steps than the case may.
        """
        return self.run.call(fn, *args)

    def spawn(self, fn: Callable[..., Any], *args: Any, name: str, cpu: Cpu | None = None) -> Task:
        """Begin a kernel thread; it runs when time passes, and :meth:`wait` waits for it."""
        return self.run.spawn(fn, *args, name=name, cpu=cpu)

    def wait(self) -> None:
        """Run until all threads of :meth:`spawn` are done; raises as :meth:`call`."""
        self.run.wait("the threads of the test")

    def settle(self) -> None:
        """Let a second of virtual time pass, so that what was begun ends."""
        self.run.settle()

    def happen(self, event: str) -> None:
        """Let one of the events of ``hvkernel matrix`` happen: ``rescind``, ``rebind``, ``reload`` and the others.

        :raises ValueError: there is no such event.
        :raises Wrong: something went wrong in it.
        """
        if event not in EVENTS:
            raise ValueError(f"event {event!r}: must be one of {', '.join(EVENTS)}")
        problems = [f"event {event}: {text}" for text in EVENTS[event](self.run)]
        self.run.settle()
        if problems:
            raise Wrong(problems)

    # judging it ------------------------------------------------------------------------------------------------

    def expect_up(self) -> None:
        """Compare the outcome with what the rules of ``hvkernel check`` say of the case.

        :raises NoSuchGuest: it is not up, and is not meant to be.
        :raises Wrong: it is up and is not meant to be, or the other way round, or a plugin raised.
        """
        problems = [str(fault) for fault in self.faults]
        if self.outcome == "up" and self._obstacle:
            problems.append(f"the guest is up although {self._obstacle}")
        elif self.outcome != "up" and not self._obstacle:
            problems.append(f"the guest is not up but {self.outcome}: {self.reason}")
        if problems:
            raise Wrong(problems)
        if self._obstacle:
            raise NoSuchGuest(f"not meant to come up: {self._obstacle}")

    def check(self) -> None:
        """Check what holds for every guest that is up.

        No finding but harmless ones, no warning in the log, every device bound, both sides of one mind, and what
        plugins add (hook ``hv_matrix_invariants``).

        These are the invariants that ``hvkernel matrix`` checks when a cell's events are over.

        :raises Wrong: something of it does not hold, or a plugin raised.
        """
        problems = [str(fault) for fault in self.faults]
        run = self.run
        version = self.session.server.bus.version or 0
        evidence = SessionEvidence(self.session, self.case.cell, "events", run.call, version)
        for invariant in self._invariants:
            if evidence.moment in invariant.moments:
                evidence.memory = {}
                problems += [f"{invariant.name}: {text}" for text in invariant.check(evidence)]
        if problems:
            raise Wrong(problems)

    def close(self) -> None:
        """End the guest and close its disks."""
        self.session.close()


class GuestHost:
    """The other side of a test's guest: fixture ``hv_host``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def partition(self) -> Host:
        """The hypervisor: CPUID, registers, hypercalls, SynIC, timers."""
        return self._session.host

    @property
    def vmbus(self) -> VmbusServer:
        """The VMBus server: ``offer``, ``rescind``, ``reoffer``, ``offer_subchannels`` and the like, ``status()``."""
        return self._session.server

    @property
    def disks(self) -> tuple[DiskImage, ...]:
        """The disk images, in the order of the VM's ``disks``."""
        return self._session.disks

    @property
    def profile(self) -> str:
        """Name of the host profile."""
        return self._session.host.profile.name

    @property
    def generation(self) -> int:
        """1 or 2."""
        return self._session.host.generation

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the host tolerated, refused or noticed of its guest until now."""
        return tuple(one for one in self._session.machine.findings if one.side == "host")


class GuestClock:
    """Virtual time of a test's guest and host: fixture ``hv_clock``. It passes only while something runs."""

    def __init__(self, run: GuestRun) -> None:
        self._run = run

    @property
    def now(self) -> int:
        """Time since the machine was made, 100 ns units."""
        return self._run.session.machine.clock.now

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.now / SECOND

    def advance(self, seconds: float) -> None:
        """Let this much time pass; guest and host do meanwhile what they have to do.

        :raises ValueError: ``seconds`` is negative.
        :raises OverBudget: that is more than the case may take, or too much is done in it.
        """
        if seconds < 0:
            raise ValueError(f"seconds = {seconds}: time does not go back")
        self._run.pass_time(round(seconds * SECOND))

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Run until ``condition()`` holds.

        :param seconds: after how much virtual time it is too late.
        :raises TimeoutError: it does not hold by then, or nothing can happen any more.
        :raises OverBudget: that is more than the case may take.
        """
        if not self._run.pass_time(round(seconds * SECOND), condition):
            raise TimeoutError(f"not within {seconds:g} s of virtual time")
