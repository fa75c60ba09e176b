"""One guest on one host: composed, booted, asked for its report, closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from hvkernel.boot import plugins as plugin_loading
from hvkernel.boot.disks import close_disks, open_disks, open_medium, parameters, settle_devices
from hvkernel.boot.fit import settle_host, unfit
from hvkernel.boot.report import build_report, unsupported_report
from hvkernel.boot.request import BootRequest
from hvkernel.boot.topology import topology
from hvkernel.config.errors import InputError
from hvkernel.config.units import format_size
from hvkernel.host.firmware import ram_ranges
from hvkernel.host.partition import Host
from hvkernel.host.vmbus.devices import DeviceTable, slots_of
from hvkernel.host.vmbus.server import VmbusServer
from hvkernel.hv import objects as hv_objects
from hvkernel.kconfig import Build
from hvkernel.kconfig.data import BASELINE, data_release
from hvkernel.linux.kernel import Kernel, LinkFailure
from hvkernel.machine import Machine, VpTopology
from hvkernel.machine.memory import MAX_GPA

if TYPE_CHECKING:
    from hvkernel.api.hooks import ArchPlugin
    from hvkernel.api.host import DiskImage
    from hvkernel.boot.plugins import Plugins
    from hvkernel.config.profile import HostProfile
    from hvkernel.config.report import BootReport
    from hvkernel.trace.recorder import Recorder

__all__ = ["Session", "Unsupported", "boot", "compose"]

BOOT_LIMIT: Final = 300 * 10_000_000
"""Virtual time that a boot may take, 100 ns units: 300 s, ten times what an initramfs waits for its root."""

COMMAND_LINE: Final = b"console=ttyS0,115200 panic=-1"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A legal kernel that this VM cannot run, or that does not link."""

    report: BootReport


