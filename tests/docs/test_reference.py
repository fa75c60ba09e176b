"""The Sphinx extension that prints the reference from the tables. ``make docs`` builds the whole manual."""

from __future__ import annotations

import importlib.util
import re
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hvkernel.abi import vmbus, vmbus_messages
from hvkernel.abi.wire import Wire
from hvkernel.host.vmbus.tables import CHANNEL, CONNECTION, GPADL

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hvkernel_reference", ROOT / "docs/_ext/hvkernel_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Light(Enum):
    RED = "red"
    GREEN = "green <go>"


class Turn(Enum):
    ON = 1
    OFF = 2
    STAY = 3


NESTED = {
    Light.RED: {Turn.ON: (Light.GREEN, ("ring",)), Turn.STAY: (Light.RED, ())},
    Light.GREEN: {Turn.OFF: (Light.RED, ())},
}
FLAT = {(Light.RED, Turn.ON): Light.GREEN, (Light.RED, Turn.STAY): Light.RED, (Light.GREEN, Turn.OFF): Light.RED}


@pytest.mark.parametrize("transitions", [NESTED, FLAT])
def test_steps_are_numbered_in_the_order_of_the_table(reference: Any, transitions: Any) -> None:
    assert [(n, a, e, b) for n, a, e, b, _ in reference.steps(transitions)] == [
        (1, Light.RED, Turn.ON, Light.GREEN),
        (2, Light.RED, Turn.STAY, Light.RED),
        (3, Light.GREEN, Turn.OFF, Light.RED),
    ]


@pytest.mark.parametrize("transitions", [NESTED, FLAT])
def test_a_drawing_has_every_state_and_step(reference: Any, transitions: Any) -> None:
    svg = reference.drawn(transitions)
    assert svg.count("<rect") == 2
    assert "green &lt;go&gt;" in svg
    assert "&#8635; 2" in svg
    assert svg.count("marker-end") == 2
    assert re.findall(r">(\d+)</text>", svg) == ["1", "3"]


@pytest.mark.parametrize("table", [CONNECTION, CHANNEL, GPADL])
def test_arrows_in_one_lane_do_not_meet(reference: Any, table: Any) -> None:
    paths = re.findall(r'<path d="M\d+ (\d+)H(\d+)V(\d+)', reference.drawn(table))
    spans = [(int(x), *sorted((int(a), int(b)))) for a, x, b in paths]
    for i, (x, low, high) in enumerate(spans):
        for other, a, b in spans[i + 1 :]:
            assert x != other or high <= a or low >= b


def test_every_struct_with_a_tag_gets_a_table(reference: Any) -> None:
    shown = {struct.__name__ for struct in reference.own_classes(vmbus_messages, Wire)}
    assert {"VmbusChannelOpenChannel", "VmbusChannelInitiateContact"} <= shown
    field = vmbus_messages.VmbusChannelOfferChannel.field("is_dedicated_interrupt")
    assert reference.field_type(field) == "u16:1"
    assert reference.field_type(vmbus_messages.VmbusChannelOpenChannel.field("userdata")) == "u8[120]"
    assert (
        reference.field_type(vmbus_messages.VmbusChannelOpenChannel.field("header")) == "vmbus_channel_message_header"
    )


def test_a_constants_docstring_is_found(reference: Any) -> None:
    assert "hyperv.h" in reference.described(vmbus)["VERSION_WIN8"]


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("hvkernel.machine.Machine.run", True),
        ("hvkernel.api.host.Packet.trans_id", True),
        ("hvkernel.machine.Machine.fly", False),
        ("hvkernel.nowhere", False),
    ],
)
def test_names_in_docstrings_are_looked_up(reference: Any, name: str, exists: bool) -> None:
    assert reference.importable(name) is exists


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs/index.rst").read_text()
    for page in sorted((ROOT / "docs").glob("*.rst")):
        assert page.stem == "index" or re.search(rf"^   {page.stem}$", index, re.M), page
