"""``hvkernel abi``: the document other programs read, compared with the compiled kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hvkernel.cli.abi import command

DATA = Path(__file__).parents[1] / "data" / "abi"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def document(*arguments: str) -> dict[str, Any]:
    done = run("--json", *arguments)
    assert done.exit_code == 0, done.output
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_the_document_agrees_with_the_compiled_kernel(arch: str) -> None:
    found = document("--arch", arch)
    assert list(found) == ["schema", "arch", "structs", "constants", "guids"]
    assert (found["schema"], found["arch"]) == (1, arch)
    structs = json.loads((DATA / f"layout-{arch}.json").read_text())["structs"]
    compared = 0
    for tag, struct in found["structs"].items():
        if tag not in structs:
            continue
        compared += 1
        assert struct["size"] == structs[tag]["size"]
        ours = {(f["name"], f["offset"], f["size"], f.get("bit_offset"), f.get("bit_size")) for f in struct["fields"]}
        theirs = {
            (f["name"], f["offset"], f["size"], f.get("bit_offset"), f.get("bit_size"))
            for f in structs[tag]["fields"]
            if f["name"]
        }
        assert ours == theirs, tag
    assert compared > 100
    constants = json.loads((DATA / "constants.json").read_text())["constants"]
    for name, value in found["constants"].items():
        if name in constants:
            assert value == constants[name].get("value", constants[name].get(arch)), name
    guids = json.loads((DATA / "guids.json").read_text())["guids"]
    assert found["guids"] == {n: {"guid": row["guid"], "bytes": row["raw_hex"]} for n, row in sorted(guids.items())}


@pytest.mark.parametrize(("text", "size"), [("4K", 4096), ("16k", 16384), ("65536", 65536), ("64KiB", 65536)])
def test_the_page_size_changes_what_depends_on_it(text: str, size: int) -> None:
    found = document("--arch", "arm64", "--page-size", text)
    ring = found["structs"]["hv_ring_buffer"]
    assert ring["size"] == size
    rows = {row["name"]: (row["offset"], row["size"]) for row in ring["fields"]}
    assert rows["reserved2"] == (68, size - 68)
    assert rows["buffer"] == (size, 0)
    assert rows["feature_bits.value"] == (64, 4)
    assert found["constants"]["NR_HV_HYP_PAGES_IN_PAGE"] == size // 4096
    assert found["structs"]["hv_message"] == document()["structs"]["hv_message"]


def test_one_name() -> None:
    found = document("hv_message_header")
    assert list(found["structs"]) == ["hv_message_header"]
    assert (found["constants"], found["guids"]) == ({}, {})
    assert document("HV_REGISTER_SIMP", "--arch", "arm64")["constants"] == {"HV_REGISTER_SIMP": 0xA0013}
    assert run("HV_REGISTER_SIMP").output == "HV_REGISTER_SIMP = 0x40000083 (1073741955)\n"
    assert run("HV_NIC_GUID").output == "HV_NIC_GUID = f8615163-df3e-46c5-913f-f2d2f965ed0e\n"
    assert run("ACPI_SIG_MADT").output == "ACPI_SIG_MADT = APIC\n"
    lines = run("hv_synic_sint").output.splitlines()
    assert lines[0].startswith("hv_synic_sint: 8 bytes (include/asm-generic/hyperv-tlfs.h:")
    assert lines[-1] == "     0x0     8 reserved2 bits 19+45"


def test_without_a_name_it_lists_everything_once() -> None:
    lines = run().output.splitlines()
    assert len(lines) == len(set(lines)) > 600
    # What is only a part of another struct is shown there, not by itself.
    assert not any(line.startswith("HvPortIdU") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["hv_mesage"], "nothing in the ABI is called 'hv_mesage'; did you mean hv_message?"),
        (["qqqq"], "nothing in the ABI is called 'qqqq'"),
        (["--arch", "riscv"], "--arch 'riscv' is not known; choose from arm64, x86_64"),
        (["--page-size", "8K"], "--page-size '8K' is not 4K, 16K or 64K"),
        (["--page-size", "K"], "--page-size 'K' is not 4K, 16K or 64K"),
    ],
)
def test_wrong_input_is_named_and_status_2(arguments: list[str], text: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert f"Error: {text}\n" in done.output


def test_a_page_size_that_the_architecture_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvkernel.boot.plugins.load", lambda: Brought())
    assert "Error: --page-size '16K': x86_64 has only 4096\n" in run("--page-size", "16K").output
    assert run("--page-size", "4K", "hv_message").exit_code == 0


class Brought:
    """Plugins of which one brings x86 with its wire modules."""

    name = "x86"
    abi = "x86_64"
    page_sizes = (4096,)
    faults = ()

    def call(self, hook: str) -> list[tuple[None, Any]]:
        from hvkernel_x86 import tlfs

        return [(None, {"hv_arch": self, "hv_abi": (tlfs,)}[hook])]


def test_hv_abi_modules_of_every_plugin_are_shown() -> None:
    from hvkernel.boot.plugins import load

    everything = document("--arch", "x86_64")
    shown = 0
    for _, modules in load().call("hv_abi"):
        for module in modules:
            assert module.__doc__, module
            for name in getattr(module, "__annotations__", {}):
                value = getattr(module, name)
                if isinstance(value, int) and getattr(module, "ABI_ARCH", "x86_64") == "x86_64":
                    assert everything["constants"][name] == value
                    shown += 1
    assert shown > 100


def test_hv_abi_that_raises_drops_only_that_plugins_items(monkeypatch: pytest.MonkeyPatch) -> None:
    import hvkernel_arm64
    from hvkernel.api.hooks import hookimpl

    @hookimpl
    def broken() -> None:
        raise RuntimeError("no tables today")

    broken.__name__ = "hv_abi"
    monkeypatch.setattr(hvkernel_arm64, "hv_abi", broken)
    done = run("hv_message")
    assert done.exit_code == 1
    assert "hv_message: 256 bytes" in done.output
    assert "plugin hvkernel[arm64]: hv_abi: RuntimeError: no tables today" in done.output


@pytest.mark.parametrize(("alias", "name"), [("x86", "x86_64"), ("i386", "x86_64"), ("aarch64", "arm64")])
def test_an_architecture_has_the_names_that_boot_takes(alias: str, name: str) -> None:
    assert document("--arch", alias) == document("--arch", name)
