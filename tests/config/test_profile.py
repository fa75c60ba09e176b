"""The host profiles: they load, agree with the real logs, and their offers are well formed."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from hvkernel.config import DEVICE_CLASSES, HostProfile, InputError, load_profile, profile_names

NAMES = (
    "azure-arm64", "azure-gen1", "azure-gen2", "ws2008r2", "ws2012", "ws2012r2", "ws2016", "ws2019", "ws2022",
    "ws2025", "wsl2",
)  # fmt: skip
LOGS = Path(__file__).parents[1] / "data" / "host-words"
BOTH = ("ws2012r2", "ws2016", "ws2019", "ws2022", "ws2025")


def logged() -> list[tuple[str, str]]:
    return [
        (path.stem, line)
        for path in sorted(LOGS.glob("*.txt"))
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    ]


def test_every_profile_of_the_design_exists() -> None:
    assert profile_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_loads_and_names_its_sources(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.sources) == {"build", "cpu", "cpuid", "vmbus", "acpi", "memory", "devices", "protocols"}
    assert all(profile.sources.values())


@pytest.mark.parametrize("name", NAMES)
def test_generations_are_those_of_the_design(name: str) -> None:
    profile = load_profile(name)
    if name in BOTH:
        assert (profile.generations, profile.default_generation) == ((1, 2), 2)
    elif name in ("ws2008r2", "ws2012", "azure-gen1"):
        assert profile.generations == (1,)
    else:
        assert profile.generations == (2,)


def words_line(profile: HostProfile) -> str:
    c = profile.cpuid
    misc = c.features_c if "arm64" in profile.architectures else c.features_d
    return (
        f"Hyper-V: privilege flags low {c.privileges_low:#x}, high {c.privileges_high:#x}, "
        f"hints {c.recommendations:#x}, misc {misc:#x}"
    )


@pytest.mark.parametrize(("name", "line"), logged())
def test_the_words_of_a_real_log_are_the_profiles(name: str, line: str) -> None:
    profile = load_profile(name)
    if "privilege flags" in line:
        assert words_line(profile) == line
    elif "Host Build" in line:
        assert f"Hyper-V: Host Build {profile.build.text}" == line
    elif "Nested features" in line:
        assert f"Hyper-V: Nested features: {profile.cpuid.nested:#x}" == line
        assert profile.cpuid.max_leaf >= 0x4000_000A
    elif "Vmbus version" in line:
        newest = max(profile.vmbus.versions)
        assert f"hv_vmbus: Vmbus version:{newest >> 16}.{newest & 0xFFFF}" == line
    elif "MHz processor" in line:
        khz = profile.cpu.counter_hz // 1000
        assert f"tsc: Detected {khz // 1000}.{khz % 1000:03} MHz processor" == line
    else:
        pytest.fail(f"no rule for {line!r}")


def test_logs_without_nested_features_have_too_few_leaves_to_print_them() -> None:
    # Linux 6.1 prints "Nested features" if the leaf exists: arch/x86/kernel/cpu/mshyperv.c ms_hyperv_init_platform().
    silent = {path.stem for path in LOGS.glob("*.txt") if "Nested" not in path.read_text()}
    assert silent == {"azure-gen1", "azure-gen2"}
    assert all(load_profile(name).cpuid.max_leaf < 0x4000_000A for name in silent)


@pytest.mark.parametrize("name", NAMES)
def test_offers_have_distinct_and_repeatable_identities(name: str) -> None:
    profile = load_profile(name)
    for generation in profile.generations:
        devices = profile.devices(generation)
        assert len({device.instance_guid for device in devices}) == len(devices)
        assert len({device.name for device in devices}) == len(devices)
        assert devices == load_profile(name).devices(generation)
        kinds = [device.kind for device in devices]
        assert ("ide" in kinds) == (generation == 1)
        assert "scsi" in kinds
        assert kinds.count("nic") == 1


def test_a_made_up_instance_is_a_version_5_uuid_of_its_name() -> None:
    nic = DEVICE_CLASSES["nic"]
    assert nic.instance("nic", 0) != nic.instance("nic", 1)
    assert nic.instance("nic", 0).version == 5
    assert DEVICE_CLASSES["ide"].instance("ide", 1) == uuid.UUID("00000000-0001-8899-0000-000000000000")


@pytest.mark.parametrize(
    ("name", "newest", "port4", "gpadl"),
    [
        ("ws2008r2", (1, 1), False, 384),
        ("ws2012", (2, 4), False, 384),
        ("ws2012r2", (3, 0), False, 384),
        ("ws2016", (4, 0), False, 384),
        ("ws2019", (5, 2), True, 1280),
        ("ws2022", (5, 3), True, 1280),
        ("ws2025", (5, 3), True, 1280),
        ("azure-gen2", (4, 0), False, 1280),
        ("wsl2", (5, 2), True, 1280),
    ],
)
def test_protocol_limits_follow_the_release(name: str, newest: tuple[int, int], port4: bool, gpadl: int) -> None:
    vmbus = load_profile(name).vmbus
    assert max(vmbus.versions) == newest[0] << 16 | newest[1]
    assert vmbus.message_connection_4 is port4
    assert vmbus.gpadl_total_mb == gpadl


@pytest.mark.parametrize("name", NAMES)
def test_more_processors_than_exist_are_listed_before_2022_only(name: str) -> None:
    profile = load_profile(name)
    for generation in profile.generations:
        assert (profile.listed_cpus(generation) > 0) == (profile.build.number < 20348)


def test_an_unknown_profile_is_an_input_error_that_lists_the_others() -> None:
    with pytest.raises(
        InputError, match=r"^--host: host = 'ws2003': must be one of azure-arm64, .*, ws2022, ws2025, wsl2$"
    ):
        load_profile("ws2003", where="--host")


def test_a_profile_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        load_profile("ws2022").title = "other"


def test_the_committed_words_say_where_they_come_from() -> None:
    for path in LOGS.glob("*.txt"):
        assert re.match(r"# source: .+", path.read_text()), path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"default_generation": 2}, "default_generation must be one of generations"),
        ({"gen2": ("nic",)}, "gen2 must list devices exactly if generation 2 exists"),
        ({"acpi": {}}, "acpi: generation 1 has a bios_date"),
        ({"acpi": {"bios_date": "2018-12-07"}}, "String should match pattern"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    data = load_profile("azure-gen1").model_dump()
    assert HostProfile.model_validate(data).name == "azure-gen1"
    with pytest.raises(ValueError, match=message):
        HostProfile.model_validate({**data, **change})
