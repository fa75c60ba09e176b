"""Which cells there are: against building and composing every single combination; and what a user is told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from random import Random
from typing import Final

import pytest

from hvkernel.api.matrix import Clash
from hvkernel.boot.fit import settle_host, unfit
from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.session import Unsupported, compose, configure
from hvkernel.config.errors import InputError
from hvkernel.config.matrix import MatrixSpec, default_spec
from hvkernel.kconfig import Build, ConfigError
from hvkernel.kconfig.data import RELEASES
from hvkernel.matrix.axes import Axis, Plan, axes_of, plugin_axes, request_of
from hvkernel.matrix.cover import cells_of, covering_array
from hvkernel.matrix.legal import Legal, legal
from hvkernel.matrix.model import Cell


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load()


def legal_of(spec: MatrixSpec, plugins: Plugins, extra: tuple[Axis, ...] = ()) -> Legal:
    return legal(spec, axes_of(spec, extra), plugins)


def really(spec: MatrixSpec, values: Mapping[str, str], plugins: Plugins) -> bool:
    """Whether a combination can be had: build the kernel, see what came out, and put the machine together."""
    axes = axes_of(spec)
    try:
        plan, request = request_of(spec, axes, Cell(0, tuple(values.items()), 0))
        build = configure(request, plugins)
        composed = compose(request, plugins)
    except (InputError, ConfigError):
        return False
    if not isinstance(composed, Unsupported):
        composed.close()
    elif not (composed.report.reason or "").startswith("does not link"):
        return False
    return came_out(build, plan)


def came_out(build: Build, plan: Plan) -> bool:
    """Whether a kernel is as asked. A symbol that its Kconfig does not have is n, whatever the file says."""
    values = {symbol: build.value(symbol) if symbol in build.modelled else "n" for symbol in plan.expect}
    return values == plan.expect


YMN: Final = ("y", "m", "n")
SMALL = {
    "the kernel": MatrixSpec(
        axes={"arch": ("x86", "arm64"), "bits": ("64", "32"), "pae": ("n", "y"), "page_size": ("4K", "16K", "64K")},
        symbols={"SMP": ("y", "n")},
    ),
    "storage": MatrixSpec(
        axes={"arch": ("x86", "arm64"), "release": ("5.15", "6.18")},
        symbols={"MODULES": ("y", "n"), "HYPERV": YMN, "HYPERV_STORAGE": YMN, "SCSI": YMN},
    ),
    "the host": MatrixSpec(
        axes={
            "arch": ("x86", "arm64"),
            "bits": ("64", "32"),
            "host": ("ws2012/gen1", "ws2022/gen1", "ws2022/gen2", "wsl2/gen2", "azure-arm64/gen2"),
            "cpus": ("1", "4", "65", "250"),
            "memory": ("1G", "numa"),
        },
        symbols={"EFI": ("y", "n")},
    ),
    "any host": MatrixSpec(
        axes={"arch": ("x86", "arm64"), "bits": ("64", "32"), "hz": ("250", "100")},
        symbols={"EFI": ("y", "n"), "ATA": ("n", "y"), "ATA_PIIX": ("y", "n"), "HYPERV_STORAGE": ("y", "n")},
    ),
    "machines": MatrixSpec(
        axes={
            "release": ("5.15", "6.1"),
            "host": ("ws2012r2/gen1", "ws2019/gen2", "wsl2/gen2"),
            "vmbus": ("host", "1.1", "3.0", "5.2"),
        },
        rule=({"when": {"vmbus": ("3.0", "5.2")}, "then": {"host": ("ws2019/gen2", "wsl2/gen2")}},),  # type: ignore[arg-type] # as a file has it
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_combination_and_every_pair_recounted(name: str, plugins: Plugins) -> None:
    spec = SMALL[name]
    found = legal_of(spec, plugins)
    order = tuple(spec.varied)
    everything = [dict(zip(order, values, strict=True)) for values in itertools.product(*spec.varied.values())]
    if name == "machines":
        known = {
            "ws2012r2/gen1": ("host", "1.1"),
            "ws2019/gen2": ("host", "1.1", "3.0", "5.2"),
            "wsl2/gen2": ("host", "3.0", "5.2"),
        }
        cells = [
            values
            for values in everything
            if values["vmbus"] in known[values["host"]] and (values["vmbus"] != "1.1" or values["release"] == "5.15")
        ]
    else:
        cells = [values for values in everything if really(spec, values, plugins)]
    assert 4 < len(cells) < len(everything)
    assert [values for values in everything if found.allows(values)] == cells
    assert found.count == len(cells)
    for strength in (2, 3) if len(order) > 2 else (1, 2):
        wanted = {pair for values in cells for pair in itertools.combinations(values.items(), strength)}
        rows = covering_array(found, order, strength)
        covered = [pair for row in rows for pair in itertools.combinations(zip(order, row, strict=True), strength)]
        assert {*covered} == wanted
        assert all(dict(zip(order, row, strict=True)) in cells for row in rows)


def test_a_kernel_and_a_host_without_a_version_in_common(plugins: Plugins) -> None:
    """Every such pair was booted: a VMBus comes up just where a cell is legal."""
    spec = MatrixSpec(
        axes={"release": ("5.15", "6.1"), "host": ("ws2008r2/gen1", "ws2022/gen2"), "vmbus": ("host", "1.1", "2.4")}
    )
    found = legal_of(spec, plugins)
    for values in itertools.product(*spec.varied.values()):
        by_axis = dict(zip(spec.varied, values, strict=True))
        if by_axis["host"] == "ws2008r2/gen1" and by_axis["vmbus"] == "2.4":
            assert not found.allows(by_axis)
            continue
        _, request = request_of(spec, axes_of(spec), Cell(0, tuple(by_axis.items()), 0))
        session = compose(request, plugins)
        assert not isinstance(session, Unsupported)
        with session:
            session.boot()
            assert bool(session.report().vmbus.version) == found.allows(by_axis), by_axis


def test_hosts_and_kernels_without_a_storage_version_in_common(plugins: Plugins) -> None:
    """Every combination was booted: the guest comes up just where a cell is legal, with the highest that both have."""
    spec = MatrixSpec(
        axes={
            "release": ("5.15", "6.1"),
            "host": ("ws2012/gen1", "ws2012r2/gen2", "ws2022/gen2"),
            "storvsc_version": ("host", "6.2", "6.0", "5.1", "4.2", "2.0"),
        }
    )
    axes = axes_of(spec, plugin_axes(plugins))
    found = legal(spec, axes, plugins)
    highest = {"ws2012/gen1": "5.1", "ws2012r2/gen2": "6.0", "ws2022/gen2": "6.2"}
    for values in itertools.product(*spec.varied.values()):
        by_axis = dict(zip(spec.varied, values, strict=True))
        own, cap = highest[by_axis["host"]], by_axis["storvsc_version"]
        if cap != "host" and cap > own:
            assert not found.allows(by_axis)
            continue
        _, request = request_of(spec, axes, Cell(0, tuple(by_axis.items()), 0))
        session = compose(request, plugins)
        assert not isinstance(session, Unsupported)
        with session:
            session.boot()
            report = session.report()
        assert (report.outcome == "up") == found.allows(by_axis), by_axis
        spoken = {device.protocol for device in report.devices if device.device_class in ("ide", "scsi")}
        assert spoken <= {None, own if cap == "host" else cap}, by_axis
        assert (report.outcome == "up") == (None not in spoken), by_axis
        if report.outcome != "up":
            assert any("Obsolete Hyper-V version" in line.text for line in report.dmesg)


def test_a_medium_needs_a_drive(plugins: Plugins) -> None:
    hosts = ("azure-gen2/gen2", "azure-gen1/gen1", "ws2022/gen2")
    spec = MatrixSpec(axes={"host": hosts, "dvd": ("empty", "medium")})
    axes = axes_of(spec, plugin_axes(plugins))
    found = legal(spec, axes, plugins)
    for host in hosts:
        cell = Cell(0, (("host", host), ("dvd", "medium")), 0)
        assert found.allows({"host": host, "dvd": "empty"})
        assert found.allows(cell.by_axis) == (host == hosts[0])
        _, request = request_of(spec, axes, cell)
        if host == hosts[0]:
            session = compose(request, plugins)
            assert not isinstance(session, Unsupported)
            session.close()
        else:
            name, _, generation = host.partition("/gen")
            with pytest.raises(InputError) as error:
                compose(request, plugins)
            limit = f"{name} has no DVD drive (host {name}, generation {generation})"
            assert str(error.value) == f"cell 0: dvd = 'blank': {limit}"


def test_every_cell_of_the_default_array_comes_out_as_asked(plugins: Plugins) -> None:
    spec = default_spec()
    axes = axes_of(spec, plugin_axes(plugins))
    for row in cells_of(spec, plugins).rows:
        cell = Cell(0, tuple(zip(spec.varied, row, strict=True)), 0)
        plan, request = request_of(spec, axes, cell)
        build = configure(request, plugins)
        assert came_out(build, plan), cell
        arch = next(arch for _, arch in plugins.call("hv_arch") if arch.name == build.arch)
        profile, generation = settle_host(
            request.vm, build, arch.default_hosts, request.where, plugins.workshop.profile
        )
        assert unfit(request.vm, build, profile, generation, arch) is None, cell


def test_real_configs_have_one_architecture(plugins: Plugins) -> None:
    x86, arm64 = "CONFIG_X86=y\nCONFIG_ACPI=y\n", "CONFIG_ARM64=y\nCONFIG_ACPI=y\n"
    spec = MatrixSpec.model_validate(
        {
            "axes": {"arch": ["x86", "arm64"], "config": ["pc", "board", "default"]},
            "configs": {"pc": {"file": "pc", "text": x86}, "board": {"file": "board", "text": arm64}},
        }
    )
    found = legal_of(spec, plugins)
    assert [*found.diagrams.combinations(found.node)] == [
        ("x86", "pc"),
        ("x86", "default"),
        ("arm64", "board"),
        ("arm64", "default"),
    ]


def test_plugins_axes_lay_lines_and_clash(plugins: Plugins) -> None:
    def apply(plan: Plan, value: str) -> None:
        plan.set_config("DEBUG_FS", value)

    why = "noise needs two"
    extra = Axis("noise", "noise", ("n", "y"), "n", apply, clashes=(Clash("y", "cpus", ("1",), why),))
    spec = MatrixSpec(axes={"noise": ("n", "y"), "cpus": ("1", "2")}, symbols={"HYPERV_TESTING": ("y", "n")})
    found = legal_of(spec, plugins, (extra,))
    cells = [dict(zip(found.diagrams.variables, row, strict=True)) for row in found.diagrams.combinations(found.node)]
    assert [(cell["HYPERV_TESTING"], cell["noise"], cell["cpus"]) for cell in cells] == [
        ("n", "n", "1"),
        ("y", "y", "2"),
        ("n", "n", "2"),
        ("n", "y", "2"),
    ]


@pytest.mark.parametrize("arch", ["x86", "arm64"])
@pytest.mark.parametrize("release", RELEASES)
def test_any_symbol_is_an_axis_on_every_release(release: str, arch: str, plugins: Plugins) -> None:
    """Drawn from all that the release has, numbers among them: each value is legal just where it comes out."""
    config = {"MODULES": "y"}
    plain = MatrixSpec.model_validate({"axes": {"arch": arch, "release": release}, "config": config})
    cell = Cell(0, (("arch", arch), ("release", release)), 0)
    known = configure(request_of(plain, axes_of(plain), cell)[1], plugins).modelled
    for symbol in Random(f"{release}/{arch}").sample(sorted(known), 6):
        for value in YMN:
            spec = plain.model_copy(update={"symbols": {symbol: (value,)}})
            plan, request = request_of(spec, axes_of(spec), Cell(0, (*cell.values, (symbol, value)), 0))
            try:
                real = came_out(configure(request, plugins), plan)
            except ConfigError:
                real = False
            try:
                found = legal_of(spec, plugins).count
            except InputError:
                found = 0
            assert bool(found) == real, (symbol, value)


def test_an_axis_that_lays_a_symbol_now_and_then_leaves_it_to_the_earlier_one(plugins: Plugins) -> None:
    """As events=hibernate and a later axis that may hibernate, too: the earlier one's wish holds where it is silent."""

    def twice(plan: Plan, value: str) -> None:
        if value != "as-is":
            plan.set_config("HYPERV_TESTING", value)

    def noise(plan: Plan, value: str) -> None:
        plan.set_config("DEBUG_FS", value)

    extra = (
        Axis("noise", "noise", ("n", "y"), "n", noise),
        Axis("one", "one", ("as-is", "y"), "as-is", twice),
        Axis("two", "two", ("as-is", "n", "y"), "as-is", twice),
    )
    spec = MatrixSpec(
        axes={"noise": ("n", "y"), "one": ("as-is", "y"), "two": ("as-is", "n", "y")},
        symbols={"HYPERV": ("y", "n")},
    )
    axes = axes_of(spec, extra)
    found = legal(spec, axes, plugins)
    for values in itertools.product(*spec.varied.values()):
        by_axis = dict(zip(spec.varied, values, strict=True))
        plan, request = request_of(spec, axes, Cell(0, tuple(by_axis.items()), 0))
        assert came_out(configure(request, plugins), plan) == found.allows(by_axis), by_axis
    assert not found.allows({"noise": "n", "one": "y", "two": "as-is"})
    assert found.allows({"noise": "n", "one": "y", "two": "n"})


