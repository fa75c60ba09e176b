"""Connections and VP sets."""

from __future__ import annotations

import pytest

from hvkernel.host.ports import Ports
from hvkernel.host.status import HvStatus
from hvkernel.host.vpset import mask_members, set_members


@pytest.mark.parametrize("connection", [0, -1, 1 << 24])
def test_an_id_is_24_bits_above_zero(connection: int) -> None:
    with pytest.raises(ValueError, match="must be 1 to 0xffffff"):
        Ports().connect_event(connection, lambda flag: None)


def test_an_id_is_taken_once() -> None:
    ports = Ports()
    ports.connect_event(5, lambda flag: None)
    with pytest.raises(ValueError, match="connection id 0x5: already connected"):
        ports.connect_message(5, lambda vp, kind, payload: 0)
    ports.disconnect(5)
    ports.disconnect(5)
    ports.connect_message(5, lambda vp, kind, payload: HvStatus.SUCCESS)
    assert ports.post(0, 5, 1, b"") == 0
    assert ports.signal(5, 0) == HvStatus.INVALID_PORT_ID


def test_an_event_port_may_have_fewer_flags() -> None:
    ports = Ports()
    seen: list[int] = []
    ports.connect_event(5, seen.append, flags=1)
    assert ports.signal(5, 0) == 0
    assert ports.signal(5, 1) == HvStatus.INVALID_PARAMETER
    assert seen == [0]


def test_masks() -> None:
    assert list(mask_members(0)) == []
    assert list(mask_members(1 << 63 | 0b101, 64)) == [64, 66, 127]


def test_the_tlfs_example_of_a_sparse_set() -> None:
    # "Suppose a partition has 200 VPs, and we wish to specify the following set: { 0,5,130 }" (TLFS, HV_VP_SET).
    assert set_members(0, 0b101, [0x21, 0x04], range(200)) == [0, 5, 130]
    assert set_members(1, 0, [], range(3)) == [0, 1, 2]
    assert set_members(0, 0b11, [1], range(3)) is None
    assert set_members(2, 0, [], range(3)) is None
