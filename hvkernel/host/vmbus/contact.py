"""INITIATE_CONTACT: what a guest asks for, whether it gets it, and the VERSION_RESPONSE that tells it.

The rules follow OpenVMM (vmbus_server/src/channels.rs: handle_initiate_contact, check_version_supported,
send_version_response): fields mean something from a version on, and before that the host takes the default.

==================  =====================================================================================
interrupt page      versions 0.13 and 1.1 use it; from 2.4 on every channel has its own event flag
target VP           from 3.0 on; older guests get all messages on VP 0
SINT, VTL           5.0 and 5.1, if posted to connection 4
feature flags       6.0
connection to use   5.0: VERSION_RESPONSE says where to post from now on; before, it repeats the version
==================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Final

from hvkernel.abi import vmbus as abi
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.host.vmbus.messages import VERSION_COPPER, BadMessage, header

if TYPE_CHECKING:
    from hvkernel.host.vmbus.hypervisor import Accepts

__all__ = ["Answer", "Contact", "Feature", "judge", "read_contact", "version_response", "version_text"]

CONNECTION_SUCCESSFUL: Final = 0
"""connection_state of a VERSION_RESPONSE (OpenVMM: protocol.rs, ConnectionState::SUCCESSFUL)."""

CONNECTION_FAILED_UNKNOWN: Final = 2
"""connection_state (OpenVMM: ConnectionState::FAILED_UNKNOWN_FAILURE)."""

_CLIENT_ID_BYTES: Final = 16


class Feature(IntFlag):
    """Feature flags of version 6.0 that this server has (OpenVMM: protocol.rs, FeatureFlags). Linux 6.1 knows none."""

    GUEST_SPECIFIED_SIGNAL_PARAMETERS = 1
    """OPENCHANNEL may name the connection and the event flag of the channel."""
    CHANNEL_INTERRUPT_REDIRECTION = 2
    """OPENCHANNEL has flags; the one that redirects interrupts means nothing on a host without a second VTL."""
    CLIENT_ID = 8
    """INITIATE_CONTACT ends with a GUID that says who the guest is."""


SUPPORTED: Final = Feature.GUEST_SPECIFIED_SIGNAL_PARAMETERS | Feature.CHANNEL_INTERRUPT_REDIRECTION | Feature.CLIENT_ID


@dataclass(frozen=True, slots=True)
class Contact:
    """An INITIATE_CONTACT, each field as far as its version has it."""

    version: int
    connection: int
    """Connection by which it came."""
    vp: int
    """VP that gets the host's messages."""
    sint: int
    vtl: int
    features: int
    interrupt_page: int
    """0 for none."""
    monitor_pages: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a VERSION_RESPONSE says."""

    supported: bool
    state: int = CONNECTION_SUCCESSFUL
    features: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the guest is connected now."""
        return self.supported and self.state == CONNECTION_SUCCESSFUL


def read_contact(message: abi.VmbusChannelInitiateContact, payload: bytes, connection: int) -> Contact:
    """Give each field of the message its meaning.

    :raises BadMessage: the client id that its features announce is missing.
    """
    version = message.vmbus_version_requested
    multiclient = connection == abi.VMBUS_MESSAGE_CONNECTION_ID_4
    features = message.padding2 if version >= VERSION_COPPER else 0
    if features & Feature.CLIENT_ID and len(payload) < message.SIZE + _CLIENT_ID_BYTES:
        raise BadMessage(
            f"INITIATE_CONTACT of {len(payload)} bytes; with a client id it has at least "
            f"{message.SIZE + _CLIENT_ID_BYTES}"
        )
    return Contact(
        version=version,
        connection=connection,
        vp=message.target_vcpu if version >= abi.VERSION_WIN8_1 else 0,
        sint=message.msg_sint if multiclient and version >= abi.VERSION_WIN10_V5 else abi.VMBUS_MESSAGE_SINT,
        vtl=message.padding1[0] if multiclient and version >= abi.VERSION_WIN10_V5_1 else 0,
        features=features,
        interrupt_page=message.interrupt_page if version < abi.VERSION_WIN8 else 0,
        monitor_pages=(message.monitor_page1, message.monitor_page2),
    )


def judge(
    contact: Contact, accepts: Accepts, is_vp: Callable[[int], bool], is_ram: Callable[[int], bool]
) -> tuple[Answer, str]:
    """Decide; also say what is wrong with a request of a version that the host has.

    :param is_vp: whether a VP index exists.
    :param is_ram: whether a 4 KiB page is memory of the guest.
    """
    if contact.version not in accepts.versions:
        return Answer(False), ""
    why = _wrong(contact, is_vp, is_ram)
    if why:
        # Before WS2012 the answer had no room for a reason: the guest hears that the version is not supported.
        known = contact.version >= abi.VERSION_WIN8
        return Answer(known, CONNECTION_FAILED_UNKNOWN if known else CONNECTION_SUCCESSFUL), why
    features = contact.features & accepts.features & SUPPORTED if contact.version >= VERSION_COPPER else 0
    return Answer(True, features=features), ""


def _wrong(contact: Contact, is_vp: Callable[[int], bool], is_ram: Callable[[int], bool]) -> str:
    if not is_vp(contact.vp):
        return f"target_vcpu {contact.vp} is not a processor of this guest"
    first, second = contact.monitor_pages
    if bool(first) != bool(second):
        return f"monitor pages {first:#x} and {second:#x}: both or neither"
    for gpa in contact.monitor_pages:
        if gpa & 0xFFF or (gpa and not is_ram(gpa >> 12)):
            return f"monitor page {gpa:#x} is not a page of this guest's memory"
    return ""


def version_response(version: int, answer: Answer) -> bytes:
    """Return the VERSION_RESPONSE: 16 bytes, 20 when version 6.0 is supported."""
    selected = 0
    if answer.supported:
        selected = abi.VMBUS_MESSAGE_CONNECTION_ID if version >= abi.VERSION_WIN10_V5 else version
    payload = abi.VmbusChannelVersionResponse(
        header(Type.CHANNELMSG_VERSION_RESPONSE), int(answer.supported), answer.state, 0, selected
    ).pack()
    if answer.supported and version >= VERSION_COPPER:
        payload += answer.features.to_bytes(4, "little")
    return payload


def version_text(version: int) -> str:
    """Return ``version 5.3``."""
    return f"version {version >> 16}.{version & 0xFFFF}"
