"""The manual cannot fall behind the hooks."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from hvkernel.api import hooks
from hvkernel.boot.plugins import load

ROOT = Path(__file__).parents[1]
HOOKS = sorted(name for name in vars(hooks) if name.startswith("hv_"))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_its_signature(hook: str) -> None:
    heading = f"{hook}({', '.join(inspect.signature(getattr(hooks, hook)).parameters)})"
    page = (ROOT / "docs/hooks.rst").read_text()
    assert re.search(rf"^{re.escape(heading)}\n~+$", page, re.M), f"no section {heading!r}"
    assert f".. autofunction:: hvkernel.api.hooks.{hook}\n" in page


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_argument_is_typed_and_explained(hook: str) -> None:
    function = getattr(hooks, hook)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for name, parameter in signature.parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty, name
        assert f":param {name}:" in (function.__doc__ or ""), name


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_in_tree_user(hook: str) -> None:
    users = [info.name for info in load().infos if hook in info.hooks and info.distribution == "hvkernel"]
    assert users, "a hook nobody uses is not a contract yet"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_named_after_it(hook: str) -> None:
    named = f"def test_{hook}"
    assert any(named in path.read_text() for path in (ROOT / "tests").rglob("test_*.py")), named
