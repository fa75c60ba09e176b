"""One cell: build, link, boot, drive every device, let the events happen, shut down, and check every invariant.

A :class:`CellRunner` keeps nothing from one cell to the next but what boots share anyway (the plugins' Workshop), so a
worker that has run a hundred thousand of them is as large as one that has run a hundred.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import process_time
from typing import TYPE_CHECKING, Any, Final

from hvkernel.boot import plugins as plugin_loading
from hvkernel.boot.session import Session, Unsupported, compose, configure
from hvkernel.config.errors import InputError
from hvkernel.kconfig import ConfigError
from hvkernel.matrix.axes import axes_of, plugin_axes, request_of
from hvkernel.matrix.drive import Drove, drive_devices, drives_of
from hvkernel.matrix.events import EVENTS, bound_devices, unload
from hvkernel.matrix.evidence import SessionEvidence
from hvkernel.matrix.expect import Oracle, vm_obstacle
from hvkernel.matrix.invariants import BUILT_IN, foreign_pages
from hvkernel.matrix.model import Cell, CellResult, Problem, Status
from hvkernel.matrix.run import SECOND, GuestEnded, GuestRun, OverBudget, Stuck, steps_of
from hvkernel.matrix.told import told

if TYPE_CHECKING:
    from hvkernel.api.matrix import Invariant, Moment
    from hvkernel.boot.plugins import Plugins
    from hvkernel.boot.request import BootRequest
    from hvkernel.config.matrix import MatrixSpec
    from hvkernel.config.releases import KernelRelease
    from hvkernel.kconfig import Build
    from hvkernel.matrix.axes import Axis, Plan

__all__ = ["CellRunner"]

LINES: Final = 40
"""Last lines of the log that the result of a failed cell has."""

PROBLEMS: Final = 50
"""Most problems of one result; a fault that shows everywhere need not be told a thousand times."""

SAMPLE: Final = 64
"""One cell in so many is run twice, to see that it is the same run."""


_PAGES: Final = re.compile(r"ARM64_(\d+)K_PAGES")


@dataclass(slots=True)
class _Progress:
    """How far a cell has come."""

    phase: str = "build"
    outcome: str = ""
    problems: list[Problem] = field(default_factory=list)
    session: Session | None = None
    version: int = 0
    """VMBus version of the last connection."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """Pages that drivers may keep."""
    drove: Drove = field(default_factory=Drove)
    """The last driving of the devices."""
    times: int = 0
    """How often they were driven."""
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each invariant keeps."""

    def wrong(self, invariant: str, text: str) -> None:
        problem = Problem(invariant, text)
        if len(self.problems) < PROBLEMS and problem not in self.problems:
            self.problems.append(problem)


