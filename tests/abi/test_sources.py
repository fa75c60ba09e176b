"""Every declared item says where it comes from, and asking for one protocol loads only that one."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import hvkernel.abi
from hvkernel.abi import MODULES
from hvkernel.abi.vmbus import CHANNEL_MESSAGES
from hvkernel.abi.wire import Wire

PACKAGE: Final = Path(hvkernel.abi.__file__).parent
SOURCE: Final = re.compile(
    r"(?:include|arch|drivers|net)/[\w./-]+\.[ch]:[\w:]+[^@]*@6\.(?:1\.192|6\.87)"  # of the baseline, or a later tree
    r"|TLFS [\w\"]|openvmm [\w./]+|SMBIOS \d|ACPI \d|observed: |unspecified: "
)


def constants(module: ModuleType) -> dict[str, str]:
    """Module constants with the text under them."""
    body = ast.parse(inspect.getsource(module)).body
    found = {}
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = after.value.value
        if not statement.target.id.startswith("_") and statement.target.id != "ABI_ARCH":
            found[statement.target.id] = text
    return found


def test_every_constant_says_what_it_is_and_where_from(all_modules: tuple[ModuleType, ...]) -> None:
    texts = {(m.__name__, name): text for m in all_modules for name, text in constants(m).items()}
    assert len(texts) > 400
    assert [key for key, text in texts.items() if not SOURCE.search(text)] == []
    # A text that only repeats the name says nothing.
    assert [key for key, text in texts.items() if text.lower().startswith(key[1].lower())] == []


def test_every_class_says_what_it_is_and_where_from(all_modules: tuple[ModuleType, ...]) -> None:
    silent = []
    for module in all_modules:
        for name, value in vars(module).items():
            if not isinstance(value, type) or value.__module__ != module.__name__:
                continue
            doc = (value.SOURCE + (value.__doc__ or "")) if issubclass(value, Wire) else inspect.getdoc(value) or ""
            if issubclass(value, Wire | enum.Enum) and not SOURCE.search(doc):
                silent.append(name)
            if issubclass(value, Wire) and (not value.__doc__ or value.__doc__.startswith(("\n", "``", name))):
                silent.append(f"{name}: no words of its own")
    assert silent == []


def test_every_message_says_where_from() -> None:
    assert [row.number.name for row in CHANNEL_MESSAGES if not SOURCE.search(row.source)] == []


@pytest.mark.parametrize("text", ["", "HV_THING.", "include/linux/hyperv.h", "see the TLFS"])
def test_the_check_itself_refuses_vague_sources(text: str) -> None:
    assert not SOURCE.search(text)


def test_the_module_list_is_the_directory() -> None:
    here = {f"hvkernel.abi.{p.stem}" for p in PACKAGE.glob("*.py")}
    others = ("__init__", "_codec", "_values", "catalog", "meaning", "meanings", "tlfs", "wire")
    not_protocols = {f"hvkernel.abi.{name}" for name in others}
    assert set(MODULES) == here - not_protocols
    assert list(MODULES) == sorted(MODULES)


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(m for m in sys.modules if m.startswith(('hvkernel', 'numpy'))))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_no_protocol() -> None:
    assert loaded_after("import hvkernel.abi") == {"hvkernel", "hvkernel.abi"}


def test_a_protocol_loads_only_what_it_is_made_of_and_no_numpy() -> None:
    assert loaded_after("import hvkernel.abi.ic") == {
        *("hvkernel", "hvkernel.abi", "hvkernel.abi.ic", "hvkernel.abi.wire", "hvkernel.abi._codec"),
        "hvkernel.abi._values",
    }
    loaded = loaded_after("import hvkernel.abi.vmbus")
    assert "hvkernel.abi.ring" in loaded
    assert loaded.isdisjoint({"hvkernel.abi.ic", "hvkernel.abi.acpi", "hvkernel.abi.tlfs_synic", "numpy"})
