"""The page of cells that really ran, held against their store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from hvkernel.config.matrix import Budget, change_spec, default_spec
from hvkernel.matrix.job import open_job
from hvkernel.matrix.report_html import render
from hvkernel.matrix.store import Store


class Browser(Protocol):
    """What is used here of the fixture ``browser``."""

    def open(self, address: str) -> None: ...
    def reported(self, method: str) -> list[dict[str, Any]]: ...
    def run(self, expression: str) -> Any: ...
    def click(self, selector: str) -> None: ...
    def choose(self, selector: str, text: str) -> None: ...


def test_all_axes_that_are_modelled_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    changes = {"cover": 30, "seeds": [3], "budget": Budget(steps=3000).model_dump()}
    job = open_job(change_spec(default_spec(), changes, where="the test"))
    with Store(tmp_path / "results.sqlite", job.spec) as store:
        job.run(store, jobs=1)
        report = job.report(store)
        assert job.explain(report, limit=1) == 0
        report.attribute(store.failures())
        results = list(store.results())
    failed = [result for result in results if result.status != "pass"]
    assert len(results) == 30
    assert 0 < len(failed) < 30, "some guests take more than 3000 steps, some do not come up at all and take fewer"
    page = tmp_path / "page.html"
    page.write_text(render(report), "utf-8")
    browser.open(page.as_uri())
    assert (
        browser.run("document.querySelector('#matching').textContent")
        == f"30 cells match, {len(failed)} of them failed"
    )
    axes = list(job.spec.varied)
    browser.choose("#x", "host")
    browser.choose("#y", "memory")
    shown = browser.run(
        "[...document.querySelectorAll('#heat tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    for line, memory in zip(shown, job.spec.varied["memory"], strict=True):
        for text, host in zip(line[1:], job.spec.varied["host"], strict=True):
            inside = [r for r in results if r.cell.by_axis["host"] == host and r.cell.by_axis["memory"] == memory]
            bad = sum(r.status != "pass" for r in inside)
            possible = job.legal.allows({"host": host, "memory": memory})
            assert text == (f"{bad}/{len(inside)}" if inside else "" if possible else "\u2013")
    browser.choose(f"#only-{axes.index('arch')}", failed[0].cell.by_axis["arch"])
    browser.click("#list summary")
    browser.run("new Promise(done => requestAnimationFrame(done))")
    log = browser.run("document.querySelector('#list details[open] .log').textContent")
    assert log == "\n".join(failed[0].dmesg)
    assert browser.run("document.querySelector('#list details[open] .replay').textContent") == job.replay_of(
        failed[0].cell
    )
    assert browser.reported("Runtime.exceptionThrown") == []
    assert browser.reported("Log.entryAdded") == []
