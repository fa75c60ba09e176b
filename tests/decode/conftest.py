"""A traced boot, its rings as they lie in memory, and what the wire modules of the tree say."""

from __future__ import annotations

import io
from typing import NamedTuple

import pytest

import hvkernel_storvsc.wire as storvsc
from hvkernel.abi.meaning import Dictionary, dictionary
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, compose
from hvkernel.trace.pcapng import PcapngWriter
from hvkernel.trace.sink import NullTracer


class Told(NullTracer):
    """Keeps messages and packets, and writes them as pcapng."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.writer = PcapngWriter(self.out, "a boot")
        self.messages: list[tuple[bool, bytes]] = []
        self.packets: list[tuple[int, bool, bytes]] = []

    def message(self, t: int, vp: int, to_host: bool, data: bytes) -> None:
        self.messages.append((to_host, data))
        self.writer.message(t, vp, to_host, data)

    def packet(self, t: int, vp: int, relid: int, to_host: bool, data: bytes) -> None:
        self.packets.append((relid, to_host, data))
        self.writer.packet(t, vp, relid, to_host, data)


class Booted(NamedTuple):
    messages: list[tuple[bool, bytes]]
    packets: list[tuple[int, bool, bytes]]
    pcapng: bytes
    rings: dict[tuple[int, bool], bytes]
    """Image of each ring by relid and direction."""


@pytest.fixture(scope="session", params=[{}, {"arch": "arm64", "page_size": "64K"}], ids=["x86-4k", "arm64-64k"])
def booted(request: pytest.FixtureRequest) -> Booted:
    composed = compose(read_request(**request.param))
    assert isinstance(composed, Session)
    told = Told()
    with composed as session:
        session.machine.tracer = told
        session.boot()
        rings = {}
        for relid, channel in session.server.by_relid.items():
            if channel.rings is not None:
                for to_host, mapping, ring in zip(
                    (True, False),
                    channel.rings._maps,
                    (channel.rings.incoming, channel.rings.outgoing),
                    strict=True,
                ):
                    rings[relid, to_host] = mapping.read(0, 4096 + ring.size)
    return Booted(told.messages, told.packets, told.out.getvalue(), rings)


@pytest.fixture(scope="session")
def words() -> Dictionary:
    return dictionary([storvsc])
