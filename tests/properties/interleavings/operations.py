"""The operations. Those of the guest are tasks that may sleep; those of the host are done on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from loom_guest import INSTANCE, loom_slot

from hvkernel.api.guest.errno import EAGAIN, EBUSY, EDQUOT, EINVAL, EIO, ENODEV
from hvkernel.host.vmbus.tables import ChannelState
from hvkernel.hv import vmbus_drv

if TYPE_CHECKING:
    from hvkernel_loom.vsc import Loom
    from loom_guest import LoomGuest

    from hvkernel.api.guest.hyperv import HvDevice, VmbusChannel
    from interleavings.plan import Plan

MILLISECOND: Final = 10_000
GOING: Final = (-ENODEV, -EDQUOT)
"""What is said of a channel that is rescinded meanwhile; the second when the host's refusal of a GPADL comes first."""
DATA: Final = bytes(range(256)) * 4


class Operations:
    """All operations on one guest. Each method takes a step's three numbers; what a guest task found is returned.

    :param wrong: told what must never come out of an operation.
    """

    HOST: Final = frozenset({"offer", "rescind", "reoffer", "subchannels"})

    def __init__(self, guest: LoomGuest, plan: Plan, wrong: Callable[[str], None]) -> None:
        self.guest = guest
        self.plan = plan
        self._wrong = wrong
        self.marked = 0
        """CPUs that a target change marked for a channel that was removed meanwhile, as a bit mask."""
        self._offered: dict[int, int] = {}
        self.dead = False
        """The guest is going down: what its tasks find then is nobody's business."""

    # finding things

    def loom(self, number: int) -> Loom | None:
        """Return what the driver has of loom ``number``, if it is bound."""
        wanted = INSTANCE.format(number)
        return next((loom for loom in self.guest.looms if loom is not None and loom.dev.name == wanted), None)

    def device(self, number: int) -> HvDevice | None:
        """Return the guest's device, bound or not; the newest where there are two."""
        wanted = INSTANCE.format(number)
        devices = [channel.device_obj for channel in self.guest.channels if channel.primary_channel is None]
        return next((dev for dev in reversed(devices) if dev is not None and dev.name == wanted), None)

    def pick(self, loom: Loom, which: int) -> VmbusChannel | None:
        """Return an open channel."""
        channels = loom.channels
        return channels[which % len(channels)] if channels else None

    @property
    def passing_cpus(self) -> range:
        """CPUs that go offline; tasks of the test run on the others."""
        return range(2, self.plan.vm["cpus"])

    def check(self, what: str, ret: int, *allowed: int) -> None:
        """Complain about an outcome that cannot be."""
        if ret not in (0, *allowed) and not self.dead:
            self._wrong(f"{what} returned {ret}")

    # the guest's

    def traffic(self, number: int, which: int, kind: int) -> None:
        loom = self.loom(number)
        channel = self.pick(loom, which) if loom is not None else None
        if loom is None or channel is None:
            return
        driver = self.guest.driver
        kinds: tuple[Callable[[], int], ...] = (
            lambda: driver.loom_sum(loom, channel, DATA[: 7 * kind]),
            lambda: driver.loom_sum_getid(loom, channel, DATA[:kind]),
            lambda: driver.loom_note(loom, channel),
            lambda: driver.loom_gather(loom, channel, DATA * (1 + kind % 9)),
            lambda: driver.loom_scatter(loom, channel, 1 + 190 * kind, kind),
            lambda: driver.loom_tick(loom, channel, 1 + 3 * kind),
            lambda: driver.loom_deliver(loom, channel, 1 + 2 * kind, 1 + 60 * kind),
        )
        for send in (kinds[kind % len(kinds)], kinds[which % len(kinds)]):
            # A buffer is delivered into only once the driver has shared it.
            self.check("traffic", send(), -ENODEV, -EINVAL)

    def lend(self, number: int, which: int, size: int) -> None:
        loom = self.loom(number)
        channel = self.pick(loom, which) if loom is not None else None
        if loom is not None and channel is not None:
            pages = 1 + size * size // 4
            self.check("lend", self.guest.driver.loom_lend(loom, channel, 4096 * pages), *GOING)

    def reopen(self, number: int, which: int, kind: int) -> None:
        loom = self.loom(number)
        if loom is not None:
            self.check("reopen", self.guest.driver.loom_reopen(loom), *GOING, -EAGAIN)

    def unbind(self, number: int, which: int, kind: int) -> None:
        device = self.device(number)
        if device is not None:
            self.guest.session.kernel.driver.device_release_driver(device)

    def bind(self, number: int, which: int, kind: int) -> None:
        device = self.device(number)
        core = self.guest.session.kernel.driver
        if device is not None and any(drv.name == "hv_loom" for drv in core.buses["vmbus"].drivers):
            self.check("bind", core.device_driver_attach(self.guest.driver.driver, device), *GOING, -EAGAIN, -EBUSY)

    def modify(self, number: int, which: int, cpu: int) -> None:
        loom = self.loom(number)
        channel = self.pick(loom, which) if loom is not None else None
        if channel is not None:
            cpu %= self.plan.vm["cpus"]
            ret = vmbus_drv.target_cpu_store(self.guest.vmbus, channel, cpu)
            self.check("modify", ret, -EIO, -EINVAL)
            if ret == 0 and channel not in self.guest.channels:
                self.marked |= 1 << cpu

    def offline(self, number: int, which: int, kind: int) -> None:
        if self.passing_cpus:
            cpu = self.passing_cpus[which % len(self.passing_cpus)]
            self.check("offline", self.guest.session.kernel.cpuhp.cpu_down(cpu), -EBUSY, -EINVAL)

    def online(self, number: int, which: int, kind: int) -> None:
        if self.passing_cpus:
            cpu = self.passing_cpus[which % len(self.passing_cpus)]
            self.check("online", self.guest.session.kernel.cpuhp.cpu_up(cpu))

    # the host's

    def offered(self, number: int) -> Any:
        """Return the host's device, if it is there and not on its way out."""
        for device in self.guest.session.server.devices:
            if device.name == f"loom{number}" and device.channels[0].state is not ChannelState.RESCINDED:
                return device
        return None

    def offer(self, number: int, which: int, kind: int) -> None:
        server = self.guest.session.server
        now = self.guest.session.machine.clock.now
        if any(device.name == f"loom{number}" for device in server.devices):
            return
        if now >= self._offered.get(number, 0):
            # The host does it in a task of its own; until then it does not know the name.
            self._offered[number] = now + MILLISECOND
            server.offer(loom_slot(number, self.plan.looms[number]))

    def rescind(self, number: int, which: int, kind: int) -> None:
        if self.offered(number) is not None:
            self.guest.session.server.rescind(f"loom{number}")

    def reoffer(self, number: int, which: int, kind: int) -> None:
        if self.offered(number) is not None:
            # Not at once: an offer of an instance that 6.1 still has is to it one after hibernation (vmbus_onoffer).
            self.guest.session.server.reoffer(f"loom{number}")

    def subchannels(self, number: int, which: int, kind: int) -> None:
        device = self.offered(number)
        if device is not None and device.channels[0].is_open:
            self.guest.session.server.offer_subchannels(f"loom{number}", 1 + which % 3)
