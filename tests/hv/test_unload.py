"""Taking leave of the host: at module exit, before kexec, in a panic."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.guest.device import NotifierBlock
from hvkernel.hv import channel_mgmt, vmbus_drv
from hvkernel.hv.connection_state import State

UNLOAD = Type.CHANNELMSG_UNLOAD
RESPONSE = Type.CHANNELMSG_UNLOAD_RESPONSE
SECOND = 10_000_000


def started(b: Any, crash: bool) -> Any:
    b.sent.clear()
    return b.start(channel_mgmt.vmbus_initiate_unload, b.v, crash)


def slot(b: Any, cpu: int) -> int:
    page = b.v.cpu_context[cpu].synic_message_page
    return int(page.gpa + 2 * 256)


def test_it_waits_for_the_answer(between: Callable[..., Any]) -> None:
    b = between().boot()
    b.keep_kinds(UNLOAD)
    leaving = started(b, False)
    b.run(200_000)
    assert not leaving.done, "for ever, if it must"
    assert b.kinds() == [UNLOAD]
    b.post(RESPONSE)
    assert leaving.done
    assert b.v.connection.conn_state is State.DISCONNECTED


def test_an_answer_to_nothing_does_not_count(between: Callable[..., Any]) -> None:
    b = between().boot()
    b.post(RESPONSE)
    assert b.v.connection.unload_event.done == 1
    b.keep_kinds(UNLOAD)
    leaving = started(b, False)
    assert not leaving.done, "the event is made anew before the message goes out"


@pytest.mark.parametrize(("host", "says"), [("ws2012", False), ("ws2012r2", True), ("ws2022", True)])
@pytest.mark.parametrize("crash", [False, True])
def test_hosts_before_3_0_are_not_told(between: Callable[..., Any], host: str, says: bool, crash: bool) -> None:
    b = between(host=host).boot()
    leaving = started(b, crash)
    b.run(100)
    assert leaving.done
    assert b.kinds() == ([UNLOAD] if says else [])
    assert b.v.connection.conn_state is State.DISCONNECTED


@pytest.mark.parametrize("cpu", [0, 1, 3])
def test_a_crash_polls_the_messages_of_every_cpu(between: Callable[..., Any], cpu: int) -> None:
    """No interrupt comes in any more; whatever lies in a slot is taken out, other messages are thrown away."""
    b = between(cpus=4).boot()
    b.keep_kinds(UNLOAD)
    lines = len(b.lines)
    taken: list[int] = []

    def crash() -> None:
        flags = b.kernel.irq.local_irq_save()
        offer = struct.pack("<IBBxxQII", 1, 8, 0, 1, Type.CHANNELMSG_OFFERCHANNEL, 0)
        for other in range(4):
            b.v.memory.write(slot(b, other), offer)
        answer = struct.pack("<IBBxxQII", 1, 8, 0, 1, RESPONSE, 0)
        when = b.machine.clock.now + 35 * 10_000
        b.machine.clock.at(when, lambda: b.machine.memory.host.write(slot(b, cpu), answer))
        before = b.machine.clock.now
        channel_mgmt.vmbus_initiate_unload(b.v, True)
        taken.append((b.machine.clock.now - before) // 10_000)
        b.kernel.irq.local_irq_restore(flags)

    thread = b.start(crash)
    b.run(500)
    assert thread.done
    assert 35 <= taken[0] <= 60, "polled every 10 ms"
    assert [b.v.memory.load32(slot(b, other)) for other in range(4)] == [0] * 4
    assert b.lines[lines:] == []


def test_a_crash_takes_out_what_waits_before_the_answer(between: Callable[..., Any]) -> None:
    """The slot holds one message; the next comes when the guest says end-of-message."""
    b = between(cpus=4).boot()
    taken: list[int] = []

    def crash() -> None:
        flags = b.kernel.irq.local_irq_save()
        for _ in range(3):
            payload = struct.pack("<III", Type.CHANNELMSG_GPADL_TORNDOWN, 0, 77)
            b.session.host.synic.post_message(b.machine.boot_vp.vp_index, 2, 1, 1, payload)
        before = b.machine.clock.now
        channel_mgmt.vmbus_initiate_unload(b.v, True)
        taken.append((b.machine.clock.now - before) // 10_000)
        b.kernel.irq.local_irq_restore(flags)

    thread = b.start(crash)
    b.run(500)
    assert thread.done
    assert 30 <= taken[0] <= 60, "one message every 10 ms"


def test_a_crash_does_not_wait_for_ever(between: Callable[..., Any]) -> None:
    b = between().boot()
    b.keep_kinds(UNLOAD)
    lines = len(b.lines)
    before = b.machine.clock.now
    leaving = started(b, True)
    b.run(101_000)
    assert leaving.done
    assert b.machine.clock.now - before >= 100 * SECOND
    assert b.lines[lines:] == [
        *["hv_vmbus: Waiting for VMBus UNLOAD to complete"] * 20,
        "hv_vmbus: Continuing even though VMBus UNLOAD did not complete",
    ]


def test_a_panic_unloads_after_the_other_notifiers(between: Callable[..., Any]) -> None:
    b = between().boot()
    order: list[str] = []

    def notified(action: int, data: Any) -> int:
        order.append("first")
        return 0

    def posted(connection: int, message: bytes) -> None:
        order.append(Type(message[0]).name)

    b.kernel.notifier.panic_notifier_list.register(NotifierBlock(notified, 0))
    b.status = posted
    b.start(b.kernel.reboot.panic, "test")
    b.run(500)
    assert order == ["first", "CHANNELMSG_UNLOAD"]
    assert b.v.connection.conn_state is State.DISCONNECTED


def test_kexec_unloads_and_takes_every_synic_back(between: Callable[..., Any]) -> None:
    b = between(cpus=4).boot()
    vps = b.session.host.synic.vps
    assert all(one.simp & 1 and one.scontrol & 1 for one in vps.values())
    b.sent.clear()
    b.call(vmbus_drv.hv_kexec_handler, b.v)
    assert b.kinds() == [UNLOAD]
    assert [one.simp & 1 or one.siefp & 1 or one.scontrol & 1 for one in vps.values()] == [0] * 4
    assert {entry.via for entry in b.machine.ledger.entries()} & {"simp", "siefp", "gpadl", "monitor"} == set()


def test_a_crash_kernel_gets_one_processor(between: Callable[..., Any]) -> None:
    b = between(cpus=4).boot()
    vps = b.session.host.synic.vps
    b.sent.clear()
    b.call(vmbus_drv.hv_crash_handler, b.v)
    assert b.kinds() == [UNLOAD]
    enabled = [one.scontrol & 1 for one in vps.values()]
    assert sorted(enabled) == [0, 1, 1, 1], "the others cannot be asked any more"


def test_module_exit_leaves_nothing(between: Callable[..., Any]) -> None:
    """Devices go after the connection: their relids are given back to a host that is not there any more."""
    b = between(cpus=4).boot()
    for driver in tuple(b.v.hv_bus.drivers):  # as the modules that hv_vmbus cannot go before
        b.call(b.exports.vmbus_driver_unregister, driver)
    b.sent.clear()
    devices = list(b.v.connection.chn_list)
    relids = [one.offermsg.child_relid for one in devices]
    b.call(vmbus_drv.vmbus_exit, b.v)
    kinds = b.kinds()
    assert kinds[0] == UNLOAD
    assert [relid for relid in b.released() if relid in relids] == relids
    assert b.v.connection.chn_list == []
    assert "vmbus" not in b.kernel.driver.buses
    assert (b.v.hyperv_mmio, b.v.fb_mmio) == ([], None)
    vps = b.session.host.synic.vps
    assert [one.simp & 1 or one.siefp & 1 or one.scontrol & 1 for one in vps.values()] == [0] * 4
    assert [entry for entry in b.machine.ledger.entries() if entry.via.startswith(("gpadl", "monitor"))] == []


def test_a_resumed_message_that_comes_after_the_end(between: Callable[..., Any]) -> None:
    """A work that was queued before the unload finds the connection gone and does nothing."""
    b = between().boot()
    b.call(channel_mgmt.vmbus_initiate_unload, b.v, False)
    before = len(b.v.connection.chn_list)
    b.post(Type.CHANNELMSG_RESCIND_CHANNELOFFER, b.relid)
    assert len(b.v.connection.chn_list) == before
    assert not b.channel.rescind
