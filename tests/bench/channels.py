"""Print what 256 channels on 64 processors cost to open and to keep. Run it alone: ``python tests/bench/channels.py``.

The host offers 256 NetworkDirect devices; a driver takes them all, and a loop opens their channels one after the other:
rings allocated, GPADL established, channel opened, with all messages, hypercalls and interrupts of both sides, on the
processors that ``init_vp_index`` chose. Nothing talks on the channels.

Then the same number of channels as a driver of sub-channels makes them: four looms (the plugin of tests/data/plugins),
each with 63 sub-channels, from the offer of the devices to the answer on the last channel.

At last tracemalloc says what a channel holds beside its ring, from its offer on, with rings of two sizes; ``--where``
adds the lines that hold most.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import tracemalloc
from pathlib import Path
from time import process_time

from hvkernel.abi import guids
from hvkernel.abi.wire import Guid
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus, VmbusChannel
from hvkernel.boot.plugins import load
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, compose
from hvkernel.host.vmbus.devices import SlotSpec

PLUGINS = Path(__file__).parents[1] / "data" / "plugins"
CPUS, CHANNELS = 64, 256
RING_BYTES = 128 << 10
"""Of each of the two rings, control page included."""
LARGE_RING_BYTES = 2 << 20
"""The rings of uio_hv_generic, the largest of the kernel's drivers."""
BUDGET_S = 0.5
BUDGET_BYTES = 64 << 10
REPEATS = 5


class Taker:
    """A driver that binds to whatever is offered and waits."""

    def __init__(self) -> None:
        self.channels: list[VmbusChannel] = []
        self.driver = HvDriver("taker", [HvVmbusDeviceId(guids.HV_ND_GUID)], self.probe)

    def probe(self, dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        self.channels.append(dev.channel)
        return 0


class Bench:
    """A guest that is up, with a driver for devices that are not offered yet."""

    def __init__(self) -> None:
        session = compose(read_request(cpus=CPUS, memory="2G"), load())
        if not isinstance(session, Session):
            raise SystemExit(session.report.reason)
        session.boot()
        self.session = session
        self.vmbus: Vmbus = session.kernel.symbol(Vmbus)
        self.taker = Taker()
        if session.call(self.vmbus.vmbus_driver_register, self.taker.driver, "taker"):
            raise SystemExit("channels: the driver was refused")

    def offer(self) -> list[VmbusChannel]:
        """Offer the devices and let the guest bind to them; :raises SystemExit: it did not."""
        for n in range(CHANNELS):
            instance = Guid.parse(f"10040000-0000-4000-8000-{n:012x}")
            self.session.server.offer(SlotSpec(f"nd{n}", Guid(guids.HV_ND_GUID), instance))
        self.session.machine.run(limit=10_000_000)
        if len(self.taker.channels) != CHANNELS:
            raise SystemExit(f"channels: {len(self.taker.channels)} of {CHANNELS} devices were probed")
        return self.taker.channels


def open_all(vmbus: Vmbus, channels: list[VmbusChannel], size: int = RING_BYTES) -> None:
    """What is timed. :raises RuntimeError: a channel did not open."""
    for channel in channels:
        status = vmbus.vmbus_open(channel, size, size, b"", lambda context: None, None)
        if status:
            raise RuntimeError(f"vmbus_open: {status}")


def close_all(vmbus: Vmbus, channels: list[VmbusChannel]) -> None:
    """Close them again."""
    for channel in channels:
        vmbus.vmbus_close(channel)


def speed() -> bool:
    """Whether opening stays in its budget."""
    bench = Bench()
    with bench.session as session:
        channels = bench.offer()
        opening, closing = [], []
        gc.collect()
        gc.freeze()
        for _ in range(REPEATS):
            began = process_time()
            session.call(open_all, bench.vmbus, channels)
            opened = process_time()
            session.call(close_all, bench.vmbus, channels)
            opening.append(opened - began)
            closing.append(process_time() - opened)
        gc.unfreeze()
        cpus = len({channel.target_cpu for channel in channels})
    print(f"{CHANNELS} channels on {cpus} of {CPUS} processors, two rings of {RING_BYTES >> 10} KiB each")
    print(f"open:  {min(opening) * 1e3:6.0f} to {max(opening) * 1e3:.0f} ms of CPU, budget {BUDGET_S * 1e3:.0f}")
    print(f"close: {min(closing) * 1e3:6.0f} to {max(closing) * 1e3:.0f} ms of CPU")
    return min(opening) <= BUDGET_S


def looms() -> None:
    """Print what the same number of channels costs in the hands of a driver of sub-channels."""
    sys.path.insert(0, str(PLUGINS))
    from loom_guest import compose_with_looms, load_with_loom

    with tempfile.TemporaryDirectory() as directory:
        plugins = load_with_loom(Path(directory))
        guest = compose_with_looms(plugins, vm={"cpus": CPUS}, looms=())
    with guest.session as session:
        session.boot()
        gc.collect()
        gc.freeze()
        began = process_time()
        for n in range(4):
            guest.offer(n, {"subchannels": CHANNELS // 4 - 1})
        guest.settle()
        taken = process_time() - began
        gc.unfreeze()
        count = sum(len(loom.channels) for loom in guest.looms)
    print(f"{count} channels of 4 looms, offered, probed, opened and asked: {taken * 1e3:.0f} ms of CPU")


def memory(ring: int) -> bool:
    """Whether what channels with two rings of so many bytes hold beside their rings stays in its budget."""
    bench = Bench()
    with bench.session as session:
        gc.collect()
        tracemalloc.start()
        free = session.kernel.mm.nr_free_pages()
        before, _ = tracemalloc.get_traced_memory()
        channels = bench.offer()
        gc.collect()
        offered, _ = tracemalloc.get_traced_memory()
        session.call(open_all, bench.vmbus, channels, ring)
        gc.collect()
        opened, _ = tracemalloc.get_traced_memory()
        if "--where" in sys.argv:
            where(tracemalloc.take_snapshot())
        tracemalloc.stop()
        pages = (free - session.kernel.mm.nr_free_pages()) / CHANNELS
    whole = (opened - before) / CHANNELS
    print(f"two rings of {ring >> 10} KiB: {pages * 4:.0f} KiB of guest memory a channel, and")
    print(
        f"  beside it {whole / 1024:.1f} KiB a channel ({(offered - before) / CHANNELS / 1024:.1f} offered and probed, "
        f"{(opened - offered) / CHANNELS / 1024:.1f} opened), budget {BUDGET_BYTES >> 10}"
    )
    return whole <= BUDGET_BYTES and pages * 4096 <= 2 * ring


def where(snapshot: tracemalloc.Snapshot) -> None:
    """The twenty lines that hold most."""
    for statistic in snapshot.statistics("lineno")[:20]:
        print(f"{statistic.size / CHANNELS:9.0f} bytes a channel: {statistic.traceback}")


def main() -> int:
    fast = speed()
    looms()
    small = [memory(ring) for ring in (RING_BYTES, LARGE_RING_BYTES)]
    return int(not (fast and all(small)))


if __name__ == "__main__":
    sys.exit(main())
