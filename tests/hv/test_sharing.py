"""GPADLs in a running guest: of any size, at every page size, refused, interrupted, torn down in a race."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.guest.hyperv import VmbusGpadl

HEADER, BODY = Type.CHANNELMSG_GPADL_HEADER, Type.CHANNELMSG_GPADL_BODY
TEARDOWN, TORNDOWN = Type.CHANNELMSG_GPADL_TEARDOWN, Type.CHANNELMSG_GPADL_TORNDOWN
CREATED = Type.CHANNELMSG_GPADL_CREATED
PAGE = 4096
IN_HEADER, IN_BODY = 26, 28
"""4 KiB page numbers that fit beside the rest in 240 bytes."""
ENODEV, ENOBUFS, EDQUOT = -19, -105, -122


def share(b: Any, pages: int, gpadl: VmbusGpadl, size: int | None = None) -> int:
    """Share one page ``pages`` times over."""
    fn = b.exports.vmbus_establish_gpadl
    return int(b.call(fn, b.channel, [0x2000] * pages, pages * PAGE if size is None else size, gpadl))


def lists(b: Any) -> list[tuple[int, int, int, int]]:
    """(kind, length, range_buflen or 0, page numbers) of each GPADL message."""
    found: list[tuple[int, int, int, int]] = []
    for _, _, message in b.sent:
        if message[0] == HEADER:
            (buflen,) = struct.unpack_from("<H", message, 16)
            found.append((HEADER, len(message), buflen, (len(message) - 28) // 8))
        elif message[0] == BODY:
            found.append((BODY, len(message), 0, (len(message) - 16) // 8))
    return found


@pytest.mark.parametrize("pages", [1, 25, 26, 27, 54, 55, 82, 83, 1000, 8190])
@pytest.mark.parametrize(
    "options",
    [{}, {"arch": "arm64", "page_size": "16K"}, {"arch": "arm64", "page_size": "64K"}],
    ids=["4K", "16K", "64K"],
)
def test_header_and_bodies(between: Callable[..., Any], pages: int, options: dict[str, Any]) -> None:
    b = between(host="ws2022" if not options else None, **options).boot()
    gpadl = VmbusGpadl()
    before = b.gpadls()
    assert share(b, pages, gpadl) == 0
    header, *bodies = lists(b)
    first = min(pages, IN_HEADER)
    assert header == (HEADER, 28 + 8 * first, 8 + 8 * pages, first)
    rest = [min(IN_BODY, pages - at) for at in range(IN_HEADER, pages, IN_BODY)]
    assert bodies == [(BODY, 16 + 8 * count, 0, count) for count in rest]
    assert b.gpadls() == before + 1
    assert b.call(b.exports.vmbus_teardown_gpadl, b.channel, gpadl) == 0
    assert (gpadl.gpadl_handle, b.gpadls()) == (0, before)


@pytest.mark.parametrize(("pages", "buflen"), [(8191, 0), (8192, 8), (16384, 16 * 8192 + 8 & 0xFFFF)])
def test_the_length_of_the_list_wraps(between: Callable[..., Any], pages: int, buflen: int) -> None:
    """16 bits for 8 + 8 * pages: 6.1 sends what is left of it, and all bodies; the host refuses."""
    b = between(host="ws2022").boot()
    gpadl = VmbusGpadl()
    before = b.gpadls()
    assert share(b, pages, gpadl) == EDQUOT
    header, *bodies = lists(b)
    assert header == (HEADER, 236, buflen, IN_HEADER)
    assert sum(body[3] for body in bodies) == pages - IN_HEADER
    assert [line for line in b.lines if line.startswith("hv_vmbus: Failed to establish GPADL: err = 0x")]
    assert (gpadl.gpadl_handle, gpadl.decrypted, b.gpadls()) == (0, False, before)
    assert b.open() == 0, "the next one goes through"


@pytest.mark.parametrize("size", [1, 4095, 4097, 6000, 3 * PAGE + 1])
def test_a_buffer_that_is_no_whole_page(between: Callable[..., Any], size: int) -> None:
    """The length goes out as it is, the page that is begun is missing: byte_count is more than the pages hold."""
    b = between(host="ws2022").boot()
    b.keep_kinds(HEADER)
    b.start(b.exports.vmbus_establish_gpadl, b.channel, [0x2000] * 4, size, VmbusGpadl())
    (_, _, message) = b.sent[-1]
    pages = size // PAGE
    assert len(message) == 28 + 8 * pages
    assert struct.unpack_from("<HHII", message, 16) == (8 + 8 * pages, 1, size, 0)


def test_handles_count_on_whatever_comes_of_them(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    following = b.v.connection.next_gpadl_handle
    good, bad = VmbusGpadl(), VmbusGpadl()
    assert share(b, 8191, bad) == EDQUOT
    assert share(b, 1, good) == 0
    assert good.gpadl_handle == following + 1
    assert b.v.connection.next_gpadl_handle == following + 2
    b.v.connection.next_gpadl_handle = 0xFFFF_FFFF
    last, wrapped = VmbusGpadl(), VmbusGpadl()
    assert share(b, 1, last) == 0
    assert last.gpadl_handle == 0xFFFF_FFFF
    assert share(b, 1, wrapped) == 0
    assert (wrapped.gpadl_handle, b.v.connection.next_gpadl_handle) == (0, 1), "atomic_inc_return() of 32 bits"


def test_a_body_that_cannot_be_posted(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    b.status = lambda connection, message: 19 if message[0] == BODY and b.kinds().count(BODY) == 2 else None
    gpadl = VmbusGpadl()
    assert share(b, 200, gpadl) == ENOBUFS
    assert [one[0] for one in lists(b)] == [HEADER, BODY, BODY]
    assert not b.v.connection.chn_msg_list
    assert not gpadl.decrypted
    b.status = lambda connection, message: None
    assert b.open() == 0


def test_answers_in_the_other_order(between: Callable[..., Any]) -> None:
    b = between(host="ws2022").boot()
    b.keep_kinds(HEADER)
    gpadls = [VmbusGpadl(), VmbusGpadl()]
    fn = b.exports.vmbus_establish_gpadl
    waiting = [b.start(fn, b.channel, [0x2000], PAGE, one) for one in gpadls]
    handles = [int.from_bytes(message[12:16], "little") for _, _, message in b.sent]
    b.post(CREATED, b.relid, handles[1], 0)
    assert [one.done for one in waiting] == [False, True]
    b.post(CREATED, b.relid, handles[0], 0)
    assert [one.value for one in waiting] == [0, 0]
    assert [one.gpadl_handle for one in gpadls] == handles


# races ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(between: Callable[..., Any]) -> Any:
    """A device of the test's own host, relid 99."""
    made = between(host="ws2022").boot()
    made.offer(99, instance=bytes(range(16)))
    made.sent.clear()
    return made


