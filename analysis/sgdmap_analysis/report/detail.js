// The chosen setting: its counts and its trajectories.

let shownCurves = null; // those drawn last
let curvesTicket = 0;
let curvesTimer = 0;

// Moves the choice; `now`: a click or Enter, not one step of many.
function choose(changes, now) {
  Object.assign(state.at, changes);
  moveCursor();
  drawDetail();
  announce(now);
  clearTimeout(curvesTimer);
  curvesTimer = setTimeout(drawChosen, now ? 0 : 180);
}

// What follows the chosen setting, but the map itself.
function drawChosen() {
  drawCurves();
  drawPhases();
  drawBoundary();
  markTable();
}

function announce(now) {
  const cell = settingIndex(state.at);
  const n = data.cells.n[cell], k = data.cells.k[cell];
  const words = [axisOf[state.x], axisOf[state.y]].map((axis) => settingText(axis, state.at[axis.name])).join(", ");
  $("announce").textContent = `${words}: ${n > 0 ? `${k} of ${n} converged` : "no outcome yet"}${now ? ". Its trajectories are shown" : ""}`;
}

function outcomeParts(counts, total) {
  return data.outcomes.filter((name) => counts[name] > 0).map((name) => el("span", {
    class: name === "pending" || name === "running" ? "pending" : null, title: `${name}: ${integer(counts[name])}`,
    style: { width: `${(100 * counts[name]) / total}%`, background: data.style.outcomes[name] || "#888" } }));
}

function swatch(name) {
  const waiting = name === "pending" || name === "running";
  return el("i", { class: waiting ? "swatch hatched" : "swatch", style: waiting ? {} : { background: data.style.outcomes[name] || "#888" } });
}

function drawDetail() {
  const cell = settingIndex(state.at);
  const cells = data.cells;
  const n = cells.n[cell], k = cells.k[cell];
  const counts = Object.fromEntries(data.outcomes.map((name) => [name, cells.counts[name][cell]]));
  const total = Object.values(counts).reduce((a, b) => a + b, 0);
  const parts = [el("p", { class: "kind", text: "The chosen setting" }), el("p", { class: "setting", text: settingWords(state.at).join(", ") })];
  if (n > 0) {
    const [low, high] = interval(cell);
    parts.push(el("p", { class: "big", id: "detail-count", text: `${integer(k)} of ${integer(n)}` }),
      el("p", { class: "under", text: `converged: ${number(k / n)}, ${percent(data.confidence)} Wilson interval ${low.toFixed(2)} to ${high.toFixed(2)}` }));
  } else parts.push(el("p", { class: "big", id: "detail-count", text: "–" }), el("p", { class: "under", text: "no run has an outcome yet" }));
  const words = data.outcomes.filter((name) => counts[name] > 0).map((name) => `${counts[name]} ${name}`);
  parts.push(el("div", { class: "bar", role: "img", "aria-label": words.join(", ") }, ...outcomeParts(counts, total)));
  const facts = data.outcomes.filter((name) => counts[name] > 0).map((name) => [[swatch(name), name], integer(counts[name])]);
  const add = (label, text) => facts.push([[label], text]);
  if (n > 0) {
    add("median final error", finalError(cell) === Infinity ? "infinite" : number(finalError(cell)));
    if (cells.converged_step[cell] !== null) add("steps to convergence", number(cells.converged_step[cell]));
    if (cells.diverged_step[cell] !== null) add("steps to divergence", number(cells.diverged_step[cell]));
    if (phaseOneLength(cell) !== null) add("length of phase I", `${number(phaseOneLength(cell))} steps`);
    else if (cells.phase1_length || data.phases) add("length of phase I", "phase II not reached");
    if (phase("negative_share", cell) !== null) {
      add("alignment was negative", `${percent(phase("negative_share", cell))} (${percent(phase("negative_low", cell))} to ${percent(phase("negative_high", cell))})`);
    }
    if (phase("verdict", cell)) add("phases", phase("verdict", cell));
  }
  parts.push(el("dl", {}, ...facts.flatMap(([label, text]) => [el("dt", {}, ...label), el("dd", { text })])));
  $("detail").replaceChildren(...parts);
}

// -- Trajectories -----------------------------------------------------------------------------------------------------

