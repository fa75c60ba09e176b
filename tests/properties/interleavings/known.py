"""Where Linux 6.1 itself goes wrong. A run that ends in one of these is counted under its name, not hidden."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.abi.vmbus import VmbusChannelState

if TYPE_CHECKING:
    from hvkernel.machine import Finding, Task
    from interleavings.watch import Watch

Stack = Mapping[str, FrameType]
"""The functions in which a parked task stands, the innermost of each name."""


TARGET_CHANGE_OF_A_REMOVED_CHANNEL: Final = "target change of a channel that is removed"


@dataclass(frozen=True, slots=True)
class Known:
    """One such place."""

    name: str
    source: str
    why: str
    waits: Callable[[Stack, Watch], bool] | None = None
    """Whether a task that is blocked for ever is blocked in it."""
    finding: str | None = None
    """Pattern of the finding that tells of it, ..."""
    function: str = ""
    """... and a function of the guest that was active."""
    raised: Callable[[Stack], bool] | None = None
    """Whether an exception that came through these functions tells of it."""


def frames(task: Task) -> dict[str, FrameType]:
    """Return the functions in which a parked task stands, the innermost of each name, innermost first."""
    found: dict[str, FrameType] = {}
    for frame in _frames(task):
        found.setdefault(frame.f_code.co_name, frame)
    return found


def _frames(task: Task) -> Iterator[FrameType]:
    at: Any = task._greenlet.gr_frame
    while at is not None:
        yield at
        at = at.f_back


def _close_waits_for_a_channel_that_is_gone(stack: Stack, watch: Watch) -> bool:
    close = stack.get("vmbus_disconnect_ring")
    if close is None or "wait_for_completion" not in stack:
        return False
    sub = close.f_locals.get("sub")
    return (
        sub is not None
        and sub.rescind
        and sub.state == VmbusChannelState.CHANNEL_OPEN_STATE
        and sub not in close.f_locals["channel"].sc_list
    )


def _open_waits_for_its_rescind(stack: Stack, watch: Watch) -> bool:
    opening = stack.get("vmbus_open")
    if opening is None or "vmbus_add_channel_work" not in stack or "wait_for_completion" not in stack:
        return False
    channel = opening.f_locals["channel"]
    return not channel.rescind and watch.offered.get(channel.offermsg.child_relid) == "rescinded"


def _answer_went_to_another(stack: Stack, watch: Watch) -> bool:
    modify = stack.get("vmbus_send_modifychannel")
    return modify is not None and not watch.modifying[modify.f_locals["channel"].offermsg.child_relid]


def _target_change_outlives_the_connection(stack: Stack, watch: Watch) -> bool:
    return watch.unloaded and "vmbus_send_modifychannel" in stack


def _interrupt_while_opening(stack: Stack) -> bool:
    at = stack.get("vmbus_chan_sched") or stack.get("vmbus_on_event")
    channel = at.f_locals.get("channel") if at is not None else None
    return (
        channel is not None
        and channel.state == VmbusChannelState.CHANNEL_OPENING_STATE
        and channel.inbound.ring_buffer is None
    )


KNOWN: Final = (
    Known(
        "close waits for an unopened sub-channel",
        "drivers/hv/channel.c: vmbus_disconnect_ring; channel_mgmt.c: vmbus_onoffer_rescind",
        "The close waits for rescind_event of every sub-channel that is being rescinded. The rescind completes it only "
        "for a sub-channel that is open; one that is not (its open failed, or the driver did not open it) is removed "
        "and freed instead, without a word to who waits.",
        waits=_close_waits_for_a_channel_that_is_gone,
    ),
    Known(
        "rescind waits for a sub-channel behind one that is being opened",
        "drivers/hv/connection.c: vmbus_connect; channel_mgmt.c: vmbus_onoffer_rescind, vmbus_add_channel_work",
        "Rescinds are handled one at a time, and so are new sub-channels. Where the host rescinds the later of two new "
        "sub-channels first, its rescind waits until it was added, which waits behind the open of the earlier one, "
        "which waits for an answer; the host gives none to an open that crossed a rescind, and that rescind, which "
        "would end the wait, is next in the queue.",
        waits=_open_waits_for_its_rescind,
    ),
    Known(
        "two target changes of one channel",
        "drivers/hv/channel.c: send_modifychannel_with_ack; channel_mgmt.c: vmbus_onmodifychannel_response",
        "A target change gives the mutex up while it waits for the answer, so another of the same channel can begin. "
        "An answer names only the channel and completes the first request of it in the list: when the second answer "
        "comes before the first request has left, that one is completed twice and the second waits for ever.",
        waits=_answer_went_to_another,
    ),
    Known(
        "unload while a target change waits",
        "drivers/hv/vmbus_drv.c: target_cpu_store, hv_kexec_handler; channel.c: send_modifychannel_with_ack",
        "A host that was told UNLOAD answers no MODIFYCHANNEL any more. Who waits for that answer keeps CPUs from "
        "going offline; a CPU that wants to waits for him, and the kexec handler, which takes the SynIC's callbacks "
        "out, waits for the CPU.",
        waits=_target_change_outlives_the_connection,
    ),
    Known(
        TARGET_CHANGE_OF_A_REMOVED_CHANNEL,
        "drivers/hv/vmbus_drv.c: target_cpu_store, vmbus_remove_channel_attr_group; channel_mgmt.c: free_channel",
        "A rescind that removes the channel while a target change waits for its answer has the mutex and waits, in "
        "sysfs, for the store to leave; the store waits for the mutex. Without sysfs between them, as in these runs, "
        "the store goes on with a removed channel and marks a CPU for it.",
    ),
    Known(
        "late interrupt of a channel that is being opened again",
        "drivers/hv/channel.c: __vmbus_open; vmbus_drv.c: vmbus_chan_sched; ring_buffer.c: hv_ringbuffer_cleanup",
        "An open sets the callback before there is a ring: the GPADL comes first, and the mapping after it. An "
        "interrupt from before the close that is taken only then finds a callback and follows the null pointer that "
        "the close left as the ring.",
        raised=_interrupt_while_opening,
    ),
    Known(
        "a sub-channel is removed twice",
        "drivers/hv/channel.c: vmbus_disconnect_ring; channel_mgmt.c: vmbus_onoffer_rescind",
        "A close that has the mutex sees the rescind flag and removes the sub-channel; the rescind set the flag before "
        "it waited for the mutex, finds the state CHANNEL_OPEN_STATE after it, and removes the freed channel again.",
        finding=r"use-after-free: BUG: channel of relid \d+ removed twice",
        function="vmbus_onoffer_rescind",
    ),
)


def explain_wait(task: Task, watch: Watch) -> str | None:
    """Return the name of the known place in which ``task`` waits, if it is one."""
    stack = frames(task)
    return next((known.name for known in KNOWN if known.waits is not None and known.waits(stack, watch)), None)


def explain_error(error: BaseException) -> str | None:
    """Return the name of the known place that an exception came from."""
    stack: dict[str, FrameType] = {}
    at = error.__traceback__
    while at is not None:
        stack[at.tb_frame.f_code.co_name] = at.tb_frame
        at = at.tb_next
    return next((known.name for known in KNOWN if known.raised is not None and known.raised(stack)), None)


def explain_finding(found: Finding) -> str | None:
    """Return the name of the known place that a finding tells of."""
    text, where = f"{found.kind}: {found.text}", [line.partition(" ")[0] for line in found.where]
    return next(
        (
            known.name
            for known in KNOWN
            if known.finding and re.fullmatch(known.finding, text) and known.function in where
        ),
        None,
    )
