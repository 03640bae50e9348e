// The map: a quantity over two axes, the other axes at the chosen setting.

const QUANTITIES = {
  probability: "Probability of convergence",
  outcome: "Most frequent outcome",
  steps: "Steps to convergence or divergence",
  final_error: "Median final error",
  phase1: "Length of phase I",
  negative: "Share of runs with a negative alignment",
  verdict: "Phases",
};

// Light to dark as training gets farther.
const VERDICTS = { "phase I only": "#f6dc86", mixed: "#b5b2ac", "two phases": "#553080", "phase II from the start": "#b99fd0" };

function quantityNames() {
  return Object.keys(QUANTITIES).filter((name) => (name === "phase1" ? data.cells.phase1_length || (data.phases && data.phases.phase1_length)
    : name === "negative" ? data.phases && data.phases.negative_share : name === "verdict" ? data.phases && data.phases.verdict : true));
}

// Values of [y][x] cells in the map.
function mapCells() {
  const x = axisOf[state.x], y = axisOf[state.y];
  const origin = settingIndex({ ...state.at, [state.x]: 0, [state.y]: 0 });
  return Array.from({ length: y.size }, (_, j) => Array.from({ length: x.size }, (_, i) => origin + i * x.stride + j * y.stride));
}

// The range of a quantity over the whole sweep, so that colours mean the same at all positions of the sliders.
function logRange(values, factor) {
  let low = Infinity, high = 0;
  for (const value of values) {
    if (value !== null && value > 0 && Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  }
  if (!(high > 0)) [low, high] = [0.1, 1];
  if (high < factor * low) { const middle = Math.sqrt(low * high), root = Math.sqrt(factor); [low, high] = [middle / root, middle * root]; }
  return [low, high];
}

function logTicks([low, high]) {
  const marks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) marks.push(10 ** e);
  const inside = marks.filter((mark) => mark >= low && mark <= high);
  let kept = inside.filter((_, i) => i % Math.ceil(inside.length / 5) === 0);
  if (kept.length < 2) {
    kept = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) kept.push(m * 10 ** e);
    kept = kept.filter((mark) => mark >= low && mark <= high);
  }
  return kept.map((mark) => [Math.log(mark / low) / Math.log(high / low), number(mark)]);
}

