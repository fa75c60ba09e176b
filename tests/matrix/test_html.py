"""The page of ``hvkernel matrix --html``, looked at with a browser."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from hvkernel import __version__
from hvkernel.matrix.model import Cell, CellResult, Problem
from hvkernel.matrix.report import Report
from hvkernel.matrix.report_html import render


class Browser(Protocol):
    """The page of the fixture ``browser``."""

    def open(self, address: str) -> None: ...
    def reported(self, method: str) -> list[dict[str, Any]]: ...
    def send(self, method: str, **parameters: Any) -> dict[str, Any]: ...
    def run(self, expression: str) -> Any: ...
    def click(self, selector: str) -> None: ...
    def key(self, name: str) -> None: ...
    def choose(self, selector: str, text: str) -> None: ...
    def write(self, selector: str, text: str) -> None: ...


AXES = {
    "arch": ("x86", "arm64"),
    "page_size": ("4K", "16K", "64K"),
    "cpus": ("1", "2", "64"),
    "HYPERV_NET": ("y", "m", "n"),
}
HOSTILE = (
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 2'>",
    "<!-- <script x",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\r",
    "\u202egpj.exe \u2028 \u2029 \ufeff",
    "'\"`${window.owned = 3}` &lt;b&gt;",
    "\ud800 lone",
)


@dataclass(frozen=True)
class Why:
    values: tuple[tuple[str, str], ...]
    text: str
    replay: str
    alike: tuple[tuple[str, tuple[str, ...]], ...] = ()


def replay(cell: Cell) -> str:
    return "hvkernel matrix --cell '" + ",".join(f"{a}={v}" for a, v in cell.values) + f"' --seed {cell.seed}"


def cells(count: int, axes: dict[str, tuple[str, ...]] = AXES) -> list[Cell]:
    draw = random.Random(count)
    return [Cell(n, tuple((a, draw.choice(v)) for a, v in axes.items()), n % 7) for n in range(count)]


def result_of(cell: Cell) -> CellResult:
    """16K and 64K fail on arm64; what has 64 CPUs and no driver runs for ever; cell 5 crashes."""
    by = cell.by_axis
    if cell.number == 5:
        return CellResult(cell, "crash", "", "boot", (), ("Traceback", "IndexError: x"))
    if by["arch"] == "arm64" and by["page_size"] != "4K":
        problem = Problem("boot-rules", f"cell {cell.number} must come up and does not")
        return CellResult(
            cell, "fail", "panic", "boot", (problem,), ("hv_vmbus: first", "Kernel panic"), 15_000_000, 900
        )
    if by["cpus"] == "64" and by["HYPERV_NET"] == "n":
        return CellResult(cell, "over-budget", "hung", "drive", (), (), 9_000_000_000, 20_000_001)
    return CellResult(cell, "pass", "up", "invariants", virtual=20_000_000, steps=1000)


def shrink(result: CellResult) -> Why | None:
    if result.status == "crash":
        return None
    by = result.cell.by_axis
    names = ("arch", "page_size") if result.status == "fail" else ("cpus", "HYPERV_NET")
    values = tuple((name, by[name]) for name in names)
    return Why(values, "fails iff " + " and ".join(f"{a}={v}" for a, v in values), replay(result.cell))


def report_of(results: list[CellResult], **more: Any) -> Report:
    report = Report(AXES, planned=more.pop("planned", len(results)), replay=replay, **more)
    for result in results:
        report.add(result)
    report.explain(shrink)
    report.attribute()
    return report


@pytest.fixture
def report() -> Report:
    return report_of([result_of(cell) for cell in cells(300)], title="three hundred", planned=310)


@pytest.fixture
def page(report: Report, browser: Browser, tmp_path: Path) -> Browser:
    return show(browser, render(report), tmp_path)


def show(browser: Browser, html: str, tmp_path: Path) -> Browser:
    file = tmp_path / "matrix.html"
    file.write_text(html, "utf-8")
    browser.open(file.as_uri())
    return browser


def nothing_wrong(page: Browser) -> None:
    page.run("new Promise(done => setTimeout(done))")  # what went wrong until now is reported by then
    assert page.reported("Runtime.exceptionThrown") == []
    assert page.reported("Log.entryAdded") == []  # what the content security policy or the network refused is in here
    asked = [event["request"]["url"] for event in page.reported("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("file:")] == []
    assert len(asked) == 1


def text(page: Browser, selector: str) -> str:
    found = page.run(f"document.querySelector({selector!r}).textContent")
    assert isinstance(found, str)
    return found


def failing(results: list[CellResult], **wanted: str) -> list[CellResult]:
    return [r for r in results if r.status != "pass" and wanted.items() <= r.cell.by_axis.items()]


def test_what_the_page_says_at_first(page: Browser) -> None:
    results = [result_of(cell) for cell in cells(300)]
    bad = failing(results)
    assert text(page, "title") == f"three hundred: {len(bad)} of 300 cells failed"
    assert text(page, ".tiles li") == "300 cells run of 310"
    assert text(page, "#matching") == f"300 cells match, {len(bad)} of them failed"
    assert text(page, "#found") == f"{len(bad)} of {len(bad)}"
    assert text(page, "footer") == f"hvkernel {__version__}"
    first = next(r for r in results if r.status == "fail")
    assert text(page, ".causes tbody td") == f"boot-rules{first.problems[0].text}"
    causes = page.run("[...document.querySelectorAll('.causes tbody tr')].map(r => r.cells[1].textContent)")
    assert sorted(causes) == sorted([
        "fails iff arch=arm64 and page_size=16K",
        "fails iff arch=arm64 and page_size=64K",
        "fails iff cpus=64 and HYPERV_NET=n",
        "not shrunk",
    ])  # fmt: skip
    nothing_wrong(page)


def test_the_heat_map_counts_what_the_results_say(page: Browser) -> None:
    results = [result_of(cell) for cell in cells(300)]
    page.choose("#x", "page_size")
    page.choose("#y", "cpus")
    shown = page.run("[...document.querySelectorAll('#heat tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert shown[0] == ["cpus \\ page_size", "4K", "16K", "64K"]
    for line, cpus in zip(shown[1:], AXES["cpus"], strict=True):
        expected = []
        for size in AXES["page_size"]:
            wanted = {"page_size": size, "cpus": cpus}
            run = [r for r in results if wanted.items() <= r.cell.by_axis.items()]
            expected.append(f"{len(failing(results, **wanted))}/{len(run)}")
        assert line == [cpus, *expected]
    nothing_wrong(page)


def test_the_axes_that_a_cause_names_are_shown_first(browser: Browser, tmp_path: Path) -> None:
    report = report_of([result_of(cell) for cell in cells(40) if cell.by_axis["arch"] == "x86"])
    assert [cause.values for _, cause in report.causes] == [(("cpus", "64"), ("HYPERV_NET", "n"))]
    page = show(browser, render(report), tmp_path)
    chosen = [page.run(f"document.querySelector('#{which}').selectedOptions[0].text") for which in "xy"]
    assert chosen == ["cpus", "HYPERV_NET"]
    nothing_wrong(page)


def test_a_cell_that_took_its_interpreter_with_it(browser: Browser, tmp_path: Path) -> None:
    problem = Problem("interpreter-SIGSEGV", "killed its interpreter: SIGSEGV")
    page = show(browser, render(report_of([CellResult(cells(1)[0], "crash", "", "", (problem,))])), tmp_path)
    page.click("#list summary")
    page.run("new Promise(done => requestAnimationFrame(done))")
    assert text(page, "#list details[open] dl").startswith("endedwith its interpreterinterpreter-SIGSEGVkilled its")


def test_on_a_telephone_nothing_is_wider_than_the_screen_and_a_replay_line_has_all_of_it(page: Browser) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert page.run("innerWidth") == 390
        page.click("#list summary")
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.run("document.querySelector('.causes code').parentElement.clientWidth") > 330
    finally:
        page.send("Emulation.clearDeviceMetricsOverride")


def test_a_square_that_no_machine_fills_has_a_dash(browser: Browser, tmp_path: Path) -> None:
    report = Report(AXES, planned=9, replay=replay, possible=lambda v: v != {"arch": "x86", "page_size": "64K"})
    report.add(result_of(Cell(0, (("arch", "x86"), ("page_size", "4K"), ("cpus", "1"), ("HYPERV_NET", "y")), 0)))
    page = show(browser, render(report), tmp_path)
    squares = "[...document.querySelectorAll('#heat tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    assert page.run(squares) == [["4K", "0/1", ""], ["16K", "", ""], ["64K", "\u2013", ""]]
    page.choose("#x", "page_size")
    page.choose("#y", "arch")
    assert page.run(squares) == [["x86", "0/1", "", "\u2013"], ["arm64", "", "", ""]]
    nothing_wrong(page)


def test_a_filter_narrows_everything(page: Browser) -> None:
    results = [result_of(cell) for cell in cells(300)]
    page.choose("#only-0", "arm64")
    run = [r for r in results if r.cell.by_axis["arch"] == "arm64"]
    bad = failing(results, arch="arm64")
    assert text(page, "#matching") == f"{len(run)} cells match, {len(bad)} of them failed"
    assert text(page, "#found").startswith(f"{len(bad)} of ")
    page.choose("#status", "over-budget")
    assert text(page, "#found").startswith(f"{sum(r.status == 'over-budget' for r in bad)} of ")
    page.choose("#status", "any")
    page.write("#text", "CELL 7 MUST")
    assert text(page, "#found").startswith(f"{sum(r.cell.number == 7 for r in bad)} of ")
    assert page.run("location.hash") == "#x=arch&y=page_size&axis.arch=arm64&text=CELL+7+MUST"
    page.click("#reset")
    assert text(page, "#matching").startswith("300 cells match")
    nothing_wrong(page)


def test_a_square_a_value_and_a_cause_are_filters(page: Browser) -> None:
    results = [result_of(cell) for cell in cells(300)]
    page.click("#heat button[data-left='1'][data-right='2']")  # arm64, 64K
    bad = failing(results, arch="arm64", page_size="64K")
    assert text(page, "#found").startswith(f"{len(bad)} of ")
    assert text(page, "#heat button[aria-pressed=true]") == f"{len(bad)}/{len(bad)}"
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.click("#heat button[aria-pressed=true]")
    assert text(page, "#matching").startswith("300 cells match")
    page.click("#coverage button[data-at='2'][data-value='2']")  # 64 CPUs
    assert text(page, "#found").startswith(f"{len(failing(results, cpus='64'))} of ")
    page.click("#reset")
    page.click(".causes button[data-cause='-1']")
    assert text(page, "#found").startswith("1 of ")
    assert text(page, "#list .tag") == "crash"
    nothing_wrong(page)


def test_a_failure_opens_with_cause_log_and_replay_line(page: Browser) -> None:
    page.choose("#status", "fail")
    page.click("#list details:nth-of-type(2) summary")
    first = failing([r for r in (result_of(c) for c in cells(300)) if r.status == "fail"])[1]
    opened = "#list details[open] "
    page.run("new Promise(done => requestAnimationFrame(done))")
    assert text(page, opened + ".replay") == replay(first.cell)
    assert text(page, opened + ".log") == "hv_vmbus: first\nKernel panic"
    facts = page.run(f"[...document.querySelectorAll({opened + 'dd'!r})].map(e => e.textContent)")
    size = first.cell.by_axis["page_size"]
    assert facts == [
        "panic, in phase boot, after 1.5 s and 900 steps",
        f"cell {first.cell.number} must come up and does not",
        f"fails iff arch=arm64 and page_size={size}",
        replay(first.cell),
    ]
    nothing_wrong(page)


def test_the_keyboard_is_enough(page: Browser) -> None:
    page.run("document.querySelector('#heat button').focus()")
    page.key("ArrowDown")
    page.key("ArrowRight")
    assert page.run("[document.activeElement.dataset.left, document.activeElement.dataset.right]") == ["1", "1"]
    page.key("ArrowRight")
    assert page.run("document.activeElement.dataset.left") == "1"  # the map ends here
    page.key("Enter")
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.run("document.querySelector('#list summary').focus()")
    page.key("Enter")
    page.run("new Promise(done => requestAnimationFrame(done))")
    assert "arm64" in text(page, "#list details[open] .replay")
    # The whole page in the order of the tabulator: every control is reached, the map is one stop.
    page.run("document.activeElement.blur(); document.querySelector('.skip').focus()")
    stops = []
    for _ in range(40):
        stops.append(page.run("document.activeElement.closest('#heat')?.id || document.activeElement.id"))
        page.key("Tab")
    assert stops.count("heat") == 1
    assert {"only-0", "only-3", "reset", "x", "y"} <= set(stops)
    nothing_wrong(page)


def test_the_address_keeps_the_view(page: Browser, tmp_path: Path) -> None:
    page.open((tmp_path / "matrix.html").as_uri() + "#x=cpus&y=HYPERV_NET&axis.page_size=16K&status=fail&text=must")
    assert page.run("document.querySelector('#only-1').selectedOptions[0].text") == "16K"
    assert page.run("document.querySelector('#x').selectedOptions[0].text") == "cpus"
    bad = [r for r in failing([result_of(c) for c in cells(300)], page_size="16K") if r.status == "fail"]
    assert text(page, "#found").startswith(f"{len(bad)} of ")
    page.run("location.hash = '#axis.page_size=bogus&x=bogus&cause=99&status=x'")
    page.run("new Promise(done => setTimeout(done))")
    assert text(page, "#matching").startswith("300 cells match")
    nothing_wrong(page)


def test_hostile_text_is_inert(browser: Browser, tmp_path: Path) -> None:
    axes = {HOSTILE[0]: ("y", HOSTILE[1]), "b": (HOSTILE[6], "n")}
    cell = Cell(1, ((HOSTILE[0], HOSTILE[1]), ("b", HOSTILE[6])), 2**64 - 1)
    problems = tuple(Problem(one, one) for one in HOSTILE)
    report = Report(axes, planned=1, replay=lambda _: HOSTILE[0] + HOSTILE[4], title=HOSTILE[0] + HOSTILE[5])
    report.add(CellResult(cell, "fail", HOSTILE[1], HOSTILE[0], problems, HOSTILE))
    report.explain(lambda _: Why(cell.values, "fails iff " + HOSTILE[0], HOSTILE[1]))
    report.attribute()
    html = render(report)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ufeff\ud800-\udfff]", html)
    page = show(browser, html, tmp_path)
    nothing_wrong(page)
    page.click("#list summary")
    page.click("#coverage button[data-value='1']")
    page.click(".causes button")
    page.click("#list summary")
    page.run("new Promise(done => requestAnimationFrame(done))")
    assert page.run("window.owned") is None
    assert page.run("document.scripts.length") == 2
    assert page.run("document.images.length") == 0
    assert page.run("document.querySelector('title').textContent").startswith(HOSTILE[0] + "\\u202egpj")
    log = page.run("document.querySelector('#list details[open] .log').textContent").split("\n")
    assert log[:4] == list(HOSTILE[:4])
    assert log[4] == r"\x1b[2J\x1b]0;owned\x07\x9b31m\x00\r"
    assert log[5] == r"\u202egpj.exe \u2028 \u2029 \ufeff"
    assert log[6:] == [HOSTILE[6], r"\ud800 lone"]
    assert "seed 18446744073709551615" in text(page, "#list summary")
    nothing_wrong(page)


def test_no_other_script_can_run_in_the_page(page: Browser) -> None:
    page.run(
        "(() => { const s = document.createElement('script'); s.text = 'window.owned = 1'; document.body.append(s);"
        " const i = document.createElement('img'); i.src = 'https://example.invalid/x.png';"
        " document.body.append(i); })()"
    )
    page.run("new Promise(done => setTimeout(done, 50))")
    assert page.run("window.owned") is None
    refused = " ".join(entry["entry"]["text"] for entry in page.reported("Log.entryAdded"))
    assert "script-src" in refused
    assert "https://example.invalid/x.png" in refused


def test_without_a_script_the_causes_are_there(page: Browser, tmp_path: Path) -> None:
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open((tmp_path / "matrix.html").as_uri())
        assert "need JavaScript" in text(page, "noscript")
        assert "fails iff cpus=64 and HYPERV_NET=n" in text(page, ".causes")
        shown = page.run("[...document.querySelectorAll('section')].map(e => e.checkVisibility())")
        assert shown == [True, False, False, False, False, False]
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)


def test_light_and_dark(page: Browser) -> None:
    """Text on its ground has WCAG 2.2's contrast (1.4.3), 4.5 to 1, and edges of controls that of 1.4.11, 3 to 1."""
    contrast = """
    (() => {
      const light = (text) => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (c !== 'rgba(0, 0, 0, 0)') return c; } };
      const ratioOf = (one, other) => { const [a, b] = [light(one), light(other)].sort((x, y) => x - y);
        return (b + 0.05) / (a + 0.05); };
      let edge = 99;
      for (const e of document.querySelectorAll('select, input, button:not(#heat *)')) {
        if (!e.checkVisibility()) continue;
        edge = Math.min(edge, ratioOf(getComputedStyle(e).borderTopColor, ground(e.parentElement)));
      }
      let least = 99, where = '';
      for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
        const ratio = ratioOf(getComputedStyle(e).color, ground(e));
        if (ratio < least) { least = ratio; where = e.tagName + '.' + e.className; }
      }
      return [getComputedStyle(document.body).backgroundColor, least, where, edge];
    })()"""
    seen = []
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        ground, least, where, edge = page.run(contrast)
        seen.append(ground)
        assert least >= 4.5, (scheme, least, where)
        assert edge >= 3, (scheme, edge)
    page.send("Emulation.setEmulatedMedia", features=[])
    assert seen[0] != seen[1]


