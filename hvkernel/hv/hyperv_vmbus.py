"""``drivers/hv/hyperv_vmbus.h``: the structures that the files of ``hv_vmbus`` share, one set per guest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from hvkernel.abi.vmbus import MAX_CHANNEL_RELIDS, VERSION_WIN10_V5_3, VmbusConnectState
from hvkernel.api.guest.arch import CommandLine, Power
from hvkernel.api.guest.hyperv import HvCommon, HvTimer, VmbusChannel
from hvkernel.api.guest.kernel import Kernel, Printk, Reboot
from hvkernel.api.guest.mm import Page
from hvkernel.api.guest.sched import Completion, Mutex, Spinlock, Tasklet, Work, Workqueue
from hvkernel.hv.hv_debugfs import HvDebugfs
from hvkernel.hv.ring_buffer import RingBuffer
from hvkernel.hv.warn import Place, Ratelimit, warning

if TYPE_CHECKING:
    from hvkernel.abi.wire import Wire
    from hvkernel.api.guest.arch import Arch
    from hvkernel.api.guest.device import AcpiDevice, AcpiDriver, BusType, Device, NotifierBlock, Resource
    from hvkernel.api.guest.smp import PerCpu
    from hvkernel.machine.machine import Machine

__all__ = ["ConnectionLost", "GuestKernel", "HvPerCpuContext", "HvVmbus", "MsgInfo", "OnmessageWork", "VmbusConnection"]

FIRST_GPADL_HANDLE: Final = 0xE1E10
"""Where the guest begins to count GPADL handles (drivers/hv/connection.c:vmbus_connection)."""


def as_int(value: int) -> int:
    """Return a u32 as printk's ``%d`` shows it; the kernel prints most message types and relids so."""
    return (value ^ 0x8000_0000) - 0x8000_0000


class ConnectionLost(RuntimeError):
    """A page of the connection was used while there is no connection: the kernel would follow a null pointer."""


class HvPerCpuContext:
    """``struct hv_per_cpu_context``."""

    __slots__ = ("cpu", "msg_dpc", "post_msg_page", "synic_event_page", "synic_message_page")

    def __init__(self, cpu: int) -> None:
        self.cpu = cpu
        self.synic_message_page: Page | None = None
        self.synic_event_page: Page | None = None
        self.post_msg_page: Page | None = None
        self.msg_dpc: Tasklet | None = None


@dataclass(slots=True, eq=False)
class MsgInfo:
    """``struct vmbus_channel_msginfo``: a request on its way, and where its answer goes."""

    msg: Wire
    """The message that was posted; answers are matched against its fields."""
    msgtype: int
    waiting_channel: VmbusChannel | None = None
    waitevent: Completion = field(default_factory=Completion)
    response: Any = None
    """The answer as a wire struct, once it came."""

    def matches(self, **wanted: int) -> bool:
        """Say whether the posted message has these field values."""
        return all(getattr(self.msg, name) == value for name, value in wanted.items())


@dataclass(slots=True, eq=False)
class OnmessageWork:
    """``struct onmessage_work_context``: a message that a worker shall handle."""

    work: Work
    msgtype: int
    payload: bytes


class VmbusConnection:
    """``struct vmbus_connection``."""

    def __init__(self) -> None:
        self.msg_conn_id = 0
        self.offer_in_progress = 0
        self.conn_state: VmbusConnectState = VmbusConnectState.DISCONNECTED
        """Changed along the table of :mod:`hvkernel.hv.connection_state` only."""
        self.next_gpadl_handle = FIRST_GPADL_HANDLE
        self.unload_event = Completion()
        self.all_offers_delivered_event = Completion()
        self.int_page: Page | None = None
        """Its first 2 KiB were the host's interrupt bits, the second are the guest's."""
        self.monitor_pages: list[Page | None] = [None, None]
        self.chn_msg_list: deque[MsgInfo] = deque()
        self.channelmsg_lock: Spinlock | None = None
        self.chn_list: list[VmbusChannel] = []
        """Primary channels, in the order of their offers."""
        self.channel_mutex: Mutex | None = None
        self.channels: list[VmbusChannel | None] | None = None
        """By relid."""
        self.work_queue: Workqueue | None = None
        self.handle_primary_chan_wq: Workqueue | None = None
        self.handle_sub_chan_wq: Workqueue | None = None
        self.rescind_work_queue: Workqueue | None = None
        self.ignore_any_offer_msg = False
        self.nr_chan_close_on_suspend = 0
        self.ready_for_suspend_event = Completion()
        self.nr_chan_fixup_on_resume = 0
        self.ready_for_resume_event = Completion()

    def send_int_page(self) -> int:
        """Guest physical address of the bits that tell the host which channel has data."""
        if self.int_page is None:
            raise ConnectionLost("vmbus_connection.send_int_page is used while the VMBus is not connected")
        return self.int_page.gpa + 2048

    def msg_lock(self) -> Spinlock:
        """``channelmsg_lock``."""
        assert self.channelmsg_lock is not None, "vmbus_connect() did not run"
        return self.channelmsg_lock

    def chn_mutex(self) -> Mutex:
        """``channel_mutex``."""
        assert self.channel_mutex is not None, "vmbus_connect() did not run"
        return self.channel_mutex

    def alloc_channels(self) -> None:
        """Make the table of channels by relid."""
        self.channels = [None] * MAX_CHANNEL_RELIDS


class LogLine(Protocol):
    """One line of the kernel log."""

    def render(self) -> str:
        """Return the line as dmesg shows it."""
        ...


class KernelLog(Printk, Protocol):
    """``kernel.printk`` with the lines themselves."""

    @property
    def log(self) -> Sequence[LogLine]: ...