// A quantity ready to draw: `palette` of colours, `code(cell)` an index into it or null where there is nothing, and the key's parts.
function painter(quantity) {
  const look = data.style, cells = data.cells, ramp = look.ramps;
  const palette = [], bars = [], swatches = [];
  const addRamp = (colours, label, ticks) => { const start = palette.length; palette.push(...colours); bars.push({ start, colours, label, ticks }); return start; };
  const used = new Set(cells.most_frequent.map((i) => data.outcomes[i]));
  const lazy = {};
  const single = (name, colour) => {
    if (!(name in lazy)) { lazy[name] = palette.length; palette.push(...Array(6).fill(colour)); swatches.push({ label: name, colours: [colour], start: lazy[name] }); }
    return lazy[name];
  };
  const onRamp = (start, count, share) => start + Math.max(0, Math.min(count - 1, Math.round(share * (count - 1))));
  let code;
  if (quantity === "probability") {
    const start = addRamp(ramp.probability, "", [[0, "0"], [0.25, "0.25"], [0.5, "0.5"], [0.75, "0.75"], [1, "1"]]);
    code = (cell) => onRamp(start, 64, probability(cell));
  } else if (quantity === "outcome") {
    const start = {};
    for (const name of ["converged", "diverged", "stalled", "unfinished"]) {
      if (!used.has(name)) continue;
      start[name] = palette.length;
      const tints = data.replicates > 1 || axes.some((axis) => axis.merged) ? look.tints[name] : look.tints[name].slice(-1);
      palette.push(...tints);
      swatches.push({ label: name, colours: tints, start: start[name] });
    }
    code = (cell) => start[outcomeName(cell)] + (data.replicates > 1 || axes.some((axis) => axis.merged) ? Math.round(Math.max(0, (cells.share[cell] - 0.25) / 0.75) * 6) : 0);
  } else if (quantity === "steps") {
    const of = (name) => { const values = cells[`${name}_step`]; return values.filter((_, cell) => outcomeName(cell) === name); };
    const ranges = {}, starts = {};
    for (const name of ["converged", "diverged"]) {
      ranges[name] = logRange(of(name), 3);
      if (used.has(name)) starts[name] = addRamp(ramp[name], name === "converged" ? "steps to convergence" : "steps to divergence", logTicks(ranges[name]));
    }
    if (used.has("stalled") || used.has("unfinished")) single("neither", look.neither);
    code = (cell) => {
      const name = outcomeName(cell);
      if (!(name in ranges)) return single("neither", look.neither);
      const value = cells[`${name}_step`][cell];
      return onRamp(starts[name], 64, Math.log(Math.max(value, ranges[name][0]) / ranges[name][0]) / Math.log(ranges[name][1] / ranges[name][0]));
    };
  } else if (quantity === "final_error") {
    const range = logRange(cells.final_error, 10);
    const start = addRamp(ramp.error, "", logTicks(range));
    if (used.has("diverged")) single("diverged", look.outcomes.diverged);
    code = (cell) => {
      const value = finalError(cell);
      if (value === Infinity) return single("diverged", look.outcomes.diverged);
      return onRamp(start, 64, Math.log(Math.max(value, range[0]) / range[0]) / Math.log(range[1] / range[0]));
    };
  } else if (quantity === "phase1") {
    const values = cells.n.map((_, cell) => phaseOneLength(cell));
    const range = logRange(values, 3);
    const start = addRamp(ramp.phase, "steps", logTicks(range));
    if (values.some((value, cell) => value === null && cells.n[cell] > 0)) single("phase II not reached", look.neither);
    code = (cell) => {
      if (values[cell] === null) return single("phase II not reached", look.neither);
      return onRamp(start, 64, Math.log(Math.max(values[cell], range[0]) / range[0]) / Math.log(range[1] / range[0]));
    };
  } else if (quantity === "verdict") {
    const colour = (name) => VERDICTS[name] || (name === "diverged" ? look.outcomes.diverged : look.neither);
    const present = new Set(data.phases.verdict.filter((_, cell) => cells.n[cell] > 0));
    for (const name of ["two phases", "phase II from the start", "phase I only", "mixed", "diverged"]) if (present.has(name)) single(name, colour(name));
    code = (cell) => single(phase("verdict", cell), colour(phase("verdict", cell)));
  } else {
    const start = addRamp(ramp.phase, "", [[0, "0"], [0.5, "0.5"], [1, "1"]]);
    code = (cell) => { const value = phase("negative_share", cell); return value === null ? null : onRamp(start, 64, value); };
  }
  if (used.has("failed")) single("failed", look.outcomes.failed);
  return {
    palette, bars, swatches, waiting: used.has("pending") || used.has("running"),
    code: (cell) => (cells.n[cell] > 0 ? code(cell) : outcomeName(cell) === "failed" ? single("failed", look.outcomes.failed) : null),
  };
}

function legendParts(paint) {
  const parts = [];
  for (const bar of paint.bars) {
    const ticks = el("span", { class: "ticks" }, ...bar.ticks.map(([at, text]) => el("span", { text, style: { left: `${100 * at}%` },
      class: at < 0.03 ? "first" : at > 0.97 ? "last" : null })));
    parts.push(el("div", { class: "ramp" }, bar.label ? el("b", { text: bar.label }) : null,
      el("i", { style: { background: `linear-gradient(to right, ${bar.colours.join(", ")})` } }), ticks));
  }
  for (const swatch of paint.swatches) {
    parts.push(el("span", { class: "item" }, ...swatch.colours.map((colour) => el("i", { class: swatch.colours.length === 1 ? "only" : null, style: { background: colour } })),
      swatch.label));
  }
  if (paint.waiting) parts.push(el("span", { class: "item" }, el("span", { class: "swatch hatched" }), "not run yet"));
  return parts;
}