X86_ONLY = {"arch": ["x86"], "page_size": ["4K", "64K"]}
NO_CELL = [
    (
        {"axes": X86_ONLY},
        "f.toml: axes.page_size = '64K': no cell has it: Kconfig's rules for page_size, with arch=x86 "
        "(default configuration:35: a .config of arm64 (by CONFIG_ARM64_64K_PAGES=y), but x86 was asked for)",
    ),
    (
        {"axes": {"cpus": [1, 2]}, "symbols": {"SCSI": ["y", "m"]}},
        "f.toml: symbols.SCSI = 'm': no cell has it: Kconfig's rules for SCSI "
        "(SCSI=y: there are no modules with MODULES=n)",
    ),
    (
        {"axes": {"arch": ["arm64"], "host": ["ws2022/gen2", "azure-arm64/gen2"]}},
        "f.toml: axes.host = 'ws2022/gen2': no cell has it: a host runs kernels of its own architecture, "
        "with arch=arm64",
    ),
    (
        {"axes": {"memory": ["numa"], "cpus": [1]}},
        "f.toml: no cell is left: every node of a NUMA layout has a processor, with memory=numa, cpus=1",
    ),
    (
        {
            "axes": {"hz": [100, 250], "cpus": [1, 2]},
            "rule": [{"when": {"hz": 100}, "then": {"cpus": 1}}, {"when": {"hz": 100}, "then": {"cpus": 2}}],
        },
        "f.toml: axes.hz = '100': no cell has it: "
        "rule[0] (hz=100: cpus=1) contradicts rule[1] (hz=100: cpus=2), with cpus=1|2",
    ),
    (
        {
            "axes": {"hz": [100], "cpus": [1, 2]},
            "rule": [
                {"when": {}, "then": {"cpus": 1}},
                {"when": {"cpus": 2}},
                {"when": {"hz": 100}, "then": {"cpus": 2}},
            ],
        },
        "f.toml: no cell is left: rule[1] (never cpus=2) contradicts rule[2] (hz=100: cpus=2), with cpus=1|2, hz=100",
    ),
    (
        {"axes": {"host": ["ws2008r2/gen1", "ws2022/gen2"]}},
        "f.toml: axes.host = 'ws2008r2/gen1': no cell has it: "
        "a host has its own versions of VMBus, and the kernel speaks one of them",
    ),
    (
        {"symbols": {"CONFIG_HYPERV": ["y"]}},
        "f.toml: no cell is left: Kconfig's rules for CONFIG_HYPERV "
        "(CONFIG_HYPERV=y: not among the modelled symbols of Linux 6.1 (x86))",
    ),
    ({"symbols": {"HZ": ["y", "m"]}}, "f.toml: no cell is left: Kconfig's rules for HZ (HZ=250: default)"),
    ({"axes": {"cpus": [1, 2]}, "vm": {"cpus": 8}}, "f.toml: vm.cpus: is what axis cpus says in every cell"),
    (
        {"axes": {"memory": ["1G", "numa"]}, "vm": {"memory": "2G"}},
        "f.toml: vm.memory: is what axis memory says in every cell",
    ),
    (
        {"axes": {"storvsc_version": ["host", "4.2"]}},
        "f.toml: axes.storvsc_version = '4.2': no cell has it: "
        "storvsc_version=4.2|2.0 needs a kernel with storvsc_win7",
    ),
    (
        {"axes": {"storvsc_version": ["host", "6.2"], "host": ["ws2012/gen1"]}},
        "f.toml: axes.storvsc_version = '6.2': no cell has it: "
        "a host has its own versions of the protocol of ide, with host=ws2012/gen1",
    ),
    (
        {"axes": {"arch": ["x86", "arm64"], "cpus": [4, 2000]}},
        "f.toml: axes.cpus = '2000': no cell has it: azure-gen2/gen2 has at most 1024 processors "
        "contradicts azure-arm64/gen2 has at most 1024 processors",
    ),
    (
        {"axes": {"cpus": [1, 2]}, "config": {"MODULES": "y", "HYPERV_STORGE": "y"}},
        "f.toml: config.HYPERV_STORGE = 'y': no release or architecture of this spec has a modelled symbol of that "
        "name; did you mean 'HYPERV_STORAGE'?",
    ),
]


@pytest.mark.parametrize(("data", "message"), NO_CELL)
def test_what_contradicts_is_said_before_the_first_cell(
    data: dict[str, object], message: str, plugins: Plugins
) -> None:
    spec = MatrixSpec.model_validate({**data, "source": "f.toml"})
    with pytest.raises(InputError) as error:
        legal_of(spec, plugins, plugin_axes(plugins))
    assert str(error.value) == message
