"""The machine: memory, virtual processors, time and findings put together.

Everything hangs on the one Machine object, so any number of machines live side by side in one process, and one seed and
policy give one trace.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from random import Random
from types import TracebackType
from typing import Any

from hvkernel.machine.accessor import Side
from hvkernel.machine.faults import MachineError
from hvkernel.machine.firmware import FirmwareTables
from hvkernel.machine.memory import Memory
from hvkernel.machine.report import Finding, guest_module
from hvkernel.machine.scheduler import Scheduler
from hvkernel.machine.vp import VpTopology


class Machine(Scheduler):
    """One modelled computer. Use it as a context manager, or call :meth:`close`.

    :param ram: (start, size) ranges of RAM in bytes, multiples of 4096.
    :param vps: the virtual processors; VP indexes 0..n-1 in any order. The first one listed is the boot processor.
    :param seed: seeds :meth:`rng`.
    :param policy: "fifo" or "random:SEED".
    :raises ValueError: naming field, value and limit.
    """

    def __init__(
        self,
        ram: Iterable[tuple[int, int]],
        vps: Sequence[VpTopology],
        seed: int = 0,
        policy: str = "fifo",
    ) -> None:
        super().__init__(vps, policy)
        self.seed = seed
        self.findings: list[Finding] = []
        """What was noticed, in order of time."""
        self.firmware = FirmwareTables()
        """What the firmware leaves for the kernel; set by the host."""
        self.memory = Memory(ram, self._memory_report)
        self.ledger = self.memory.ledger
        self._rngs: dict[str, Random] = {}

    def rng(self, name: str) -> Random:
        """The random stream `name` of this machine, seeded from (seed, name). The same name gives the same stream
        object."""
        stream = self._rngs.get(name)
        if stream is None:
            stream = self._rngs[name] = Random(f"{self.seed}/{name}")
        return stream

    # -- findings ---------------------------------------------------------------------

    def report(self, kind: str, side: Side, text: str, where: tuple[str, ...] | None = None) -> Finding:
        """Record a finding at the present time. `where`: the guest's call chain unless given."""
        chain = self.guest_call_chain() if where is None else where
        finding = Finding(kind, side, text, self.clock.now, chain)
        self.findings.append(finding)
        return finding

    def _memory_report(self, kind: str, side: Side, text: str) -> None:
        self.report(kind, side, text)

    def guest_call_chain(self) -> tuple[str, ...]:
        """The functions of the guest that are active on this task, innermost first: "function (file)".

        Frames of the host, of this package and of libraries are left out, and so are lambdas and comprehensions. File
        names are relative to the source root.
        """
        chain: list[str] = []
        frame = sys._getframe(1)
        at: Any = frame
        while at is not None:
            module = at.f_globals.get("__name__", "")
            function = at.f_code.co_name
            if guest_module(module) and not function.startswith("<"):
                file = module.replace(".", "/") + ("/__init__.py" if "__path__" in at.f_globals else ".py")
                chain.append(f"{function} ({file})")
            at = at.f_back
        return tuple(chain)

    # -- end -------------------------------------------------------------------------

    def close(self) -> tuple[str, ...]:
        """End what is still live, in order of creation, and give the memory back.

        :returns: the names of the tasks that were live. Closing again returns ().
        :raises MachineError: called from a task.
        :raises ExceptionGroup: tasks that raised while they ended; everything is closed nevertheless.
        """
        if self._closing:
            return ()
        self._check_usable()
        if self._hub is not None:
            raise MachineError("close() inside run()")
        live = tuple(task.name for task in self._tasks.values())
        errors: list[Exception] = []
        self._closing = True
        idles = [vp._lane.idle for vp in self.vps if vp._lane.idle is not None]
        for task in [*self._tasks.values(), *idles]:
            try:
                self._end(task)
            except Exception as error:
                errors.append(error)
        self.clock._drop_all()
        self._ready.clear()
        if not self.memory.close():
            self.report("view-outlives-machine", "host", "a view of guest memory is alive after the machine was closed")
        if errors:
            raise ExceptionGroup("tasks that failed while the machine was closed", errors)
        return live

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