async function drawCurves() {
  const ticket = ++curvesTicket;
  const at = { ...state.at };
  let found = null;
  try { found = await trajectoriesOf(at); } catch (error) { if (!live) throw error; }
  if (ticket !== curvesTicket) return; // another setting was chosen meanwhile
  shownCurves = found;
  const grid = $("trajectories-grid");
  if (!found || found.fields.length === 0) {
    $("trajectories-where").textContent = data.trajectories && data.trajectories.fields.length === 0 ? "The file holds no trajectories." : "No trajectories to show.";
    grid.replaceChildren();
    grid.dataset.names = "";
    $("detail-curve").hidden = true;
    $("trajectories-note").textContent = "";
    $("trajectories-downloads").replaceChildren();
    return;
  }
  const cell = settingIndex(at);
  $("trajectories-where").textContent = found.exact ? settingWords(at).join(", ")
    : `The nearest setting of which the page holds the trajectories: ${axes.map((axis) => settingText({ ...axis, merged: null, values: [found.nearest[axis.name]] }, 0)).join(", ")}`;
  const names = found.fields.map((field) => field.name).join();
  if (grid.dataset.names !== names) {
    grid.dataset.names = names;
    grid.replaceChildren(...found.fields.map((field) => el("div", { class: "small" }, el("h3", { text: field.label }), el("div", { class: "plot" }, el("div", {})))));
  }
  const first = $("detail-curve");
  first.hidden = false;
  first.querySelector("h3").textContent = found.fields[0].label + (found.exact ? "" : ", nearest setting");
  drawCurve(first.querySelector(".plot > div"), found, found.fields[0], cell);
  found.fields.forEach((field, i) => drawCurve(grid.children[i].querySelector(".plot > div"), found, field, cell));
  const [low, high] = [found.quantiles[0], found.quantiles[2]];
  const end = phaseOneLength(cell);
  const notes = [`Median and the band from the ${percent(low)} to the ${percent(high)} quantile over the replicates. Runs that converged keep their last values, those that diverged are infinite.`];
  if (end !== null && found.exact) notes.push(`Shaded: phase I, to the median step ${number(end)}.`);
  else if (data.cells.n[cell] > 0 && found.exact) notes.push("Less than half of the runs reached phase II.");
  if (data.trajectories && data.trajectories.note) notes.push(data.trajectories.note);
  $("trajectories-note").textContent = notes.join(" ");
  downloads($("trajectories-downloads"), "trajectories", curveRows, () => found.fields.map((field, i) => {
    const node = grid.children[i].querySelector(".plot > div");
    return { ...onPaper(node, { width: 480, height: 320, margin: { l: 66, r: 16, t: 46, b: 50 }, title: { text: plotText(field.label), font: { size: 14, color: "#1c1c1c" }, x: 0.03, xanchor: "left" } }), name: field.name };
  }));
}

const SIGNED = new Set(["potential", "potential_norm", "alignment"]);

