"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PASS = 0, PAGE = 50, ROWS = 100;
  const rows = data.counts[PASS].length;
  const byId = (id) => document.getElementById(id);
  const format = (number) => number.toLocaleString("en");
  const indexOf = (name) => data.axes.findIndex((axis) => axis.name === name);
  // What a cause names is looked at first.
  const [first, second] = [...data.telling.map(indexOf), ...data.axes.keys()].filter((at, place, all) => at >= 0 && all.indexOf(at) === place);
  const state = { x: first || 0, y: second === undefined ? 0 : second, only: data.axes.map(() => -1),
    status: "", cause: "", text: "", shown: PAGE, shownRows: ROWS };

  // Text only, ever: what a guest wrote must not become markup.
  function make(tag, options, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(options || {})) {
      if (key === "class") element.className = value;
      else element.setAttribute(key, value);
    }
    for (const child of children) element.append(child);
    return element;
  }
  const valueOf = (axis, number) => number < 0 ? "\u2013" : data.axes[axis].values[number];
  const totals = data.counts[PASS].map((_, row) => data.counts.reduce((sum, column) => sum + column[row], 0));
  const failed = (row) => totals[row] - data.counts[PASS][row];

  const never = new Set(data.impossible.map((four) => four.join(" ")));
  const isNever = (x, y, left, right) => never.has(x < y ? [x, y, left, right].join(" ") : [y, x, right, left].join(" "));

  // The filters live in the address after the #, so that a view can be kept and sent.
  function load() {
    const given = new URLSearchParams(location.hash.slice(1));
    const axis = (key, otherwise) => { const at = indexOf(given.get(key)); return at < 0 ? otherwise : at; };
    state.x = axis("x", state.x);
    state.y = axis("y", state.y);
    data.axes.forEach((one, at) => { state.only[at] = one.values.indexOf(given.get("axis." + one.name)); });
    state.status = data.statuses.includes(given.get("status")) ? given.get("status") : "";
    const cause = given.get("cause");
    state.cause = cause === "-1" || data.causes[Number(cause)] !== undefined && cause ? cause : "";
    state.text = given.get("text") || "";
  }
  function save() {
    const kept = new URLSearchParams();
    if (data.axes.length) { kept.set("x", data.axes[state.x].name); kept.set("y", data.axes[state.y].name); }
    state.only.forEach((value, at) => { if (value >= 0) kept.set("axis." + data.axes[at].name, data.axes[at].values[value]); });
    for (const key of ["status", "cause", "text"]) if (state[key]) kept.set(key, state[key]);
    history.replaceState(null, "", "#" + kept);
  }

  function matchingRows(except) {
    const wanted = state.only.map((value, at) => [data.columns[at], value])
      .filter(([, value], at) => value >= 0 && !(except || []).includes(at));
    const found = [];
    for (let row = 0; row < rows; row++) {
      if (wanted.every(([column, value]) => column[row] === value)) found.push(row);
    }
    return found;
  }

  function setOnly(axis, value) {
    state.only[axis] = value;
    state.shown = PAGE;
    state.shownRows = ROWS;
  }

  function options(select, names, chosen) {
    select.replaceChildren(...names.map(([value, text]) => make("option", { value }, text)));
    select.value = chosen;
  }

  function prepare() {
    data.axes.forEach((axis, at) => {
      const select = make("select", { "data-axis": at, id: "only-" + at });
      options(select, [[-1, "any"], ...axis.values.map((value, number) => [number, value])], state.only[at]);
      byId("filters").append(make("label", {}, axis.name + " ", select));
    });
    const names = data.axes.map((axis, at) => [at, axis.name]);
    options(byId("x"), names, state.x);
    options(byId("y"), names, state.y);
    options(byId("status"), [["", "any"], ...data.statuses.slice(1).map((status) => [status, status])], state.status);
    options(byId("cause"), [["", "any"], ...data.causes.map((text, at) => [at, text]), [-1, "not shrunk"]], state.cause);
    byId("text").value = state.text;
  }

  function tally(matching, keyOf) {
    const counts = new Map();
    for (const row of matching) {
      const key = keyOf(row);
      const one = counts.get(key) || { run: 0, failed: 0 };
      one.run += totals[row];
      one.failed += failed(row);
      counts.set(key, one);
    }
    return counts;
  }
  const shade = (one) => "h" + (one.failed === 0 ? 0 : Math.min(4, 1 + Math.floor(4 * one.failed / one.run)));

  // The values of an axis, and "none" if there are cells that do not have the axis.
  function labels(axis, matching) {
    const found = data.axes[axis].values.map((_, number) => number);
    return matching.some((row) => data.columns[axis][row] < 0) ? [...found, -1] : found;
  }

  function drawHeat() {
    const { x, y } = state;
    const table = byId("heat");
    if (!data.axes.length) return;
    // The two axes' own filters mark a square; they do not empty the others.
    const matching = matchingRows([x, y]);
    const counts = tally(matching, (row) => data.columns[x][row] + " " + data.columns[y][row]);
    const across = labels(x, matching), down = labels(y, matching);
    const head = make("tr", {}, make("th", { scope: "col" }, data.axes[y].name + " \\ " + data.axes[x].name),
      ...across.map((number) => make("th", { scope: "col" }, valueOf(x, number))));
    const body = down.map((right) => make("tr", {}, make("th", { scope: "row" }, valueOf(y, right)),
      ...across.map((left) => {
        const one = counts.get(left + " " + right);
        if (!one) return isNever(x, y, left, right) ? make("td", { class: "never", title: "impossible" }, "\u2013") : make("td", {});
        const name = `${data.axes[x].name}=${valueOf(x, left)}, ${data.axes[y].name}=${valueOf(y, right)}: `
          + `${one.failed} of ${one.run} cells failed`;
        const pressed = state.only[x] === left && state.only[y] === right && left >= 0 && right >= 0;
        return make("td", {}, make("button", { type: "button", class: shade(one), "data-left": left, "data-right": right,
          "aria-label": name, title: name, "aria-pressed": pressed, tabindex: -1 },
        `${format(one.failed)}/${format(one.run)}`));
      })));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
    const first = table.querySelector("button");
    if (first) first.tabIndex = 0;
  }

  function drawCoverage() {
    const lines = data.axes.map((axis, at) => {
      const matching = matchingRows([at]);
      const counts = tally(matching, (row) => data.columns[at][row]);
      const buttons = labels(at, matching).map((number) => {
        const one = counts.get(number) || { run: 0, failed: 0 };
        const style = one.run ? shade(one) : "none";
        return make("button", { type: "button", class: style, "data-at": at, "data-value": number,
          "aria-pressed": number >= 0 && state.only[at] === number,
          title: `${one.failed} of ${one.run} cells failed` },
        `${valueOf(at, number)}: ${one.run ? format(one.failed) + "/" + format(one.run) : "no cell"}`);
      });
      return make("tr", {}, make("th", { scope: "row" }, axis.name), make("td", {}, ...buttons));
    });
    byId("coverage").replaceChildren(make("tbody", {}, ...lines));
  }

  const cellName = (row) => data.axes.map((axis, at) => [axis, data.columns[at][row]])
    .filter(([, number]) => number >= 0).map(([axis, number]) => `${axis.name}=${axis.values[number]}`).join(" ");

  function open(details, one) {
    if (details.childElementCount > 1) return;
    const list = make("dl", {});
    const add = (term, text) => list.append(make("dt", {}, term), make("dd", {}, text));
    add("ended", one.phase ? `${one.outcome || "nowhere"}, in phase ${one.phase}, after ${one.seconds} s and ${format(one.steps)} steps`
      : "with its interpreter");
    for (const [invariant, text] of one.problems) add(invariant, text);
    add("cause", one.cause < 0 ? "not shrunk" : data.causes[one.cause]);
    const replay = make("code", { class: "replay" }, one.replay);
    add("replay", replay);
    details.append(list, one.log.length ? make("pre", { class: "log", tabindex: 0 }, one.log.join("\n")) : "no log");
  }

  function drawFailures(matching) {
    const inside = new Set(matching);
    const text = state.text.toLowerCase();
    const found = data.failures.filter((one) => inside.has(one.row) && (!state.status || one.status === state.status)
      && (state.cause === "" || one.cause === Number(state.cause))
      && (!text || [one.kind, ...one.problems.flat(), ...one.log].some((line) => line.toLowerCase().includes(text))));
    byId("found").textContent = `${format(found.length)} of ${format(data.failures.length)}`
      + (data.omitted ? `; ${format(data.omitted)} more are only counted` : "");
    byId("list").replaceChildren(...found.slice(0, state.shown).map((one) => {
      const what = one.problems.length ? `${one.problems[0][0]}: ${one.problems[0][1]}` : one.status;
      const details = make("details", {}, make("summary", {}, make("span", { class: "tag" }, one.status),
        ` ${what} `, make("span", { class: "note" }, `cell ${one.number}, seed ${one.seed}: ${cellName(one.row)}`)));
      details.addEventListener("toggle", () => open(details, one));
      return details;
    }));
    if (!found.length) byId("list").append(make("p", { class: "none" }, "None."));
    byId("more").hidden = found.length <= state.shown;
  }

  function drawRows(matching) {
    const sorted = [...matching].sort((one, other) => failed(other) - failed(one) || one - other);
    const head = make("tr", {}, make("th", { scope: "col" }, "failed/run"),
      ...data.axes.map((axis) => make("th", { scope: "col" }, axis.name)));
    const body = sorted.slice(0, state.shownRows).map((row) => make("tr", {},
      make("td", { class: "number " + shade({ failed: failed(row), run: totals[row] }) },
        `${format(failed(row))}/${format(totals[row])}`),
      ...data.axes.map((_, at) => make("td", {}, valueOf(at, data.columns[at][row])))));
    byId("rows").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
    byId("more-rows").hidden = sorted.length <= state.shownRows;
  }

  function draw() {
    const matching = matchingRows();
    const run = matching.reduce((sum, row) => sum + totals[row], 0);
    const bad = matching.reduce((sum, row) => sum + failed(row), 0);
    byId("matching").textContent = `${format(run)} cells match, ${format(bad)} of them failed`;
    state.only.forEach((value, at) => {
      const select = byId("only-" + at);
      select.value = value;
      select.classList.toggle("set", value >= 0);
    });
    byId("x").value = state.x;
    byId("y").value = state.y;
    byId("status").value = state.status;
    byId("cause").value = state.cause;
    drawHeat();
    drawCoverage();
    drawFailures(matching);
    drawRows(matching);
    save();
  }

  // A redrawn square or value keeps the focus, or a keyboard's user would start over at the top.
  function keepingFocus(selector) {
    draw();
    const again = document.querySelector(selector);
    if (again) again.focus();
  }

  function heatSelector(button) {
    return `#heat button[data-left="${button.dataset.left}"][data-right="${button.dataset.right}"]`;
  }

  byId("filters").addEventListener("change", (event) => {
    setOnly(Number(event.target.dataset.axis), Number(event.target.value));
    draw();
  });
  for (const which of ["x", "y"]) {
    byId(which).addEventListener("change", (event) => { state[which] = Number(event.target.value); draw(); });
  }
  for (const which of ["status", "cause"]) {
    byId(which).addEventListener("change", (event) => { state[which] = event.target.value; state.shown = PAGE; draw(); });
  }
  byId("text").addEventListener("input", (event) => { state.text = event.target.value; state.shown = PAGE; draw(); });
  byId("reset").addEventListener("click", () => {
    data.axes.forEach((_, at) => setOnly(at, -1));
    state.status = state.cause = state.text = byId("text").value = "";
    draw();
  });
  byId("more").addEventListener("click", () => { state.shown += PAGE; draw(); });
  byId("more-rows").addEventListener("click", () => { state.shownRows += ROWS; draw(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.cause !== undefined) {
      state.cause = button.dataset.cause;
      state.shown = PAGE;
      draw();
      byId("failures").focus();
      byId("failures").scrollIntoView();
    } else if (button.dataset.left !== undefined) {
      const again = button.getAttribute("aria-pressed") === "true";
      setOnly(state.x, again ? -1 : Number(button.dataset.left));
      setOnly(state.y, again ? -1 : Number(button.dataset.right));
      keepingFocus(heatSelector(button));
    } else if (button.dataset.at !== undefined) {
      const again = button.getAttribute("aria-pressed") === "true";
      setOnly(Number(button.dataset.at), again ? -1 : Number(button.dataset.value));
      keepingFocus(`#coverage button[data-at="${button.dataset.at}"][data-value="${button.dataset.value}"]`);
    }
  });
  // Arrows walk over the squares; the map is one stop of the tabulator.
  byId("heat").addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step || event.target.tagName !== "BUTTON") return;
    event.preventDefault();
    let row = event.target.closest("tr").rowIndex, column = event.target.closest("td").cellIndex;
    const table = byId("heat");
    for (;;) {
      row += step[0];
      column += step[1];
      const place = table.rows[row] && row > 0 && column > 0 ? table.rows[row].cells[column] : undefined;
      if (!place) return;
      const next = place.querySelector("button");
      if (!next) continue;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      return;
    }
  });
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return; // a jump inside the page
    load();
    byId("text").value = state.text;
    draw();
  });

  document.documentElement.classList.add("running"); // what only a script fills is hidden without one
  load();
  prepare();
  draw();
})();
