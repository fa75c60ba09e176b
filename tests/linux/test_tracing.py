"""kernel.tracing: what is recorded with a tracepoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hvkernel.api.guest.tracing import trace_event
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, compose
from hvkernel.hv.hv_trace import HV_TRACE
from hvkernel.machine import VpTopology
from hvkernel.machine.tracing import (
    TRACE_FLAG_BH_OFF,
    TRACE_FLAG_HARDIRQ,
    TRACE_FLAG_IRQS_OFF,
    TRACE_FLAG_SOFTIRQ,
    EventRow,
    Where,
)
from hvkernel.trace.ftrace import context, flags
from hvkernel.trace.sink import NullTracer

EVENT = trace_event("test", "here", "u32 x", "x {x:d}", "")


class Keep(NullTracer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Where]] = []

    def tracepoint(self, where: Where, event: EventRow, values: Sequence[int | bytes]) -> None:
        self.seen.append((event.name, where))


def guest(**options: Any) -> tuple[Session, Keep]:
    vps = [VpTopology(2, 7, 0), VpTopology(0, 5, 0), VpTopology(1, 3, 0)]
    session = compose(read_request(cpus=3, **options), vps=vps)
    assert isinstance(session, Session)
    session.machine.tracer = keep = Keep()
    return session, keep


def here(session: Session, keep: Keep, around: Callable[[Callable[[], None]], Any]) -> Where:
    """Pass a tracepoint inside ``around`` and return where the kernel says that it was."""
    session.call(around, lambda: session.kernel.tracing.event(EVENT, 1))
    return [where for name, where in keep.seen if name == "here"][-1]


def test_where_a_tracepoint_is() -> None:
    session, keep = guest()
    with session:
        session.boot()
        kernel = session.kernel
        plain = here(session, keep, lambda event: event())
        assert (plain.cpu, plain.vp, plain.flags, plain.preempt_count) == (0, 2, 0, 0)
        assert plain.comm == "<lambda>"
        assert plain.pid > 1

        def irqs_off(event: Callable[[], None]) -> None:
            saved = kernel.irq.local_irq_save()
            event()
            kernel.irq.local_irq_restore(saved)

        def bh_off(event: Callable[[], None]) -> None:
            kernel.softirq.local_bh_disable()
            event()
            kernel.softirq.local_bh_enable()

        def atomic(event: Callable[[], None]) -> None:
            for _ in range(20):
                kernel.sched.preempt_disable()
            event()
            for _ in range(20):
                kernel.sched.preempt_enable()

        assert here(session, keep, irqs_off).flags == TRACE_FLAG_IRQS_OFF
        assert here(session, keep, bh_off).flags == TRACE_FLAG_BH_OFF
        assert here(session, keep, atomic).preempt_count == 15, "the field has four bits"
        there = here(session, keep, lambda event: kernel.cpus.smp_call_function_single(2, event))
        vp = kernel.cpus.cpu(2).vp.vp_index
        assert vp != 2
        assert (there.cpu, there.vp, there.pid, there.comm) == (2, vp, 0, "swapper/2")
        assert there.flags == TRACE_FLAG_HARDIRQ | TRACE_FLAG_IRQS_OFF
        handlers = {name: where.flags for name, where in keep.seen}
        assert handlers["vmbus_chan_sched"] == TRACE_FLAG_HARDIRQ | TRACE_FLAG_IRQS_OFF
        assert handlers["vmbus_on_msg_dpc"] & TRACE_FLAG_SOFTIRQ


def test_the_clock_is_dmesgs() -> None:
    session, keep = guest()
    with session:
        session.boot()
        at = {name: where.ns for name, where in keep.seen if name != "vmbus_onversion_response"}
        answered = [where.ns for name, where in keep.seen if name == "vmbus_onversion_response"][-1]
        (printed,) = [line.t for line in session.report().dmesg if "Vmbus version" in line.text]
        assert answered <= printed * 1e9 + 1000
        assert printed * 1e9 <= at["vmbus_request_offers"] + 1000


def test_a_cpu_comes_up_on_its_idle_task(monkeypatch: pytest.MonkeyPatch) -> None:
    session, keep = guest()
    with session:
        starting = session.kernel.cpuhp.notify_cpu_starting

        def notify(cpu: Any) -> None:
            session.kernel.tracing.event(EVENT, cpu.cpu)
            starting(cpu)

        monkeypatch.setattr(session.kernel.cpuhp, "notify_cpu_starting", notify)
        session.boot()
        found = [(where.pid, where.comm) for name, where in keep.seen if name == "here"]
        assert found == [(0, "swapper/1"), (0, "swapper/2")]


def test_a_name_is_cut_as_in_task_struct() -> None:
    session, keep = guest()
    with session:
        session.boot()
        kernel = session.kernel
        kernel.spawn(lambda: kernel.tracing.event(EVENT, 1), name="a_name_of_more_than_fifteen")
        session.machine.run(limit=1_000_000)
        assert keep.seen[-1][1].comm == "a_name_of_more_"


@pytest.mark.parametrize(
    ("bits", "depth", "text"),
    [
        (0, 0, "....."),
        (TRACE_FLAG_IRQS_OFF, 1, "d..1."),
        (TRACE_FLAG_BH_OFF, 15, "b..f."),
        (TRACE_FLAG_IRQS_OFF | TRACE_FLAG_BH_OFF, 0, "D...."),
        (TRACE_FLAG_HARDIRQ, 0, "..h.."),
        (TRACE_FLAG_SOFTIRQ, 0, "..s.."),
        (TRACE_FLAG_HARDIRQ | TRACE_FLAG_SOFTIRQ | TRACE_FLAG_IRQS_OFF, 2, "d.H2."),
    ],
)
def test_flags(bits: int, depth: int, text: str) -> None:
    """kernel/trace/trace_output.c:trace_print_lat_fmt."""
    assert flags(Where(0, 0, 0, 0, 1, "x", bits, depth)) == text


def test_a_line_begins_as_the_kernels() -> None:
    """kernel/trace/trace_output.c:trace_print_context, trace_print_time; microseconds are rounded (ns2usecs)."""
    assert context(Where(0, 1_234_567_890_499, 3, 9, 42, "kworker/3:1", 0, 0)) == (
        "     kworker/3:1-42      [003] .....  1234.567890: "
    )
    assert context(Where(0, 999_999_500, 127, 0, 0, "swapper/127", 0, 0)) == (
        "          <idle>-0       [127] .....     1.000000: "
    )


def test_only_what_is_built_has_tracepoints(tmp_path: Path) -> None:
    for arch, systems in (("arm64", HV_TRACE), ("x86_64", None)):
        session = compose(read_request(arch=arch))
        assert isinstance(session, Session)
        with session:
            events = session.kernel.tracing.events
            if systems is not None:
                assert events == systems
            else:
                assert len(events) == len(HV_TRACE) + 5
            with pytest.raises(ValueError, match=r"^tracepoint hyperv:vmbus_on_msg_dpc is registered twice$"):
                session.kernel.tracing.register([trace_event("hyperv", "vmbus_on_msg_dpc", "u32 x", "", "")])
    config = tmp_path / "config"
    config.write_text("CONFIG_64BIT=y\nCONFIG_HYPERVISOR_GUEST=y\n# CONFIG_HYPERV is not set\n")
    session = compose(read_request(config=config))
    if isinstance(session, Session):
        with session:
            assert session.kernel.tracing.events == ()
