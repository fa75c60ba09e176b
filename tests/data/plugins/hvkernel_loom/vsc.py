"""The driver, module ``hv_loom``.

:class:`LoomDriver` is the module. Each device has a :class:`Loom`, each open channel a :class:`LoomChannel`. A request
is made by one of the ``loom_...`` functions, from any task that may sleep, on any open channel of the device; each
returns 0 or a negative errno: -ENODEV when the device goes away, -EIO when the answer is wrong, -ETIMEDOUT when none
came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from hvkernel.abi.ring import (
    VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED,
    VmbusPacketMpbArray,
    VmbusPacketType,
    VmtransferPagePacketHeader,
)
from hvkernel.abi.tlfs_features import HV_HYP_PAGE_SIZE
from hvkernel.abi.vmbus import HvCallbackMode
from hvkernel.api.guest import Completion, DelayedWork, Import, Kernel, KernelObject, Mutex, Page, Spinlock, Work
from hvkernel.api.guest.errno import EAGAIN, EINVAL, EIO, ENODEV, ENOMEM, ETIMEDOUT
from hvkernel.api.guest.hyperv import (
    HvDevice,
    HvDriver,
    HvMpbArray,
    HvPageBuffer,
    HvVmbusDeviceId,
    Vmbus,
    VmbusChannel,
    VmbusGpadl,
    VmbusPacket,
    hv_get_drvdata,
    hv_set_drvdata,
)
from hvkernel_loom.wire import CLASS, STATUS_OK, LoomMessage, LoomOp, pattern

LOOM_RING_BYTES: Final = 8192
"""Data bytes of each ring."""
LOOM_REQUESTS: Final = 32
"""Slots of the requestor: how many completions one channel may wait for."""
LOOM_TIMEOUT: Final = 20
"""Seconds after which an answer counts as lost."""
MODES: Final = (HvCallbackMode.HV_CALL_BATCHED, HvCallbackMode.HV_CALL_DIRECT, HvCallbackMode.HV_CALL_ISR)
"""How the channels call back: the primary channel by the first, sub-channels by the next ones in turn."""

NO_COMPLETION: Final = 0
COMPLETION: Final = VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED
INBAND: Final = VmbusPacketType.VM_PKT_DATA_INBAND
COMP: Final = VmbusPacketType.VM_PKT_COMP
XFER_PAGES: Final = VmbusPacketType.VM_PKT_DATA_USING_XFER_PAGES


@dataclass(slots=True, eq=False)
class LoomRequest:
    """One request that waits for its completion."""

    done: Completion = field(default_factory=Completion)
    answer: LoomMessage | None = None
    trans_id: int = 0
    """What the completion carried."""


@dataclass(slots=True, eq=False)
class LoomChannel:
    """``per_channel_state`` of an open channel."""

    loom: Loom
    channel: VmbusChannel
    notes: int = 0
    """NOTEs that are in the ring."""
    events: int = 0
    """Events of the device that came."""
    bad: int = 0
    """Of these, how many had the wrong content."""
    requests: dict[int, LoomRequest] = field(default_factory=dict)
    """By the number that the requestor keeps for us; the kernel would keep their addresses."""
    owed: deque[int] = field(default_factory=deque)
    """Events whose completion did not fit the ring yet."""
    retry: DelayedWork | None = None


@dataclass(slots=True, eq=False)
class Loom:
    """One device."""

    dev: HvDevice
    lock: Spinlock
    """Guards ``requests`` and ``owed`` of its channels, which callbacks touch in any context."""
    mutex: Mutex
    """Held while the channels are opened or closed."""
    up: bool = False
    """Requests may begin and sub-channels be opened."""
    gone: bool = False
    """The driver has given the device up."""
    users: int = 0
    """Tasks that use the channels now: requests, and sub-channels being opened. The kernel would take an atomic_t."""
    next_request: int = 1
    page: Page | None = None
    """The buffer shared for transfer pages."""
    gpadl: VmbusGpadl = field(default_factory=VmbusGpadl)

    @property
    def channels(self) -> list[VmbusChannel]:
        """The channels that can carry requests: the primary first, then the sub-channels that are open."""
        primary = self.dev.channel
        return [channel for channel in (primary, *primary.sc_list) if channel.per_channel_state is not None]


class LoomDriver:
    """The module."""

    def __init__(self) -> None:
        self.max_subchannels = 64
        """Most sub-channels that the driver asks for."""
        self.modes = MODES
        self.driver = HvDriver("hv_loom", (HvVmbusDeviceId(CLASS),), self.loom_probe, remove=self.loom_remove)

    def kernel_object(self) -> KernelObject:
        return KernelObject(
            "hv_loom",
            "HYPERV_LOOM",
            "drivers/misc/hv_loom.o",
            self.init,
            exit=self.exit,
            imports=(Import(Vmbus, ("__vmbus_driver_register", "vmbus_open", "vmbus_set_sc_create_callback")),),
            aliases=(f"vmbus:{CLASS.hex()}",),
        )

    def init(self, kernel: Kernel) -> int:
        self.kernel = kernel
        self.vmbus: Vmbus = kernel.symbol(Vmbus)
        return self.vmbus.vmbus_driver_register(self.driver, "hv_loom")

    def exit(self, kernel: Kernel) -> None:
        self.vmbus.vmbus_driver_unregister(self.driver)

    # the device comes and goes

    def loom_probe(self, dev: HvDevice, dev_id: HvVmbusDeviceId) -> int:
        locking = self.kernel.locking
        loom = Loom(dev, locking.spin_lock_init("loom.lock"), locking.mutex_init("loom.mutex"))
        with loom.mutex:
            # Whoever finds the device from here on waits until it is up.
            hv_set_drvdata(dev, loom)
            ret = self.loom_up(loom)
            loom.gone = ret != 0
        return ret

    def loom_remove(self, dev: HvDevice) -> None:
        loom: Loom = hv_get_drvdata(dev)
        with loom.mutex:
            loom.gone = True
            self.loom_down(loom)

    def loom_reopen(self, loom: Loom) -> int:
        """Close all channels and open them again, as a network driver does for a new MTU."""
        with loom.mutex:
            if loom.gone:
                return -ENODEV
            self.loom_down(loom)
            return self.loom_up(loom)

    def loom_up(self, loom: Loom) -> int:
        """Open the device's channels. After :meth:`loom_down` they can be opened again."""
        primary = loom.dev.channel
        self.vmbus.vmbus_set_sc_create_callback(primary, self.loom_sc_create)
        ret = self.loom_open(loom, primary)
        if ret:
            self.kernel.printk.dev_err(loom.dev, f"unable to open channel: {ret}")
            return ret
        loom.up = True
        ret = self.loom_setup(loom)
        if ret:
            self.loom_down(loom)
        return ret

    def loom_setup(self, loom: Loom) -> int:
        """Say hello, share the buffer, ask for sub-channels."""
        primary = loom.dev.channel
        ret, hello = self.loom_ask(loom, primary, LoomOp.HELLO)
        if ret == 0:
            ret = self.loom_share(loom)
        wanted = min(hello.count, self.max_subchannels, self.kernel.cpus.num_online_cpus() - 1) if ret == 0 else 0
        if wanted:
            ret, _ = self.loom_ask(loom, primary, LoomOp.SUBCHANNELS, count=wanted)
        return ret

    def loom_down(self, loom: Loom) -> None:
        """Close the device's channels: first let nobody use them any more, then take back what is shared."""
        if not loom.up:
            return
        loom.up = False
        while loom.users:
            self.kernel.sched.msleep(1)
        self.loom_unshare(loom)
        closing: list[LoomChannel] = [channel.per_channel_state for channel in loom.channels]
        self.vmbus.vmbus_close(loom.dev.channel)
        for state in closing:
            state.channel.per_channel_state = None
            if state.retry is not None:
                self.kernel.workqueue.cancel_delayed_work_sync(state.retry)

    def loom_open(self, loom: Loom, channel: VmbusChannel) -> int:
        """Open one channel."""
        state = LoomChannel(loom, channel)
        state.retry = DelayedWork(self.loom_retry, state)
        channel.rqstor_size = LOOM_REQUESTS
        channel.next_request_id_callback = self.vmbus.vmbus_next_request_id
        channel.request_addr_callback = self.vmbus.vmbus_request_addr
        index = channel.offermsg.sub_channel_index
        self.vmbus.set_channel_read_mode(channel, self.modes[index % len(self.modes)])
        size = self.vmbus.VMBUS_RING_SIZE(LOOM_RING_BYTES)
        ret = self.vmbus.vmbus_open(channel, size, size, index.to_bytes(2, "little"), self.loom_on_channel, state)
        if ret == 0:
            channel.per_channel_state = state
        return ret

    def loom_sc_create(self, channel: VmbusChannel) -> None:
        """The host offered a sub-channel: open it."""
        assert channel.primary_channel is not None
        device = channel.primary_channel.device_obj
        assert device is not None
        loom: Loom | None = hv_get_drvdata(device)
        if loom is None or not loom.up:
            return
        loom.users += 1
        ret = self.loom_open(loom, channel)
        loom.users -= 1
        if ret:
            self.kernel.printk.dev_err(device, f"unable to open sub-channel: {ret}")

    def loom_share(self, loom: Loom) -> int:
        """Share a buffer with the device: a GPADL, then the message that says what it is for."""
        mm = self.kernel.mm
        order = (4 * HV_HYP_PAGE_SIZE - 1 >> mm.PAGE_SHIFT).bit_length()
        loom.page = mm.alloc_pages(order, zero=True, lowmem=True)
        if loom.page is None:
            return -ENOMEM
        ret = self.vmbus.vmbus_establish_gpadl(loom.dev.channel, loom.page.gpa, loom.page.size, loom.gpadl)
        if ret == 0:
            ret, _ = self.loom_ask(loom, loom.dev.channel, LoomOp.SHARE, handle=loom.gpadl.gpadl_handle)
        return ret

    def loom_unshare(self, loom: Loom) -> None:
        """Take the buffer back; a rescinded device has let go of it already."""
        if loom.page is None:
            return
        if loom.gpadl.gpadl_handle:
            message = make_message(LoomOp.UNSHARE)
            self.loom_exchange(loom, loom.dev.channel, message, self.send_inband(loom.dev.channel, message.pack()))
            self.vmbus.vmbus_teardown_gpadl(loom.dev.channel, loom.gpadl)
            loom.gpadl.gpadl_handle = 0
        self.kernel.mm.free_pages(loom.page)
        loom.page = None

    # requests, one for each function that sends

    def loom_ask(
        self, loom: Loom, channel: VmbusChannel, op: LoomOp, *, count: int = 0, handle: int = 0
    ) -> tuple[int, LoomMessage]:
        """An operation without data, by vmbus_sendpacket()."""
        message = make_message(op, count=count, handle=handle)
        return self.loom_request(
            loom,
            channel,
            message,
            self.send_inband(channel, message.pack()),
        )

    def loom_sum(self, loom: Loom, channel: VmbusChannel, data: bytes) -> int:
        """Data behind the message, by vmbus_sendpacket(). All NOTEs that were sent before must have come before."""
        message = make_message(LoomOp.SUM, length=len(data))
        state: LoomChannel | None = channel.per_channel_state
        notes = state.notes if state is not None else 0
        ret, answer = self.loom_request(
            loom,
            channel,
            message,
            self.send_inband(channel, message.pack() + data),
        )
        return ret or (0 if answer.checksum == crc32(data) and answer.count >= notes else -EIO)

    def loom_sum_getid(self, loom: Loom, channel: VmbusChannel, data: bytes) -> int:
        """The same by vmbus_sendpacket_getid(): the completion must carry the id that it returned."""
        message = make_message(LoomOp.SUM, length=len(data))
        request = LoomRequest()
        sent = 0

        def send(number: int) -> int:
            nonlocal sent
            ret, sent = self.vmbus.vmbus_sendpacket_getid(channel, message.pack() + data, number, INBAND, COMPLETION)
            return ret

        ret, answer = self.loom_request(loom, channel, message, send, request)
        return ret or (0 if answer.checksum == crc32(data) and request.trans_id == sent else -EIO)

    def loom_note(self, loom: Loom, channel: VmbusChannel) -> int:
        """A packet that wants no completion, by vmbus_sendpacket()."""
        if not self.loom_get(loom, channel):
            return -ENODEV
        state: LoomChannel = channel.per_channel_state
        message = make_message(LoomOp.NOTE)
        ret = self.loom_send(lambda: self.vmbus.vmbus_sendpacket(channel, message.pack(), 0, INBAND, NO_COMPLETION))
        if ret == 0:
            state.notes += 1
        loom.users -= 1
        return ret

    def loom_gather(self, loom: Loom, channel: VmbusChannel, data: bytes) -> int:
        """Data in guest pages, one range for each 4 KiB page, by vmbus_sendpacket_pagebuffer()."""
        return self.loom_with_buffer(
            loom, channel, make_message(LoomOp.GATHER, length=len(data)), data, self.send_pagebuffer
        )

    def loom_scatter(self, loom: Loom, channel: VmbusChannel, length: int, cookie: int) -> int:
        """Data from the device into guest pages, in one range, by vmbus_sendpacket_mpb_desc()."""
        message = make_message(LoomOp.SCATTER, length=length, cookie=cookie)
        return self.loom_with_buffer(loom, channel, message, bytes(length), self.send_mpb_desc)

    def loom_tick(self, loom: Loom, channel: VmbusChannel, count: int) -> int:
        """Ask for ``count`` in-band packets; the answer comes when the device has all their completions."""
        ret, _ = self.loom_ask(loom, channel, LoomOp.TICK, count=count)
        return ret

    def loom_deliver(self, loom: Loom, channel: VmbusChannel, count: int, length: int) -> int:
        """The same with transfer pages, each of ``length`` bytes of the shared buffer."""
        message = make_message(LoomOp.DELIVER, count=count, length=length)
        ret, _ = self.loom_request(
            loom,
            channel,
            message,
            self.send_inband(channel, message.pack()),
        )
        return ret

    def loom_lend(self, loom: Loom, channel: VmbusChannel, size: int) -> int:
        """Share a buffer of ``size`` bytes on a channel, and take it back."""
        if not self.loom_get(loom, channel):
            return -ENODEV
        mm, gpadl = self.kernel.mm, VmbusGpadl()
        page = mm.alloc_pages((size - 1 >> mm.PAGE_SHIFT).bit_length(), zero=True, lowmem=True)
        if page is None:
            loom.users -= 1
            return -ENOMEM
        ret = self.vmbus.vmbus_establish_gpadl(channel, page.gpa, size, gpadl)
        if ret == 0:
            ret = self.vmbus.vmbus_teardown_gpadl(channel, gpadl)
        mm.free_pages(page)
        loom.users -= 1
        return ret

    def loom_with_buffer(
        self,
        loom: Loom,
        channel: VmbusChannel,
        message: LoomMessage,
        data: bytes,
        send: Callable[[VmbusChannel, LoomMessage, Page, int], int],
    ) -> int:
        """A request whose data lie in pages of their own for as long as it takes."""
        mm = self.kernel.mm
        order = (max(len(data) - 1, 0) >> mm.PAGE_SHIFT).bit_length()
        page = mm.alloc_pages(order, zero=True, lowmem=True)
        if page is None:
            return -ENOMEM
        mm.memory.write(page.gpa, data)
        ret, answer = self.loom_request(loom, channel, message, lambda number: send(channel, message, page, number))
        got = mm.memory.read(page.gpa, len(data))
        mm.free_pages(page)
        if ret:
            return ret
        wanted = pattern(message.cookie, len(data)) if message.op == LoomOp.SCATTER else data
        return 0 if got == wanted and answer.checksum == crc32(wanted) else -EIO

    def send_inband(self, channel: VmbusChannel, data: bytes) -> Callable[[int], int]:
        return lambda number: self.vmbus.vmbus_sendpacket(channel, data, number, INBAND, COMPLETION)

    def send_pagebuffer(self, channel: VmbusChannel, message: LoomMessage, page: Page, number: int) -> int:
        ranges = [
            HvPageBuffer(min(message.length - at, HV_HYP_PAGE_SIZE), 0, page.gpa + at >> 12)
            for at in range(0, message.length, HV_HYP_PAGE_SIZE)
        ]
        return self.vmbus.vmbus_sendpacket_pagebuffer(channel, ranges, message.pack(), number)

    def send_mpb_desc(self, channel: VmbusChannel, message: LoomMessage, page: Page, number: int) -> int:
        first = page.gpa >> 12
        pfns = range(first, first + (message.length + HV_HYP_PAGE_SIZE - 1) // HV_HYP_PAGE_SIZE)
        desc = HvMpbArray(message.length, 0, pfns)
        size = VmbusPacketMpbArray.SIZE + 8 * len(pfns)
        return self.vmbus.vmbus_sendpacket_mpb_desc(channel, desc, size, message.pack(), number)

    # what all requests share

    def loom_get(self, loom: Loom, channel: VmbusChannel) -> bool:
        """Keep the channels open until ``users`` is counted down again; False when they are going."""
        if not loom.up or channel.rescind or channel.per_channel_state is None:
            return False
        loom.users += 1
        return True

    def loom_request(
        self,
        loom: Loom,
        channel: VmbusChannel,
        message: LoomMessage,
        send: Callable[[int], int],
        request: LoomRequest | None = None,
    ) -> tuple[int, LoomMessage]:
        """Send one packet and wait for its completion, while the channels are up.

        :param send: sends the packet with the number it is given as request id.
        :returns: 0 and the answer, or a negative errno and the request.
        """
        if not self.loom_get(loom, channel):
            return -ENODEV, message
        done = self.loom_exchange(loom, channel, message, send, request)
        loom.users -= 1
        return done

    def loom_exchange(
        self,
        loom: Loom,
        channel: VmbusChannel,
        message: LoomMessage,
        send: Callable[[int], int],
        request: LoomRequest | None = None,
    ) -> tuple[int, LoomMessage]:
        """What :meth:`loom_request` does, for a caller that keeps the channel open itself."""
        state: LoomChannel = channel.per_channel_state
        request = request or LoomRequest()
        with loom.lock.irqsave():
            number, loom.next_request = loom.next_request, loom.next_request + 1
            state.requests[number] = request
        ret = self.loom_send(lambda: send(number))
        if ret == 0:
            ret = self.loom_wait(channel, request)
        with loom.lock.irqsave():
            state.requests.pop(number, None)
        answer = request.answer
        if ret == 0:
            assert answer is not None
            ret = 0 if answer.status == STATUS_OK else -EINVAL
        return ret, answer or message

    def loom_send(self, send: Callable[[], int]) -> int:
        """Send; while the ring or the requestor is full, try again."""
        for _ in range(LOOM_TIMEOUT * 1000):
            ret = send()
            if ret != -EAGAIN:
                return ret
            self.kernel.sched.msleep(1)
        return -ETIMEDOUT

    def loom_wait(self, channel: VmbusChannel, request: LoomRequest) -> int:
        """Wait for a completion. A rescinded channel brings none any more, so look at that now and then.

        So does wait_for_response() of drivers/pci/controller/pci-hyperv.c.
        """
        hz = self.kernel.timers.HZ
        for _ in range(LOOM_TIMEOUT * 10):
            if self.kernel.sched.wait_for_completion_timeout(request.done, hz // 10):
                return 0
            if channel.rescind:
                return -ENODEV
        return -ETIMEDOUT

    # what the host sends

    def loom_on_channel(self, state: LoomChannel) -> None:
        """Channel callback: a tasklet, or in ISR mode the interrupt itself.

        Only batched mode looks again for what came in while the last packets were given back. In the others the driver
        masks the ring and looks itself, as netvsc_poll() of drivers/net/hyperv/netvsc.c does.
        """
        channel, vmbus = state.channel, self.vmbus
        masks = channel.callback_mode != HvCallbackMode.HV_CALL_BATCHED
        if masks:
            vmbus.hv_begin_read(channel)
        self.loom_read(state)
        while masks and vmbus.hv_end_read(channel):
            vmbus.hv_begin_read(channel)
            self.loom_read(state)

    def loom_read(self, state: LoomChannel) -> None:
        """Take all packets that are there."""
        for packet in self.vmbus.foreach_vmbus_pkt(state.channel):
            if packet.type == COMP:
                self.loom_completed(state, packet)
            elif packet.type in (INBAND, XFER_PAGES):
                self.loom_event(state, packet)
            else:
                state.bad += 1

    def loom_completed(self, state: LoomChannel, packet: VmbusPacket) -> None:
        number = self.vmbus.vmbus_request_addr(state.channel, packet.trans_id)
        with state.loom.lock.irqsave():
            request = state.requests.get(number)
        if request is None:
            state.bad += 1
            self.kernel.printk.dev_err(state.loom.dev, f"Incorrect transaction id 0x{packet.trans_id:x}")
            return
        request.answer = LoomMessage.unpack(bytes(self.vmbus.hv_pkt_data(packet))[: LoomMessage.SIZE])
        request.trans_id = packet.trans_id
        self.kernel.sched.complete(request.done)

    def loom_event(self, state: LoomChannel, packet: VmbusPacket) -> None:
        state.events += 1
        event = LoomMessage.unpack(bytes(self.vmbus.hv_pkt_data(packet))[: LoomMessage.SIZE])
        if packet.type == XFER_PAGES and crc32(self.loom_pages(state.loom, packet)) != event.checksum:
            state.bad += 1
        if packet.flags & COMPLETION:
            with state.loom.lock.irqsave():
                state.owed.append(packet.trans_id)
            self.loom_pay(state)

    def loom_pages(self, loom: Loom, packet: VmbusPacket) -> bytes:
        """The bytes that a transfer-page packet delivers."""
        header = VmtransferPagePacketHeader.unpack(bytes(packet.raw[: VmtransferPagePacketHeader.SIZE]))
        (piece,) = header.ranges
        if loom.page is None or piece.byte_offset + piece.byte_count > loom.page.size:
            return b""
        return self.kernel.mm.memory.read(loom.page.gpa + piece.byte_offset, piece.byte_count)

    def loom_pay(self, state: LoomChannel) -> None:
        """Complete the device's events; what does not fit the ring waits a moment."""
        while True:
            with state.loom.lock.irqsave():
                if not state.owed:
                    return
                trans_id = state.owed.popleft()
            ret = self.vmbus.vmbus_sendpacket(state.channel, b"", trans_id, COMP, NO_COMPLETION)
            if ret == -EAGAIN:
                with state.loom.lock.irqsave():
                    state.owed.appendleft(trans_id)
                assert state.retry is not None
                self.kernel.workqueue.schedule_delayed_work(state.retry, 1)
                return

    def loom_retry(self, work: Work) -> None:
        state: LoomChannel = work.data
        if self.loom_get(state.loom, state.channel):
            self.loom_pay(state)
            state.loom.users -= 1


def make_message(op: LoomOp, **fields: Any) -> LoomMessage:
    """Return a request; what is not given is zero."""
    given = {"count": 0, "length": 0, "handle": 0, "cookie": 0, **fields}
    return LoomMessage(op=op, status=STATUS_OK, checksum=0, **given)
