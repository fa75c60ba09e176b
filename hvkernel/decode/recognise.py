"""Says what an input is, and has it explained."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from hvkernel.abi.meaning import Dictionary
from hvkernel.abi.wire import Guid
from hvkernel.decode.captures import explain_capture
from hvkernel.decode.messages import explain_messages, looks_like_messages
from hvkernel.decode.node import Bus, Explained, Node, Unrecognised
from hvkernel.decode.packets import explain_packets, looks_like_packet
from hvkernel.decode.pcapng import MAGIC
from hvkernel.decode.rings import explain_ring, looks_like_ring
from hvkernel.decode.synic import explain_slots, looks_like_slots
from hvkernel.decode.text import is_text, read_dump

__all__ = ["KINDS", "explain"]

_Explainer = Callable[[Bus, bytes], tuple[list[Node], list[tuple[int, str]], list[str]]]

_EXPLAINERS: Final[MappingProxyType[str, _Explainer]] = MappingProxyType(
    {
        "pcapng": explain_capture,
        "synic": explain_slots,
        "ring": explain_ring,
        "messages": explain_messages,
        "packets": explain_packets,
    }
)
_TESTS: Final[MappingProxyType[str, Callable[[bytes], bool]]] = MappingProxyType(
    {
        "pcapng": lambda data: data.startswith(MAGIC),
        "synic": looks_like_slots,
        "ring": looks_like_ring,
        "messages": looks_like_messages,
        "packets": looks_like_packet,
    }
)
KINDS: Final = (*_EXPLAINERS, "hex")
"""What ``--as`` takes: a capture, SynIC message slots, a ring image, channel messages, ring packets, or a hex dump of
any of them."""
MAX_TEXT: Final = 16 << 20
"""Bytes of a hex dump."""
_PCAP: Final = (bytes.fromhex("d4c3b2a1"), bytes.fromhex("a1b2c3d4"), bytes.fromhex("4d3cb2a1"))


def explain(
    data: bytes, words: Dictionary, *, kind: str | None = None, limit: int = 1000, device: Guid | None = None
) -> list[Explained]:
    """Explain an input: one explanation, or one for each dump of a text.

    :param kind: one of :data:`KINDS`, None to go by the content. A hex dump of the kind is taken as well.
    :param limit: records (packets, messages, slots) that are explained.
    :param device: device class of packets that do not say theirs.
    :raises Unrecognised: it is nothing that can be explained.
    """
    if not data:
        raise Unrecognised("is empty")
    if kind == "hex" or (not data.startswith(MAGIC) and is_text(data)):
        if len(data) > MAX_TEXT:
            raise Unrecognised(f"has {len(data)} bytes of text; a hex dump may have {MAX_TEXT}")
        dumps = [dump for dump in read_dump(data.decode("latin-1")) if dump.data]
        if dumps:
            inner = None if kind == "hex" else kind
            if len(dumps) > limit:
                raise Unrecognised(f"has {len(dumps)} hex dumps; --limit is {limit}")
            found = []
            for dump in dumps:
                one = _explain(dump.data, words, inner, limit, device, " in a hex dump")
                one.problems[:0] = [(0, text) for text in dump.problems]
                found.append(one)
            return found
        if kind is None or kind == "hex":
            raise Unrecognised("is text, and no hex dump that is understood")
    return [_explain(data, words, kind, limit, device, "")]


def _explain(
    data: bytes, words: Dictionary, kind: str | None, limit: int, device: Guid | None, where: str
) -> Explained:
    if kind is None:
        kind = next((name for name, test in _TESTS.items() if test(data)), None)
    if kind is None:
        if data.startswith(_PCAP):
            raise Unrecognised("is a pcap file; hvkernel writes and reads pcapng (editcap -F pcapng converts)")
        raise Unrecognised(
            f"has {len(data)} bytes{where} that are no pcapng file, SynIC message slots, ring image, channel "
            "messages or ring packets; --as KIND explains them nevertheless"
        )
    bus = Bus(words, limit, device)
    records, problems, notes = _EXPLAINERS[kind](bus, data)
    return Explained(kind, len(data), records, problems, notes)
