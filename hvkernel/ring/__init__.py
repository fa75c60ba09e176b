"""A jitted VMBus ring on any writable buffer, usable alone and between processes.

A buffer is a 4 KiB control page (``struct hv_ring_buffer`` of include/linux/hyperv.h) followed by the ring data, a
whole number of 4 KiB pages: a ``bytearray``, an ``mmap`` of a memfd or file, a numpy array. One process attaches a
:class:`RingWriter`, the same or another one a :class:`RingReader`; both move many packets per call with one
publication and one barrier::

    from hvkernel.ring import RingReader, RingWriter, init_ring, pack, unpack

    buffer = bytearray(4096 + 65536)
    init_ring(buffer)
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        src, lens = pack([b"hello", b"world!!!"])
        writer.write_batch(src, lens, 2, 100)

numba is imported by the first ``attach``, not by this module.
"""

from __future__ import annotations

from hvkernel.ring.ends import RingEnd, RingReader, RingWriter, init_ring, pack, unpack

__all__ = ["RingEnd", "RingReader", "RingWriter", "init_ring", "pack", "unpack"]
