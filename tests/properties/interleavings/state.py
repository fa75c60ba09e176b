"""What guest, host and machine hold, compared with each other and with how it was before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hvkernel.abi.vmbus import VmbusChannelState as Guest
from hvkernel.host.vmbus.tables import ChannelState as Host
from hvkernel.hv import channel_cpus

if TYPE_CHECKING:
    from loom_guest import LoomGuest

    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.hv.hyperv_vmbus import HvVmbus
    from interleavings.watch import Watch


class Baseline:
    """How it was before the first loom."""

    def __init__(self, guest: LoomGuest) -> None:
        session = guest.session
        self.pages = Counter((page.caller, page.order) for page in session.kernel.mm.leaks())
        self.free = session.kernel.mm.nr_free_pages()
        self.shares = Counter((entry.via, entry.key, entry.pages) for entry in session.machine.ledger.entries())
        self.gpadls = len(session.server.gpadls)
        self.relids = sorted(session.server.by_relid)
        self.channels = [channel.offermsg.child_relid for channel in guest.channels]
        self.ports = len(session.host.ports)
        self.host_tasks = sorted(task.name for task in session.machine.tasks if task.side == "host")


class CpuBook:
    """What ``init_vp_index`` marks in ``hv_numa_map`` without taking it: CPUs that another channel of the device has.

    6.1 never unmarks those (drivers/hv/channel_mgmt.c: init_vp_index), so they may stay marked without a channel.
    """

    def __init__(self) -> None:
        self.skipped = 0
        """Bit mask of CPUs."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the book for the length of a ``with`` block."""
        original = channel_cpus.init_vp_index

        def init_vp_index(v: HvVmbus, channel: VmbusChannel) -> None:
            before = sum(v.hv_numa_map)
            original(v, channel)
            self.skipped |= sum(v.hv_numa_map) & ~before & ~(1 << channel.target_cpu)

        channel_cpus.init_vp_index = init_vp_index
        try:
            yield
        finally:
            channel_cpus.init_vp_index = original

    def check(self, guest: LoomGuest) -> list[str]:
        """Return which CPUs are marked although no performance channel targets them."""
        perf = [channel for channel in guest.channels if channel_cpus.hv_is_perf_channel(channel)]
        targets = sum({1 << channel.target_cpu for channel in perf})
        # A node's CPUs are bits of the whole machine's numbering, so the nodes' masks never overlap.
        stray = sum(guest.vmbus.hv_numa_map) & ~targets & ~self.skipped
        return [f"hv_numa_map marks CPUs {stray:#b}, which no performance channel targets"] if stray else []


def leftovers(guest: LoomGuest, before: Baseline, watch: Watch) -> list[str]:
    """Return what is left although all looms are gone."""
    now = Baseline(guest)
    connection = guest.vmbus.connection
    wrong = [
        f"{what}: {was} before, {is_} now"
        for what, was, is_ in (
            ("relids of the host", before.relids, now.relids),
            ("relids of the guest", before.channels, now.channels),
            ("GPADLs", before.gpadls, now.gpadls),
            ("free pages", before.free, now.free),
            ("ports", before.ports, now.ports),
            ("host tasks", before.host_tasks, now.host_tasks),
        )
        if was != is_
    ]
    for (caller, order), count in (now.pages - before.pages).items():
        wrong.append(f"{count} allocations of order {order} at {caller} were never freed")
    for (via, key, pages), count in (now.shares - before.shares).items():
        wrong.append(f"the host still reaches {pages} pages via {via} {key} ({count} times)")
    for relid, state in watch.offered.items():
        wrong.append(f"relid {relid} was {state} and never released")
    if connection.chn_msg_list:
        wrong.append(f"{len(connection.chn_msg_list)} requests wait for an answer")
    if connection.offer_in_progress:
        wrong.append(f"offer_in_progress is {connection.offer_in_progress}")
    if connection.chn_mutex().locked():
        wrong.append("channel_mutex is held")
    return wrong


def agree(guest: LoomGuest) -> list[str]:
    """Return where guest and host see a channel differently, when nothing is on its way."""
    wrong = []
    server = guest.session.server
    vmbus = guest.vmbus
    mine = {channel.offermsg.child_relid: channel for channel in guest.channels}
    theirs = server.by_relid
    for relid in sorted(mine.keys() | theirs.keys()):
        channel, other = mine.get(relid), theirs.get(relid)
        if channel is None or other is None:
            wrong.append(f"relid {relid}: the guest has {channel}, the host {other}")
            continue
        is_open = channel.state == Guest.CHANNEL_OPENED_STATE
        if channel.rescind or is_open != (other.state is Host.OPEN):
            wrong.append(f"relid {relid}: {channel} (rescind {channel.rescind}), the host says {other.state}")
        if is_open:
            cpu = channel.target_cpu
            if other.target_vp != vmbus.hv_common.hv_cpu_number_to_vp_number(cpu):
                wrong.append(f"relid {relid}: target_cpu {cpu}, the host interrupts VP {other.target_vp}")
            if not vmbus.cpus.cpu_online(cpu):
                wrong.append(f"relid {relid} is open and targets CPU {cpu}, which is offline")
            if other.inflight or other.queue:
                wrong.append(f"relid {relid}: {len(other.inflight)} requests and {len(other.queue)} packets are left")
            if channel.requestor.req_bitmap.count(1):
                wrong.append(f"relid {relid}: {channel.requestor.req_bitmap.count(1)} request ids are in use")
    waiting = len(vmbus.connection.chn_msg_list)
    if waiting:
        wrong.append(f"{waiting} requests wait for an answer")
    return wrong