function mapNote(quantity) {
  const counts = data.cells.n.filter((n) => n > 0);
  if (counts.length === 0) return "No run has an outcome yet.";
  const low = counts.reduce((a, b) => Math.min(a, b)), high = counts.reduce((a, b) => Math.max(a, b));
  const runs = low === high ? plural(low, "run") : `${low} to ${high} runs`;
  const notes = [`${runs} with an outcome per cell.`];
  const merged = axes.filter((axis) => axis.merged);
  if (merged.length) notes.push(`A cell holds neighbouring settings, ${merged.map((axis) => `${Math.ceil(data.shape[axis.name] / axis.size)} values of ${axis.label}`).join(" and ")}.`);
  if (quantity === "outcome" && high > 1) notes.push("Paler where replicates disagree.");
  if (quantity === "steps" && high > 1) notes.push("Median of the runs of the most frequent outcome.");
  if (quantity === "phase1") notes.push("Median over the runs; those that never reached phase II count as longer than all others.");
  return notes.join(" ");
}

let map = null; // { cells, paint, width, ... } as drawn

function drawMap() {
  const x = axisOf[state.x], y = axisOf[state.y];
  const look = theme();
  const node = $("map-canvas");
  const cells = mapCells();
  const paint = painter(state.quantity);
  const z = cells.map((row) => row.map(paint.code));
  const count = Math.max(1, paint.palette.length);
  const scale = [];
  paint.palette.forEach((colour, i) => scale.push([i / count, colour], [(i + 1) / count, colour]));
  const width = widthOf($("map-plot"), 410);
  const narrow = width < 480;
  const height = Math.round(Math.max(250, Math.min(540, y.size <= 3 ? 200 + 60 * y.size : width * (narrow ? 0.92 : 0.72))));
  const layout = { ...baseLayout(width, height),
    // A little more than the cells, so that the mark of one at the edge is whole.
    xaxis: baseAxis({ title: x.label, range: [-0.5 - (2.5 * x.size) / width, x.size - 0.5 + (2.5 * x.size) / width], ...cellTicks(x, Math.max(2, Math.floor((width - 90) / 62))) }),
    yaxis: baseAxis({ title: y.label, range: [-0.5 - (2.5 * y.size) / height, y.size - 0.5 + (2.5 * y.size) / height], ...cellTicks(y, Math.max(2, Math.floor((height - 60) / 26))) }),
    shapes: cursorShapes(),
  };
  layout.margin = { l: narrow ? 48 : 58, r: 8, t: 6, b: 46, pad: 0 };
  const traces = [{ type: "heatmap", z, zmin: -0.5, zmax: count - 0.5, colorscale: scale.length ? scale : "Greys", showscale: false, hoverinfo: "none",
    xgap: x.size <= 40 && width / x.size > 9 ? 1 : 0, ygap: y.size <= 40 && height / y.size > 9 ? 1 : 0 }];
  traces.push(...boundaryOverMap(x, y, look));
  map = { cells, paint, x, y };
  draw(node, traces, layout).then(placeGround);
  if (!node.dataset.ready) {
    node.dataset.ready = "1";
    node.on("plotly_click", (event) => {
      const point = event.points.find((p) => p.curveNumber === 0) || event.points[0];
      choose({ [state.x]: Math.round(point.x), [state.y]: Math.round(point.y) }, true);
    });
    node.on("plotly_hover", (event) => {
      const point = event.points.find((p) => p.curveNumber === 0);
      if (point) showTip(event.event, map.cells[Math.round(point.y)][Math.round(point.x)]);
    });
    node.on("plotly_unhover", hideTip);
    node.on("plotly_afterplot", placeGround);
  }
  $("map-title").textContent = QUANTITIES[state.quantity];
  $("map-where").textContent = settingWords(state.at, varying().map((axis) => axis.name).filter((name) => name !== state.x && name !== state.y)).join(", ");
  $("map-legend").replaceChildren(...legendParts(paint), ...boundaryKey(traces));
  $("map-note").textContent = mapNote(state.quantity);
  $("map-plot").setAttribute("aria-label", `${QUANTITIES[state.quantity]} over ${x.label} and ${y.label}, ${x.size} by ${y.size} cells`);
}

// Hatching under the cells that have nothing.
function placeGround() {
  const size = $("map-canvas")._fullLayout && $("map-canvas")._fullLayout._size;
  $("map-ground").hidden = !map.paint.waiting;
  if (size) Object.assign($("map-ground").style, { left: `${size.l}px`, top: `${size.t}px`, width: `${size.w}px`, height: `${size.h}px` });
}

