"""Shared by the tests of drivers/hv: rows computed by the real kernel, and a guest on the real modelled host."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvkernel.abi import guids
from hvkernel.abi.vmbus import VmbusChannelMessageType as Type
from hvkernel.api.guest.hyperv import HvDevice, HvDriver, HvVmbusDeviceId, Vmbus, VmbusChannel
from hvkernel.boot.request import read_request
from hvkernel.boot.session import Session, Unsupported, compose
from hvkernel.host.vmbus.server import VmbusServer
from hvkernel.hv.exports import VmbusExports
from hvkernel.hv.hyperv_vmbus import HvVmbus

Compose = Callable[..., Session]
MS = 10_000
"""A millisecond of virtual time."""
SINT = 2
SLOT = 256
"""Bytes of one message slot."""


@pytest.fixture(scope="session")
def rows() -> Callable[[str], Any]:
    """Load one table of tests/data/functions."""
    root = Path(__file__).parents[1] / "data" / "functions"
    return lambda name: json.loads((root / f"{name}.json").read_text("utf-8"))


@pytest.fixture
def guest() -> Iterator[Compose]:
    """Compose a guest with all of Hyper-V built in; options of ``hvkernel boot``, and ``vps``. Closed at the end."""
    open_sessions: list[Session] = []

    def make(**options: Any) -> Session:
        vps = options.pop("vps", None)
        composed = compose(read_request(**options), vps=vps)
        assert not isinstance(composed, Unsupported), composed
        open_sessions.append(composed)
        return composed

    yield make
    for session in reversed(open_sessions):
        session.close()


class Thread:
    """A guest function that runs in a thread of its own, and what came of it."""

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None


class Between:
    """Stands between the guest and the VMBus server: sees what the guest posts, and may keep it, or answer itself.

    The guest boots against the whole server; a driver of ours has the KVP device, which no other driver takes.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.machine = session.machine
        self.kernel = session.kernel
        self.server: VmbusServer = session.server
        self.sent: list[tuple[int, int, bytes]] = []
        """(connection id, VP, message) of the guest, in order."""
        self.keep: Callable[[bytes], bool] = lambda message: False
        """Say of a message that the server shall not get it."""
        self.status: Callable[[int, bytes], int | None] = lambda connection, message: None
        """HV_STATUS that the hypercall shall return instead of taking the message."""
        self.made: list[int] = []
        """Relids of :meth:`offer`."""
        self.silent: tuple[int, ...] = ()
        """Kinds of message about them that get no answer."""
        self.devices: list[HvDevice] = []
        self.removed: list[HvDevice] = []
        self.on_probe: Callable[[HvDevice], int] = lambda dev: 0
        ports: Any = session.host.ports
        for connection in (1, 4):
            port = ports._messages.get(connection)
            if port is not None:
                ports._messages[connection] = self._port(connection, port)

    def _port(self, connection: int, port: Callable[[int, int, bytes], int]) -> Callable[[int, int, bytes], int]:
        def take(vp: int, message_type: int, payload: bytes) -> int:
            status = self.status(connection, payload)
            if status is not None:
                return status
            status = 0 if self.keep(payload) else port(vp, message_type, payload)
            if status == 0:  # the others are posted again
                self.sent.append((connection, vp, payload))
            return status

        return take

    def boot(self, guid: bytes = guids.HV_KVP_GUID) -> Between:
        """Boot until up, and bind the driver."""
        self.session.boot()
        assert self.kernel.outcome is not None
        assert self.kernel.outcome.state == "up", self.kernel.outcome
        driver = HvDriver("probe", [HvVmbusDeviceId(guid)], self._probe, remove=self.removed.append)
        assert self.call(self.exports.vmbus_driver_register, driver, "probe") == 0
        self.call(self.kernel.async_.async_synchronize_full)
        self.run(50)
        self.sent.clear()
        return self

    def _probe(self, dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        self.devices.append(dev)
        return self.on_probe(dev)

    @property
    def exports(self) -> VmbusExports:
        exports = self.kernel.symbol(Vmbus)
        assert isinstance(exports, VmbusExports)
        return exports

    @property
    def v(self) -> HvVmbus:
        return self.exports.v

    @property
    def channel(self) -> VmbusChannel:
        return self.devices[-1].channel

    @property
    def relid(self) -> int:
        return self.channel.offermsg.child_relid

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.kernel.printk.log]

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run a guest function to its end."""
        return self.session.call(fn, *args)

    def start(self, fn: Callable[..., Any], *args: Any) -> Thread:
        """Run a guest function in a thread of CPU 0, as far as it gets in 20 ms."""
        thread = Thread()

        def body() -> None:
            thread.value = fn(*args)
            thread.done = True

        self.kernel.spawn(body, name="test", cpu=self.kernel.cpus.cpu(0))
        self.run(20)
        return thread

    def run(self, ms: int = 200) -> None:
        """Let time pass."""
        self.machine.run(limit=ms * MS)

    def post(self, kind: int, *fields: int, raw: bytes = b"") -> None:
        """Send the guest a channel message of u32 fields, and let it be handled."""
        payload = struct.pack(f"<II{len(fields)}I", kind, 0, *fields) + raw
        self.session.host.synic.post_message(self.machine.boot_vp.vp_index, SINT, 1, 1, payload)
        self.run(20)

    def post_raw(self, payload_size: int, payload: bytes) -> None:
        """Put a message into CPU 0's slot as no decent host would, and interrupt."""
        page = self.v.cpu_context[0].synic_message_page
        assert page is not None
        synic: Any = self.session.host.synic
        vp = self.machine.boot_vp.vp_index
        self.machine.memory.host.write(
            page.gpa + SINT * SLOT, struct.pack("<IBBxxQ", 1, payload_size, 0, 1) + payload.ljust(240, b"\0")
        )
        synic._interrupt(synic.vps[vp], SINT)
        self.run(20)

    def kinds(self) -> list[Type]:
        """What the guest posted since :attr:`sent` was cleared."""
        return [Type(int.from_bytes(message[:4], "little")) for _, _, message in self.sent]

    def keep_kinds(self, *kinds: int) -> None:
        """Keep messages of these kinds from the server."""
        self.keep = lambda message: int.from_bytes(message[:4], "little") in kinds

    def offer(
        self, relid: int, *, instance: bytes | None = None, kind: bytes | None = None, index: int = 0, flags: int = 0
    ) -> VmbusChannel | None:
        """Offer a channel like the KVP device's (the same device for a sub-channel) that this host answers for."""
        message = bytearray(self.channel.offermsg.raw)
        message[8:24] = kind or message[8:24]
        message[24:40] = instance or message[24:40]
        struct.pack_into("<H", message, 56, flags)
        struct.pack_into("<H", message, 180, index)
        struct.pack_into("<I", message, 184, relid)
        self.made.append(relid)
        self.keep = self._answer
        self.session.host.synic.post_message(self.machine.boot_vp.vp_index, SINT, 1, 1, bytes(message))
        self.run(20)
        assert self.v.connection.channels is not None
        return self.v.connection.channels[relid]

    def _answer(self, message: bytes) -> bool:
        """Keep and answer what is about a channel that :meth:`offer` made."""
        kind, _, relid = struct.unpack_from("<III", message.ljust(12, b"\0"))
        if relid not in self.made or kind in (Type.CHANNELMSG_GPADL_BODY, Type.CHANNELMSG_INITIATE_CONTACT):
            return False
        self.answered(kind, message)
        return True

    def answered(self, kind: int, message: bytes) -> None:
        """Answer OPENCHANNEL, GPADL_HEADER, GPADL_TEARDOWN and MODIFYCHANNEL with success."""
        relid, second = struct.unpack_from("<II", message.ljust(16, b"\0"), 8)
        answer = {
            int(Type.CHANNELMSG_OPENCHANNEL): (Type.CHANNELMSG_OPENCHANNEL_RESULT, relid, second, 0),
            int(Type.CHANNELMSG_GPADL_HEADER): (Type.CHANNELMSG_GPADL_CREATED, relid, second, 0),
            int(Type.CHANNELMSG_GPADL_TEARDOWN): (Type.CHANNELMSG_GPADL_TORNDOWN, second),
            int(Type.CHANNELMSG_MODIFYCHANNEL): (Type.CHANNELMSG_MODIFYCHANNEL_RESPONSE, relid, 0),
        }.get(kind)
        if answer is not None and kind not in self.silent:
            payload = struct.pack(f"<II{len(answer) - 1}I", answer[0], 0, *answer[1:])
            self.session.host.synic.post_message(self.machine.boot_vp.vp_index, SINT, 1, 1, payload)

    def rescind(self, channel: VmbusChannel) -> None:
        """Rescind a channel, as the host of :meth:`offer`."""
        self.post(Type.CHANNELMSG_RESCIND_CHANNELOFFER, channel.offermsg.child_relid)

    def released(self) -> list[int]:
        """Relids that the guest gave back since :attr:`sent` was cleared."""
        return [
            int.from_bytes(message[8:12], "little")
            for _, _, message in self.sent
            if message[0] == Type.CHANNELMSG_RELID_RELEASED
        ]

    def open(self, channel: VmbusChannel | None = None) -> int:
        """vmbus_open() of the channel."""
        ring = self.exports.VMBUS_RING_SIZE(16384)
        target = channel or self.channel
        return int(self.call(self.exports.vmbus_open, target, ring, ring, b"", lambda context: None, None))

    def start_open(self, channel: VmbusChannel | None = None) -> Thread:
        """The same in a thread, for a host that does not answer."""
        ring = self.exports.VMBUS_RING_SIZE(16384)
        target = channel or self.channel
        return self.start(self.exports.vmbus_open, target, ring, ring, b"", lambda context: None, None)

    def gpadls(self) -> int:
        """How many GPADLs the host holds."""
        return len({entry.key for entry in self.machine.ledger.entries() if entry.via.startswith("gpadl")})


@pytest.fixture
def between(guest: Compose) -> Callable[..., Between]:
    """Compose a guest with somebody between it and its host; ``boot()`` it yourself."""
    return lambda **options: Between(guest(**options))