class CellRunner:
    """Runs cells of one spec, one after the other.

    :param spec: what the cells are of; its budget is what each may take.
    :param plugins: loaded plugins; ``None`` loads all that are installed.
    :param sample: one cell in so many is run twice and must do the same; 0: none.
    :param whole_log: results have the whole log, those of cells that pass, too.
    :raises InputError: the spec names an axis or a value that there is not, or plugins bring two of one name.
    """

    def __init__(
        self,
        spec: MatrixSpec,
        plugins: Plugins | None = None,
        *,
        sample: int = SAMPLE,
        whole_log: bool = False,
    ) -> None:
        self.spec = spec
        self.plugins = plugin_loading.load() if plugins is None else plugins
        self.axes = axes_of(spec, plugin_axes(self.plugins))
        """Those of the spec, by name."""
        self._limit = round(spec.budget.seconds * SECOND)
        self._steps = spec.budget.steps
        self._sample = sample
        self._whole_log = whole_log
        self._oracle = Oracle()
        self.invariants = _invariants(self.plugins)
        """The built-in ones, then those of plugins."""
        self.drives = drives_of(self.plugins, [one.name for one in self.invariants])

    def run(self, cell: Cell, *, twice: bool | None = None) -> CellResult:
        """Run a cell. Whatever is wrong with it is in the result; nothing is raised but what ends this process.

        :param twice: whether it is run twice and must do the same; ``None``: one in so many cells is.
        """
        began = process_time()
        result, digest = self._once(cell)
        if result.status == "pass" and (self._sampled(cell) if twice is None else twice):
            again, other = self._once(cell)
            if again.status != "pass":
                result = again
            elif other != digest:
                text = f"two runs of this cell end differently: {digest[:12]} and {other[:12]}"
                result = replace(result, status="fail", problems=(Problem("same-run", text),))
        return replace(result, cpu_ms=round((process_time() - began) * 1e3, 3))

    def _sampled(self, cell: Cell) -> bool:
        return bool(self._sample) and int(cell.key[:8], 16) % self._sample == 0

    def _once(self, cell: Cell) -> tuple[CellResult, str]:
        """Run a cell and return a digest of the run besides."""
        progress = _Progress()
        status: Status | None = None
        try:
            self._phases(cell, progress)
        except OverBudget as error:
            status = "over-budget"
            progress.wrong("budget", str(error))
        except (Stuck, GuestEnded) as error:
            progress.wrong("stays-up", str(error))
        except (InputError, ConfigError) as error:
            progress.wrong("legal-cell", str(error))
        except Exception as error:
            status = "crash"
            progress.wrong("model", told(error))
            if progress.session is not None:
                # Where a plugin's code was on the way, its fault says so besides.
                progress.session.plugins.blame(error, "cell")
        session = progress.session
        log: tuple[str, ...] = ()
        virtual = steps = 0
        digest = ""
        if session is not None:
            for fault in session.plugins.faults[len(self.plugins.faults) :]:
                progress.wrong("plugins", str(fault))
            virtual, steps = session.machine.clock.now, steps_of(session.machine)
            if status != "crash":
                digest = _digest(session)
            if self._whole_log or status is not None or progress.problems:
                lines = session.kernel.printk.log
                shown = lines if self._whole_log else lines[-LINES:]
                log = tuple(f"[{one.t / 1e9:12.6f}] {one.text}" for one in shown)
            try:
                session.close()
            except Exception as error:
                if status != "crash":
                    status = "crash"
                    progress.wrong("model", told(error))
                # Tasks of a crashed guest may crash once more when they are ended.
                with suppress(Exception):
                    session.close()
        if status is None:
            status = "fail" if progress.problems else "pass"
        result = CellResult(
            cell,
            status,
            progress.outcome,
            progress.phase,
            tuple(progress.problems),
            log,
            virtual,
            steps,
            undriven=progress.drove.undriven,
        )
        return result, digest

    # the phases ------------------------------------------------------------------------------------------------

    def _phases(self, cell: Cell, progress: _Progress) -> None:
        _no_clash(self.axes, cell)
        plan, request = request_of(self.spec, self.axes, cell)
        events = plan.events
        unknown = next((name for name in events if name not in EVENTS), None)
        if unknown is not None:
            raise InputError(request.where, "event", unknown, f"must be one of {', '.join(EVENTS)}")
        build = configure(request, self.plugins)
        unlike = _unlike(plan, build)
        if unlike:
            raise InputError(request.where, limit=unlike)
        lacking = _lacking(self.axes, cell, self.plugins.workshop.release(build.release))
        if lacking:
            raise InputError(request.where, limit=lacking)
        progress.phase = "link"
        composed = compose(request, self.plugins)
        if isinstance(composed, Unsupported):
            self._unsupported(composed, progress)
            return
        progress.session = session = composed
        progress.phase = "boot"
        run = GuestRun(session, self._limit, self._steps)
        progress.outcome = run.boot()
        self._expected(session, request, build, progress)
        self._look(run, cell, "booted", progress)
        if progress.outcome != "up":
            return
        last = max((device.spec.offered_at for device in session.server.devices), default=0)
        run.settle(last + SECOND if last else 0)
        progress.phase = "drive"
        seen = self._drive(run, cell, "up", progress)
        progress.phase = "events"
        for name in events:
            for text in EVENTS[name](run):
                progress.wrong(f"event-{name}", text)
            run.settle()
            self._drive(run, cell, "events", progress)
        if not events:
            self._check(seen.at("events"), progress)
        progress.phase = "shutdown"
        self._shut_down(run, cell, progress)
        progress.phase = "invariants"

    def _unsupported(self, composed: Unsupported, progress: _Progress) -> None:
        """No machine would start this kernel; that is as it should be unless it does not link."""
        reason = composed.report.reason or ""
        if reason.startswith("does not link"):
            progress.outcome = "not-linked"
            progress.wrong("links", reason)
        else:
            progress.outcome = "unsupported"
            progress.phase = "boot"

    def _expected(self, session: Session, request: BootRequest, build: Build, progress: _Progress) -> None:
        """Whether it comes up just where the rules for the boot say so."""
        obstacle = self._oracle.obstacle(request, build, session.host.profile, session.host.generation)
        obstacle = obstacle or vm_obstacle(session, self.plugins.workshop.release(build.release))
        up = progress.outcome == "up"
        if up and obstacle:
            progress.wrong("comes-up", f"the guest is up although {obstacle}")
        elif not up and not obstacle:
            outcome = session.kernel.outcome
            reason = outcome.reason if outcome is not None else ""
            progress.wrong("comes-up", f"{progress.outcome}: {reason}; by the rules of check it should be up")

    def _drive(self, run: GuestRun, cell: Cell, moment: Moment, progress: _Progress) -> SessionEvidence:
        progress.drove = drive_devices(run, self.drives, f"{cell.key}/{progress.times}", cell.by_axis)
        progress.times += 1
        for drive, text in progress.drove.problems:
            progress.wrong(drive, text)
        run.settle()
        return self._look(run, cell, moment, progress)

    def _shut_down(self, run: GuestRun, cell: Cell, progress: _Progress) -> None:
        """Drivers go, then the bus, then Hyper-V itself as before another kernel is started."""
        kernel = run.session.kernel
        gone = unload(run, keep_bus=True)
        bus = kernel.driver.buses.get("vmbus")
        for driver in bus.drivers if bus is not None else ():
            if driver.owner in gone:
                progress.wrong("modules", f"{driver.owner} is unloaded, and its driver {driver.name} is registered")
        pairs = bound_devices(run)
        self._unbind(run, pairs)
        progress.kept = self._kept(run, cell, pairs)
        self._look(run, cell, "unbound", progress)
        unload(run)
        run.call(kernel.driver.device_shutdown)
        run.call(kernel.arch.machine_shutdown, True)
        run.settle()
        self._look(run, cell, "ended", progress)

    def _unbind(self, run: GuestRun, pairs: Sequence[tuple[Any, Any]]) -> None:
        for _, device in reversed(pairs):
            run.call(run.session.kernel.driver.device_release_driver, device)
        run.settle()

    def _kept(self, run: GuestRun, cell: Cell, pairs: Sequence[tuple[Any, Any]]) -> dict[str, int]:
        """Return the pages that drivers have kept and may: built in, without an exit, and no more each time.

        A module gives back what its init allocated; built-in code cannot. So whoever still has pages is bound and
        unbound once more: what grows by that is a leak.
        """
        kernel = run.session.kernel
        packages = {_package(obj.init.__module__) for obj in kernel.objects if kernel.built(obj) == "y"}

        def left() -> dict[str, int]:
            found = foreign_pages(SessionEvidence(run.session, cell, "unbound", run.call, 0))
            return {caller: count for caller, count in found.items() if _package(caller.partition("(")[2]) in packages}

        before = left()
        if not before:
            return {}
        for driver, device in pairs:
            run.call(kernel.driver.device_driver_attach, driver, device)
        self._unbind(run, pairs)
        return {caller: count for caller, count in left().items() if count <= before.get(caller, 0)}

    def _look(self, run: GuestRun, cell: Cell, moment: Moment, progress: _Progress) -> SessionEvidence:
        """Check the invariants of a moment, and return what they saw."""
        progress.version = run.session.server.bus.version or progress.version
        evidence = SessionEvidence(
            run.session, cell, moment, run.call, progress.version, progress.kept, progress.drove.drives
        )
        self._check(evidence, progress)
        return evidence

    def _check(self, evidence: SessionEvidence, progress: _Progress) -> None:
        for invariant in self.invariants:
            if evidence.moment in invariant.moments:
                evidence.memory = progress.memories.setdefault(invariant.name, {})
                for text in _checked(invariant, evidence):
                    progress.wrong(invariant.name, text)