// Black on white: seen on every colour.
function cursorShapes() {
  const i = state.at[state.x], j = state.at[state.y];
  return [["#ffffff", 5], ["#111111", 2]].map(([color, width]) => ({ type: "rect", x0: i - 0.5, x1: i + 0.5, y0: j - 0.5, y1: j + 0.5,
    line: { color, width }, fillcolor: "rgba(0,0,0,0)" }));
}

function boundaryOverMap(x, y, look) {
  if (!state.boundary) return [];
  const entry = data.critical.find((item) => item.axis === x.name) || data.critical.find((item) => item.axis === y.name);
  if (!entry) return [];
  const along = entry.axis === x.name ? x : y, other = along === x ? y : x;
  const places = [], values = [], below = [], above = [];
  for (let j = 0; j < other.size; j++) {
    const cell = criticalIndex(entry, { ...state.at, [other.name]: j });
    const at = entry.kind[cell] === "estimated" ? cellPosition(along, entry.critical[cell]) : null;
    places.push(j);
    values.push(at);
    const clip = (value, end) => { const p = cellPosition(along, value); return p === null ? end : p; };
    below.push(at === null ? 0 : at - clip(entry.low[cell], -0.5));
    above.push(at === null ? 0 : clip(entry.high[cell], along.size - 0.5) - at);
  }
  if (values.every((value) => value === null)) return [];
  const error = { type: "data", symmetric: false, array: above, arrayminus: below, color: "#111111", thickness: 1, width: 0 };
  const flat = along === x;
  const line = { type: "scatter", mode: "lines", x: flat ? values : places, y: flat ? places : values, hoverinfo: "skip", connectgaps: false };
  // Many bars are a thicket: a band then.
  if (other.size > 40) {
    const known = places.filter((j) => values[j] !== null);
    const across = [...known.map((j) => values[j] - below[j]), ...[...known].reverse().map((j) => values[j] + above[j])], up = [...known, ...[...known].reverse()];
    return [{ ...line, x: flat ? across : up, y: flat ? up : across, line: { width: 0, color: "#111111" }, fill: "toself", fillcolor: "rgba(17, 17, 17, 0.22)" },
      { ...line, line: { color: "#ffffff", width: 3.5 }, opacity: 0.85 }, { ...line, line: { color: "#111111", width: 1.3 }, name: entry.axis }];
  }
  return [{ ...line, line: { color: "#ffffff", width: 5 }, opacity: 0.85 },
    { ...line, mode: "lines+markers", line: { color: "#111111", width: 1.6 }, marker: { color: "#111111", size: 4 },
      [flat ? "error_x" : "error_y"]: error, name: entry.axis }];
}

function boundaryKey(traces) {
  if (traces.length < 3) return [];
  const name = axisOf[traces[traces.length - 1].name].label;
  return [el("span", { class: "item" }, el("i", { class: "line" }), `critical ${name}, ${percent(data.confidence)} interval`)];
}

function moveCursor() { Plotly.relayout($("map-canvas"), { shapes: cursorShapes() }); }

// -- Hover ------------------------------------------------------------------------------------------------------------

