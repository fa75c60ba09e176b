"""Every hook, through a third-party plugin on whole guests: its driver against its device, and each hook gone wrong."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any

import pytest

from hvkernel.boot.plugins import Plugins, load
from hvkernel.boot.request import BootRequest
from hvkernel.boot.session import boot
from hvkernel.config import VmConfig
from hvkernel.config.report import BootReport

ECHO = Path(__file__).parents[1] / "data/plugins/hvkernel_echo"
GUESTS = [
    ("debian12-6.1.192-cloud-amd64", {}, "m"),
    ("azurelinux3-64k-aarch64", {}, "y"),
    ("alpine-virt.x86", {"host": "ws2016", "generation": 1}, "m"),
]
Install = Callable[..., Plugins]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install the echo plugin beside the in-tree ones, with some of its text replaced, and load all."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(file: str = "__init__.py", old: str = "", new: str = "") -> Plugins:
        package = tmp_path / "hvkernel_echo"
        shutil.copytree(ECHO, package, ignore=shutil.ignore_patterns("__pycache__"))
        text = (package / file).read_text()
        assert old in text
        (package / file).write_text(text.replace(old, new, 1) if old else text)
        info = tmp_path / "hvkernel_echo-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hvkernel-echo\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text("[hvkernel]\nhv_echo = hvkernel_echo\n")
        own: list[EntryPoint] = [e for d in distributions(path=[str(tmp_path)]) for e in d.entry_points]
        return load([*(e for e in entry_points(group="hvkernel") if e.name != "hv_echo"), *own])

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "hvkernel_echo"]:
        del sys.modules[name]


def run(config: Any, plugins: Plugins, name: str, vm: dict[str, Any]) -> BootReport:
    return boot(BootRequest(config=config(name), vm=VmConfig.model_validate(vm)), plugins)


def echo(report: BootReport) -> Any:
    return next(device for device in report.devices if device.device_class == "heartbeat")


@pytest.mark.parametrize(("name", "vm", "built"), GUESTS)
def test_hv_register_drivers(name: str, vm: dict[str, Any], built: str, install: Install, config: Any) -> None:
    report = run(config, install(), name, vm)
    device = echo(report)
    assert report.outcome == "up"
    assert (device.driver, device.module, device.built, device.state) == ("hv_echo", "hv_echo", built, "bound")
    assert f"hv_echo {device.instance_guid}: asked 21, got 42" in [line.text for line in report.dmesg]
    assert report.notes == tuple(note for note in report.notes if "echo" not in note)


@pytest.mark.parametrize(("name", "vm", "built"), GUESTS)
def test_hv_register_devices(name: str, vm: dict[str, Any], built: str, install: Install, config: Any) -> None:
    report = run(config, install(), name, vm)
    assert (echo(report).protocol, echo(report).state) == ("1.0", "bound")
    assert "not-modelled" in {device.state for device in report.devices if device is not echo(report)}


def test_hv_kconfig(install: Install, config: Any) -> None:
    plugins = install("__init__.py", "depends on HYPERV\\n", "depends on HYPERV && PCI_MSI && !SMP\\n")
    report = run(config, plugins, "debian12-6.1.192-cloud-amd64", {})
    device = echo(report)
    assert (report.outcome, device.built, device.state) == ("up", "n", "unclaimed")
    assert device.reason is not None
    assert device.reason.startswith("HYPERV_ECHO=n: ")
    assert "SMP" in device.reason


def test_hv_arch(config: Any) -> None:
    from hvkernel.boot.session import compose

    archs = {arch.name: arch for _, arch in load().call("hv_arch")}
    assert {name: (arch.bits, arch.page_sizes) for name, arch in archs.items()} == {
        "arm64": ((64,), (4096, 16384, 65536)),
        "x86": ((64, 32), (4096,)),
    }
    without = load([entry for entry in entry_points(group="hvkernel") if entry.name != "arm64"])
    request = BootRequest(config=config("debian12-6.1.192-cloud-arm64"), vm=VmConfig())
    with pytest.raises(ValueError, match="architecture = 'arm64': no plugin brings it"):
        compose(request, without)


@pytest.mark.parametrize(
    ("hook", "file", "old", "state"),
    [
        ("hv_register_drivers", "__init__.py", "kernel.register_object(vsc.EchoDriver().kernel_object())", "unclaimed"),
        (
            "hv_register_devices",
            "__init__.py",
            'registry.register(CLASS, vsp.EchoDevice, owner="hv_echo")',
            "not-modelled",
        ),
    ],
)
def test_a_hook_that_raises_is_named_and_the_guest_goes_on(
    hook: str, file: str, old: str, state: str, install: Install, config: Any
) -> None:
    report = run(
        config, install(file, old, f'raise RuntimeError("on purpose"); {old}'), "debian12-6.1.192-cloud-amd64", {}
    )
    assert report.outcome == "up"
    assert echo(report).state == state
    assert f"plugin hvkernel-echo[hv_echo]: {hook}: RuntimeError: on purpose" in report.notes


def test_a_boot_does_not_tell_of_the_faults_of_another(install: Install, config: Any) -> None:
    plugins = install("__init__.py", "registry.register(", 'raise RuntimeError("on purpose"); registry.register(')
    one, other = (run(config, plugins, "debian12-6.1.192-cloud-amd64", {}) for _ in range(2))
    assert len([note for note in one.notes if "on purpose" in note]) == 1
    assert one.to_json() == other.to_json()


@pytest.mark.parametrize(
    ("file", "old", "what"),
    [
        ("vsp.py", "return 0", "on_open()"),
        ("vsp.py", "message = EchoMessage.unpack(packet.payload)", "on_packet()"),
        ("vsp.py", "return offer", "offer()"),
    ],
)
def test_a_device_that_raises_is_named_and_the_guest_goes_on(
    file: str, old: str, what: str, install: Install, config: Any
) -> None:
    report = run(
        config, install(file, old, f'raise RuntimeError("on purpose"); {old}'), "debian12-6.1.192-cloud-amd64", {}
    )
    assert report.outcome == "up"
    texts = [finding.text for finding in report.findings]
    assert any("hv_echo" in text and what in text and "on purpose" in text for text in texts)


@pytest.mark.parametrize(
    "place", ["return self.vmbus.vmbus_driver_register", "size = self.vmbus", "message = EchoMessage.unpack"]
)
def test_a_driver_that_raises_is_named_and_the_guest_goes_on(place: str, install: Install, config: Any) -> None:
    plugins = install("vsc.py", place, f'raise RuntimeError("on purpose"); {place}')
    report = run(config, plugins, "debian12-6.1.192-cloud-amd64", {})
    assert report.outcome == "up"
    texts = [*report.notes, *(finding.text for finding in report.findings)]
    assert any("hvkernel-echo[hv_echo]" in text and "on purpose" in text for text in texts), texts


def test_a_syntax_error_in_a_plugins_kconfig_is_an_input_error(install: Install, config: Any) -> None:
    plugins = install("__init__.py", "tristate\\n", "tri-state\\n")
    with pytest.raises(ValueError, match=r"hv_echo/Kconfig:2: ") as caught:
        run(config, plugins, "debian12-6.1.192-cloud-amd64", {})
    assert "\n" not in str(caught.value)


def test_a_shell_call_in_a_plugins_kconfig_is_refused(install: Install, config: Any, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    plugins = install("__init__.py", "default HYPERV\\n", f"default $(shell,touch {witness})\\n")
    with pytest.raises(ValueError, match="shell"):
        run(config, plugins, "debian12-6.1.192-cloud-amd64", {})
    assert not witness.exists()


def test_two_plugins_that_declare_one_kernel_object(install: Install, config: Any) -> None:
    plugins = install("vsc.py", '"hv_echo",\n            "HYPERV_ECHO"', '"hv_vmbus",\n            "HYPERV_ECHO"')
    report = run(config, plugins, "debian12-6.1.192-cloud-amd64", {})
    assert report.outcome == "up"
    assert any("hv_vmbus" in note and "registered twice" in note for note in report.notes)
