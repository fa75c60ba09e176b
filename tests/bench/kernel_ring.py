"""Compare the C reference with the kernel's own ring: ``python tests/bench/kernel_ring.py LINUX``.

LINUX is an unpacked source tree of Linux 6.1 (Debian package linux-source-6.1). Its drivers/hv/ring_buffer.c and the
send and receive functions of its channel.c are compiled where they lie, with gcc -O2 and the stub header of
tests/data/kernel-stub, and timed in turn with hvkernel/ring/reference.c. The last column says how much dearer the
reference is: floors measured against it say something of Linux as long as that is about 1.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time_ns
from typing import Any

import numpy as np

from hvkernel.ring import init_ring, pack
from hvkernel.ring.reference import FLAGS, Work, build

HERE = Path(__file__).parent
STUB = HERE.parent / "data" / "kernel-stub"
CASES = ((8, 64), (64, 64), (256, 64), (1500, 64), (4096, 23), (16384, 5))
PAGES = 33
LARGEST = 16400
REPEATS = 15


def compile_kernel(linux: Path, where: Path) -> Any:
    """The kernel's ring as a library; :raises SystemExit: it cannot be compiled."""
    drivers = linux / "drivers" / "hv"
    channel = (drivers / "channel.c").read_text()
    texts = [channel, (drivers / "ring_buffer.c").read_text(), (linux / "include/linux/hyperv.h").read_text()]
    for name in re.findall(r"^#include <([^>]+)>", "\n".join(texts), re.MULTILINE):
        if name != "linux/hyperv.h":
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_text('#include "stub.h"\n')
    send = channel[channel.index("int vmbus_sendpacket_getid(") : channel.index("EXPORT_SYMBOL(vmbus_sendpacket)")]
    receive = channel[channel.index("static inline int\n__vmbus_recvpacket(") :]
    (where / "channel_part.c").write_text(send + receive[: receive.index("EXPORT_SYMBOL(vmbus_recvpacket)")])
    include = [f"-I{place}" for place in (STUB, where, linux / "include", drivers)]
    common = ["gcc", *FLAGS[:-1], "-fno-strict-aliasing", "-w", "-DPAGE_SHIFT=12", *include]
    first = ["-DKERNEL_RING_DECLARATIONS", "-include", str(HERE / "kernel_ring.c")]
    objects = []
    for source, more in (
        (drivers / "ring_buffer.c", first),
        (where / "channel_part.c", first),
        (HERE / "kernel_ring.c", []),
    ):
        objects.append(str(where / f"{source.stem}.o"))
        done = subprocess.run([*common, *more, "-c", str(source), "-o", objects[-1]], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{source}: {done.stderr}")
    library = where / "timed.so"
    subprocess.run(["gcc", "-shared", "-o", str(library), *objects], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.timed_round_trips.restype = ctypes.c_uint64
    loaded.timed_round_trips.argtypes = (ctypes.POINTER(Work), ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int)
    return loaded


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        kernel = compile_kernel(Path(sys.argv[1]), Path(directory))
    if kernel.timed_open(PAGES, LARGEST):
        raise SystemExit("the kernel's rings cannot be set up")
    reference = build()
    fd = os.memfd_create("ring")
    os.ftruncate(fd, 4096 * PAGES)
    control = bytearray(8192)
    init_ring(control)
    os.pwrite(fd, control[:4096], 0)
    with (
        reference.attach(fd, 4096 * (PAGES - 1), LARGEST) as writer,
        reference.attach(fd, 4096 * (PAGES - 1), LARGEST) as reader,
    ):
        print(f"{'payload':>8} {'batch':>6} {'read by':>8} {'kernel ns':>10} {'reference ns':>13} {'ratio':>6}")
        for size, batch in CASES:
            source, sizes = pack([bytes(size)] * batch)
            pin = np.frombuffer(source, np.uint8)
            target = np.zeros(len(source) + 8, np.uint8)
            sizes_out, requests = np.zeros(batch, np.uint32), np.zeros(batch, np.uint64)
            addresses = (int(array.ctypes.data) for array in (pin, sizes, target, sizes_out, requests))
            work = Work(*addresses, target.nbytes)

            def reference_loop(rounds: int, how: int, work: Work = work, batch: int = batch) -> int:
                ends = writer.address, reader.address
                return int(reference.library.ref_round_trips(*ends, work, batch, rounds, how))

            def kernel_loop(rounds: int, how: int, work: Work = work, batch: int = batch) -> int:
                return int(kernel.timed_round_trips(work, batch, rounds, how))

            for how, name in ((0, "iter"), (1, "recv")):
                print(f"{size:8} {batch:6} {name:>8} {_compare(kernel_loop, reference_loop, batch, how)}")
    os.close(fd)
    return 0


def _compare(kernel: Callable[[int, int], int], reference: Callable[[int, int], int], batch: int, how: int) -> str:
    rounds = 400_000 // batch // 10
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for loop, taken in zip((kernel, reference), times, strict=True):
            began = process_time_ns()
            moved = loop(rounds, how)
            taken.append((process_time_ns() - began) / (rounds * batch))
            if moved != rounds * batch:
                raise SystemExit(f"{moved} of {rounds * batch} packets moved")
    ratio = median(own / other for other, own in zip(*times, strict=True))
    return f"{median(times[0]):10.1f} {median(times[1]):13.1f} {ratio:6.2f}"


if __name__ == "__main__":
    sys.exit(main())
