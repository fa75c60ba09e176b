"""One run, and what must hold during and after it."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from loom_guest import LoomGuest, compose_with_looms

from hvkernel.api.guest.device import NotifierBlock
from hvkernel.api.guest.errno import ETIMEDOUT
from hvkernel.host.vmbus.tables import ConnectionState
from hvkernel.hv import vmbus_drv
from interleavings import known
from interleavings.operations import Operations
from interleavings.policy import Starving
from interleavings.state import Baseline, CpuBook, agree, leftovers
from interleavings.watch import Watch

if TYPE_CHECKING:
    from hvkernel.boot.plugins import Plugins
    from hvkernel.machine import Task
    from interleavings.plan import Plan, Step

SECOND: Final = 10_000_000
PATIENCE: Final = 120 * SECOND
"""Virtual time after which a task that is not done counts as stuck: beyond every timeout of driver and kernel."""

EXPECTED: Final = (
    # Signals and messages that cross a close or a rescind on their way.
    ("", r"tolerated: vmbus: loom\d+: sub-channels of a channel that is not open; none offered"),
    ("", r"ignored: vmbus: monitor bit \d+ belongs to no open channel"),
    # A guest that leaves in the middle of it all goes on talking to who does not listen any more.
    ("leaves", r"ignored: vmbus: \w+ without a connection"),
    ("leaves", r"refused: VP \d+: HvCallSignalEvent: INVALID_CONNECTION_ID"),
    ("rescinds", r"refused: VP \d+: HvCallSignalEvent: INVALID_CONNECTION_ID"),
    ("rescinds", r"refused: vmbus: relid .* is in state 'rescinded', where 'MODIFYCHANNEL' is not legal .*"),
    # A host that gets no turn for long has no room for more messages; the guest posts them again.
    ("starving", r"throttled: vmbus: \d+ messages wait already"),
    ("starving", r"refused: VP \d+: HvCallPostMessage: INSUFFICIENT_BUFFERS"),
    ("panic", r"guest-crash: VP \d+ reported a crash: .*"),
)
"""Findings that a run may have: when, and which."""


@dataclass(slots=True)
class Result:
    """What became of a run."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    """Names of the places of :data:`interleavings.known.KNOWN` that it came to."""
    digest: str = ""

    def __str__(self) -> str:
        told = "\n".join(f"  {line}" for line in self.wrong)
        return f"{told}\n{self.plan}\nreplay: python tests/properties/fuzz.py --seed {self.plan.seed}"


class Run:
    """The state of a run."""

    def __init__(self, guest: LoomGuest, plan: Plan) -> None:
        self.guest = guest
        self.plan = plan
        self.machine = guest.session.machine
        self.kernel = guest.session.kernel
        self.result = Result(plan)
        self.watch = Watch()
        self.operations = Operations(guest, plan, self.result.wrong.append)
        self.tasks: list[Task] = []
        self.before = len(self.machine.findings)

    def begin(self, step: Step) -> None:
        """Start one operation, now."""
        method = getattr(self.operations, step.name)
        if step.name in Operations.HOST:
            method(*step.numbers)
            return
        cpu = self.kernel.cpus.cpu(step.numbers[2] % 2)
        self.tasks.append(self.kernel.spawn(method, *step.numbers, name=f"op {step.name}", cpu=cpu))

    def schedule(self) -> None:
        """Set the moments of all operations."""
        clock = self.machine.clock
        for step in self.plan.steps:
            clock.at(clock.now + 1 + step.at, partial(self.begin, step))

    def stuck(self) -> list[Task]:
        """Return the guest's tasks that wait although nothing is left to wait for."""
        found = [task for task in self.tasks if not task.done]
        for task in self.machine.tasks:
            worker = task.locals.get("worker")
            if worker is not None and worker.current is not None and not task.done:
                found.append(task)
        return found

    def wait(self) -> bool:
        """Run until all tasks of the test are done and the bus is quiet; False if that does not come."""
        self.machine.run(lambda: all(task.done for task in self.tasks), PATIENCE)
        for _ in range(40):
            self.machine.run(limit=SECOND // 20)
            if not self.stuck():
                return True
        self.machine.run(lambda: not self.stuck(), PATIENCE)
        waiting = self.stuck()
        self.explain(waiting)
        return not waiting

    def explain(self, waiting: list[Task]) -> None:
        """Say of tasks that wait for ever whether that is known of 6.1, and if not, where they wait."""
        for task in waiting:
            name = known.explain_wait(task, self.watch)
            if name is not None:
                self.result.known.append(name)
        if self.result.known:
            # Who waits for those who wait gets no answer either.
            wrong = self.result.wrong
            wrong[:] = [text for text in wrong if not text.endswith(f"returned {-ETIMEDOUT}")]
        else:
            for task in waiting:
                self.result.wrong.append(f"{task.name} waits for ever in {' < '.join(list(known.frames(task))[:9])}")

    def do(self, name: str, *numbers: int) -> None:
        """Do one more operation and wait for it."""
        self.tasks = [self.kernel.spawn(getattr(self.operations, name), *numbers, name=f"op {name}")]

    def findings(self) -> None:
        """Look at what was reported."""
        rescinds = any(step.name in ("rescind", "reoffer") for step in self.plan.steps)
        leaves = self.plan.ending in ("kexec", "panic")
        when = {"", self.plan.ending, "rescinds" if rescinds else "", "leaves" if leaves else ""}
        when.add("starving" if self.plan.starving else "")
        expected = [re.compile(text) for moment, text in EXPECTED if moment in when]
        for found in self.machine.findings[self.before :]:
            text = f"{found.kind}: {found.text}"
            name = known.explain_finding(found)
            if name is not None:
                self.result.known.append(name)
                continue
            if not any(pattern.fullmatch(text) for pattern in expected):
                self.result.wrong.append(f"finding {text} ({' < '.join(found.where[:4])})")


def run_plan(plan: Plan, plugins: Plugins) -> Result:
    """Boot, do all, end, compare."""
    guest = compose_with_looms(plugins, plan.config, plan.vm, looms=())
    book = CpuBook()
    with guest.session as session, book.kept():
        session.boot()
        guest.settle()
        run = Run(guest, plan)
        result = run.result
        if session.kernel.outcome is None or session.kernel.outcome.state != "up":
            result.wrong.append(f"the guest did not boot: {session.kernel.outcome}")
            return result
        baseline = Baseline(guest)
        session.machine.tracer = run.watch
        session.kernel.notifier.die_chain.register(NotifierBlock(_end_in_an_oops))
        if plan.starving:
            session.machine.policy = Starving(plan.seed)
        try:
            run.schedule()
            if plan.ending in ("kexec", "panic"):
                _go_down(run, plan.ending)
            elif run.wait():
                _come_to_rest(run, baseline, book)
        except Exception as error:
            name = known.explain_error(error)
            if name is not None:
                result.known.append(name)
                result.digest = run.watch.digest()
                return result
            where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            result.wrong.append(f"{type(error).__name__}: {error} {getattr(error, '__notes__', '')}\n{where}")
        run.findings()
        result.wrong.extend(run.watch.wrong)
        result.digest = run.watch.digest()
    return result


def _end_in_an_oops(action: int, fault: Any) -> int:
    """An oops ends the run where it happens: what follows it tells nothing."""
    raise fault


def _come_to_rest(run: Run, baseline: Baseline, book: CpuBook) -> None:
    """All is quiet: what is open works; then everything goes, and nothing may be left."""
    plan, result, operations = run.plan, run.result, run.operations
    for cpu in operations.passing_cpus:
        run.do("online", 0, cpu - 2, 0)
        if not run.wait():
            return
    result.wrong.extend(agree(run.guest))
    if operations.marked:
        result.known.append(known.TARGET_CHANGE_OF_A_REMOVED_CHANNEL)
        book.skipped |= operations.marked
    result.wrong.extend(book.check(run.guest))
    for number in range(len(plan.looms)):
        loom = operations.loom(number)
        for which in range(len(loom.channels) if loom is not None else 0):
            for kind in range(7):
                run.do("traffic", number, which, kind)
                if not run.wait():
                    return
    for number in range(len(plan.looms)):
        if plan.ending == "unbind":
            run.do("unbind", number, 0, 0)
            if not run.wait():
                return
        operations.rescind(number, 0, 0)
    if not run.wait():
        return
    result.wrong.extend(leftovers(run.guest, baseline, run.watch))
    result.wrong.extend(book.check(run.guest))


def _go_down(run: Run, ending: str) -> None:
    """In the middle of it all the guest leaves: for another kernel, or in a panic."""
    last = run.plan.steps[-1].at
    run.machine.run(limit=last * (run.plan.seed % 5) // 4 + 1)
    run.operations.dead = True
    kernel = run.kernel
    if ending == "kexec":
        task = kernel.spawn(vmbus_drv.hv_kexec_handler, run.guest.vmbus, name="kexec", cpu=kernel.cpus.cpu(0))
        run.machine.run(lambda: task.done, PATIENCE)
        if not task.done:
            run.explain([*run.stuck(), task])
    else:
        kernel.spawn(kernel.reboot.panic, "interleavings", name="panic", cpu=kernel.cpus.cpu(0))
        run.machine.run(limit=SECOND)
    server = run.guest.session.server
    if server.state is not ConnectionState.DISCONNECTED or server.by_relid or len(server.gpadls):
        left = f"{len(server.by_relid)} channels, {len(server.gpadls)} GPADLs"
        run.result.wrong.append(f"after {ending} the host is {server.state} with {left}")
    vias = sorted({entry.via.partition(" ")[0] for entry in run.machine.ledger.entries()})
    if not {"gpadl", "gpa-range", "monitor"}.isdisjoint(vias):
        run.result.wrong.append(f"after {ending} the host still reaches memory through {', '.join(vias)}")
