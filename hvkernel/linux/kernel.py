"""The kernel: one object per header, put together, and the registration of what the configuration builds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hvkernel.api.guest.arch import ArchBug
from hvkernel.api.guest.errno import EFAULT
from hvkernel.api.guest.kernel import Build, KernelObject, Release
from hvkernel.linux import core_objects
from hvkernel.linux.acpi import Acpi
from hvkernel.linux.async_ import Async
from hvkernel.linux.block import Block
from hvkernel.linux.clocksource import Clocksources
from hvkernel.linux.cmdline import CommandLine
from hvkernel.linux.cpuhp import Cpuhp
from hvkernel.linux.debugfs import Debugfs
from hvkernel.linux.driver import DriverCore
from hvkernel.linux.firmware import Firmware
from hvkernel.linux.init import Init
from hvkernel.linux.initcall import Initcall, Initcalls
from hvkernel.linux.ioport import IoResources
from hvkernel.linux.irq import Irq
from hvkernel.linux.linkorder import LinkRank, link_rank
from hvkernel.linux.locking import Locking
from hvkernel.linux.mm import Mm, lowmem_end
from hvkernel.linux.module import Modules
from hvkernel.linux.notifier import Notifiers
from hvkernel.linux.percpu import PerCpuApi
from hvkernel.linux.power import Power
from hvkernel.linux.printk import Printk
from hvkernel.linux.reboot import Reboot
from hvkernel.linux.sched import Sched
from hvkernel.linux.scsi import Scsi
from hvkernel.linux.smp import Cpus
from hvkernel.linux.softirq import Softirq
from hvkernel.linux.symbols import LinkError, Symbols, check_link, exporters_first, state_of
from hvkernel.linux.sysfs import Sysfs
from hvkernel.linux.timers import Timers
from hvkernel.linux.tracing import Tracing
from hvkernel.linux.workqueue import WorkqueueApi
from hvkernel.machine import Fault, Machine, Task

if TYPE_CHECKING:
    from random import Random

    from hvkernel.api.guest.arch import Arch
    from hvkernel.linux.cpu import Cpu

T = TypeVar("T")

MAX_ORDER_DEFAULT: Final = 11
"""Source: include/linux/mmzone.h (CONFIG_ARCH_FORCE_MAX_ORDER otherwise)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the kernel stands."""

    state: str
    """``up``, ``panic``, ``hung``; ``power_off``, ``restart``, ``halt`` after an orderly end."""
    reason: str = ""


class LinkFailure(Exception):
    """The configuration does not link: :attr:`errors` are the undefined references."""

    def __init__(self, errors: list[LinkError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


class Kernel:
    """One guest kernel on one machine. Implements :class:`hvkernel.api.guest.Kernel`.

    Order of use: construct, ``register_object`` for every object (the arch does it in ``attach``), :meth:`boot`.
    """

    def __init__(
        self,
        machine: Machine,
        config: Build,
        release: Release,
        arch: Arch,
        *,
        page_size: int = 4096,
        initrd: Iterable[str] | str | None = "all",
        initrd_exact: bool = False,
        initrd_refused: str | None = None,
        debug: bool = False,
        core: bool = True,
    ) -> None:
        """:param page_size: bytes; 4, 16 or 64 KiB.
        :param initrd: ``"all"`` (every module that is built), the names of modules, or None for no initramfs.
        :param initrd_exact: whether the names are all that is in it; else what these modules need is there too.
        :param initrd_refused: method by which it is compressed, if the kernel was built without.
        :param debug: show pr_debug() lines.
        :param core: register the objects of :mod:`hvkernel.linux.core_objects`; False for tests of single parts.
        :raises ValueError: for a page size or CONFIG_HZ that no kernel has, or a memory map without RAM.
        """
        if page_size not in (4096, 16384, 65536):
            raise ValueError(f"page size {page_size} is none of 4096, 16384, 65536")
        self.machine = machine
        self.config = config
        self.release = release
        self.arch = arch
        self.outcome: Outcome | None = None
        self.blame: Callable[[BaseException], bool] = lambda error: False
        """Asked about what a driver raised: True when it was a plugin's code, which is reported then."""
        self.scheduling = False
        """True from rest_init(): before it nothing can sleep and might_sleep() says nothing."""
        self.firmware = Firmware(machine.firmware)
        self.cmdline = CommandLine(machine.firmware.command_line)
        self._objects: list[KernelObject] = []
        """In link order; :attr:`_ranks` has their sort keys."""
        self._ranks: list[LinkRank] = []
        self._sealed = False

        self.symbols = Symbols()
        self.notifier = Notifiers()
        self.ioport = IoResources()
        self.tracing = Tracing(self)
        self.printk = Printk(self._log_clock, debug=debug)
        self.locking = Locking(self)
        self.cpus = Cpus(self)
        self.sched = Sched(self)
        self.softirq = Softirq(self)
        self.irq = Irq(self)
        self.timers = Timers(self, self._hz())
        self.percpu = PerCpuApi(self.cpus)
        self.cpuhp = Cpuhp(self)
        self.workqueue = WorkqueueApi(self)
        self.async_ = Async(self)
        self.reboot = Reboot(self)
        self.power = Power(self)
        self.clocksource = Clocksources(
            self.printk, self.timers.HZ, self.timers.monotonic_ns, lambda: self.timers.jiffies
        )
        bits = arch.bits
        self.mm = Mm(
            machine.memory,
            page_size.bit_length() - 1,
            machine.firmware.memory_map,
            max_order=self._int("ARCH_FORCE_MAX_ORDER", MAX_ORDER_DEFAULT) - 1,
            finding=self.finding,
            before_alloc=self._before_alloc,
            lowmem_limit=lowmem_end(self._int("PAGE_OFFSET", 0xC0000000)) if bits == 32 else None,
            memory_limit=self._memory_limit(bits),
        )
        self.driver = DriverCore(self.printk, self.locking, self.async_, page_size)
        self.debugfs = Debugfs(config.y("DEBUG_FS"))
        self.sysfs = Sysfs(self)
        self.initcall = Initcalls(self._after_initcall)
        self.module = Modules(self.symbols, self._init_module, self._exit_module, self._wait_while)
        self.driver.current_owner = self._current_owner
        self.driver.survive = self.survive
        self.acpi = Acpi(self)
        self.block = Block(self)
        self.scsi = Scsi(self)
        self.init = Init(self, initrd, exact=initrd_exact, refused=initrd_refused)
        if core:
            core_objects.register(self)
        arch.attach(self)

    # composition -----------------------------------------------------------------------------------------------

    def _int(self, name: str, default: int) -> int:
        text = self.config.value(name)
        try:
            return int(text, 0) if text and text not in ("y", "m", "n") else default
        except ValueError:
            raise ValueError(f"CONFIG_{name}={text!r} is not a number") from None

    def _hz(self) -> int:
        return self._int("HZ", 250)

    def _memory_limit(self, bits: int) -> int | None:
        """Where a 32-bit kernel's memory ends: lowmem without HIGHMEM, 4 GiB without PAE, else 64 GiB."""
        if bits != 32:
            return None
        if self.config.y("X86_PAE"):
            return 1 << 36
        if self.config.y("HIGHMEM"):
            return 1 << 32
        return lowmem_end(self._int("PAGE_OFFSET", 0xC0000000))

    def register_object(self, obj: KernelObject) -> None:
        """Declare an object to the build.

        :raises ValueError: for a name that is taken, a bad level or path.
        :raises RuntimeError: after boot began.
        """
        if self._sealed:
            raise RuntimeError(f"register_object({obj.name}): the kernel is linked already")
        rank = link_rank(obj.path)
        if any(other.name == obj.name for other in self._objects):
            raise ValueError(f"kernel object {obj.name} ({obj.path}) is registered twice")
        at = bisect_right(self._ranks, rank)
        self._ranks.insert(at, rank)
        self._objects.insert(at, obj)

    @property
    def objects(self) -> tuple[KernelObject, ...]:
        """Everything registered, in link order."""
        return tuple(self._objects)

    def built(self, obj: KernelObject) -> str:
        """``y``, ``m`` or ``n``."""
        return state_of(obj, self.config)

    def symbol(self, proto: type[T]) -> T:
        """What another object exports. :raises SymbolError: (a LookupError) when nothing does."""
        return self.symbols.resolve(proto)

    def random(self, name: str) -> Random:
        """The machine's random stream of that name."""
        return self.machine.rng(f"guest/{name}")

    # building and booting --------------------------------------------------------------------------------------

    def link_errors(self) -> list[LinkError]:
        """Undefined references of this configuration."""
        return check_link(self.objects, self.config)

    def link(self) -> None:
        """Make the image: check references, enter built-in objects and modules. Idempotent.

        :raises LinkFailure: when something does not link.
        """
        if self._sealed:
            return
        errors = self.link_errors()
        if errors:
            raise LinkFailure(errors)
        self._sealed = True
        image = []
        for obj in self.objects:
            state = self.built(obj)
            if state == "n":
                continue
            self.module.add(obj, module=state == "m")
            if state == "y":
                image.append(obj)
        for obj in exporters_first(image):
            if obj.link is not None:
                obj.link(self)
        for obj in image:
            self.initcall.add(obj.level, obj.path, partial(self.run_init, obj), obj.function or f"{obj.name}_init")

    def start(self) -> Task:
        """Link, and put start_kernel() on the boot processor. :raises LinkFailure: see :meth:`link`."""
        self.link()
        self.machine.set_secondary_entry(self.cpus.secondary_entry)
        boot = self.cpus.cpus[0]
        return self.machine.spawn(self.guard, self.init.start_kernel, name="swapper/0", vp=boot.vp, irqs=False)

    def boot(self, limit: int | None = None) -> Outcome:
        """Start the kernel and run the machine until it is up, has ended, or cannot go on.

        :param limit: most virtual time, 100 ns units; None: no limit.
        """
        self.start()
        return self.run(limit)

    def run(self, limit: int | None = None) -> Outcome:
        """Run until there is an outcome; a machine that stands still, or reaches ``limit``, is ``hung``."""
        how = self.machine.run(lambda: self.outcome is not None, limit)
        if self.outcome is None:
            waiting = ", ".join(t.name for t in self.machine.tasks if t.side == "guest" and t.state == "blocked")
            doing = self.init.doing
            if how == "idle":
                self.finish("hung", f"{doing}: nothing can run; waiting: {waiting or 'none'}")
            else:
                self.finish("hung", f"{doing}: not done within the limit")
        assert self.outcome is not None
        return self.outcome

    def finish(self, state: str, reason: str) -> None:
        """Record how it stands. The first outcome stays, but ``up`` gives way to how the kernel ended."""
        if self.outcome is None or self.outcome.state == "up":
            self.outcome = Outcome(state, reason)

    # tasks -----------------------------------------------------------------------------------------------------

    def spawn(self, fn: Callable[..., Any], *args: Any, name: str, cpu: Cpu | None = None) -> Task:
        """A kernel thread on ``cpu``, or on the caller's CPU."""
        return self.machine.spawn(self.guard, fn, *args, name=name, vp=None if cpu is None else cpu.vp)

    def guard(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run ``fn``; a fault that nobody caught is an oops and ends this task, a BUG() ends the kernel."""
        try:
            return fn(*args)
        except Fault as fault:
            self.reboot.oops(fault)
        except ArchBug as bug:
            self.reboot.bug(str(bug))
        return None

    def survive(self, error: Exception) -> None:
        """Go on without what raised ``error``, if it was a plugin's code; else raise it again.

        A fault or a BUG() is the guest's own business, whoever caused it.
        """
        if isinstance(error, Fault | ArchBug) or not self.blame(error):
            raise error

    def run_init(self, obj: KernelObject) -> int:
        """Call an object's init; one that raises has failed with -EFAULT."""
        try:
            return obj.init(self) or 0
        except Exception as error:
            self.survive(error)
            return -EFAULT

    @property
    def counter_hz(self) -> int:
        """Frequency of the processors' counter, see :class:`hvkernel.api.guest.ArchKernel`."""
        return self.machine.firmware.counter_hz

    def counter_time(self) -> int:
        """Time of the processors' counter in 100 ns units."""
        return self.machine.clock.now

    def current_name(self) -> str:
        """Name of the running task, for messages."""
        task = self.machine.current
        if task is None:
            return "nobody"
        return task.name if task.number else f"swapper/{self.cpus.smp_processor_id()}"

    def is_init_task(self) -> bool:
        """Whether the caller is the boot thread, without which there is no system."""
        return self.machine.current is self.init.task

    def finding(self, kind: str, text: str) -> None:
        """Report something that a sanitizer noticed, with the guest's call chain."""
        self.machine.report(kind, "guest", text)

    def _log_clock(self) -> int:
        ns = self.clocksource.sched_clock()
        self.tracing.clock_read(ns)
        return ns

    def _before_alloc(self, atomic: bool) -> None:
        if not atomic:
            self.sched.might_sleep()
        self.machine.preempt()

    # modules ---------------------------------------------------------------------------------------------------

    def _after_initcall(self, call: Initcall, result: int) -> None:
        cpu = self.cpus.this_cpu()
        if cpu.preempt_count:
            self.finding(
                "preempt-imbalance",
                f"WARNING: initcall {call.name} returned with preemption imbalance {cpu.preempt_count:08x}",
            )
            cpu.preempt_count = 0
        if not cpu.vp.irq_enabled and self.scheduling:
            self.finding("irqs-disabled", f"WARNING: initcall {call.name} returned with disabled interrupts")
            cpu.vp.irq_enabled = True

    def _init_module(self, obj: KernelObject) -> int:
        """do_init_module(): the init function, then wait for what it started."""
        if obj.link is not None:
            obj.link(self)
        task = self.machine.current
        stack = task.locals.setdefault("loading", []) if task is not None else []
        stack.append(obj.name)
        try:
            ret = self.run_init(obj)
        finally:
            stack.pop()
        if ret >= 0:
            self.async_.async_synchronize_full()
        return ret

    def _exit_module(self, obj: KernelObject) -> None:
        if obj.exit is not None:
            obj.exit(self)

    def _current_owner(self) -> str | None:
        task = self.machine.current
        stack = task.locals.get("loading") if task is not None else None
        return stack[-1] if stack else None

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            self.sched.usleep_range(100, 200)
