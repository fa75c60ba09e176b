"""Run cells on a Dask cluster.

A Dask worker does not run cells in its own interpreter: each of its threads has a
:class:`~hvkernel.matrix.worker.Station` and waits for it. So a cell that kills or hangs its interpreter is found out
and recorded as on one machine, and what Dask has to care for is machines that go. A batch whose worker is gone is run
again by another.

Needs the extra ``hvkernel[distributed]``, here and on every worker.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, cast

from hvkernel import __version__
from hvkernel.config.errors import InputError
from hvkernel.matrix.model import Cell
from hvkernel.matrix.runner import EVERY, Meter, OnProgress, Progress, left_to_do, until_signal
from hvkernel.matrix.store import Row, Spec, Store
from hvkernel.matrix.worker import WATCHDOG, Factory, Station, WorkerError, cell_runner

try:
    from distributed import CancelledError, Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker
except ModuleNotFoundError:
    raise InputError("--scheduler", limit="needs Dask: pip install 'hvkernel[distributed]'") from None

__all__ = ["run_on"]

TARGET: Final = 2.0
"""Seconds of work in a batch: long against what the scheduler spends on a task (about a millisecond), short against
what is lost with a machine."""
BATCH: Final = 256
"""Most cells of a batch."""
AHEAD: Final = 2
"""Batches in flight for each thread of the cluster."""
LOST: Final = 5
"""Times that a batch may be given up by Dask, which by itself tries four workers each time."""
ANSWER: Final = 10.0
"""Seconds that a scheduler has to answer."""


def run_on(
    scheduler: str,
    spec: Spec,
    cells: Sequence[Cell],
    store: Store,
    *,
    factory: Factory = cell_runner,
    progress: OnProgress | None = None,
    watchdog: float = WATCHDOG,
    answer: float = ANSWER,
) -> Progress:
    """Run those of ``cells`` that have no result in ``store`` on a cluster; else as :func:`hvkernel.matrix.runner.run`.

    :param scheduler: its address, ``tcp://HOST:PORT``.
    :param answer: seconds that the scheduler has to answer, and to have a worker.
    :raises InputError: nobody answers at ``scheduler``, or it has no workers that could run cells.
    :raises StoreError: results cannot be written.
    :raises WorkerError: cells cannot be run, or the cluster is gone.
    """
    meter = Meter(len(cells), store, progress)
    todo = left_to_do(cells, store)
    posts = _Posts(pickle.dumps(factory), spec.to_json(), watchdog, __version__)
    with until_signal() as stop, _quiet(), _client(scheduler, posts, answer) as client:
        flight = _Flight(client, posts.name, answer)
        while not stop.signal:
            flight.fill(todo, meter.total - meter.done)
            if not flight.batches:
                break
            rows: list[Row] = []
            try:
                for future in flight.landed():
                    rows += flight.take(future)
            finally:
                meter.keep(rows, flight.threads, flight.replaced)
        client.cancel(list(flight.batches), force=True)
    return meter.close(stop.signal)


Done: TypeAlias = tuple[list[tuple[Any, ...]], float, int]
"""Rows of a batch, the seconds that it took, and how many workers were replaced."""
Answer: TypeAlias = "Future[Done]"


class _Flight:
    """Batches on their way."""

    def __init__(self, client: Client, name: str, answer: float) -> None:
        self.batches: dict[Answer, list[Cell]] = {}
        self.replaced = 0
        self._client, self._name, self._answer = client, name, answer
        self._landed: SimpleQueue[Answer] = SimpleQueue()
        self._again: deque[list[Cell]] = deque()
        self._lost: Counter[str] = Counter()
        self._seconds = 0.0
        self._cells = 0
        self._looked = 0.0
        self._heard = time.monotonic()
        self.threads = 0

    def fill(self, todo: Iterator[Cell], left: int) -> None:
        """Send batches until there are enough in flight."""
        now = time.monotonic()
        if now - self._looked >= 2.0:
            self._looked = now
            if self._client.status != "running":
                if now - self._heard > self._answer or not self.batches:
                    raise WorkerError("the scheduler is gone")
                return
            self.threads = sum(self._client.nthreads().values())
            self._heard = now
        wanted = AHEAD * max(1, self.threads)
        while len(self.batches) < wanted:
            batch = self._again.popleft() if self._again else list(islice(todo, self._size(left // wanted)))
            if not batch:
                return
            future = self._client.submit(_work, self._name, batch, pure=False)
            self.batches[future] = batch
            future.add_done_callback(self._landed.put)

    def _size(self, share: int) -> int:
        """Cells of the next batch: as many as take :data:`TARGET`, fewer towards the end, one while nobody knows."""
        known = round(TARGET * self._cells / self._seconds) if self._seconds else 1
        return max(1, min(known, share, BATCH))

    def landed(self) -> list[Answer]:
        """Those that came back since the last time, after a short wait for the first."""
        futures = []
        with suppress(Empty):
            futures.append(self._landed.get(timeout=EVERY))
            while True:
                futures.append(self._landed.get_nowait())
        return futures

    def take(self, future: Answer) -> list[Row]:
        """The rows of one that came back; sends it again if its workers are gone.

        :raises WorkerError: it cannot be run.
        """
        batch = self.batches.pop(future)
        try:
            rows, seconds, replaced = future.result(timeout=600)
        except KilledWorker as gone:
            self._lost[batch[0].key] += 1
            if self._lost[batch[0].key] >= LOST:
                raise WorkerError(f"the workers of the cluster die: {gone}") from None
            self._again.append(batch)
            return []
        except (CancelledError, OSError) as lost:  # TimeoutError is an OSError
            said = str(lost).splitlines() or [type(lost).__name__]
            raise WorkerError(f"the scheduler is gone: {said[0]}") from None
        except Exception as failed:
            raise WorkerError(f"the cluster cannot run cells: {failed}") from None
        self._seconds += seconds
        self._cells += len(rows)
        self.replaced += replaced
        return [Row(*row) for row in rows]


@contextmanager
def _client(scheduler: str, posts: _Posts, answer: float) -> Iterator[Client]:
    """A client of a cluster whose workers have their posts."""
    _check_address(scheduler)
    try:
        client = Client(scheduler, timeout=answer, set_as_default=False, name="hvkernel-matrix")
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("--scheduler", "address", scheduler, f"no Dask scheduler answers: {said}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=answer)
        except TimeoutError:
            limit = f"the scheduler has no workers (waited {answer:g} s)"
            raise InputError("--scheduler", "address", scheduler, limit) from None
        try:
            client.register_plugin(posts)
        except Exception as error:
            limit = f"its workers cannot run cells of hvkernel {__version__}: {error}"
            raise InputError("--scheduler", "address", scheduler, limit) from None
        try:
            yield client
        finally:
            # Where the cluster is gone, its posts are too.
            with suppress(Exception):
                client.unregister_worker_plugin(posts.name)


def _check_address(address: str) -> None:
    """Find out what cannot be an address before an event loop is started for it."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("tcp", "tls", "ws", "wss") or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError("--scheduler", "address", address, "must be SCHEME://HOST:PORT, as tcp://10.0.0.1:8786")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log off the terminal: what matters of it comes as an exception."""
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