def test_a_rescind_while_it_is_established(mine: Any) -> None:
    mine.silent = (HEADER,)
    gpadl = VmbusGpadl()
    sharing = mine.start(mine.exports.vmbus_establish_gpadl, mine.channel, [0x2000] * 60, 60 * PAGE, gpadl)
    assert not sharing.done
    channel = mine.channel
    mine.rescind(channel)
    assert sharing.value == ENODEV
    assert (gpadl.gpadl_handle, gpadl.decrypted) == (0, False)
    assert not mine.v.connection.chn_msg_list
    mine.sent.clear()
    assert mine.call(mine.exports.vmbus_establish_gpadl, channel, [0x2000], PAGE, gpadl) == ENODEV
    assert mine.sent == [], "nothing is posted for a channel that is gone"


def test_a_rescind_while_it_is_torn_down(mine: Any) -> None:
    gpadl = VmbusGpadl()
    channel = mine.channel
    assert share(mine, 3, gpadl) == 0
    mine.silent = (TEARDOWN,)
    tearing = mine.start(mine.exports.vmbus_teardown_gpadl, channel, gpadl)
    assert not tearing.done
    mine.rescind(channel)
    assert (tearing.value, gpadl.gpadl_handle, gpadl.decrypted) == (0, 0, False)
    assert mine.kinds()[-1] == Type.CHANNELMSG_RELID_RELEASED


def test_a_teardown_after_the_rescind(mine: Any) -> None:
    """Nothing is posted, the handle keeps its value, and the memory may be freed."""
    gpadl = VmbusGpadl()
    channel = mine.channel
    assert share(mine, 3, gpadl) == 0
    handle = gpadl.gpadl_handle
    mine.rescind(channel)
    mine.sent.clear()
    assert mine.call(mine.exports.vmbus_teardown_gpadl, channel, gpadl) == 0
    assert (mine.sent, gpadl.gpadl_handle, gpadl.decrypted) == ([], handle, False)


def test_torndown_is_matched_by_its_handle(mine: Any) -> None:
    first, second = VmbusGpadl(), VmbusGpadl()
    assert share(mine, 1, first) == 0
    assert share(mine, 1, second) == 0
    mine.silent = (TEARDOWN,)
    fn = mine.exports.vmbus_teardown_gpadl
    handles = [first.gpadl_handle, second.gpadl_handle]
    waiting = [mine.start(fn, mine.channel, one) for one in (first, second)]
    mine.post(TORNDOWN, 0x1234)
    assert not any(one.done for one in waiting)
    mine.post(TORNDOWN, handles[1])
    mine.post(TORNDOWN, handles[1])
    assert [one.done for one in waiting] == [False, True]
    mine.post(TORNDOWN, handles[0])
    assert all(one.done for one in waiting)


def test_only_one_waiter_of_a_channel_hears_of_its_rescind(mine: Any) -> None:
    """vmbus_rescind_cleanup() stops at the first request of the channel: a second one waits for ever in 6.1."""
    mine.silent = (HEADER,)
    fn = mine.exports.vmbus_establish_gpadl
    waiting = [mine.start(fn, mine.channel, [0x2000], PAGE, VmbusGpadl()) for _ in range(2)]
    mine.rescind(mine.channel)
    assert [one.done for one in waiting] == [True, False]
    assert waiting[0].value == ENODEV