def test_a_hundred_thousand_cells(browser: Browser, tmp_path: Path) -> None:
    axes = {f"axis{n}": tuple(f"v{m}" for m in range(2 + n % 4)) for n in range(16)}
    report = Report(axes, planned=100_000, replay=replay)
    for cell in cells(100_000, axes):
        bad = cell.by_axis["axis1"] == "v2" and cell.number % 3 == 0
        report.add(
            CellResult(cell, "fail", "panic", "boot", (Problem("x", "y"),), ("log",))
            if bad
            else CellResult(cell, "pass", "up", "invariants")
        )
    html = render(report)
    assert len(html) < 8_000_000
    page = show(browser, html, tmp_path)
    assert text(page, "#matching") == f"100,000 cells match, {report.failed:,} of them failed"
    assert text(page, "#found") == f"1,000 of 1,000; {report.failed - 1000:,} more are only counted"
    assert page.run("document.querySelectorAll('*').length") < 5000  # what is shown stays small
    page.choose("#only-1", "v2")
    v2 = sum(cell.by_axis["axis1"] == "v2" for cell in cells(100_000, axes))
    assert text(page, "#matching") == f"{v2:,} cells match, {report.failed:,} of them failed"
    nothing_wrong(page)


def test_nothing_failed_and_nothing_ran(browser: Browser, tmp_path: Path) -> None:
    cell = Cell(0, (("arch", "x86"),), 0)
    green = Report({"arch": ("x86",)}, planned=1, replay=replay)
    green.add(CellResult(cell, "pass", "up", "invariants"))
    page = show(browser, render(green), tmp_path)
    assert text(page, ".good") == "Every cell that ran passed."
    assert text(page, "#heat button") == "0/1"  # one axis, on both sides
    nothing_wrong(page)
    page = show(browser, render(Report({}, planned=7, replay=replay)), tmp_path)
    assert text(page, ".tiles li") == "0 cells run of 7"
    nothing_wrong(page)


def test_the_same_results_give_the_same_bytes(report: Report) -> None:
    again = report_of([result_of(cell) for cell in cells(300)], title="three hundred", planned=310)
    assert render(again) == render(report)
