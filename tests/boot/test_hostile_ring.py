"""A host whose packets are longer than the guest takes: the guest walks garbage as 6.1 does, and the model says so."""

from __future__ import annotations

from typing import Any

from hvkernel.abi.ring import VmbusPacketType

CLOUD = "debian12-6.1.192-cloud-amd64"


def test_a_packet_longer_than_the_guest_takes_is_a_finding_and_ends_in_a_limit(start: Any) -> None:
    session = start(CLOUD)
    before = len(session.machine.findings)
    device = next(device for device in session.server.devices if device.name == "scsi0")
    device.channels[0].send_packet(VmbusPacketType.VM_PKT_COMP, bytes(200), 5)
    assert session.machine.run(limit=10_000_000, steps=20_000) == "limit"
    found = [finding for finding in session.machine.findings[before:] if finding.kind == "ring-length"]
    assert len(found) == 1
    assert "says 216 bytes" in found[0].text
    assert any("storvsc_on_channel_callback" in frame for frame in found[0].where)


def test_a_packet_of_a_legal_length_is_none(start: Any) -> None:
    session = start(CLOUD)
    device = next(device for device in session.server.devices if device.name == "scsi0")
    device.channels[0].send_packet(VmbusPacketType.VM_PKT_COMP, bytes(64), 5)
    assert session.machine.run(limit=10_000_000) in ("idle", "limit")
    assert not [finding for finding in session.machine.findings if finding.kind == "ring-length"]