class GuestReboot(Reboot, Protocol):
    """``kernel.reboot`` with what the panic path asks of built-in code."""

    crash_kexec_post_notifiers: bool

    def kmsg_dump_register(self, dump: Callable[[int], None]) -> int: ...
    def kmsg_dump_unregister(self, dump: Callable[[int], None]) -> int: ...
    def bug(self, text: str) -> NoReturn: ...


class GuestCommandLine(CommandLine, Protocol):
    """``kernel.cmdline`` with numbers."""

    def integer(self, name: str, default: int) -> int: ...


class GuestKernel(Kernel, Protocol):
    """The kernel as built-in code sees it: with the machine it runs on."""

    @property
    def machine(self) -> Machine: ...
    @property
    def cmdline(self) -> GuestCommandLine: ...
    @property
    def power(self) -> Power: ...
    @property
    def printk(self) -> KernelLog: ...
    @property
    def reboot(self) -> GuestReboot: ...


class HvVmbus:
    """All variables of ``hv_vmbus`` that are static in the kernel, and short ways to the kernel's services."""

    def __init__(self, kernel: GuestKernel, with_timer: bool, jit: bool = False) -> None:
        self.kernel = kernel
        self.machine = kernel.machine
        self.arch: Arch = kernel.arch
        self._with_timer = with_timer
        self.pr = kernel.printk.prefixed("hv_vmbus: ")
        self.mm = kernel.mm
        self.memory = kernel.mm.memory
        self.PAGE_SIZE = kernel.mm.PAGE_SIZE
        self.PAGE_SHIFT = kernel.mm.PAGE_SHIFT
        self.sched = kernel.sched
        self.softirq = kernel.softirq
        self.workqueue = kernel.workqueue
        self.cpus = kernel.cpus
        self.percpu = kernel.percpu

        self.connection = VmbusConnection()
        self.vmbus_proto_version = 0
        self.max_version = VERSION_WIN10_V5_3
        """Module parameter ``max_version``: ``hv_vmbus.max_version=`` of the command line, built in or not."""
        self.cpu_context: PerCpu[HvPerCpuContext]
        """``hv_context.cpu_context``, from hv_init() on."""
        self.hv_numa_map: list[int] = []
        """By node: bit mask of the CPUs that a performance channel already targets."""
        self.next_numa_node_id = 0
        self.rings: RingBuffer
        """The functions of ring_buffer.c, from hv_init() on."""
        self.jit = jit
        self.debug = HvDebugfs(self) if kernel.config.y("HYPERV_TESTING") else None
        """hv_debugfs.c, where it is built."""

        self.hv_acpi_dev: AcpiDevice | None = None
        self.hv_acpi_parent: Device | None = None
        self.vmbus_irq = 0
        self.vmbus_interrupt = 0
        self.vmbus_evt: PerCpu[int] | None = None
        self.hyperv_cpuhp_online = 0
        self.hv_bus: BusType | None = None
        self.hyperv_mmio: list[Resource] = []
        """What ACPI gives the bus, ascending, neighbours merged."""
        self.fb_mmio: Resource | None = None
        self.hyperv_mmio_lock: Mutex = kernel.locking.mutex_init("hyperv_mmio_lock")
        self.acpi_driver: AcpiDriver | None = None
        self.panic_block: NotifierBlock | None = None
        self.hv_synic_syscore_ops: Any = None
        self.warned: set[Place] = set()
        """Places whose WARN_ONCE or pr_warn_once was printed already."""
        self.ratelimits: dict[Place, Ratelimit] = {}

    @property
    def hv_common(self) -> HvCommon:
        """drivers/hv/hv_common.c."""
        return self.kernel.symbol(HvCommon)

    @property
    def hv_timer(self) -> HvTimer | None:
        """hyperv_timer.c; ``None`` where HYPERV_TIMER is not built: its calls are empty then."""
        return self.kernel.symbol(HvTimer) if self._with_timer else None

    def make_rings(self, vmbus_setevent: Callable[[Any], None]) -> None:
        """Bind ring_buffer.c to this guest's services."""
        self.rings = RingBuffer(
            self.kernel.machine.memory,
            self.PAGE_SIZE,
            preempt=self.kernel.machine.preempt,
            vmbus_setevent=vmbus_setevent,
            locking=self.kernel.locking,
            jit=self.jit,
            finding=lambda kind, text: self.kernel.machine.report(kind, "guest", text),
            machine=self.kernel.machine,
            delay_test=self.debug.message_delay if self.debug is not None else None,
        )

    def WARN_ON(self, place: Place) -> None:
        """Print a WARN_ON whose condition holds."""
        self.kernel.printk.pr_warn(warning(place, self.cpus.smp_processor_id(), ""))

    def WARN_ONCE(self, place: Place, text: str = "") -> None:
        """Print a WARN_ONCE or WARN_ON_ONCE the first time."""
        if place not in self.warned:
            self.warned.add(place)
            self.kernel.printk.pr_warn(warning(place, self.cpus.smp_processor_id(), text))

    def pr_err_ratelimited(self, place: Place, text: str) -> None:
        """Print an error that a host may provoke as often as it likes; what was dropped is counted in the log."""
        timers = self.kernel.timers
        allowed, dropped = self.ratelimits.setdefault(place, Ratelimit()).allow(timers.jiffies, timers.HZ)
        if dropped:
            self.kernel.printk.pr_warn(f"{place.function}: {dropped} callbacks suppressed")
        if allowed:
            self.pr.pr_err(text)

    def BUG(self, place: Place) -> NoReturn:
        """BUG_ON whose condition holds: the kernel cannot go on (asm-generic/bug.h)."""
        self.kernel.reboot.bug(f"{place.file}:{place.line}!")
