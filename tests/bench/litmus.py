"""Count lost signals with the ring's barriers and without: ``python tests/bench/litmus.py [SECONDS]``.

Two threads meet in the moment in which one end of a ring goes to sleep and the other decides whether to wake it
(hvkernel.ring.litmus). With the barriers the count must be 0; without the sleeper's it is not, on a computer with two
processors, which is why the count with them says something.
"""

from __future__ import annotations

import sys
from threading import Thread

import numpy as np

from hvkernel.ring import RingReader, RingWriter, init_ring, litmus, pack

ROUNDS = 1 << 40


def race(full: bool, barrier: int, seconds: float) -> tuple[int, int]:
    """(rounds, lost signals) of so many seconds."""
    buffer, shared = bytearray(8192), np.zeros(litmus.WORDS, np.uint32)
    init_ring(buffer)
    address = int(shared.ctypes.data)
    with RingWriter.attach(buffer) as writer, RingReader.attach(buffer) as reader:
        writer._hold(*pack([bytes(8)]))
        reader._hold(bytearray(4096), np.zeros(1, np.uint32), np.zeros(1, np.uint64))
        w, r = writer._state, reader._state
        results: dict[str, int] = {}

        def awake() -> None:
            loop, state = (litmus.read_when_full, r) if full else (litmus.write_when_empty, w)
            results["rounds"] = loop(state, address, ROUNDS, 1)

        def asleep() -> None:
            if full:
                results["lost"] = litmus.sleep_when_full(w, r, address, 32, ROUNDS, barrier)
            else:
                results["lost"] = litmus.sleep_when_empty(r, w, address, ROUNDS, barrier)

        threads = [Thread(target=awake), Thread(target=asleep)]
        for thread in threads:
            thread.start()
        threads[0].join(seconds)
        shared[litmus.STOP // 4] = 1
        for thread in threads:
            thread.join()
    return results["rounds"], results["lost"]


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    wrong = 0
    for full in (False, True):
        for barrier in (1, 0):
            rounds, lost = race(full, barrier, seconds)
            who = "writer waits for room" if full else "reader waits for packets"
            print(f"{who}, {'with' if barrier else 'without'} barrier: {lost} signals lost in {rounds} rounds")
            wrong += lost if barrier else 0
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
