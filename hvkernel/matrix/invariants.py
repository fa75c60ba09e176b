"""What must hold in every cell, besides what plugins add (hook ``hv_matrix_invariants``).

Each is a function of the evidence, so it can be tested with evidence that is made up. What a host may note of a guest
that does nothing wrong is declared in :data:`TOLERATED`, one reason each; every other finding is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from hvkernel.abi.vmbus import VERSION_WIN8, VERSION_WIN8_1, VERSION_WIN10_V5
from hvkernel.api.matrix import Evidence, Invariant

if TYPE_CHECKING:
    from hvkernel.api.matrix import Moment

__all__ = ["BUILT_IN", "TOLERATED", "foreign_pages"]


def _before_3_0(evidence: Evidence) -> bool:
    return 0 < evidence.vmbus_version < VERSION_WIN8_1


def _before_2_4(evidence: Evidence) -> bool:
    return 0 < evidence.vmbus_version < VERSION_WIN8


def _before_5_0(evidence: Evidence) -> bool:
    return evidence.vmbus_version < VERSION_WIN10_V5


def _unloaded(evidence: Evidence) -> bool:
    """Whether hv_vmbus may have been unloaded."""
    return evidence.moment == "ended" or "reload" in (evidence.values.get("events"), evidence.values.get("then"))


def _panicked(evidence: Evidence) -> bool:
    return evidence.outcome == "panic"


def _at_the_end(evidence: Evidence) -> bool:
    return evidence.moment == "ended"


def _always(evidence: Evidence) -> bool:
    return True


TOLERATED: Final[tuple[tuple[str, Callable[[Evidence], bool], str], ...]] = (
    (
        r"refused: VP \d+: HvCallPostMessage: INVALID_CONNECTION_ID",
        _before_5_0,
        "a guest that knows 5.0 posts to connection 4 first, which older hosts do not have",
    ),
    (
        r"throttled: vmbus: \d+ messages wait already|refused: VP \d+: HvCallPostMessage: INSUFFICIENT_BUFFERS",
        _always,
        "a guest that opens many sub-channels at once posts again (drivers/hv/connection.c: vmbus_post_msg)",
    ),
    (
        r"ignored: vmbus: RELID_RELEASED without a connection",
        _unloaded,
        "vmbus_exit() frees the channels after vmbus_disconnect(), and each says that it is released",
    ),
    (
        r"free-of-shared-page: .*\(via monitor\)|free-of-shared-page: .*\(via interrupt page\)"
        r"|tolerated: vmbus: INITIATE_CONTACT on a live connection; the old one is dropped",
        _before_3_0,
        "hosts before 3.0 know no UNLOAD, so the guest frees the connection's pages and connects again without a word",
    ),
    (
        r"tolerated: vmbus: \S+: sub-channels do not exist before version 2\.4; none offered",
        _before_2_4,
        "a VM of more than 16 processors has more channels than such a connection can be offered",
    ),
    (
        r"refused: VP \d+ (read|wrote 0x[0-9a-f]+ to) REFERENCE_TSC: ACCESS_DENIED",
        _at_the_end,
        "hyperv_cleanup() of arch/x86/hyperv/hv_init.c resets the reference TSC page where there is none, too",
    ),
    (
        r"guest-crash: .*",
        _panicked,
        "a kernel that panics says so; whether it may is for comes-up and stays-up to say",
    ),
)
"""Findings that are no faults, as ``KIND: TEXT``, when, and why."""

BAD_LINE: Final = re.compile(
    r"\b(WARNING|BUG|Oops|KASAN|UBSAN)\b:|^BUG\b|kernel BUG at|Call Trace:|general protection fault|invalid opcode"
    r"|probe of \S+ failed|probe failed for device|\bINFO: task .* blocked|unregister_netdevice: waiting"
)
"""A line that no healthy kernel prints."""

BUS_PAGES: Final = frozenset({"hv_synic_alloc (hvkernel.hv.hv)", "_connect (hvkernel.hv.connection)"})
"""Who allocates what hv_vmbus keeps from its start to its end: the SynIC's pages, the connection's."""

CORE_PAGES: Final = frozenset({"alloc (hvkernel.hv.hyp_page)"})
"""Who allocates what built-in code keeps: hv_common's hypercall pages, the timer's reference TSC page. The
architecture's own pages come on top."""