def _checked(invariant: Invariant, evidence: SessionEvidence) -> Iterator[str]:
    try:
        yield from invariant.check(evidence)
    except (OverBudget, Stuck, GuestEnded):
        raise
    except Exception as error:
        yield f"raised {told(error)}"


def _invariants(plugins: Plugins) -> tuple[Invariant, ...]:
    found = {one.name: one for one in BUILT_IN}
    for info, brought in plugins.call("hv_matrix_invariants"):
        for one in brought:
            if one.name in found:
                raise InputError("plugins", "invariant", one.name, f"{info.name}: there is one of that name already")
            found[one.name] = one
    return tuple(found.values())


def _no_clash(axes: Mapping[str, Axis], cell: Cell) -> None:
    """:raises InputError: two of the cell's values clash, as one of their axes says."""
    values = cell.by_axis
    for name, value in cell.values:
        for clash in axes[name].clashes:
            if clash.value == value and values.get(clash.axis) in clash.values:
                both = f"{name}={value} and {clash.axis}={values[clash.axis]}"
                raise InputError(f"cell {cell.number}", limit=f"{both}: {clash.why}")


def _lacking(axes: Mapping[str, Axis], cell: Cell, release: KernelRelease) -> str:
    """Return which value takes a capability that the kernel does not have; empty: none does."""
    for name, value in cell.values:
        capability = axes[name].needs.get(value)
        if capability is not None and not release.has(capability):
            return f"{name}={value} needs a kernel with {capability}, this is {release.version}"
    return ""


def _unlike(plan: Plan, build: Build) -> str:
    """Return what of a plan the evaluated configuration does not have; empty: it is what was asked for."""
    for symbol, asked in plan.expect.items():
        pages = _PAGES.fullmatch(symbol)
        if pages is not None:
            # On an architecture without such a symbol the axis means the page size that there is.
            if (build.page_size == int(pages[1]) * 1024) != (asked == "y"):
                return f"{symbol}={asked} was asked for, and PAGE_SIZE is {build.page_size // 1024}K"
        elif build.value(symbol) != asked:
            return f"{symbol}={asked} was asked for, and the configuration has {symbol}={build.value(symbol)}"
    return ""


def _package(module: str) -> str:
    return module.partition(".")[0]


def _digest(session: Session) -> str:
    """Return a hash of what a run did: its log, times, counters, findings, and what is left at its end."""
    machine = session.machine
    found = hashlib.sha256()
    for line in session.kernel.printk.log:
        found.update(f"{line.t} {line.level} {line.text}\n".encode("utf-8", "surrogateescape"))
    for one in machine.findings:
        found.update(f"{one.t} {one.kind} {one.text}\n".encode("utf-8", "surrogateescape"))
    found.update(repr((machine.clock.now, machine.stats.as_dict(), machine.ledger.entries())).encode())
    return found.hexdigest()
