"""The VMBus ring of the guest, on memory accessors: ``drivers/hv/ring_buffer.c`` of Linux 6.1.192.

A channel owns two rings, ``outbound`` (guest to host) and ``inbound`` (host to guest), each one control page of the
guest's ``PAGE_SIZE`` (the host sees its first 4 KiB only) and the data behind it. The data is mapped twice in a row,
so that a packet that wraps is contiguous. A packet is ``vmpacket_descriptor``, its payload padded to 8, and an 8 byte
trailer that holds the offset of the packet's start in its upper half.

All memory accesses go through a :class:`~hvkernel.machine.memory.Vmap` of the guest's accessor. Memory of the model
is sequentially consistent, so the kernel's barriers have no counterpart; the places where the other side can run in
between are *preemption points* (one call of ``preempt`` each): after a packet was published and before the decision
to signal, before the peer's index is sampled by an iterator, before ring space is released (a driver that has seen no
more packet has not yet said so), and between that and the look at ``pending_send_sz``. With ``jit=True`` the bulk
copies (descriptor and payload, in and out) are made by a numba routine on a real contiguous mapping; everything else,
the preemption points included, is the same code.

Not here: the shared-GPA-boundary mapping of SNP isolated guests.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from hvkernel.abi.ring import VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED, VMBUS_NO_RQSTOR, VMBUS_RQST_ERROR
from hvkernel.api.guest.errno import EAGAIN, EINVAL, ENOBUFS, ENODEV
from hvkernel.hv.ring_info import (
    DESC_SIZE,
    DESC_TRANS_ID,
    INTERRUPT_MASK,
    PENDING_SEND_SZ,
    READ_INDEX,
    VMBUS_PKT_TRAILER,
    VMBUS_RING_SIZE,
    WRITE_INDEX,
    BulkRing,
    Bytes,
    HvRingBufferDebugInfo,
    HvRingBufferInfo,
    RingChannel,
    VmbusPacket,
    hv_get_avail_to_write_percent,
    hv_get_bytes_to_read,
    hv_get_bytes_to_write,
    hv_pkt_data,
    hv_pkt_datalen,
    hv_pkt_iter_avail,
    hv_pkt_iter_bytes_read,
    hv_pkt_len,
    reciprocal_divide,
    reciprocal_value,
)
from hvkernel.hv.ring_walk import RingWalk, comes_back_for_nothing, end_of_walk, refused, tell, walked_here_before
from hvkernel.machine.addresses import HV_HYP_PAGE_SHIFT, HV_HYP_PAGE_SIZE, HvPfn
from hvkernel.machine.faults import PageFault

if TYPE_CHECKING:
    from hvkernel.api.guest.hyperv import VmbusChannel
    from hvkernel.api.guest.sched import Mutex, Spinlock
    from hvkernel.machine.machine import Machine
    from hvkernel.machine.memory import Memory

__all__ = [
    "VMBUS_PKT_TRAILER",
    "VMBUS_RING_SIZE",
    "HvRingBufferDebugInfo",
    "HvRingBufferInfo",
    "RingBuffer",
    "RingChannel",
    "RingLocking",
    "VmbusPacket",
    "hv_get_avail_to_write_percent",
    "hv_get_bytes_to_read",
    "hv_get_bytes_to_write",
    "hv_pkt_data",
    "hv_pkt_datalen",
    "hv_pkt_iter_avail",
    "hv_pkt_iter_bytes_read",
    "hv_pkt_len",
    "reciprocal_divide",
    "reciprocal_value",
]

_U32: Final = 0xFFFF_FFFF
_FLAGS: Final = struct.Struct("<H")
_CHECKED: Final = struct.Struct("<HH")


class RingLocking(Protocol):
    """What the ring asks of ``kernel.locking``."""

    def spin_lock_init(self, name: str) -> Spinlock: ...
    def mutex_init(self, name: str) -> Mutex: ...


def _no_finding(kind: str, text: str) -> None:
    """For rings that stand alone, without a kernel to report to."""


class RingBuffer:
    """The functions of ring_buffer.c that need services of the kernel; one instance per guest.

    :param memory: the machine's memory; only its guest door is used.
    :param page_size: the guest's PAGE_SIZE in bytes, a multiple of 4096.
    :param preempt: a preemption point: lets interrupts and other lanes run.
    :param vmbus_setevent: tells the host that a channel's outbound ring needs a look (drivers/hv/connection.c).
    :param locking: where the ring's spinlock and mutex come from.
    :param jit: copy through numba. Raises ImportError if numba is not installed.
    :param finding: told ``(kind, text)`` once per ring when a packet of the host has a length that cannot be.
    :param machine: whose tracer is told of every packet that is written to the host; None for rings that stand alone.
    :param delay_test: ``hv_debug_delay_test(channel, MESSAGE_DELAY)``; None without CONFIG_HYPERV_TESTING.
    """

    __slots__ = (
        "_bulk",
        "_delay_test",
        "_finding",
        "_locking",
        "_machine",
        "_memory",
        "_preempt",
        "_vmbus_setevent",
        "page_size",
    )

    def __init__(
        self,
        memory: Memory,
        page_size: int,
        *,
        preempt: Callable[[], None],
        vmbus_setevent: Callable[[Any], None],
        locking: RingLocking,
        jit: bool = False,
        finding: Callable[[str, str], object] = _no_finding,
        machine: Machine | None = None,
        delay_test: Callable[[Any], None] | None = None,
    ) -> None:
        if page_size <= 0 or page_size % HV_HYP_PAGE_SIZE:
            raise ValueError(f"page_size: {page_size} is not a positive multiple of {HV_HYP_PAGE_SIZE}")
        self._memory = memory
        self.page_size = page_size
        self._preempt = preempt
        self._finding = finding
        self._machine = machine
        self._delay_test = delay_test
        self._vmbus_setevent = vmbus_setevent
        self._locking = locking
        self._bulk: Callable[[Memory, Sequence[HvPfn], Sequence[HvPfn]], BulkRing] | None = None
        if jit:
            from hvkernel.ring.bulk import bulk_ring

            self._bulk = bulk_ring

    # life of a ring

    def hv_ringbuffer_pre_init(self, channel: RingChannel) -> None:
        """Make the mutexes of a channel's rings. Source: ring_buffer.c hv_ringbuffer_pre_init."""
        channel.inbound.ring_buffer_mutex = self._locking.mutex_init("ring_buffer_mutex")
        channel.outbound.ring_buffer_mutex = self._locking.mutex_init("ring_buffer_mutex")

    def hv_ringbuffer_init(self, ring_info: HvRingBufferInfo, gpa: int, page_cnt: int, max_pkt_size: int) -> int:
        """Map a ring and set it up: indices 0, feature bit set, private index 0.

        Source: ring_buffer.c hv_ringbuffer_init.

        :param gpa: byte address of the first (control) page, guest page aligned; the pages are physically contiguous.
        :param page_cnt: guest pages, control page included.
        :param max_pkt_size: bytes of the copy-out buffer of an inbound ring; 0 for an outbound one.
        :return: 0. (The kernel's -ENOMEM cannot happen: mappings are not a limited resource here.)
        """
        if gpa % self.page_size:
            raise ValueError(f"hv_ringbuffer_init: gpa {gpa:#x} is not a multiple of PAGE_SIZE {self.page_size}")
        if page_cnt < 2:
            raise ValueError(f"hv_ringbuffer_init: page_cnt {page_cnt} is below 2 (control page and data)")
        per_page = self.page_size >> HV_HYP_PAGE_SHIFT
        first = gpa >> HV_HYP_PAGE_SHIFT
        control = cast("list[HvPfn]", list(range(first, first + per_page)))
        data = cast("list[HvPfn]", list(range(first + per_page, first + per_page * page_cnt)))
        ring = self._memory.guest.vmap(control + data + data)
        ring_info.map(ring)
        ring_info.read_index.store(0)
        ring_info.write_index.store(0)
        ring_info.feature_bits.store(1)
        ring_info.ring_size = page_cnt * self.page_size
        ring_info.ring_size_div10_reciprocal = reciprocal_value(ring_info.ring_size // 10)
        ring_info.data_offset = self.page_size
        ring_info.ring_datasize = ring_info.ring_size - self.page_size
        ring_info.priv_read_index = 0
        ring_info.walk = None
        ring_info.told = frozenset()
        ring_info.came_back_for = None
        if max_pkt_size:
            ring_info.pkt_buffer_size = max_pkt_size
        if self._bulk is not None:
            ring_info.bulk = self._bulk(self._memory, control, data)
        ring_info.ring_lock = self._locking.spin_lock_init("ring_lock")
        return 0

    def hv_ringbuffer_cleanup(self, ring_info: HvRingBufferInfo) -> None:
        """Unmap a ring; later uses of the mapping fault. Source: ring_buffer.c hv_ringbuffer_cleanup."""
        assert ring_info.ring_buffer_mutex is not None
        with ring_info.ring_buffer_mutex:
            if ring_info.bulk is not None:
                ring_info.bulk.close()
                ring_info.bulk = None
            if ring_info.ring_buffer is not None:
                ring_info.ring_buffer.unmap()
            ring_info.ring_buffer = None
        ring_info.pkt_buffer_size = 0

    def hv_ringbuffer_spinlock_busy(self, channel: RingChannel) -> bool:
        """True while the outbound ring is being written (panic paths ask). Source: ring_buffer.c of that name."""
        lock = channel.outbound.ring_lock
        return lock is not None and lock.locked()

    def hv_ringbuffer_get_debuginfo(self, ring_info: HvRingBufferInfo) -> HvRingBufferDebugInfo | int:
        """The values that sysfs shows, or -EINVAL if the ring is not mapped. Source: ring_buffer.c of that name."""
        assert ring_info.ring_buffer_mutex is not None
        with ring_info.ring_buffer_mutex:
            ring = ring_info.ring_buffer
            if ring is None:
                return -EINVAL
            towrite = hv_get_bytes_to_write(ring_info)
            return HvRingBufferDebugInfo(
                current_interrupt_mask=ring_info.interrupt_mask.load(),
                current_read_index=ring_info.read_index.load(),
                current_write_index=ring_info.write_index.load(),
                bytes_avail_toread=(ring_info.ring_datasize - towrite) & _U32,
                bytes_avail_towrite=towrite,
            )

    # guest to host

    def hv_ringbuffer_write(self, channel: RingChannel, kv_list: Sequence[Bytes], requestid: int) -> tuple[int, int]:
        """Put one packet into the outbound ring and signal the host if it was empty.

        Source: ring_buffer.c hv_ringbuffer_write.

        :param kv_list: the packet in pieces that follow each other; the first begins with the descriptor.
        :param requestid: goes into the descriptor's trans_id unless the channel's requestor hands out its own.
        :return: (0, trans_id written), or (-EAGAIN, 0): ring full or requestor full, or (-ENODEV, trans_id): rescinded.
        """
        if channel.rescind:
            return -ENODEV, 0
        rbi = channel.outbound
        ring = rbi.ring_buffer
        lock = rbi.ring_lock
        if ring is None:
            ring = rbi.mapped(READ_INDEX)
        assert lock is not None
        total = 8
        for part in kv_list:
            total += len(part)
        rqst_id = VMBUS_NO_RQSTOR
        with lock.irqsave():
            read_loc = rbi.read_index.load()
            old_write = rbi.write_index.load()
            room = rbi.ring_datasize - (old_write - read_loc) if old_write >= read_loc else read_loc - old_write
            if room & _U32 <= total:
                channel.out_full_total += 1
                if not channel.out_full_flag:
                    channel.out_full_first += 1
                    channel.out_full_flag = True
                return -EAGAIN, 0
            channel.out_full_flag = False
            start = rbi.data_offset + old_write
            try:
                if rbi.bulk is not None:
                    rbi.bulk.put(old_write, kv_list)
                else:
                    ring.write(start, kv_list[0] if len(kv_list) == 1 else b"".join(kv_list))
            except ValueError:
                raise self._beyond(rbi, old_write, True) from None
            next_write = old_write + total - 8
            if next_write >= rbi.ring_datasize:
                next_write -= rbi.ring_datasize
            if _FLAGS.unpack_from(kv_list[0], 6)[0] == VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED:
                callback = channel.next_request_id_callback
                if callback is not None:
                    rqst_id = callback(channel, requestid)
                    if rqst_id == VMBUS_RQST_ERROR:
                        return -EAGAIN, 0
            trans_id = requestid if rqst_id == VMBUS_NO_RQSTOR else rqst_id
            ring.store64(start + DESC_TRANS_ID, trans_id)
            ring.store64(rbi.data_offset + next_write, old_write << 32)
            next_write += 8
            if next_write >= rbi.ring_datasize:
                next_write -= rbi.ring_datasize
            rbi.write_index.store(next_write)
            machine = self._machine
            if machine is not None and machine.tracer is not None:
                vp = machine.current_vp
                machine.tracer.packet(
                    machine.clock.now,
                    0 if vp is None else vp.vp_index,
                    cast("VmbusChannel", channel).offermsg.child_relid,
                    True,
                    ring.read(start, total - 8),
                )
        self._preempt()
        self._hv_signal_on_write(old_write, channel)
        if channel.rescind:
            if rqst_id != VMBUS_NO_RQSTOR and channel.request_addr_callback is not None:
                channel.request_addr_callback(channel, rqst_id)
            return -ENODEV, trans_id
        return 0, trans_id

    def _hv_signal_on_write(self, old_write: int, channel: RingChannel) -> None:
        """Signal when the ring went from empty to not empty and the host did not mask it.

        Source: hv_signal_on_write.
        """
        rbi = channel.outbound
        if rbi.ring_buffer is None or rbi.interrupt_mask.load():
            return
        if old_write == rbi.read_index.load():
            channel.intr_out_empty += 1
            self._vmbus_setevent(channel)

    # host to guest

    def hv_ringbuffer_read(self, channel: RingChannel, buflen: int, *, raw: bool) -> tuple[int, bytes, int, int]:
        """Take one packet. Source: ring_buffer.c hv_ringbuffer_read.

        :param buflen: the caller's room in bytes.
        :param raw: include the descriptor.
        :return: (status, bytes, actual length, trans_id). Status 0 with length 0: empty ring *or* a packet without
            payload. -ENOBUFS: the packet stays, the length says how much room it needs. -EINVAL: *buflen* is 0.
        """
        if buflen == 0:
            return -EINVAL, b"", 0, 0
        desc = self.hv_pkt_iter_first(channel)
        if desc is None:
            return 0, b"", 0, 0
        offset = 0 if raw else desc.offset8 << 3
        packetlen = (desc.len8 << 3) - offset
        if packetlen > buflen:
            refused(channel.inbound)
            return -ENOBUFS, b"", packetlen, desc.trans_id
        payload = bytes(desc.raw[offset : offset + packetlen])
        self._hv_pkt_iter_next(channel, desc)
        self.hv_pkt_iter_close(channel)
        return 0, payload, packetlen, desc.trans_id

    def hv_pkt_iter_first(self, channel: RingChannel) -> VmbusPacket | None:
        """A checked copy of the packet where the iterator stands; None if there is none. Source: hv_pkt_iter_first.

        A length that the ring cannot hold becomes what is there (at most the copy buffer); a payload offset outside
        the packet becomes 16. ``len8`` is a u16 and truncates as in the kernel.
        """
        if self._delay_test is not None:
            self._delay_test(channel)
        rbi = channel.inbound
        ring = rbi.ring_buffer or rbi.mapped(WRITE_INDEX)
        self._preempt()
        priv = rbi.priv_read_index
        write_loc = rbi.write_index.load()
        whole = write_loc - priv if write_loc >= priv else (rbi.ring_datasize - priv + write_loc) & _U32
        if whole < DESC_SIZE:
            if whole or rbi.walk is not None:
                end_of_walk(rbi, write_loc, whole)
            return None
        if (rbi.walk is not None or write_loc >= rbi.ring_datasize) and walked_here_before(
            rbi, write_loc, self._finding
        ):
            return None
        avail = whole
        if rbi.pkt_buffer_size < avail:
            avail = rbi.pkt_buffer_size
            if avail < DESC_SIZE:
                raise RuntimeError(
                    f"hv_pkt_iter_first: pkt_buffer_size {avail} cannot hold a descriptor of {DESC_SIZE} bytes"
                )
        start = rbi.data_offset + priv
        try:
            head = ring.load64(start)
            pkt_len = ((head >> 32) & 0xFFFF) << 3
            pkt_offset = ((head >> 16) & 0xFFFF) << 3
            if pkt_len < DESC_SIZE or pkt_len > avail:
                tell(
                    rbi,
                    self._finding,
                    "ring-length",
                    f"the host's packet at {priv:#x} says {pkt_len} bytes, the guest takes at most {avail}: what "
                    f"follows is not read where it begins",
                )
                pkt_len = avail
            if pkt_len + VMBUS_PKT_TRAILER > whole and rbi.walk is None:
                rbi.walk = RingWalk(write_loc)
            if pkt_offset < DESC_SIZE or pkt_offset > pkt_len:
                pkt_offset = DESC_SIZE
            copy = ring.read(start, pkt_len) if rbi.bulk is None else rbi.bulk.get(priv, pkt_len)
        except ValueError:
            raise self._beyond(rbi, priv, False) from None
        desc = VmbusPacket(copy)
        len8 = (pkt_len >> 3) & 0xFFFF
        offset8 = pkt_offset >> 3
        if desc.len8 != len8 or desc.offset8 != offset8:
            # What was checked counts, not what lies in the copy: the host may have changed it in between.
            mended = bytearray(copy)
            _CHECKED.pack_into(mended, 2, offset8, len8)
            desc = VmbusPacket(mended)
        return desc

    def _beyond(self, rbi: HvRingBufferInfo, index: int, write: bool) -> PageFault:
        """The fault of an access outside the ring's mapping.

        *unspecified*: what lies behind it. The kernel maps a guard page there and, further on, memory of others; here
        every such access faults. The address is the offset from the ring's first byte.
        """
        text = f"index {index:#x} leads outside the ring's mapping (the host wrote the control page)"
        return PageFault(rbi.data_offset + index, write, text)

    def _hv_pkt_iter_next(self, channel: RingChannel, desc: VmbusPacket) -> VmbusPacket | None:
        """Step the private index over *desc*, look for the next packet. Source: __hv_pkt_iter_next."""
        if self._delay_test is not None:
            self._delay_test(channel)
        rbi = channel.inbound
        priv = rbi.priv_read_index
        if rbi.walk is not None:
            rbi.walk.step_from(priv)
        priv += (desc.len8 << 3) + VMBUS_PKT_TRAILER
        if priv >= rbi.ring_datasize:
            priv -= rbi.ring_datasize
        rbi.priv_read_index = priv
        return self.hv_pkt_iter_first(channel)

    def hv_pkt_iter_next(self, channel: RingChannel, desc: VmbusPacket) -> VmbusPacket | None:
        """The next packet; when there is none, give the space back to the host. Source: hyperv.h hv_pkt_iter_next."""
        following = self._hv_pkt_iter_next(channel, desc)
        if following is None:
            self.hv_pkt_iter_close(channel)
        return following

    def hv_pkt_iter_close(self, channel: RingChannel) -> None:
        """Publish the read index; signal the host if it waits and this made enough room. Source: hv_pkt_iter_close."""
        rbi = channel.inbound
        if rbi.ring_buffer is None:
            rbi.mapped(READ_INDEX)
        self._preempt()
        start_read_index = rbi.read_index.load()
        rbi.read_index.store(rbi.priv_read_index)
        machine = self._machine
        if machine is not None and machine.tracer is not None:
            relid = cast("VmbusChannel", channel).offermsg.child_relid
            machine.tracer.taken(machine.clock.now, relid, False, hv_pkt_iter_bytes_read(rbi, start_read_index))
        if not rbi.feature_bits.load() & 1:
            return
        self._preempt()
        pending_sz = rbi.pending_send_sz.load()
        if not pending_sz:
            return
        curr_write_sz = hv_get_bytes_to_write(rbi)
        bytes_read = hv_pkt_iter_bytes_read(rbi, start_read_index)
        if (curr_write_sz - bytes_read) & _U32 > pending_sz:
            return
        if curr_write_sz <= pending_sz:
            return
        channel.intr_in_full += 1
        self._vmbus_setevent(channel)

    def foreach_vmbus_pkt(self, channel: RingChannel) -> Iterator[VmbusPacket]:
        """All packets that are there; leaving the loop early publishes nothing. Source: hyperv.h foreach_vmbus_pkt."""
        desc = self.hv_pkt_iter_first(channel)
        while desc is not None:
            yield desc
            desc = self.hv_pkt_iter_next(channel, desc)

    def hv_begin_read(self, rbi: HvRingBufferInfo) -> None:
        """Ask the host not to interrupt for this ring. Source: include/linux/hyperv.h hv_begin_read."""
        if rbi.ring_buffer is None:
            rbi.mapped(INTERRUPT_MASK, write=True)
        rbi.interrupt_mask.store(1)
        self._preempt()

    def hv_end_read(self, rbi: HvRingBufferInfo) -> int:
        """Allow interrupts again; return the bytes that came in meanwhile.

        Source: include/linux/hyperv.h hv_end_read. 0 also where the kernel's answer would only make the caller come
        back for bytes that nobody can take (:mod:`hvkernel.hv.ring_walk`).
        """
        if rbi.ring_buffer is None:
            rbi.mapped(INTERRUPT_MASK, write=True)
        rbi.interrupt_mask.store(0)
        self._preempt()
        left = hv_get_bytes_to_read(rbi)
        if left and comes_back_for_nothing(rbi, left, self._finding):
            return 0
        return left

    def set_channel_pending_send_size(self, channel: RingChannel, size: int) -> None:
        """Ask the host for a signal once *size* bytes are free in the outbound ring; 0 takes that back.

        Source: include/linux/hyperv.h set_channel_pending_send_size.
        """
        rbi = channel.outbound
        if size:
            assert rbi.ring_lock is not None
            with rbi.ring_lock.irqsave():
                channel.out_full_total += 1
                if not channel.out_full_flag:
                    channel.out_full_first += 1
                    channel.out_full_flag = True
        else:
            channel.out_full_flag = False
        rbi.mapped(PENDING_SEND_SZ, write=True)
        rbi.pending_send_sz.store(size)
        self._preempt()
