"""The two kinds of broken protocol: ours and the host's. An illegal step raises one of them and changes nothing."""

from __future__ import annotations

__all__ = ["LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """A step that a state table does not have."""


class LocalProtocolError(ProtocolError):
    """The guest, a driver or a test asked for it."""


class RemoteProtocolError(ProtocolError):
    """The host sent it."""