class Session:
    """A guest and its host, live until :meth:`close`. Made by :func:`compose`."""

    def __init__(
        self,
        machine: Machine,
        host: Host,
        server: VmbusServer,
        kernel: Kernel,
        build: Build,
        plugins: Plugins,
        disks: tuple[DiskImage, ...],
        arch: ArchPlugin,
        recorder: Recorder | None = None,
        medium: DiskImage | None = None,
    ) -> None:
        self.machine = machine
        self.host = host
        self.server = server
        self.kernel = kernel
        self.build = build
        self.plugins = plugins
        self.disks = disks
        self.arch = arch
        self.recorder = recorder
        self.medium = medium

    def boot(self, limit: int = BOOT_LIMIT) -> None:
        """Boot until the guest is up, has ended, or cannot go on.

        :param limit: most virtual time, 100 ns units.
        """
        self.kernel.boot(limit)

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run ``fn`` as a kernel thread of the booted guest and return its value; other tasks run meanwhile."""
        return self.machine.call(fn, *args)

    def report(self) -> BootReport:
        """Return the report as of now."""
        return build_report(self)

    def close(self) -> None:
        """End the guest, close its disks and its traces; what was written is in the files.

        :raises InputError: a trace could not be written.
        """
        try:
            if self.recorder is not None:
                self.machine.tracer = None
                _close_recorder(self.recorder, self.kernel)
        finally:
            try:
                self.machine.close()
            finally:
                close_disks(self.disks if self.medium is None else (*self.disks, self.medium))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def boot(
    request: BootRequest,
    plugins: Plugins | None = None,
    attend: Callable[[Session, BootReport], None] | None = None,
) -> BootReport:
    """Compose, boot, report and close.

    :param attend: called with the guest, which is still there, and its report.
    :raises InputError: an input is wrong; nothing was booted.
    """
    composed = compose(request, plugins)
    if isinstance(composed, Unsupported):
        return composed.report
    with composed as session:
        session.boot()
        report = session.report()
        if attend is not None:
            attend(session, report)
        return report


def compose(
    request: BootRequest, plugins: Plugins | None = None, vps: Sequence[VpTopology] | None = None
) -> Session | Unsupported:
    """Put a guest and a host together from what was asked for.

    :param plugins: loaded plugins; ``None`` loads all that are installed.
    :param vps: processors with numbers of the caller's choice; ``None`` numbers them alike everywhere.
    :raises InputError: an input is wrong.
    """
    plugins = (plugin_loading.load() if plugins is None else plugins).for_one_guest()
    archs = {arch.name: arch for _, arch in plugins.call("hv_arch")}
    build = configure(request, plugins)
    if build.arch not in archs:
        raise InputError("plugins", "architecture", build.arch, "no plugin brings it")
    arch: ArchPlugin = archs[build.arch]
    profile, generation = settle_host(request.vm, build, arch.default_hosts, request.where, plugins.workshop.profile)
    reason = unfit(request.vm, build, profile, generation, arch)
    if reason is not None:
        return Unsupported(unsupported_report(request.vm.seed, build, profile, generation, plugins, reason))
    ram = _ram(request, profile)
    disks = open_disks(request.vm, request.where)
    opened = list(disks)
    try:
        medium = open_medium(request.vm, disks, request.where)
        if medium is not None:
            opened.append(medium)
        machine = Machine(
            ram,
            topology(request.vm) if vps is None else vps,
            seed=request.vm.seed,
            policy=request.vm.policy,
        )
        try:
            return _compose_on(machine, request, build, plugins, arch, profile, generation, disks, medium)
        except BaseException:
            machine.close()
            raise
    except LinkFailure as failure:
        close_disks(opened)
        why = f"does not link: {failure.errors[0]}"
        return Unsupported(unsupported_report(request.vm.seed, build, profile, generation, plugins, why))
    except BaseException:
        close_disks(opened)
        raise


def _ram(request: BootRequest, profile: HostProfile) -> tuple[tuple[int, int], ...]:
    """Place the VM's memory.

    :raises InputError: its end is beyond the addresses of a machine.
    """
    ram = ram_ranges(profile, request.vm.memory)
    end = sum(ram[-1])
    if end > MAX_GPA:
        most = format_size(request.vm.memory - (end - MAX_GPA))
        raise InputError(request.where, "memory", format_size(request.vm.memory), f"{profile.name} has at most {most}")
    return ram


def configure(request: BootRequest, plugins: Plugins) -> Build:
    """Evaluate the request's ``.config`` with every plugin's Kconfig.

    :raises ConfigError: the file or an option contradicts the Kconfig.
    """
    file = plugins.workshop.config(request.config, request.config_name)
    asked = request.release
    release = data_release(asked or file.header_version or BASELINE, "--release" if asked else file.name)
    return plugins.workshop.build(request, file, plugins.kconfigs(release))


def _compose_on(
    machine: Machine,
    request: BootRequest,
    build: Build,
    plugins: Plugins,
    arch: ArchPlugin,
    profile: HostProfile,
    generation: int,
    disks: tuple[DiskImage, ...],
    medium: DiskImage | None,
) -> Session:
    vm = request.vm
    host = Host(
        machine,
        profile,
        generation,
        arch.host(),
        command_line=COMMAND_LINE,
        node_memory=[node.memory for node in vm.numa] or None,
    )
    table = DeviceTable()
    for _ in plugins.call("hv_register_devices", registry=table):
        pass
    devices = settle_devices(request, profile, generation)
    slots = list(slots_of(devices, parameters(vm, profile, generation, devices, disks, request.where, medium)))
    if vm.offer_order == "random":
        machine.rng("order of the offers").shuffle(slots)
    server = VmbusServer(host, profile.vmbus, slots, table, throttle=profile.throttle)
    server.start()
    kernel = Kernel(
        machine,
        build,
        plugins.workshop.release(build.release),
        arch.guest(build.bits),
        page_size=build.page_size,
        initrd=request.initrd.held,
        initrd_exact=request.initrd.exact,
        initrd_refused=request.initrd.refused(build),
    )
    kernel.blame = lambda error: plugins.blame(error, "driver")
    hv_objects.register(kernel, jit=request.jit)
    for _ in plugins.call("hv_register_drivers", kernel=kernel):
        pass
    kernel.link()
    recorder = _open_recorder(request, build, kernel, profile, generation) if request.trace else None
    machine.tracer = recorder
    return Session(machine, host, server, kernel, build, plugins, disks, arch, recorder, medium)


def _open_recorder(
    request: BootRequest, build: Build, kernel: Kernel, profile: HostProfile, generation: int
) -> Recorder:
    """Open the traces. :raises InputError: one cannot be written."""
    from hvkernel import __version__
    from hvkernel.trace.recorder import Recorder, TraceFileError
    from hvkernel.trace.sink import TraceInfo

    info = TraceInfo(
        release=kernel.release.version,
        arch=build.arch,
        bits=build.bits,
        page_size=build.page_size,
        host=profile.name,
        generation=generation,
        seed=request.vm.seed,
        version=__version__,
    )
    try:
        return Recorder.open(request.trace, info)
    except TraceFileError as error:
        raise InputError(str(error.path), limit=error.problem) from None


def _close_recorder(recorder: Recorder, kernel: Kernel) -> None:
    from hvkernel.trace.recorder import TraceFileError
    from hvkernel.trace.sink import Ending

    numbers = {cpu.vp.vp_index: cpu.cpu for cpu in kernel.cpus.cpus if cpu.exists}
    try:
        recorder.close(Ending(kernel.cpus.num_online_cpus(), numbers))
    except TraceFileError as error:
        raise InputError(str(error.path), limit=error.problem) from None
