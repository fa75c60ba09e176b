"""Cells, run; and a headless Chromium, driven over the pipe that ``--remote-debugging-pipe`` opens: no library."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hvkernel.config.matrix import MatrixSpec
from hvkernel.matrix.axes import built_in_axes
from hvkernel.matrix.cell import CellRunner
from hvkernel.matrix.model import Cell

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0


class Browser:
    """One page of a browser: messages of the DevTools protocol, each JSON with a zero byte behind it."""

    def __init__(self, program: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._number = 0
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in self._pipes()]
        theirs_in, self._out, self._in, theirs_out = ends
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}',
                "bash",
                program,
                *FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            self._session = self._attach()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _attach(self) -> str:
        """Open a page and ask for its events; return its session."""
        target = self._send("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        session: str = self._send("Target.attachToTarget", {"targetId": target, "flatten": True}, None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable", {}, session)
        return session

    @staticmethod
    def _pipes() -> Iterator[int]:
        """Yield four ends; bash could not take those with numbers below 10 apart from the browser's 3 and 4."""
        for _ in range(2):
            yield from os.pipe()

    def _send(self, method: str, parameters: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser said nothing for {PATIENCE:.0f} s; waiting for {waiting_for}"
            chunk = os.read(self._in, 1 << 16)
            assert chunk, f"the browser ended; waiting for {waiting_for}"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do one thing with the page, and return what came of it."""
        return self._send(method, parameters, self._session)

    def open(self, address: str) -> None:
        """Load a page, and wait until it is there."""
        for url in ("about:blank", address):  # an address that differs behind the # alone would load nothing
            self.events.clear()
            answer = self.send("Page.navigate", url=url)
            assert "errorText" not in answer, answer
            deadline = time.monotonic() + PATIENCE
            while not self.reported("Page.loadEventFired"):
                self.events.append(self._receive(deadline, f"the load of {url}"))

    def reported(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of one kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the mouse where the first element of a selector is."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def key(self, name: str) -> None:
        """Press a key that writes nothing, as ``Tab``, or ``Enter``."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        more = {"text": "\r"} if name == "Enter" else {}
        self.send(
            "Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=codes[name], **more
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=codes[name])

    def choose(self, selector: str, text: str) -> None:
        """Choose the entry of a ``select`` by its text, as a user's hand does."""
        self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            f" const o = [...e.options].find(o => o.text === {json.dumps(text)});"
            " e.value = o.value; e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def write(self, selector: str, text: str) -> None:
        """Put the focus on a field and write into it."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", text=text)

    def close(self) -> None:
        """End the browser."""
        try:
            self._send("Browser.close", {}, None)
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._in)
            os.close(self._out)


@pytest.fixture(scope="session")
def browser(program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser with a new profile, for all tests of this directory."""
    found = Browser(program("chromium", "chromium"), tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


# cells ------------------------------------------------------------------------------------------------------------

MODULES = {"MODULES": "y", "BLK_DEV_INITRD": "y"}
"""What a kernel with modules needs besides what is built when no .config is given."""

SYMBOLS = ("HYPERV", "HYPERV_STORAGE", "SCSI", "BLK_DEV_SD")


PLUGINS = {
    "disk_size": ("64M", "3T"),
    "storvsc_version": ("host", "6.2", "6.0", "5.1", "4.2", "2.0"),
    "dvd": ("empty", "medium"),
}
"""Axes of hv_storvsc."""


def runner_of(plugins: Any = None, sample: int = 0, **changes: Any) -> CellRunner:
    axes = {name: axis.values for name, axis in built_in_axes().items()}
    given: Mapping[str, Any] = {
        "axes": {**axes, **PLUGINS},
        "config": MODULES,
        "symbols": dict.fromkeys(SYMBOLS, ("y", "m", "n")),
        **changes,
    }
    return CellRunner(MatrixSpec.model_validate(given), plugins, sample=sample)


def cell_of(runner: CellRunner, text: str, seed: int = 0) -> Cell:
    given = dict(part.split("=") for part in text.split(",")) if text else {}
    unknown = given.keys() - runner.spec.varied.keys()
    assert not unknown, unknown
    return Cell(0, tuple((name, given[name]) for name in runner.spec.varied if name in given), seed)


@pytest.fixture(scope="module")
def runner() -> CellRunner:
    return runner_of()


@pytest.fixture(scope="module")
def run(runner: CellRunner) -> Callable[..., Any]:
    """Return a function that runs a cell: ``run("arch=x86,cpus=2", seed=1)``."""
    return lambda text="", seed=0: runner.run(cell_of(runner, text, seed))


@pytest.fixture(scope="module")
def make_runner() -> Callable[..., CellRunner]:
    """Return :func:`runner_of`."""
    return runner_of


@pytest.fixture(scope="module")
def make_cell() -> Callable[..., Cell]:
    """Return :func:`cell_of`."""
    return cell_of
