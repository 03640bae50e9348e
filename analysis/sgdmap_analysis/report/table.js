// The table of settings: sorting, filtering, paging.

const ROWS_A_PAGE = 50;
let columns = [];
let rowsShown = []; // settings after filter and sort

function makeColumns() {
  const cells = data.cells;
  columns = settingColumns().map((axis) => ({ key: axis.name, names: [axis.name, axis.symbol, axis.name.replace(/_/g, "")], label: axis.label, text: typeof axis.values[0] === "string",
    value: (cell) => axis.values[Math.floor(cell / axis.stride) % axis.size], show: (value) => valueText(axis, value) }));
  const add = (key, names, label, value, show = number, text = false) => columns.push({ key, names: [key, ...names], label, value, show, text });
  add("n", ["runs"], "runs", (cell) => cells.n[cell]);
  add("k", ["converged"], "converged", (cell) => cells.k[cell]);
  add("probability", ["p"], "probability", probability);
  add("low", [], "low", (cell) => interval(cell)[0], (value) => value.toFixed(2));
  add("high", [], "high", (cell) => interval(cell)[1], (value) => value.toFixed(2));
  add("outcome", [], "most frequent", outcomeName, (value) => value, true);
  add("error", ["final_error", "finalerror"], "median error", (cell) => (cells.n[cell] ? finalError(cell) : null));
  add("steps", ["converged_step"], "steps to conv.", (cell) => cells.converged_step[cell]);
  if (cells.phase1_length || data.phases) add("phase1", ["phase1_length"], "phase I", phaseOneLength);
  if (data.phases && data.phases.negative_share) add("negative", ["negative_share"], "negative align.", (cell) => phase("negative_share", cell));
  if (data.phases && data.phases.verdict) add("verdict", [], "phases", (cell) => phase("verdict", cell), (value) => value || "–", true);
}

// A test of settings from text like 'd=10 step size > 0.01 converged'; throws a message.
function parseFilter(text) {
  const tests = [];
  const plain = (name) => name.toLowerCase().replace(/[\s_-]+/g, "");
  let rest = ` ${text.replace(/\band\b/gi, " ").replace(/,/g, " ")} `;
  rest = rest.replace(/((?:[^\s<>=!]+ ?)+?) ?(<=|>=|!=|==?|<|>|≤|≥) ?(\S+)/g, (_, before, operator, value) => {
    // The name is the longest run of words before the sign that names a column.
    const words = before.trim().split(/\s+/);
    for (let start = 0; start < words.length; start++) {
      const name = plain(words.slice(start).join(" "));
      const column = columns.find((item) => item.names.some((own) => plain(own) === name) || plain(item.label) === name);
      if (!column) continue;
      tests.push(comparison(column, operator, value));
      return ` ${words.slice(0, start).join(" ")} `;
    }
    throw new Error(`${words[words.length - 1]} is not a column; there are ${columns.map((item) => item.key.replace(/_/g, " ")).join(", ")}`);
  });
  const texts = columns.filter((column) => column.text);
  for (const word of rest.trim().split(/\s+/).filter(Boolean)) {
    const wanted = word.toLowerCase();
    tests.push((cell) => texts.some((column) => String(column.value(cell)).toLowerCase().includes(wanted)));
  }
  return (cell) => tests.every((test) => test(cell));
}

function comparison(column, operator, text) {
  if (column.text) {
    const wanted = text.toLowerCase();
    if (operator === "=" || operator === "==") return (cell) => String(column.value(cell)).toLowerCase() === wanted;
    if (operator === "!=") return (cell) => String(column.value(cell)).toLowerCase() !== wanted;
    throw new Error(`${column.label} has names, which are not less or greater`);
  }
  const wanted = column.key === "data" && text.toLowerCase() === "online" ? 0 : Number(text);
  if (text === "" || Number.isNaN(wanted)) throw new Error(`${text} is not a number`);
  const near = (value) => Math.abs(value - wanted) <= 1e-6 * Math.abs(wanted);
  const tests = { "=": near, "!=": (v) => !near(v), "<": (v) => v < wanted && !near(v), ">": (v) => v > wanted && !near(v),
    "<=": (v) => v <= wanted || near(v), ">=": (v) => v >= wanted || near(v) };
  const test = tests[{ "==": "=", "≤": "<=", "≥": ">=" }[operator] || operator];
  return (cell) => { const value = column.value(cell); return value !== null && test(value); };
}

