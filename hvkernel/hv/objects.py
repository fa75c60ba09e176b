"""The kernel objects of ``drivers/hv`` and ``drivers/clocksource/hyperv_timer.c``, as the build knows them.

``hv_common`` and ``hyperv_timer`` are built in whenever HYPERV is not n, whatever HYPERV itself is
(drivers/hv/Makefile: ``obj-$(subst m,y,$(CONFIG_HYPERV))``); ``hv_vmbus`` follows HYPERV, or
HYPERV_VMBUS where that exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvkernel.api.guest.hyperv import HvCommon, HvTimer, Vmbus
from hvkernel.api.guest.kernel import Export, Import, KernelObject, ModuleParam
from hvkernel.hv import vmbus_drv
from hvkernel.hv.exports import VmbusExports
from hvkernel.hv.hv_common import HvCommonObject
from hvkernel.hv.hv_trace import HV_TRACE
from hvkernel.hv.hyperv_timer import HvTimerObject
from hvkernel.hv.hyperv_vmbus import HvVmbus

if TYPE_CHECKING:
    from hvkernel.hv.hyperv_vmbus import GuestKernel

__all__ = ["register"]


def register(kernel: GuestKernel, *, jit: bool = False) -> None:
    """Declare the objects that this kernel's configuration has; call once, before boot.

    :param jit: let ring buffers copy with numba.
    """
    if kernel.config.value("HYPERV") not in ("y", "m"):
        return
    guest: dict[str, HvVmbus] = {}
    with_timer = kernel.config.value("HYPERV_TIMER") == "y"

    def link_common(k: GuestKernel) -> None:
        k.symbols.export(HvCommon, HvCommonObject(k), "hv_common")

    def link_timer(k: GuestKernel) -> None:
        k.symbols.export(HvTimer, HvTimerObject(k), "hyperv_timer")

    def link_vmbus(k: GuestKernel) -> None:
        k.tracing.register(HV_TRACE)
        v = HvVmbus(k, with_timer, jit)
        guest["hv_vmbus"] = v
        k.symbols.export(Vmbus, VmbusExports(v), "hv_vmbus")

    kernel.register_object(
        KernelObject(
            "hv_common",
            "",
            "drivers/hv/hv_common.o",
            lambda k: 0,
            link=link_common,
            exports=(Export(HvCommon, ("hv_common_init", "hv_common_cpu_init", "hv_vp_index", "hv_query_ext_cap")),),
        )
    )
    if with_timer:
        kernel.register_object(
            KernelObject(
                "hyperv_timer",
                "",
                "drivers/clocksource/hyperv_timer.o",
                lambda k: 0,
                link=link_timer,
                imports=(Import(HvCommon, ("hv_read_reference_counter",)),),
                exports=(Export(HvTimer, ("hv_init_clocksource", "hv_stimer_alloc", "hv_stimer_cleanup")),),
            )
        )
    kernel.register_object(
        KernelObject(
            "hv_vmbus",
            "HYPERV_VMBUS" if kernel.release.has("hyperv_vmbus_symbol") else "HYPERV",
            "drivers/hv/hv_vmbus.o",
            lambda k: vmbus_drv.hv_acpi_init(guest["hv_vmbus"]),
            level="subsys",
            exit=lambda k: vmbus_drv.vmbus_exit(guest["hv_vmbus"]),
            link=link_vmbus,
            exports=(Export(Vmbus, ("__vmbus_driver_register", "vmbus_open", "vmbus_sendpacket")),),
            imports=(
                Import(HvCommon, ("hv_vp_index", "hv_read_reference_counter")),
                *((Import(HvTimer, ("hv_stimer_legacy_init", "hv_stimer0_isr")),) if with_timer else ()),
            ),
            aliases=tuple(f"acpi*:{hid}:*" for hid in vmbus_drv.VMBUS_ACPI_IDS),
            function="hv_acpi_init",
            parameters=(ModuleParam("max_version", "uint", 0o444, lambda: guest["hv_vmbus"].max_version),),
        )
    )
