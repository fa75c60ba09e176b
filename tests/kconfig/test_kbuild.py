"""What is built in, a module, absent, or does not link."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvkernel.kconfig import Build, Linkable, link_check, verdicts
from hvkernel.kconfig.data import RELEASES
from hvkernel.kconfig.kbuild import OBJECTS, objects


def how(build: Build) -> dict[str, str]:
    return {verdict.obj.name: verdict.how for verdict in verdicts(build)}


@pytest.mark.parametrize("name", ["debian12-6.1.192-amd64", "debian12-6.1.192-cloud-arm64", "azurelinux3-x86_64"])
def test_what_must_be_in_the_kernel_is_there_when_vmbus_is_a_module(build_of: Callable[..., Build], name: str) -> None:
    build = build_of(name)
    found = how(build)
    assert found["hv_common"] == "built in"
    assert found["hv_init" if build.arch == "x86" else "hv_core"] == "built in"
    assert found["hv_vmbus"] == ("module" if build.m("HYPERV") else "built in")
    assert found["hv_storvsc"] == ("module" if build.m("HYPERV_STORAGE") else "built in")
    assert found["hyperv_timer"] == ("built in" if build.arch == "x86" else "absent")


def test_32_bit_kernels_have_neither_apic_nor_spinlock_parts(build_of: Callable[..., Build]) -> None:
    found = {verdict.obj.name: verdict for verdict in verdicts(build_of("alpine-virt.x86"))}
    assert found["hv_init"].how == "built in"
    assert found["hv_apic"].how == found["hv_spinlock"].how == "absent"
    explanation = found["hv_apic"].explanation
    assert explanation is not None
    assert explanation.symbol == "X86_64"
    assert explanation.root.edit == "CONFIG_64BIT=y"


def test_detection_is_built_without_hyperv(build_of: Callable[..., Build]) -> None:
    found = how(build_of("x86_64_defconfig_6.1"))
    assert found["mshyperv"] == "built in"
    assert {name for name, what in found.items() if what != "absent"} == {"mshyperv"}


def test_an_absent_object_is_explained(build_of: Callable[..., Build]) -> None:
    for verdict in verdicts(build_of("arm64_defconfig_6.1")):
        assert verdict.how == "absent"
        assert verdict.explanation is not None
        assert verdict.explanation.got == "n"


def test_each_release_builds_vmbus_by_its_own_symbol() -> None:
    for release, symbol in (("5.15", "HYPERV"), ("6.12", "HYPERV"), ("6.18", "HYPERV_VMBUS")):
        assert [obj.symbol for obj in objects(release) if obj.name == "hv_vmbus"] == [symbol]
    for release in RELEASES:
        names = [obj.name for obj in objects(release)]
        assert len(names) == len(set(names))
    assert {obj.name for obj in OBJECTS} == {obj.name for obj in objects("6.19")}
    assert {obj.name for obj in objects("6.19")} - {obj.name for obj in objects("7.0")} == {"hyperv_fb"}


VMBUS = Linkable("hv_vmbus", "m", exports=("vmbus_open", "vmbus_close"), imports=("hv_common_init",))
COMMON = Linkable("hv_common", "y", exports=("hv_common_init",))


def test_a_module_may_use_the_kernel_and_other_modules() -> None:
    assert link_check([COMMON, VMBUS, Linkable("hv_storvsc", "m", imports=("vmbus_open", "hv_common_init"))]) == ()


def test_built_in_code_may_not_use_a_module() -> None:
    found = link_check([COMMON, VMBUS, Linkable("mine", "y", imports=("vmbus_open",))])
    assert [str(error) for error in found] == [
        "mine: undefined reference to vmbus_open, which is in hv_vmbus, a module"
    ]


def test_what_is_not_built_or_nowhere_is_undefined() -> None:
    found = link_check(
        [Linkable("hv_vmbus", "n", exports=("vmbus_open",)), Linkable("mine", "m", imports=("vmbus_open", "nowhere"))]
    )
    assert [str(error) for error in found] == [
        "mine: undefined reference to vmbus_open, which is in hv_vmbus, not built",
        "mine: undefined reference to nowhere, which nothing exports",
    ]


def test_an_absent_object_is_not_checked() -> None:
    assert link_check([Linkable("mine", "n", imports=("nowhere",))]) == ()


def test_two_owners_of_one_symbol_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^vmbus_open is exported by hv_vmbus and by other$"):
        link_check([VMBUS, Linkable("other", "y", exports=("vmbus_open",))])


def test_a_build_that_does_not_link_says_so(build_of: Callable[..., Build]) -> None:
    build = build_of("debian12-6.1.192-amd64")
    wrong = Linkable("hyperv_timer", "y", imports=("vmbus_open",))
    found = {verdict.obj.name: verdict for verdict in verdicts(build, [COMMON, VMBUS, wrong])}
    assert found["hyperv_timer"].how == "does not link"
    assert [error.symbol for error in found["hyperv_timer"].undefined] == ["vmbus_open"]
    assert found["hv_vmbus"].how == "module"
