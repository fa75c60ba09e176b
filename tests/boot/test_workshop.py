"""What boots share changes what they cost, never what they do."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from hvkernel.boot.plugins import load
from hvkernel.boot.request import read_request
from hvkernel.boot.session import boot, configure
from hvkernel.kconfig import ConfigError

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "cloud.config"
    path.write_bytes(gzip.decompress((CONFIGS / "debian12-6.1.192-cloud-amd64.config.gz").read_bytes()))
    return path


def test_a_used_workshop_boots_as_a_fresh_one(cloud: Path) -> None:
    used = load()
    boot(read_request(arch="arm64"), used)
    boot(read_request(config=cloud, host="ws2019/gen1"), used)
    first = boot(read_request(config=cloud), used)
    assert first.model_dump_json() == boot(read_request(config=cloud), used).model_dump_json()
    assert first.model_dump_json() == boot(read_request(config=cloud), load()).model_dump_json()


def test_a_config_is_parsed_and_evaluated_once(cloud: Path) -> None:
    plugins = load()
    build = configure(read_request(config=cloud), plugins)
    assert configure(read_request(config=cloud), plugins) is build
    assert configure(read_request(config=cloud, bits=32), plugins) is not build
    assert configure(read_request(config=cloud), load()) is not build


def test_as_many_builds_are_kept_as_a_matrix_goes_round_in(cloud: Path) -> None:
    plugins = load()
    fragments = [read_request(arch="x86")] + [
        replace(read_request(arch="x86"), config=f"CONFIG_HYPERV=y\nCONFIG_NR_CPUS={cpus}\n") for cpus in range(2, 202)
    ]
    builds = [configure(request, plugins) for request in fragments]
    assert all(configure(request, plugins) is build for request, build in zip(fragments, builds, strict=True))
    small = sum(len(build.values) for build in builds)
    whole = len(configure(read_request(config=cloud), plugins).values)
    assert small < 250_000 < small + 30 * whole
    text = cloud.read_text()
    for number in range(30):
        configure(replace(fragments[0], config=f"{text}# {number}\n"), plugins)
    assert configure(fragments[0], plugins) is not builds[0]
    assert configure(replace(fragments[0], config=f"{text}# 29\n"), plugins) is configure(
        replace(fragments[0], config=f"{text}# 29\n"), plugins
    )


def test_a_plugin_is_asked_for_its_kconfig_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import hvkernel_storvsc

    asked = []
    real = hvkernel_storvsc.hv_kconfig

    def hv_kconfig(release: str) -> str | None:
        asked.append(release)
        if release == "6.12":
            raise ValueError("not this one")
        return real(release)

    plugins = load()
    monkeypatch.setattr(plugins.manager.get_plugin("hv_storvsc"), "hv_kconfig", hv_kconfig)
    for release in ("6.1", "6.1", "6.12", "6.12"):
        guest = plugins.for_one_guest()
        assert ("hv_storvsc/Kconfig" in guest.kconfigs(release)) == (release == "6.1")
        assert len(guest.faults) == (release == "6.12")
    assert asked == ["6.1", "6.12", "6.12"]


def test_a_config_that_changes_on_disk_is_read_again(cloud: Path) -> None:
    plugins = load()
    assert configure(read_request(config=cloud), plugins).m("HYPERV_STORAGE")
    cloud.write_text(cloud.read_text().replace("CONFIG_HYPERV_STORAGE=m\n", "# CONFIG_HYPERV_STORAGE is not set\n"))
    assert not configure(read_request(config=cloud), plugins).enabled("HYPERV_STORAGE")
    cloud.write_text("no .config\n")
    with pytest.raises(ConfigError, match=r"cloud\.config:1: not a \.config line"):
        configure(read_request(config=cloud), plugins)


def test_a_profile_and_its_offers_are_read_once() -> None:
    workshop = load().workshop
    profile = workshop.profile("ws2022", "--host")
    assert workshop.profile("ws2022", "--host") is profile
    assert profile.devices(2) is profile.devices(2)
    assert workshop.release("6.1.192") is workshop.release("6.1.192")


def test_an_adopted_profile_is_found_by_its_name_and_offers_its_own_devices() -> None:
    plugins = load()
    azure = plugins.workshop.profile("azure-gen2", "--host")
    count = len(azure.devices(2))
    plugins.workshop.adopt(azure.model_copy(update={"name": "wide", "gen2": (*azure.gen2, "scsi", "scsi")}))
    report = boot(read_request(host="wide"), plugins)
    assert (report.outcome, report.host.profile, len(report.devices)) == ("up", "wide", count + 2)
    assert len(azure.devices(2)) == count