# on the workers of the cluster ---------------------------------------------------------------------------------


class _Posts(WorkerPlugin):
    """The stations of one Dask worker, for one run."""

    def __init__(self, factory: bytes, spec: str, watchdog: float, version: str) -> None:
        self.name = f"hvkernel-matrix-{uuid.uuid4()}"
        self._factory, self._spec, self._watchdog, self._version = factory, spec, watchdog, version

    def setup(self, worker: Worker) -> None:
        """Called when the run begins, or when the Dask worker joins it."""
        if self._version != __version__:
            raise RuntimeError(f"{worker.address} has hvkernel {__version__}")
        self._make: Factory = pickle.loads(self._factory)
        self._idle: deque[Station] = deque()
        self._over = threading.Event()

    def teardown(self, worker: Worker) -> None:
        """Called when the run is over."""
        self._over.set()
        while self._idle:
            self._idle.pop().close()

    def run(self, batch: Sequence[Cell]) -> Done:
        """Run a batch; returns rows, the seconds that it took, and how many workers were replaced."""
        began = time.monotonic()
        try:
            station = self._idle.pop()
        except IndexError:
            station = Station(self._make, self._spec, watchdog=self._watchdog)
        rows: list[tuple[Any, ...]] = []
        before = station.replaced
        kept = False
        try:
            station.give(batch)
            while station.pending and not self._over.is_set():
                wait([station.link], min(1.0, station.patience))
                rows += map(tuple, station.collect())
            if not self._over.is_set():
                self._idle.append(station)
                kept = True
        finally:
            if not kept:
                station.close()
        return rows, time.monotonic() - began, station.replaced - before


def _work(name: str, batch: list[Cell]) -> Done:
    worker = get_worker()
    try:
        return cast(_Posts, worker.plugins[name]).run(batch)
    except Exception as error:
        raise WorkerError(f"{worker.address}: {type(error).__name__}: {error}") from None
