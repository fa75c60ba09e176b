"""decode survives anything: a share of the campaign of tests/fuzz/decode.py, and hypothesis."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvkernel.decode.node import Unrecognised
from hvkernel.decode.recognise import KINDS, explain
from hvkernel.decode.render import to_text


@pytest.fixture(scope="module")
def campaign() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_decode", Path(__file__).parents[1] / "fuzz" / "decode.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_share_of_the_campaign(campaign: Any) -> None:
    corpus = campaign.make_corpus()
    counts = Counter(campaign.try_one(corpus, 1, number) for number in range(6000))
    for kind in ("pcapng", "synic", "ring", "messages", "packets"):
        assert counts[f"{kind} with problems"] > 20, counts
        assert counts[f"{kind} clean"] > 5, counts
    assert counts["refused"] > 500


@given(data=st.binary(max_size=700), kind=st.sampled_from([None, *KINDS]))
@settings(max_examples=400, derandomize=True)
def test_any_bytes(data: bytes, kind: str | None, words: Any) -> None:
    try:
        found = explain(data, words, kind=kind, limit=10)
    except Unrecognised:
        return
    for line in to_text(found):
        assert line.isprintable()


@given(text=st.text(alphabet="0123456789abcdefx:|*\n -.[]\\{},", max_size=300))
@settings(max_examples=400, derandomize=True)
def test_any_text(text: str, words: Any) -> None:
    try:
        found = explain(text.encode(), words, limit=10)
    except Unrecognised:
        return
    assert sum(1 for _ in to_text(found)) < 5000