BUS_SHARES: Final = frozenset({"simp", "siefp", "monitor", "interrupt page"})
"""Through what the host reaches memory as long as the bus lives."""

SYNIC_SHARES: Final = ("simp", "siefp")
"""Of these what each processor has."""

DRIVER_SHARES: Final = frozenset({"gpadl", "gpa-range"})
"""Through what it does on behalf of a driver."""

KEXEC_ARCHES: Final = frozenset({"x86"})
"""Architectures whose kernel takes leave of Hyper-V before another is started. Source: arch/x86/kernel/cpu/mshyperv.c:
hv_machine_shutdown; 6.1's arch/arm64/hyperv has nothing like it."""


# findings and the log ------------------------------------------------------------------------------------------


def _findings(evidence: Evidence) -> Iterator[str]:
    seen = evidence.memory.get("seen", 0)
    evidence.memory["seen"] = len(evidence.findings)
    for one in evidence.findings[seen:]:
        text = f"{one.kind}: {one.text}"
        if not any(re.fullmatch(pattern, text) and when(evidence) for pattern, when, _ in TOLERATED):
            where = f" ({' < '.join(one.where[:3])})" if one.where else ""
            yield f"{text}{where}"


def _log(evidence: Evidence) -> Iterator[str]:
    seen = evidence.memory.get("seen", 0)
    evidence.memory["seen"] = len(evidence.dmesg)
    for line in evidence.dmesg[seen:]:
        if BAD_LINE.search(line):
            yield line


def _stays_up(evidence: Evidence) -> Iterator[str]:
    if evidence.outcome != "up":
        yield f"the guest was up and is {evidence.outcome}: {evidence.reason}"


# devices and channels ------------------------------------------------------------------------------------------


def _bound(evidence: Evidence) -> Iterator[str]:
    for device in evidence.devices:
        if device.built in ("y", "m") and device.state != "bound":
            yield f"{device.name} ({device.module}={device.built}) is {device.state}"
        if device.built == "n" and device.driver is not None:
            yield f"{device.name} is bound to {device.driver}, which is not built"


def _driven(evidence: Evidence) -> Iterator[str]:
    for device in evidence.devices:
        for drive, did in device.drives.items():
            if device.driver is not None and not did:
                yield f"{device.name} is bound to {device.driver}, and drive {drive} did not use it"


def _agree(evidence: Evidence) -> Iterator[str]:
    mine = {one.relid: one for one in evidence.guest_channels}
    theirs = {one.relid: one for one in evidence.host_channels}
    if not mine and evidence.moment == "ended":
        return
    for relid in sorted(mine.keys() | theirs.keys()):
        one, other = mine.get(relid), theirs.get(relid)
        if one is None or other is None:
            yield f"relid {relid}: only the {'guest' if other is None else 'host'} has it"
        elif one.is_open != other.is_open:
            yield f"relid {relid}: {_state(one.is_open)} in the guest, {_state(other.is_open)} in the host"
        elif one.target_vp != other.target_vp:
            yield f"relid {relid}: interrupts VP {other.target_vp}, the guest means VP {one.target_vp}"


def _state(is_open: bool) -> str:
    return "open" if is_open else "not open"


# what is left --------------------------------------------------------------------------------------------------


def _synic(evidence: Evidence) -> Iterator[str]:
    if not evidence.guest_channels:
        return
    online = evidence.kernel.cpus.num_online_cpus()
    for page in SYNIC_SHARES:
        count = sum(share.via == page for share in evidence.shares)
        if count != online:
            yield f"{count} processors share their {page.upper()} page with the host, {online} are online"