function selectRows() {
  let test;
  try { test = parseFilter(state.filter); } catch (error) {
    $("table-count").textContent = error.message;
    $("filter").parentElement.classList.add("bad");
    return false;
  }
  $("filter").parentElement.classList.remove("bad");
  rowsShown = [];
  for (let cell = 0; cell < settingCount; cell++) if (test(cell)) rowsShown.push(cell);
  const column = columns.find((item) => item.key === state.sort.key);
  if (column) {
    const keys = new Map(rowsShown.map((cell) => [cell, column.value(cell)]));
    const sign = state.sort.down ? -1 : 1;
    // What is not known stands last either way.
    rowsShown.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (x === y) return a - b;
      if (x === null) return 1;
      if (y === null) return -1;
      return x < y ? -sign : sign;
    });
  }
  $("table-count").textContent = rowsShown.length === settingCount ? plural(settingCount, "setting") : `${integer(rowsShown.length)} of ${plural(settingCount, "setting")}`;
  return true;
}

function drawTable() {
  if (!selectRows()) return;
  const pages = Math.max(1, Math.ceil(rowsShown.length / ROWS_A_PAGE));
  state.pageAt = Math.max(0, Math.min(state.pageAt, pages - 1));
  const start = state.pageAt * ROWS_A_PAGE;
  const rows = rowsShown.slice(start, start + ROWS_A_PAGE);
  const head = el("tr", {}, ...columns.map((column) => {
    const sorted = state.sort.key === column.key;
    const cell = el("th", { scope: "col", class: column.text ? "text" : null, "aria-sort": sorted ? (state.sort.down ? "descending" : "ascending") : null },
      el("button", { type: "button", "data-key": column.key, onclick: () => sortBy(column.key) }, column.label, el("span", { class: "mark", "aria-hidden": "true", text: sorted ? (state.sort.down ? " ↓" : " ↑") : "" })));
    return cell;
  }));
  const chosen = settingIndex(state.at);
  const body = rows.map((cell, i) => el("tr", { class: cell === chosen ? "pick chosen" : "pick", "data-cell": cell, tabindex: i === 0 ? 0 : -1, "aria-selected": cell === chosen ? "true" : "false" },
    ...columns.map((column) => { const value = column.value(cell); return el("td", { class: column.text ? "text" : null, text: value === null ? "–" : column.show(value) }); })));
  $("table-box").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
  const turn = (by) => { state.pageAt += by; drawTable(); };
  $("pager").replaceChildren(...(pages > 1 ? [
    el("button", { type: "button", text: "Previous", disabled: state.pageAt === 0, onclick: () => turn(-1) }),
    el("span", { text: `${integer(start + 1)} to ${integer(Math.min(start + ROWS_A_PAGE, rowsShown.length))} of ${integer(rowsShown.length)}` }),
    el("button", { type: "button", text: "Next", disabled: state.pageAt === pages - 1, onclick: () => turn(1) })] : []));
}

function sortBy(key) {
  state.sort = { key, down: state.sort.key === key ? !state.sort.down : false };
  state.pageAt = 0;
  drawTable();
  const button = $("table-box").querySelector(`button[data-key="${CSS.escape(key)}"]`);
  if (button) button.focus();
}

function markTable() {
  const chosen = String(settingIndex(state.at));
  for (const row of $("table-box").querySelectorAll("tbody tr")) {
    row.classList.toggle("chosen", row.dataset.cell === chosen);
    row.setAttribute("aria-selected", String(row.dataset.cell === chosen));
  }
}

function pickRow(row, focusMap) {
  state.at = settingAt(Number(row.dataset.cell));
  drawControls();
  everythingChosen();
  markTable();
  announce(true);
  if (focusMap) { $("map").scrollIntoView(); $("map-plot").focus({ preventScroll: true }); }
}

function bindTable() {
  const box = $("table-box");
  box.addEventListener("click", (event) => { const row = event.target.closest("tbody tr"); if (row) pickRow(row, true); });
  box.addEventListener("keydown", (event) => {
    const row = event.target.closest("tbody tr");
    if (!row) return;
    const next = event.key === "ArrowDown" ? row.nextElementSibling : event.key === "ArrowUp" ? row.previousElementSibling : null;
    if (next) {
      event.preventDefault();
      row.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pickRow(row, true); }
  });
  let timer = 0;
  $("filter").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { state.filter = $("filter").value; state.pageAt = 0; drawTable(); }, settingCount > 20000 ? 250 : 80);
  });
  downloads($("table-downloads"), "settings", () => {
    const shown = settingColumns(), names = [...data.outcomes], extra = ["final_error", "converged_step", "diverged_step"];
    return [[...shown.map((axis) => axis.name), "n", "k", "probability", "low", "high", "most_frequent", ...names, ...extra, "phase1_length"], ...rowsShown.map((cell) => cellRow(cell, shown, names, extra))];
  }, null);
}
