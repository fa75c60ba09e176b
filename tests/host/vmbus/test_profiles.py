"""The server under every host profile: which versions it takes, which devices it offers."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.config import load_profile, profile_names
from hvkernel.host.vmbus import DeviceTable, VmbusServer, slots_of

# What Linux 6.1 tries, in its order (drivers/hv/connection.c: vmbus_versions), and where it ends up.
LADDER = (
    abi.VERSION_WIN10_V5_3, abi.VERSION_WIN10_V5_2, abi.VERSION_WIN10_V5_1, abi.VERSION_WIN10_V5,
    abi.VERSION_WIN10_V4_1, abi.VERSION_WIN10, abi.VERSION_WIN8_1, abi.VERSION_WIN8,
)  # fmt: skip
OUTCOME = MappingProxyType(
    {
        "ws2008r2": None,
        "ws2012": abi.VERSION_WIN8,
        "ws2012r2": abi.VERSION_WIN8_1,
        "ws2016": abi.VERSION_WIN10,
        "ws2019": abi.VERSION_WIN10_V5_2,
        "ws2022": abi.VERSION_WIN10_V5_3,
        "ws2025": abi.VERSION_WIN10_V5_3,
        "azure-gen1": abi.VERSION_WIN10,
        "azure-gen2": abi.VERSION_WIN10,
        "wsl2": abi.VERSION_WIN10_V5_2,
    }
)
ALL_VERSIONS = (abi.VERSION_WS2008, abi.VERSION_WIN7, *reversed(LADDER))


def cells() -> list[tuple[str, int]]:
    return [(name, generation) for name in profile_names() for generation in load_profile(name).generations]


def serve(raw: Any, name: str, generation: int) -> Any:
    """A raw guest whose server is the profile's."""
    profile = load_profile(name)
    guest = raw()
    guest.serve(VmbusServer(guest.host, profile.vmbus, slots_of(profile.devices(generation)), DeviceTable()))
    return guest


@pytest.mark.parametrize("asked", ALL_VERSIONS)
@pytest.mark.parametrize("name", profile_names())
def test_version_truth_table(raw: Any, name: str, asked: int) -> None:
    profile = load_profile(name)
    guest = serve(raw, name, profile.default_generation)
    status = guest.contact(asked)
    if asked >= abi.VERSION_WIN10_V5 and not profile.vmbus.message_connection_4:
        assert (status, guest.got()) == (0x12, [])
        return
    (answer,) = guest.got()
    assert bool(answer.version_supported) is (asked in profile.vmbus.versions)
    assert guest.findings() == []


@pytest.mark.parametrize("name", sorted(OUTCOME))
def test_where_the_kernels_ladder_ends(raw: Any, name: str) -> None:
    guest = serve(raw, name, load_profile(name).default_generation)
    accepted = None
    for version in LADDER:
        if guest.contact(version) == 0 and guest.got()[0].version_supported:
            accepted = version
            break
    assert accepted == OUTCOME[name]
    assert (guest.server.state == "connected") is (accepted is not None)


@pytest.mark.parametrize(("name", "generation"), cells())
def test_the_profiles_devices_are_offered_in_its_order(raw: Any, name: str, generation: int) -> None:
    profile = load_profile(name)
    devices = profile.devices(generation)
    guest = serve(raw, name, generation)
    offers = guest.connect(max(v for v in profile.vmbus.versions if v <= abi.VERSION_WIN10))
    assert [bytes(o.offer.if_type) for o in offers] == [d.class_guid.bytes_le for d in devices]
    assert [bytes(o.offer.if_instance) for o in offers] == [d.instance_guid.bytes_le for d in devices]
    assert len({bytes(o.offer.if_instance) for o in offers}) == len(offers)
    for offer, device in zip(offers, devices, strict=True):
        assert offer.offer.mmio_megabytes == device.mmio_megabytes
        assert bool(offer.offer.chn_flags & abi.VMBUS_CHANNEL_NAMED_PIPE_MODE) is device.pipe
        assert offer.offer.u.pipe.pipe_mode == (abi.VMBUS_PIPE_TYPE_MESSAGE if device.pipe else 0)
    assert [s.name for s in guest.server.status()] == [d.name for d in devices]
    assert {s.modelled for s in guest.server.status()} == {False}


def test_parameters_reach_the_device(raw: Any) -> None:
    profile = load_profile("azure-gen2")
    slots = slots_of(profile.devices(2), {"scsi1": {"units": ("a", "b")}})
    byname = {slot.name: slot.parameters for slot in slots}
    assert byname["scsi1"]["units"] == ("a", "b")
    assert byname["scsi0"] == {"protocols": ("2.0", "4.2", "5.1", "6.0", "6.2")}
    assert byname["scsi1"]["protocols"] == byname["scsi0"]["protocols"]
    assert byname["keyboard0"] == {}


def test_parameters_for_a_device_that_is_not_there() -> None:
    profile = load_profile("ws2012")
    with pytest.raises(ValueError, match=r"^the VM has no device called 'scsi9'; it has "):
        slots_of(profile.devices(1), {"scsi9": {}})


def test_requests_are_kept_for_the_report(raw: Any) -> None:
    guest = serve(raw, "ws2008r2", 1)
    for version in LADDER:
        guest.contact(version)
    assert guest.server.requests == [v for v in LADDER if v < abi.VERSION_WIN10_V5]
    guest.post(raw.head(Type.CHANNELMSG_REQUESTOFFERS))
    assert guest.findings() == ["ignored: vmbus: REQUESTOFFERS without a connection"]
