"""The harness proved: each of these faults, put into the model on purpose, is found by the first few seeds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

MOST_SEEDS = 500
"""A fault that this many runs do not find is not found."""

Change = Callable[[Any], Any]
"""From a function to the faulty one."""


def returns(value: Any) -> Change:
    """Leave the function out."""
    return lambda original: lambda *args, **more: value


def forgets_mutex(original: Any) -> Any:
    """channel_mutex excludes nobody."""

    class Open:
        name = "no mutex"

        def __enter__(self) -> object:
            return self

        def __exit__(self, *exc: object) -> None:
            return

        def lock(self) -> None:
            return

        unlock = lock

        def locked(self) -> bool:
            return False

    return lambda self: Open()


def wakes_nobody(original: Any) -> Any:
    def vmbus_rescind_cleanup(v: Any, channel: Any) -> None:
        channel.rescind = True

    return vmbus_rescind_cleanup


def keeps_slot(original: Any) -> Any:
    def vmbus_request_addr(v: Any, channel: Any, trans_id: int) -> Any:
        return channel.requestor.req_arr[trans_id - 1]

    return vmbus_request_addr


def free_twice(original: Any) -> Any:
    def vmbus_free_ring(v: Any, channel: Any) -> None:
        page = channel.ringbuffer_page
        original(v, channel)
        v.mm.free_pages(page)

    return vmbus_free_ring


def keeps_page(original: Any) -> Any:
    def vmbus_free_ring(v: Any, channel: Any) -> None:
        channel.ringbuffer_gpadlhandle.decrypted = True
        original(v, channel)

    return vmbus_free_ring


def unmask_sees_nothing(original: Any) -> Any:
    def unmask(self: Any) -> bool:
        original(self)
        return False

    return unmask


def end_read_sees_nothing(original: Any) -> Any:
    def hv_end_read(self: Any, rbi: Any) -> int:
        original(self, rbi)
        return 0

    return hv_end_read


def waits_silently(original: Any) -> Any:
    def wait_for(self: Any, packet_bytes: int) -> bool:
        return bool(self._free(self._write_at, self._read) >= packet_bytes + 8)

    return wait_for


def room_without_a_word(original: Any) -> Any:
    def hv_pkt_iter_close(self: Any, channel: Any) -> None:
        rbi = channel.inbound
        rbi.ring_buffer.store32(4, rbi.priv_read_index)

    return hv_pkt_iter_close


def keeps_callback(original: Any) -> Any:
    def vmbus_reset_channel_cb(v: Any, channel: Any) -> None:
        channel.sc_creation_callback = None

    return vmbus_reset_channel_cb


def never_answers(original: Any) -> Any:
    def modify_response(self: Any, relid: int, status: int) -> None:
        if status:
            original(self, relid, status)

    return modify_response


def cleans_up_anyway(original: Any) -> Any:
    def hv_synic_cleanup(v: Any, cpu: int) -> int:
        original(v, cpu)
        return 0

    return hv_synic_cleanup


def no_wait_for_subs(original: Any) -> Any:
    def vmbus_disconnect_ring(v: Any, channel: Any) -> Any:
        subs, channel.sc_list = channel.sc_list, []
        try:
            return original(v, channel)
        finally:
            channel.sc_list = subs

    return vmbus_disconnect_ring


def forgets_to_unmap(original: Any) -> Any:
    def unmap_relid(v: Any, channel: Any) -> None:
        if channel.primary_channel is None:
            original(v, channel)

    return unmap_relid


HV, HOST = "hvkernel.hv.", "hvkernel.host.vmbus."
MUTATIONS: dict[str, tuple[str, str, Change]] = {
    "RELID_RELEASED is not sent": (HV + "channel_mgmt", "vmbus_release_relid", returns(None)),
    "a GPADL is not torn down": (HV + "channel", "vmbus_teardown_gpadl", returns(0)),
    "CLOSECHANNEL leaves sub-channels open": (HV + "channel", "vmbus_disconnect_ring", no_wait_for_subs),
    "a ring's pages are not freed": (HV + "channel", "vmbus_free_ring", keeps_page),
    "a ring's pages are freed twice": (HV + "channel", "vmbus_free_ring", free_twice),
    "the relid of a sub-channel stays mapped": (HV + "channel_mgmt", "vmbus_channel_unmap_relid", forgets_to_unmap),
    "a rescind wakes nobody": (HV + "channel_mgmt", "vmbus_rescind_cleanup", wakes_nobody),
    "a closed channel keeps its callback": (HV + "channel", "vmbus_reset_channel_cb", keeps_callback),
    "channel_mutex excludes nobody": (HV + "hyperv_vmbus", "VmbusConnection.chn_mutex", forgets_mutex),
    "a request id is not given back": (HV + "channel_packets", "vmbus_request_addr", keeps_slot),
    "MODIFYCHANNEL is not sent": (HV + "channel", "vmbus_send_modifychannel", returns(0)),
    "a CPU with channels goes offline": (HV + "hv", "hv_synic_cleanup", cleans_up_anyway),
    "a CPU is not unmarked": (HV + "channel_cpus", "hv_clear_allocated_cpu", returns(None)),
    "the guest loses a signal after it unmasked": (HV + "ring_buffer", "RingBuffer.hv_end_read", end_read_sees_nothing),
    "the guest makes room without a word": (HV + "ring_buffer", "RingBuffer.hv_pkt_iter_close", room_without_a_word),
    "the guest does not signal": (HV + "ring_buffer", "RingBuffer._hv_signal_on_write", returns(None)),
    "the host loses a signal after it unmasked": (HOST + "ring", "IncomingRing.unmask", unmask_sees_nothing),
    "the host waits for room without a word": (HOST + "ring", "OutgoingRing.wait_for", waits_silently),
    "the host does not answer MODIFYCHANNEL": (HOST + "server", "VmbusServer.modify_response", never_answers),
    "the host keeps relids": (HOST + "server", "VmbusServer.free", returns(None)),
    "the host keeps a request's pages": (HOST + "channel", "ServerChannel.release", returns(None)),
    "the host keeps a GPADL": (HOST + "gpadl", "GpadlTable.drop", returns(None)),
    "the host keeps a closed channel's event port": (HOST + "server", "VmbusServer.disconnect_event", returns(None)),
}
"""Fault: module, function, change."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_fault_is_found(name: str, interleave: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, path, change = MUTATIONS[name]
    owner: Any = importlib.import_module(module)
    *classes, function = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    monkeypatch.setattr(owner, function, change(getattr(owner, function)))
    for seed in range(MOST_SEEDS):
        if interleave(seed).wrong:
            return
    pytest.fail(f"{MOST_SEEDS} seeds do not notice that {name}")