function showTip(event, cell) {
  const tip = $("tip");
  const at = settingAt(cell);
  const names = varying().map((axis) => axis.name);
  const lines = [el("p", {}, el("b", { text: settingWords(at, names.length ? names : null).join(", ") }))];
  const n = data.cells.n[cell], k = data.cells.k[cell];
  if (n > 0) {
    const [low, high] = interval(cell);
    lines.push(el("p", { text: `${k} of ${n} converged, ${low.toFixed(2)} to ${high.toFixed(2)}` }));
  } else lines.push(el("p", { text: "no outcome yet" }));
  const counts = data.outcomes.filter((name) => data.cells.counts[name][cell] > 0).map((name) => `${data.cells.counts[name][cell]} ${name}`);
  lines.push(el("p", { class: "muted", text: counts.join(", ") }));
  const value = quantityText(cell);
  if (value) lines.push(el("p", { text: value }));
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const x = event.clientX, y = event.clientY, box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 16 + box.width > innerWidth ? x - box.width - 14 : x + 16)}px`;
  tip.style.top = `${Math.max(4, y + 16 + box.height > innerHeight ? y - box.height - 14 : y + 16)}px`;
}

function hideTip() { $("tip").hidden = true; }

function quantityText(cell) {
  if (data.cells.n[cell] === 0) return "";
  if (state.quantity === "final_error") return `median final error ${finalError(cell) === Infinity ? "infinite" : number(finalError(cell))}`;
  if (state.quantity === "steps") {
    const name = outcomeName(cell);
    return name in { converged: 1, diverged: 1 } ? `${name} at step ${number(data.cells[`${name}_step`][cell])}` : "";
  }
  if (state.quantity === "phase1") return phaseOneLength(cell) === null ? "phase II not reached" : `phase I: ${number(phaseOneLength(cell))} steps`;
  if (state.quantity === "negative") return `alignment was negative in ${percent(phase("negative_share", cell))} of the runs`;
  if (state.quantity === "verdict") return phase("verdict", cell);
  return "";
}

// -- Keyboard ---------------------------------------------------------------------------------------------------------

function mapKeys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const x = axisOf[state.x], y = axisOf[state.y];
  let i = state.at[state.x], j = state.at[state.y];
  const leap = event.shiftKey ? 5 : 1;
  if (event.key === "ArrowLeft") i -= leap;
  else if (event.key === "ArrowRight") i += leap;
  else if (event.key === "ArrowUp") j += leap;
  else if (event.key === "ArrowDown") j -= leap;
  else if (event.key === "Home") i = 0;
  else if (event.key === "End") i = x.size - 1;
  else if (event.key === "PageUp") j = y.size - 1;
  else if (event.key === "PageDown") j = 0;
  else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose({}, true); return; } else return;
  event.preventDefault();
  choose({ [state.x]: Math.max(0, Math.min(x.size - 1, i)), [state.y]: Math.max(0, Math.min(y.size - 1, j)) }, false);
}

// -- Downloads --------------------------------------------------------------------------------------------------------

function settingColumns() { return varying().length ? varying() : axes; }

function mapRows() {
  const shown = settingColumns();
  const names = [...data.outcomes];
  const extra = ["final_error", "converged_step", "diverged_step"];
  const rows = [[...shown.map((axis) => axis.name), "n", "k", "probability", "low", "high", "most_frequent", ...names,
    ...extra, "phase1_length"]];
  for (const cell of map.cells.flat()) rows.push(cellRow(cell, shown, names, extra));
  return rows;
}

function cellRow(cell, shown, names, extra) {
  const at = settingAt(cell);
  const [low, high] = interval(cell);
  return [...shown.map((axis) => axis.values[at[axis.name]]), data.cells.n[cell], data.cells.k[cell], probability(cell), low, high, outcomeName(cell),
    ...names.map((name) => data.cells.counts[name][cell]),
    ...extra.map((name) => (name === "final_error" && data.cells[name][cell] === -1 ? "inf" : data.cells[name][cell])), phaseOneLength(cell)];
}

// On paper the key is a colour bar beside the map.
function mapFigure() {
  const figure = onPaper($("map-canvas"), { plot_bgcolor: "#ececec", shapes: [], width: 760, height: 540, margin: { l: 66, r: 20, t: 56, b: 56 } });
  const { bars, swatches } = map.paint;
  const tickvals = [], ticktext = [];
  for (const bar of bars) {
    for (const [at, text] of bar.ticks) { tickvals.push(bar.start + at * (bar.colours.length - 1)); ticktext.push(bar.label ? `${text} (${bar.label})` : text); }
  }
  for (const swatch of swatches) { tickvals.push(swatch.start + Math.max(2.5, (swatch.colours.length - 1) / 2)); ticktext.push(swatch.label); }
  Object.assign(figure.data[0], { showscale: true, colorbar: { tickvals, ticktext, thickness: 14, outlinewidth: 0, tickfont: { size: 11, color: "#1c1c1c" }, len: 1 } });
  const where = $("map-where").textContent;
  figure.layout.title = { text: plotText(QUANTITIES[state.quantity] + (where ? `, ${where}` : "")), font: { size: 15, color: "#1c1c1c" }, x: 0.02, xanchor: "left" };
  return [figure];
}