function drawCurve(node, found, field, cell) {
  const look = theme();
  const [below, middle, above] = field.values;
  const steps = found.steps;
  const positive = steps.filter((step) => step > 0);
  // Step 0 has no place on a logarithm: it stands left of the first step.
  const zero = positive.length ? positive[0] / 2.2 : 1;
  const x = steps.map((step) => (step > 0 ? step : zero));
  const last = positive.length ? positive[positive.length - 1] : 2;
  const decades = [];
  for (let e = Math.ceil(Math.log10(positive[0] || 1)); e <= Math.floor(Math.log10(last) + 1e-9); e++) decades.push(10 ** e);
  const kept = decades.filter((_, i) => i % Math.ceil(decades.length / 4) === 0);
  const ticks = { tickvals: [...(steps[0] === 0 ? [zero] : []), ...kept], ticktext: [...(steps[0] === 0 ? ["0"] : []), ...kept.map((v) => number(v))] };
  const width = widthOf(node, 205);
  const layout = { ...baseLayout(width, 230), hovermode: "x unified" };
  layout.margin = { l: 52, r: 8, t: 20, b: 40, pad: 0 };
  layout.xaxis = baseAxis({ title: "step", type: "log", range: [Math.log10(zero) - 0.05, Math.log10(last) + 0.05], ...ticks, hoverformat: ".4~g" });

  // Fields with a sign: the values themselves, or where they span magnitudes a scale that is linear around 0 only.
  let transform = (value) => value, axis = {};
  const all = [...below, ...middle, ...above].filter((value) => value !== null && Number.isFinite(value));
  if (SIGNED.has(field.name)) {
    const size = all.map(Math.abs).filter((value) => value > 0).sort((a, b) => a - b);
    const largest = size[size.length - 1] || 1, typical = size[Math.floor(size.length / 2)] || 1;
    if (largest > 60 * typical) {
      const unit = 10 ** Math.floor(Math.log10(typical));
      transform = (value) => (value === null ? null : Math.asinh(value / unit));
      const top = Math.ceil(Math.log10(largest / unit));
      const every = Math.max(1, Math.ceil(top / 3));
      const marks = [0];
      for (let e = every; e <= top; e += every) marks.push(unit * 10 ** e, -unit * 10 ** e);
      const shown = marks.filter((mark) => mark >= Math.min(0, ...all) * 1.5 && mark <= Math.max(0, ...all) * 1.5);
      axis = { tickvals: shown.map(transform), ticktext: shown.map((mark) => number(mark)) };
    }
  } else axis = { type: "log", ...logAxisTicks(all) };
  layout.yaxis = baseAxis({ ...axis, nticks: 5, zeroline: SIGNED.has(field.name), zerolinecolor: look.line, zerolinewidth: 1 });

  const end = found.exact ? phaseOneLength(cell) : null;
  if (end !== null) {
    layout.shapes = [{ type: "rect", xref: "x", yref: "paper", x0: zero / 2, x1: Math.max(end, zero), y0: 0, y1: 1, fillcolor: look.shade, line: { width: 0 }, layer: "below" }];
    layout.annotations = [];
    const span = Math.log10(last / zero), part = Math.log10(Math.max(end, zero) / zero) / span;
    if (part > 0.18) layout.annotations.push(phaseLabel("phase I", "left", 0));
    if (part < 0.78) layout.annotations.push(phaseLabel("phase II", "right", 1));
  }
  const text = steps.map((step, i) => (middle[i] === null ? "" : `step ${number(step)}: ${number(middle[i])} (${number(below[i])} to ${number(above[i])})`));
  const band = { type: "scatter", mode: "lines", x, line: { width: 0, color: look.curve }, hoverinfo: "skip" };
  const whole = (_, i) => below[i] !== null && above[i] !== null;
  const dots = middle.filter((value) => value !== null).length < 3;
  draw(node, [
    // A band with gaps would be filled across them.
    { ...band, x: x.filter(whole), y: below.filter(whole).map(transform) },
    { ...band, x: x.filter(whole), y: above.filter(whole).map(transform), fill: "tonexty", fillcolor: look.band },
    { type: "scatter", mode: dots ? "lines+markers" : "lines", x, y: middle.map(transform), line: { color: look.curve, width: 2 }, text, hovertemplate: "%{text}<extra></extra>" },
  ], { ...layout, hovermode: "closest", hoverdistance: 40 });
}

function phaseLabel(text, anchor, x) {
  return { text, xref: "paper", yref: "paper", x, y: 1, xanchor: anchor, yanchor: "bottom", showarrow: false, font: { size: 11.5, color: theme().muted } };
}

// Powers of ten, few enough to read.
function logAxisTicks(values) {
  const positive = values.filter((value) => value > 0);
  if (positive.length === 0) return {};
  let low = positive.reduce((a, b) => Math.min(a, b)), high = positive.reduce((a, b) => Math.max(a, b));
  if (high / low < 4) { const middle = Math.sqrt(low * high); low = Math.min(low, middle / 2); high = Math.max(high, middle * 2); }
  const room = 0.04 * Math.log10(high / low);
  const range = [Math.log10(low) - room, Math.log10(high) + room];
  const ends = [Math.ceil(range[0]), Math.floor(range[1])];
  let marks = [];
  const every = Math.max(1, Math.ceil((ends[1] - ends[0] + 1) / 5));
  for (let e = ends[0]; e <= ends[1]; e += every) marks.push(10 ** e);
  if (marks.length < 2) {
    marks = [];
    for (let e = Math.floor(range[0]); e <= range[1]; e++) for (const m of [1, 2, 5]) marks.push(m * 10 ** e);
    marks = marks.filter((mark) => Math.log10(mark) >= range[0] && Math.log10(mark) <= range[1]);
  }
  return { range, tickvals: marks, ticktext: marks.map((mark) => number(mark)) };
}

function curveRows() {
  const head = ["step"];
  for (const field of shownCurves.fields) for (const q of shownCurves.quantiles) head.push(`${field.name}_q${Math.round(100 * q)}`);
  return [head, ...shownCurves.steps.map((step, i) => [step, ...shownCurves.fields.flatMap((field) => field.values.map((band) => band[i]))])];
}
