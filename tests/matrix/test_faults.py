"""Faults of a guest, put into the model one at a time: each is found in a whole cell, by the invariants named here.

The faults of a host and of a plugin's driver are in ``test_shrink.py``, ``test_cell.py`` and ``test_drive.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.hv import channel, channel_mgmt, hv, vmbus_drv, vmbus_pm
from hvkernel.linux.cpuhp import Cpuhp
from hvkernel.linux.module import Modules
from hvkernel.matrix.invariants import BUILT_IN
from hvkernel_storvsc import vsc

X86 = "arch=x86,host=ws2022/gen2"
MODULES = "HYPERV=m,HYPERV_STORAGE=m"
Fault = Callable[[Any], Any]


def nothing(ret: Any = None) -> Fault:
    """The function does nothing, and says so or not."""
    return lambda original: lambda *_: ret


def once_up(ret: Any, when: Callable[..., bool] = lambda *_: True) -> Fault:
    """The function does nothing once the guest is up."""

    def fault(original: Any) -> Any:
        def call(self: Any, *args: Any) -> Any:
            kernel = self._kernel if isinstance(self, Cpuhp) else self.kernel
            up = kernel.outcome is not None and kernel.outcome.state == "up"
            return ret if up and when(*args) else original(self, *args)

        return call

    return fault


def never_again(ret: Any) -> Fault:
    """A module that was loaded once is not loaded again."""

    def fault(original: Any) -> Any:
        seen: set[str] = set()

        def call(self: Any, name: str) -> Any:
            if name in seen and not self.module_loaded(name):
                return ret
            done = original(self, name)
            seen.add(name)
            return done

        return call

    return fault


FAULTS: list[tuple[str, Any, str, Fault, str, set[str]]] = [
    (
        "rescind: the relid is kept",
        channel_mgmt,
        "vmbus_release_relid",
        nothing(),
        "rescind",
        {"devices-bound", "channels-agree"},
    ),
    (
        "rescind: the channel is kept",
        channel_mgmt,
        "hv_process_channel_removal",
        nothing(),
        "rescind",
        {"devices-bound"},
    ),
    (
        "rebind: the second probe fails",
        vsc.Storvsc,
        "storvsc_probe",
        once_up(-5),
        "rebind",
        {"event-rebind", "devices-bound", "log"},
    ),
    (
        "reload: the driver stays registered",
        vmbus_drv,
        "vmbus_driver_unregister",
        nothing(),
        f"reload,{MODULES}",
        {"event-reload"},
    ),
    (
        "reload: the module is not loaded",
        Modules,
        "request_module",
        never_again(-2),
        f"reload,{MODULES}",
        {"event-reload", "devices-bound"},
    ),
    ("hotplug: no SynIC any more", hv, "hv_synic_init", once_up(0), "cpu-hotplug,cpus=8", {"synic"}),
    ("hotplug: the SynIC stays", hv, "hv_synic_disable_regs", nothing(), "cpu-hotplug,cpus=8", {"sharing"}),
    ("hotplug: a processor is lost", Cpuhp, "cpu_up", once_up(-5), "cpu-hotplug,cpus=8", {"event-cpu-hotplug"}),
    ("retarget: the host is not told", channel, "vmbus_send_modifychannel", nothing(0), "retarget", {"channels-agree"}),
    ("retarget: refused", vmbus_drv, "target_cpu_store", nothing(-22), "retarget", {"event-retarget"}),
    ("sub-channels: not opened", vsc.Storvsc, "handle_sc_creation", nothing(), "subchannels,cpus=64", {"storage-data"}),
    (
        "sub-channels: not looked at",
        channel_mgmt,
        "vmbus_add_channel_work",
        once_up(None, lambda new: new.primary_channel is not None),
        "subchannels,cpus=64",
        {"storage-data"},
    ),
    ("hibernate: refused", vmbus_pm, "vmbus_bus_suspend", nothing(-16), "hibernate", {"event-hibernate"}),
    (
        "hibernate: channels are not opened again",
        vsc.Storvsc,
        "storvsc_resume",
        nothing(0),
        "hibernate",
        {"storage-data"},
    ),
    ("hibernate: the SynIC is not started again", vmbus_pm, "hv_synic_resume", nothing(), "hibernate", {"stays-up"}),
    (
        "close: the host is not told",
        channel,
        "vmbus_close_internal",
        nothing(0),
        "none",
        {"channels-closed", "sharing"},
    ),
    ("close: the ring is not freed", channel, "vmbus_free_ring", nothing(), "none", {"pages"}),
    ("close: the GPADL stays", channel, "vmbus_teardown_gpadl", nothing(0), "none", {"channels-closed", "sharing"}),
    ("exit: the SynIC's pages are kept", hv, "hv_synic_free", nothing(), f"none,{MODULES}", {"pages"}),
    ("exit: the host is not told", channel_mgmt, "vmbus_initiate_unload", nothing(), "none", {"relids", "sharing"}),
]


@pytest.mark.parametrize(
    ("where", "name", "fault", "event", "broken"), [one[1:] for one in FAULTS], ids=[one[0] for one in FAULTS]
)
def test_a_fault_is_found(
    where: Any, name: str, fault: Fault, event: str, broken: set[str], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, fault(getattr(where, name)))
    result = run(f"{X86},events={event}")
    assert result.status != "pass"
    found = {problem.invariant for problem in result.problems}
    assert broken <= found, result.problems


def test_every_built_in_invariant_is_broken_by_some_fault() -> None:
    """``findings`` and ``driven`` are, in test_shrink.py and test_drive.py, by a plugin's own driver and drive."""
    found = {name for *_, broken in FAULTS for name in broken}
    assert {one.name for one in BUILT_IN} - found == {"findings", "driven"}