def _closed(evidence: Evidence) -> Iterator[str]:
    for side, channels in (("guest", evidence.guest_channels), ("host", evidence.host_channels)):
        for channel in channels:
            if channel.is_open:
                yield f"relid {channel.relid} is open in the {side}, and no device has a driver"
    if evidence.gpadls:
        yield f"the host has {evidence.gpadls} GPADLs, and no device has a driver"


def _sharing(evidence: Evidence) -> Iterator[str]:
    gone = set(DRIVER_SHARES)
    if evidence.moment == "ended":
        told = not _before_3_0(evidence)
        if told and not evidence.guest_channels:
            gone |= BUS_SHARES
        if told and _leaves(evidence):
            gone.add("")
    for share in evidence.shares:
        if "" in gone or share.via.partition(" ")[0] in gone or share.via in gone:
            yield f"the host still reaches {share.pages} pages at {share.gpa:#x} via {share.via}"


def foreign_pages(evidence: Evidence) -> dict[str, int]:
    """Return the allocations that are neither the architecture's, nor hv_common's, nor those of a bus that lives."""
    package = type(evidence.kernel.arch).__module__.partition(".")[0]
    stays = set(CORE_PAGES)
    if evidence.moment != "ended" or evidence.guest_channels:
        stays |= BUS_PAGES
    found = {}
    for caller, count in evidence.pages.items():
        function, _, module = caller.partition(" ")
        maker = f"{function.partition(':')[0]} {module}"
        if maker not in stays and not module.startswith(f"({package}."):
            found[caller] = count
    return found


def _pages(evidence: Evidence) -> Iterator[str]:
    for caller, count in foreign_pages(evidence).items():
        lost = count - evidence.kept.get(caller, 0)
        if lost > 0:
            yield f"{lost} allocations at {caller} were never freed"


def _leaves(evidence: Evidence) -> bool:
    return evidence.kernel.arch.name in KEXEC_ARCHES


def _left(evidence: Evidence) -> Iterator[str]:
    if evidence.vmbus_version < VERSION_WIN8_1:
        return  # such a host is not told
    if evidence.host_channels and (not evidence.guest_channels or _leaves(evidence)):
        relids = ", ".join(str(channel.relid) for channel in evidence.host_channels)
        yield f"the guest has taken leave, and the host still counts relids {relids} as taken"


_ALL: Final[tuple[Moment, ...]] = ("booted", "up", "events", "unbound", "ended")
_UP: Final[tuple[Moment, ...]] = ("up", "events", "unbound", "ended")

BUILT_IN: Final = (
    Invariant(
        "findings", _ALL, _findings, "No sanitizer, and neither side, notices anything that is not declared harmless."
    ),
    Invariant("log", _ALL, _log, "The log has no warning with a trace, no BUG, no oops and no failed probe."),
    Invariant("stays-up", _UP, _stays_up, "A guest that is up stays up."),
    Invariant(
        "devices-bound", ("up", "events"), _bound, "Each device whose driver is built has it, and no other driver."
    ),
    Invariant(
        "driven", ("up", "events"), _driven, "Each device that has a driver was used by every drive of its class."
    ),
    Invariant(
        "channels-agree",
        ("up", "events", "unbound"),
        _agree,
        "Guest and host have the same channels, in the same state, interrupting the same processor.",
    ),
    Invariant(
        "synic",
        ("up", "events", "unbound"),
        _synic,
        "Each processor that is online takes messages and events of the host.",
    ),
    Invariant("channels-closed", ("unbound",), _closed, "Without drivers no channel is open and no GPADL is left."),
    Invariant(
        "sharing",
        ("unbound", "ended"),
        _sharing,
        "The host reaches no memory of a driver that is gone, and none at all after the end but what stays by design.",
    ),
    Invariant("pages", ("unbound", "ended"), _pages, "Every page that a driver allocated is freed."),
    Invariant("relids", ("ended",), _left, "Once the guest has taken leave, the host has all relids back."),
)
"""In the order in which they are looked at."""
