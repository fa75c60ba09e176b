"""The axes: what each value asks for, what is refused, and that the boot has what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.session import Session, Unsupported, compose, configure
from hvkernel.config.errors import InputError
from hvkernel.config.matrix import ConfigRow, MatrixSpec
from hvkernel.config.vm import NumaNode
from hvkernel.matrix.axes import (
    AXES,
    Axis,
    Plan,
    axes_of,
    built_in_axes,
    cell_from_text,
    cell_text,
    plan_of,
    plugin_axes,
    replay_command,
    request_of,
)
from hvkernel.matrix.model import Cell

EVERYTHING = MatrixSpec(
    axes={name: axis.values for name, axis in built_in_axes().items()},
    symbols={"HYPERV_STORAGE": ("y", "m", "n"), "DEBUG_FS": ("n", "y")},
    config={"MODULES": "y", "BLK_DEV_INITRD": "y"},
)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load()


def session_of(text: str, plugins: Plugins, spec: MatrixSpec = EVERYTHING) -> Session:
    axes = axes_of(spec)
    _, request = request_of(spec, axes, cell_from_text(spec, axes, text, 3))
    composed = compose(request, plugins)
    assert not isinstance(composed, Unsupported), composed.report.reason
    return composed


def test_every_axis_has_a_default_among_its_values_and_the_order_of_the_table() -> None:
    axes = built_in_axes()
    assert tuple(axes) == AXES
    for axis in axes.values():
        assert axis.problem(axis.default) is None
        assert axis.default in axis.values
        assert all(axis.problem(value) is None for value in axis.values)


BUILDS = [
    ("arch=x86,bits=32,pae=y,hz=1000", ("x86", 32, 4096, 1000), {"X86_PAE": "y", "HIGHMEM64G": "y"}),
    ("arch=x86,bits=32,pae=n", ("x86", 32, 4096, 250), {"X86_PAE": "n", "HIGHMEM4G": "y"}),
    ("arch=x86,release=6.18,bits=32,pae=y", ("x86", 32, 4096, 250), {"X86_PAE": "y"}),
    ("arch=x86,bits=64,hz=100", ("x86", 64, 4096, 100), {"HZ_250": "n", "NR_CPUS": "n"}),
    ("arch=arm64,page_size=16K,hz=300", ("arm64", 64, 16384, 300), {"ARM64_4K_PAGES": "n"}),
    ("arch=arm64,page_size=64K,nr_cpus=512", ("arm64", 64, 65536, 250), {"NR_CPUS": "512"}),
    ("arch=arm64,HYPERV_STORAGE=m,DEBUG_FS=y", ("arm64", 64, 4096, 250), {"HYPERV_STORAGE": "m", "DEBUG_FS": "y"}),
]


@pytest.mark.parametrize(("text", "kernel", "values"), BUILDS)
def test_the_kernel_is_built_as_asked(
    text: str, kernel: tuple[object, ...], values: dict[str, str], plugins: Plugins
) -> None:
    axes = axes_of(EVERYTHING)
    plan, request = request_of(EVERYTHING, axes, cell_from_text(EVERYTHING, axes, text, 3))
    build = configure(request, plugins)
    assert (build.arch, build.bits, build.page_size, build.hz) == kernel
    assert {name: build.value(name) for name in values} == values
    assert {name: build.value(name) for name in plan.expect} == plan.expect


def test_the_release_picks_the_kconfig(plugins: Plugins) -> None:
    axes = axes_of(EVERYTHING)
    for release in ("5.15", "6.18"):
        _, request = request_of(EVERYTHING, axes, cell_from_text(EVERYTHING, axes, f"release={release}", 0))
        assert configure(request, plugins).data_release == release


def test_a_real_config_is_a_row(plugins: Plugins) -> None:
    text = "CONFIG_HYPERV=m\nCONFIG_HZ_1000=y\n# CONFIG_NET is not set\n"
    spec = MatrixSpec(
        axes={"config": ("default", "mine"), "hz": ("100", "250")},
        configs={"mine": ConfigRow(file="mine.config", text=text)},
    )
    axes = axes_of(spec)
    _, request = request_of(spec, axes, cell_from_text(spec, axes, "config=mine,hz=100", 0))
    assert request.config == "CONFIG_HYPERV=m\nCONFIG_HZ_1000=y\n# CONFIG_NET is not set\nCONFIG_HZ_100=y\n"
    assert request.config_name == "mine.config"
    assert configure(request, plugins).hz == 100


def test_the_vm_is_made_as_asked(plugins: Plugins) -> None:
    with session_of("arch=x86,host=ws2022/gen1,cpus=65,memory=numa,vmbus=4.0", plugins) as session:
        assert (session.host.profile.name, session.host.generation) == ("ws2022", 1)
        assert session.host.profile.vmbus.versions[-1] == 4 << 16
        assert not session.host.profile.vmbus.message_connection_4
        assert len(session.machine.vps) == 65
        assert [vp.node for vp in session.machine.vps].count(0) == 33
        assert sum(size for _, size in session.machine.memory.ram) == 2 << 30


LAYOUTS = [
    ("memory=small", 256 << 20, ()),
    ("memory=above-4G", 6 << 30, ()),
    ("memory=768M", 768 << 20, ()),
    ("memory=numa,cpus=2", 2 << 30, (NumaNode(cpus=1, memory=1 << 30), NumaNode(cpus=1, memory=1 << 30))),
    ("memory=numa", 2 << 30, (NumaNode(cpus=2, memory=1 << 30), NumaNode(cpus=2, memory=1 << 30))),
]


@pytest.mark.parametrize(("text", "memory", "nodes"), LAYOUTS)
def test_memory_layouts(text: str, memory: int, nodes: tuple[NumaNode, ...]) -> None:
    axes = axes_of(EVERYTHING)
    _, request = request_of(EVERYTHING, axes, cell_from_text(EVERYTHING, axes, text, 0))
    assert (request.vm.memory, request.vm.numa) == (memory, nodes)


DEVICES = [
    ("host=ws2022/gen1,devices=root", ["ide"]),
    ("host=ws2022/gen2,devices=root", ["scsi"]),
    ("host=azure-gen2/gen2,devices=two-scsi", None),
    ("host=azure-gen2/gen2,devices=stranger", None),
    ("host=azure-gen2/gen2,devices=late", None),
]


@pytest.mark.parametrize(("text", "kinds"), DEVICES)
def test_device_sets(text: str, kinds: list[str] | None, plugins: Plugins) -> None:
    with session_of(text, plugins) as session:
        session.boot()
        report = session.report()
    assert report.outcome == "up"
    classes = [device.device_class for device in report.devices]
    if kinds is not None:
        assert classes == kinds
    else:
        extra = {"two-scsi": "scsi", "stranger": "device", "late": "scsi"}[text.rpartition("=")[2]]
        with session_of(text.partition(",")[0], plugins) as plain:
            plain.boot()
            assert sorted(classes) == sorted([*(d.device_class for d in plain.report().devices), extra])


def test_a_random_policy_is_the_seeds_and_order_and_initrd_are_the_requests() -> None:
    axes = axes_of(EVERYTHING)
    cell = cell_from_text(EVERYTHING, axes, "policy=random,offer_order=random,initrd=none", 77)
    _, request = request_of(EVERYTHING, axes, cell)
    assert (request.vm.policy, request.vm.seed, request.vm.offer_order) == ("random:77", 77, "random")
    assert not request.initrd.exists
    assert plan_of(EVERYTHING, axes, Cell(0, (("policy", "random:5"),), 77)).vm["policy"] == "random:5"


def test_a_plugins_axis_is_applied_last() -> None:
    def apply(plan: Plan, value: str) -> None:
        plan.set_config("DEBUG_FS", value)
        plan.set_vm("cpus", 2 * plan.vm["cpus"])

    extra = Axis("noise", "noise", ("n", "y"), "n", apply)
    spec = MatrixSpec(axes={"noise": ("n", "y"), "cpus": ("1", "2")}, symbols={"DEBUG_FS": ("y", "n")})
    axes = axes_of(spec, [extra])
    assert list(axes) == ["cpus", "DEBUG_FS", "noise"]
    plan = plan_of(spec, axes, cell_from_text(spec, axes, "DEBUG_FS=n,cpus=2,noise=y", 0))
    assert (plan.lines, plan.vm) == ({"DEBUG_FS": "y"}, {"cpus": 4})


def test_a_cell_is_written_and_read() -> None:
    axes = axes_of(EVERYTHING)
    text = "arch=arm64,page_size=64K,HYPERV_STORAGE=m"
    cell = cell_from_text(EVERYTHING, axes, "HYPERV_STORAGE=m, page_size=64K,arch=arm64", 12)
    assert cell == Cell(0, (("arch", "arm64"), ("page_size", "64K"), ("HYPERV_STORAGE", "m")), 12)
    assert cell_text(cell) == text
    assert replay_command(EVERYTHING, cell) == f"hvkernel matrix --cell '{text}' --seed 12"


WRONG = [
    (
        {"axes": {"pagesize": ("4K",)}},
        "f.toml: axes.pagesize: did you mean 'page_size'? The axes are " + ", ".join(AXES),
    ),
    (
        {"axes": {"page_size": ("8K",)}},
        "f.toml: axes.page_size = '8K': must be one of 4K, 16K, 64K",
    ),
    ({"axes": {"cpus": ("0",)}}, "f.toml: axes.cpus = '0': must be a number from 1 to 2048"),
    ({"axes": {"cpus": ("many",)}}, "f.toml: axes.cpus = 'many': must be a number from 1 to 2048"),
    (
        {"axes": {"memory": ("lots",)}},
        "f.toml: axes.memory = 'lots': must be a size, as 512M, or one of small, 1G, above-4G, numa",
    ),
    (
        {"axes": {"policy": ("lifo",)}},
        "f.toml: axes.policy = 'lifo': must be fifo, random (drawn from the cell's seed) or random:SEED",
    ),
    ({"axes": {"config": ("lost",)}}, "f.toml: axes.config = 'lost': must be one of default"),
    (
        {"axes": {"cpus": (1,)}, "rule": [{"when": {"cpu": "1"}}]},
        "f.toml: rule[0].when.cpu: is no axis of this spec: did you mean 'cpus'? The axes are cpus",
    ),
    (
        {"axes": {"cpus": (1,)}, "rule": [{"when": {}, "then": {"cpus": "2"}}]},
        "f.toml: rule[0].then.cpus = '2': is no value of this spec's cpus: 1",
    ),
]


@pytest.mark.parametrize(("data", "message"), WRONG)
def test_an_unknown_axis_or_value_is_named(data: dict[str, object], message: str) -> None:
    spec = MatrixSpec.model_validate({**data, "source": "f.toml"})
    with pytest.raises(InputError) as error:
        axes_of(spec)
    assert str(error.value) == message


WRONG_CELLS = [
    ("arch", "--cell: axis = 'arch': must be AXIS=VALUE, several with commas between them"),
    ("hz=50", "--cell: hz = '50': did you mean '250'? It must be one of 250, 100, 300, 1000"),
    ("hz=100,hz=250", "--cell: hz = '250': is '100' already"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_CELLS)
def test_a_cell_on_the_command_line_is_checked(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        cell_from_text(EVERYTHING, axes_of(EVERYTHING), text, 0)
    assert str(error.value) == message


def test_values_that_no_vm_has_are_an_input_error() -> None:
    axes = axes_of(EVERYTHING)
    with pytest.raises(InputError) as error:
        request_of(EVERYTHING, axes, Cell(7, (("cpus", "1"), ("memory", "numa")), 0))
    assert str(error.value) == "cell 7: numa[1].cpus = 0: must be greater than or equal to 1"


def test_a_host_has_no_version_below_its_lowest(plugins: Plugins) -> None:
    axes = axes_of(EVERYTHING)
    _, request = request_of(EVERYTHING, axes, cell_from_text(EVERYTHING, axes, "host=wsl2/gen2,vmbus=1.1", 0))
    with pytest.raises(InputError) as error:
        compose(request, plugins)
    assert str(error.value) == "cell 0: vmbus = '1.1': the lowest version of this host is 2.4"


@pytest.mark.parametrize(
    ("vm", "message"),
    [
        (
            {"protocols": {"balloon": "1.0"}},
            "protocols.dm = '1.0': host azure-gen2 has no versions of this kind of device; it has of ide, scsi",
        ),
        ({"protocols": {"scsi": "1.9"}}, "protocols.scsi = '1.9': the lowest version of this host is 2.0"),
        ({"dvd": "/nowhere/a.iso"}, "/nowhere/a.iso: No such file or directory"),
        (
            {"dvd": {"size": "2M"}, "devices": ("dm",), "disks": ()},
            "dvd = 'blank': a DVD drive needs a SCSI controller",
        ),
    ],
)
def test_devices_that_no_host_has_like_that(vm: dict[str, object], message: str, plugins: Plugins) -> None:
    spec = MatrixSpec.model_validate({"axes": {"cpus": (1,)}, "vm": vm})
    _, request = request_of(spec, axes_of(spec), Cell(0, (("cpus", "1"),), 0))
    with pytest.raises(InputError) as error:
        compose(request, plugins)
    assert str(error.value).removeprefix("cell 0: ").startswith(message)


def test_a_medium_is_no_disk_that_is_written_to(plugins: Plugins, tmp_path: Path) -> None:
    image = tmp_path / "one.img"
    image.write_bytes(bytes(2 << 20))
    vm = {"disks": (str(image),), "dvd": str(image)}
    spec = MatrixSpec.model_validate({"axes": {"cpus": (1,)}, "vm": vm})
    _, request = request_of(spec, axes_of(spec), Cell(0, (("cpus", "1"),), 0))
    with pytest.raises(InputError) as error:
        compose(request, plugins)
    assert str(error.value) == f"cell 0: dvd = '{image}': is disks[0] too"


def test_a_device_of_the_vm_stays_beside_those_of_the_axis() -> None:
    spec = MatrixSpec.model_validate(
        {"axes": {"devices": ("profile", "late")}, "vm": {"device": ({"kind": "scsi", "name": "own"},)}}
    )
    for value, count in (("profile", 1), ("late", 2)):
        _, request = request_of(spec, axes_of(spec), Cell(0, (("devices", value),), 0))
        assert [one.name for one in request.vm.device] == ["own", None][:count]
        assert all(one.kind == "scsi" for one in request.vm.device)


def test_an_axis_leaves_the_other_protocols_of_the_vm(plugins: Plugins) -> None:
    spec = MatrixSpec.model_validate(
        {"axes": {"storvsc_version": ("host", "5.1")}, "vm": {"protocols": {"nic": "6.0", "scsi": "6.0"}}}
    )
    axes = axes_of(spec, plugin_axes(plugins))
    for value, scsi in (("host", 6 << 16), ("5.1", 5 << 16 | 1)):
        _, request = request_of(spec, axes, Cell(0, (("storvsc_version", value),), 0))
        assert (request.vm.protocols["nic"], request.vm.protocols["scsi"]) == (6 << 16, scsi)


def test_the_manual_has_every_axis_and_value(plugins: Plugins) -> None:
    text = (Path(__file__).parents[2] / "docs" / "matrix-axes.rst").read_text("utf-8")
    table = {row.split("``")[1]: row for row in text.split("\n   * - ")[1:] if row.startswith("``")}
    axes = (*built_in_axes().values(), *plugin_axes(plugins))
    assert tuple(table) == tuple(axis.name for axis in axes)
    for axis in axes:
        if axis.name not in ("host", "vmbus"):
            assert all(f"``{value}``" in table[axis.name] for value in axis.values), axis.name
