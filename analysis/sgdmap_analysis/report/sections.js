// Summary, phases, boundary, failures, provenance.

function drawSummary() {
  const total = data.runs;
  const shape = varying().map((axis) => `${data.shape[axis.name]} ${plainAxis(axis, data.shape[axis.name])}`);
  if (data.replicates > 1) shape.push(plural(data.replicates, "replicate"));
  $("lede").textContent = `${plural(total, "training")}${shape.length ? `: ${shape.join(" × ")}` : ""}.` + fixedWords() + progressWords();
  const shown = data.outcomes.filter((name) => data.counts[name] > 0);
  $("outcome-bar").replaceChildren(...outcomeParts(data.counts, total));
  $("outcome-bar").setAttribute("aria-label", shown.map((name) => `${data.counts[name]} ${name}`).join(", "));
  $("outcome-key").replaceChildren(...shown.map((name) => el("li", { "data-outcome": name }, el("b", { text: integer(data.counts[name]) }),
    el("span", {}, swatch(name), `${name}, ${percent(data.counts[name] / total)}`))));
  $("summary").hidden = false;
}

const PLURALS = { dimension: "dimensions", batch_size: "batch sizes", input: "inputs", teacher_norm: "teacher norms", link: "links", step_size: "step sizes",
  init_scale: "initialization scales", gradient: "gradients", data: "sizes of the training set", teacher: "teachers", noise: "label noises", schedule: "step size schedules" };

function plainAxis(axis, count) { return count === 1 ? axis.name.replace(/_/g, " ") : PLURALS[axis.name]; }

function progressWords() {
  const left = (data.counts.pending || 0) + (data.counts.running || 0);
  return left ? ` ${percent(1 - left / data.runs)} of them are done.` : "";
}

function fixedWords() {
  const fixed = axes.filter((axis) => axis.size === 1);
  return fixed.length ? ` All with ${fixed.map((axis) => settingText(axis, 0)).join(", ")}.` : "";
}

function fillSelect(node, options, value) {
  node.replaceChildren(...options.map(([key, text]) => el("option", { value: key, text })));
  node.value = value;
}

function drawControls() {
  const quantities = quantityNames();
  if (!quantities.includes(state.quantity)) state.quantity = "probability";
  fillSelect($("quantity"), quantities.map((name) => [name, QUANTITIES[name]]), state.quantity);
  const choices = axes.filter((axis) => axis.size > 1 || axis.name === state.x || axis.name === state.y).map((axis) => [axis.name, axis.label]);
  fillSelect($("axis-x"), choices, state.x);
  fillSelect($("axis-y"), choices, state.y);
  $("show-boundary-label").hidden = !data.critical.some((entry) => entry.axis === state.x || entry.axis === state.y);
  const others = varying().filter((axis) => axis.name !== state.x && axis.name !== state.y);
  $("sliders").replaceChildren(...others.map((axis) => {
    const id = `slider-${axis.name}`;
    const value = el("span", { class: "value", text: valueText(axis, axis.values[state.at[axis.name]]) });
    const change = (index) => { state.at[axis.name] = index; value.textContent = valueText(axis, axis.values[index]); input.setAttribute("aria-valuetext", settingText(axis, index)); everythingChosen(); };
    let input;
    if (typeof axis.values[0] === "string") {
      input = el("select", { id, onchange: () => change(Number(input.value)) }, ...axis.values.map((item, i) => el("option", { value: i, text: valueText(axis, item) })));
      input.value = state.at[axis.name];
      value.hidden = true;
    } else {
      input = el("input", { id, type: "range", min: 0, max: axis.size - 1, step: 1, value: state.at[axis.name], "aria-valuetext": settingText(axis, state.at[axis.name]),
        oninput: () => change(Number(input.value)) });
    }
    return el("div", { class: "field slider" }, el("label", { for: id }, axis.label, " ", value), input);
  }));
}

// The chosen setting changed by more than a place on the map.
function everythingChosen() {
  drawMap();
  drawDetail();
  clearTimeout(curvesTimer);
  curvesTimer = setTimeout(drawChosen, 120);
}

// -- Phases -----------------------------------------------------------------------------------------------------------

const PHASE_PLOTS = [
  ["negative_share", "negative_low", "negative_high", "Share with a negative alignment", "linear"],
  ["phase1_length", "phase1_low", "phase1_high", "Length of phase I (steps)", "log"],
  ["turn_step", "turn_low", "turn_high", "Step at which alignment turns positive", "log"],
  ["decay_rate", "decay_low", "decay_high", "Decay rate of the potential g₁ (1/step)", "log"],
];

function drawPhases() {
  const own = !data.phases && data.cells.phase1_length ? { phase1_length: data.cells.phase1_length } : data.phases;
  $("phases-body").hidden = !own;
  if (!own) { $("phases-lede").textContent = "The phases are not measured here."; return; }
  $("phases-lede").textContent = "In phase I the alignment may be negative, the gradient pointing away from W*, while the potential decays; in phase II it is positive for good.";
  const verdicts = {};
  if (own.verdict) own.verdict.forEach((text, cell) => { if (data.cells.n[cell] > 0) verdicts[text] = (verdicts[text] || 0) + 1; });
  const total = Object.values(verdicts).reduce((a, b) => a + b, 0);
  $("verdicts").replaceChildren(...Object.entries(verdicts).sort((a, b) => b[1] - a[1]).map(([text, count]) => el("li", {}, el("span", { text: text || "–" }),
    el("span", { class: "track", "aria-hidden": "true" }, el("i", { style: { width: `${(100 * count) / total}%` } })), el("span", { class: "number", text: percent(count / total), title: plural(count, "setting") }))));
  const along = varying();
  if (!state.phasesAxis || !along.some((axis) => axis.name === state.phasesAxis)) state.phasesAxis = (along.find((axis) => axis.name === state.x) || along[0] || axes[0]).name;
  fillSelect($("phases-axis"), (along.length ? along : [axes[0]]).map((axis) => [axis.name, axis.label]), state.phasesAxis);
  const axis = axisOf[state.phasesAxis];
  const cut = Array.from({ length: axis.size }, (_, i) => settingIndex({ ...state.at, [axis.name]: i }));
  const plots = PHASE_PLOTS.filter(([name]) => own[name] && own[name].some((value) => Number.isFinite(value)));
  const grid = $("phases-grid");
  const names = plots.map((plot) => plot[0]).join();
  if (grid.dataset.names !== names) {
    grid.dataset.names = names;
    grid.replaceChildren(...plots.map((plot) => el("div", { class: "small" }, el("h3", { text: plot[3] }), el("div", { class: "plot" }, el("div", {})))));
  }
  const look = theme();
  plots.forEach(([name, low, high, label, scale], i) => {
    const node = grid.children[i].querySelector(".plot > div");
    const values = cut.map((cell) => own[name][cell]);
    const layout = baseLayout(widthOf(node, 205), 230);
    layout.margin = { l: 52, r: 8, t: 8, b: 44, pad: 0 };
    layout.xaxis = baseAxis({ title: axis.label, range: [-0.6, axis.size - 0.4], ...cellTicks(axis, Math.max(2, Math.floor((layout.width - 70) / 56))) });
    const shown = values.filter((value) => value !== null && Number.isFinite(value));
    const bounds = own[low] ? cut.flatMap((cell) => [own[low][cell], own[high][cell]]).filter((value) => value !== null && Number.isFinite(value) && (scale !== "log" || value > 0)) : [];
    const isLog = scale === "log" && shown.every((value) => value > 0) && shown.length > 0;
    layout.yaxis = baseAxis(name === "negative_share" ? { range: [-0.04, 1.04], tickvals: [0, 0.5, 1] } : isLog ? { type: "log", ...logAxisTicks([...shown, ...bounds]) }
      : shown.every((value) => value === 0) ? { range: [-0.06, 1.06], nticks: 3 } : { nticks: 5, rangemode: "tozero" });
    const trace = { type: "scatter", mode: "markers", x: cut.map((_, at) => at), y: values.map((value) => (Number.isFinite(value) ? value : null)), marker: { color: look.curve, size: 6 }, hovertemplate: "%{text}<extra></extra>",
      text: cut.map((cell, at) => `${plotText(settingText(axis, at))}: ${number(own[name][cell])}${own[low] ? ` (${number(own[low][cell])} to ${number(own[high][cell])})` : ""}`) };
    if (own[low]) {
      trace.error_y = { type: "data", symmetric: false, color: look.curve, thickness: 1, width: 0,
        // An upper bound at infinity leaves the plot.
        array: cut.map((cell, at) => (own[high][cell] === null || values[at] === null ? 0 : Math.min(own[high][cell], 1e3 * Math.max(...shown)) - values[at])),
        arrayminus: cut.map((cell, at) => (own[low][cell] === null || values[at] === null ? 0 : values[at] - own[low][cell])) };
    }
    layout.shapes = [{ type: "line", xref: "x", yref: "paper", x0: state.at[axis.name], x1: state.at[axis.name], y0: 0, y1: 1, line: { color: look.muted, width: 1, dash: "dot" }, layer: "below" }];
    if (shown.length === 0) {
      layout.yaxis = baseAxis({ range: [0, 1], tickvals: [] });
      layout.annotations = [{ text: "no value along this cut", xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, font: { size: 12.5, color: look.muted } }];
    }
    draw(node, [trace], layout);
  });
  const rest = varying().map((item) => item.name).filter((name) => name !== axis.name);
  const beyond = plots.some(([name]) => cut.some((cell) => own[name][cell] === Infinity));
  $("phases-note").textContent = `A cut along ${axis.label}${rest.length ? ` through ${settingWords(state.at, rest).join(", ")}` : ""}; dotted: the chosen setting.${data.phases ? ` Bars: ${percent(data.confidence)} intervals.` : ""}${beyond ? " No point: half of the runs did not get there." : ""}`;
  const columns = Object.keys(own);
  downloads($("phases-downloads"), "phases", () => [[...settingColumns().map((item) => item.name), ...columns],
    ...cut.map((cell) => [...settingColumns().map((item) => item.values[settingAt(cell)[item.name]]), ...columns.map((name) => own[name][cell])])],
  () => plots.map(([name, , , label], i) => ({ ...onPaper(grid.children[i].querySelector(".plot > div"), { width: 480, height: 320, margin: { l: 66, r: 16, t: 46, b: 54 },
    title: { text: plotText(label), font: { size: 14, color: "#1c1c1c" }, x: 0.03, xanchor: "left" } }), name })));
}

// -- Boundary ---------------------------------------------------------------------------------------------------------

function criticalIndex(entry, at) {
  let index = 0;
  for (const name of entry.axes) index = index * axisOf[name].size + at[name];
  return index;
}

function lawOf(entry, along, at) {
  const laws = entry.scaling.find((item) => item.along === along);
  if (!laws) return null;
  let index = 0;
  for (const name of laws.axes) index = index * axisOf[name].size + at[name];
  return laws.exponent[index] === null ? null : { exponent: laws.exponent[index], low: laws.low[index], high: laws.high[index], prefactor: laws.prefactor[index], points: laws.points[index], misfit: laws.misfit[index] };
}

function drawBoundary() {
  const entries = data.critical;
  $("boundary-body").hidden = entries.length === 0;
  if (entries.length === 0) { $("boundary-lede").textContent = "No axis of the sweep has enough values for a critical one."; return; }
  if (state.critical >= entries.length) state.critical = 0;
  const entry = entries[state.critical];
  const own = axisOf[entry.axis];
  const choices = entry.axes.map((name) => axisOf[name]).filter((axis) => axis.size > 1);
  $("boundary-lede").textContent = `The critical ${own.label} is that at which half of the runs converge: below it they do, above it they do not. A logistic fit, with a bootstrap interval over the replicates.`;
  fillSelect($("boundary-axis"), entries.map((item, i) => [i, axisOf[item.axis].label]), state.critical);
  if (!choices.some((axis) => axis.name === state.along)) {
    state.along = (choices.find((axis) => axis.name === "dimension") || [...choices].sort((a, b) => b.size - a.size)[0] || axisOf[entry.axes[0]]).name;
  }
  const along = axisOf[state.along];
  fillSelect($("boundary-along"), (choices.length ? choices : [along]).map((axis) => [axis.name, axis.label]), state.along);
  const lines = choices.filter((axis) => axis.name !== state.along);
  if (state.lines && !lines.some((axis) => axis.name === state.lines)) state.lines = "";
  if (state.linesUntouched !== false && !state.lines && lines.length) state.lines = [...lines].sort((a, b) => (a.size > 6) - (b.size > 6) || b.size - a.size)[0].name;
  fillSelect($("boundary-lines"), [["", "the chosen setting"], ...lines.map((axis) => [axis.name, `one for each ${axis.name === "data" ? "N" : axis.name.replace(/_/g, " ")}`])], state.lines);

  const look = theme();
  const lineAxis = state.lines ? axisOf[state.lines] : null;
  const places = lineAxis ? spread(lineAxis.size, 6) : [null];
  const numeric = typeof along.values[0] === "number" && along.scale !== "ordinal";
  const logX = numeric && along.values.every((value) => value > 0) && along.size > 1;
  const logY = own.values.every((value) => value > 0);
  const traces = [], laws = [], shown = [];
  let bounded = false;
  places.forEach((place, order) => {
    const colour = seriesColour(order);
    const at = (i) => ({ ...state.at, ...(lineAxis ? { [lineAxis.name]: place } : {}), [along.name]: i });
    const points = along.values.map((value, i) => {
      const cell = criticalIndex(entry, at(i));
      return { value, i, kind: entry.kind[cell], critical: entry.critical[cell], low: entry.low[cell], high: entry.high[cell] };
    });
    // Side by side, so that no bar hides another.
    const shift = (order - (places.length - 1) / 2) * 0.018;
    const xOf = (point) => (logX ? point.value * Math.exp(shift * 2) : numeric ? point.value : point.i + shift * 4);
    const known = points.filter((point) => point.kind === "estimated");
    const label = lineAxis ? settingText(lineAxis, place) : "";
    const law = lawOf(entry, along.name, at(0));
    laws.push({ label, colour, order, law, known: known.length });
    if (law && known.length > 1 && logX) {
      const ends = [known[0].value, known[known.length - 1].value];
      traces.push({ type: "scatter", mode: "lines", x: ends.map((value) => value * Math.exp(shift * 2)), y: ends.map((value) => law.prefactor * value ** law.exponent), line: { color: colour, width: 1.4 }, hoverinfo: "skip" });
    }
    const top = own.values[own.size - 1], bottom = own.values[0];
    traces.push({ type: "scatter", mode: "markers", x: known.map(xOf), y: known.map((point) => point.critical), marker: { color: colour, size: 8, symbol: SYMBOLS[order % SYMBOLS.length] }, name: plotText(label),
      error_y: { type: "data", symmetric: false, color: colour, thickness: 1.2, width: 0, array: known.map((point) => Math.min(point.high ?? top, top * 1.5) - point.critical), arrayminus: known.map((point) => point.critical - Math.max(point.low ?? bottom, bottom / 1.5)) },
      text: known.map((point) => `${plotText([label, settingText(along, point.i)].filter(Boolean).join(", "))}<br>critical ${plotText(own.symbol)} = ${number(point.critical)} (${number(point.low)} to ${point.high === null ? "∞" : number(point.high)})`),
      hovertemplate: "%{text}<extra></extra>" });
    for (const point of known) shown.push(point.critical, Math.max(point.low ?? bottom, bottom), Math.min(point.high ?? top, top));
    const beyond = points.filter((point) => point.kind === "all converge" || point.kind === "beyond the grid");
    if (beyond.length) {
      bounded = true;
      traces.push({ type: "scatter", mode: "markers", x: beyond.map(xOf), y: beyond.map((point) => point.low), marker: { color: colour, size: 9, symbol: "triangle-up-open" }, hovertemplate: "%{text}<extra></extra>",
        text: beyond.map((point) => `${plotText([label, settingText(along, point.i)].filter(Boolean).join(", "))}<br>above ${number(point.low)}: ${plotText(point.kind)}`) });
      for (const point of beyond) shown.push(point.low);
    }
  });
  const node = plotNode("boundary-plot");
  const width = widthOf($("boundary-plot"), 410);
  const layout = baseLayout(width, Math.round(Math.min(400, Math.max(270, width * 0.66))));
  layout.margin = { l: 60, r: 10, t: 10, b: 48, pad: 0 };
  const ticks = spread(along.size, 7);
  layout.xaxis = baseAxis({ title: along.label, ...(logX ? { type: "log" } : {}), tickvals: ticks.map((i) => (numeric ? along.values[i] : i)), ticktext: ticks.map((i) => plotText(valueText(along, along.values[i]))) });
  const yTicks = logY && shown.length ? logAxisTicks(shown) : {};
  layout.yaxis = baseAxis({ title: `critical ${own.label}`, ...(logY ? { type: "log", ...yTicks } : { nticks: 6 }) });
  if (shown.length === 0) layout.annotations = [{ text: "no setting here has a critical value", xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, font: { color: look.muted } }];
  draw(node, traces, layout);
  $("boundary-legend").replaceChildren(...laws.filter((law) => law.label).map((law) => el("span", { class: "item" }, marker(law.order, law.colour), law.label)));
  drawLaws(entry, along, laws, logX);
  const fixed = entry.axes.filter((name) => axisOf[name].size > 1 && name !== along.name && name !== state.lines);
  const notes = [];
  if (fixed.length) notes.push(`At ${settingWords(state.at, fixed).join(", ")}, as chosen on the map.`);
  if (lineAxis && places.length < lineAxis.size) notes.push(`${places.length} of ${lineAxis.size} values of ${lineAxis.label} are drawn.`);
  if (bounded) notes.push("Open triangles: the boundary lies above them, beyond the grid.");
  notes.push(`Bars: ${percent(data.confidence)} intervals.`);
  if (laws.some(({ law }) => law && law.points === 2)) notes.push("* Two points lie on a power law whatever they are.");
  if (laws.some(({ law }) => law && law.misfit)) notes.push("† The points are off a power law by more than their intervals; the exponent's is widened.");
  $("boundary-note").textContent = notes.join(" ");
  const names = entry.axes.filter((name) => axisOf[name].size > 1);
  downloads($("boundary-downloads"), "boundary", () => {
    const rows = [[...names, "kind", `critical_${entry.axis}`, "low", "high"]];
    entry.kind.forEach((kind, index) => {
      let rest = index;
      const at = {};
      for (const name of [...entry.axes].reverse()) { at[name] = rest % axisOf[name].size; rest = Math.floor(rest / axisOf[name].size); }
      rows.push([...names.map((name) => axisOf[name].values[at[name]]), kind, entry.critical[index], entry.low[index], entry.high[index]]);
    });
    return rows;
  }, () => [onPaper(node, { width: 640, height: 460, margin: { l: 70, r: 20, t: 30, b: 56 }, showlegend: Boolean(lineAxis) })]);
}

function marker(order, colour) {
  const shapes = { circle: "50%", square: "0" };
  const name = SYMBOLS[order % SYMBOLS.length];
  const rotate = name === "diamond" ? "rotate(45deg) scale(.8)" : "";
  const clip = name === "triangle-up" ? "polygon(50% 0, 100% 100%, 0 100%)" : name === "cross" ? "polygon(33% 0, 67% 0, 67% 33%, 100% 33%, 100% 67%, 67% 67%, 67% 100%, 33% 100%, 33% 67%, 0 67%, 0 33%, 33% 33%)"
    : name === "x" ? "polygon(20% 0, 50% 30%, 80% 0, 100% 20%, 70% 50%, 100% 80%, 80% 100%, 50% 70%, 20% 100%, 0 80%, 30% 50%, 0 20%)" : "";
  return el("i", { class: "only", style: { background: colour, borderRadius: shapes[name] || "0", transform: rotate, clipPath: clip } });
}

function spread(count, most) {
  if (count <= most) return Array.from({ length: count }, (_, i) => i);
  return [...new Set(Array.from({ length: most }, (_, i) => Math.round((i * (count - 1)) / (most - 1))))];
}

function drawLaws(entry, along, laws, logX) {
  const box = $("laws");
  if (!logX || !entry.scaling.some((item) => item.along === along.name)) { box.replaceChildren(); return; }
  const own = axisOf[entry.axis];
  const several = laws.length > 1;
  box.replaceChildren(el("table", {}, el("caption", { text: `Power law of the critical ${own.symbol} along ${along.symbol}` }),
    el("thead", {}, el("tr", {}, several ? el("th", { class: "text", text: axisOf[state.lines].label }) : null, el("th", { text: "exponent" }), el("th", { text: `${percent(data.confidence)} interval` }), el("th", { text: "points" }))),
    el("tbody", {}, ...laws.map(({ label, law, known }) => el("tr", {}, several ? el("td", { class: "text", text: label }) : null,
      el("td", { text: law ? law.exponent.toFixed(2).replace("-", "−") : "–" }),
      el("td", { text: law && law.low !== null ? `${law.low.toFixed(2)} to ${law.high.toFixed(2)}`.replace(/-/g, "−") : "–" }),
      el("td", { text: `${law ? law.points : known}${law && law.misfit ? " †" : law && law.points === 2 ? " *" : ""}` }))))));
}

function plotNode(id) {
  const box = $(id);
  if (!box.firstElementChild) box.append(el("div", {}));
  return box.firstElementChild;
}

// Text of the file inside of a plot, which reads some markup.
function plotText(text) { return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }

// -- Failures and provenance ------------------------------------------------------------------------------------------

function drawFailures() {
  const { count, rows } = data.failures;
  $("failures-lede").textContent = count === 0 ? "No run failed." : `${plural(count, "run")} could not be computed${rows.length < count ? `; the first ${integer(rows.length)} are listed` : ""}. They count neither for nor against convergence.`;
  if (count === 0) { $("failures-table").replaceChildren(); return; }
  const names = Object.keys(rows[0].where).filter((name) => name === "replicate" ? data.replicates > 1 : axisOf[name].size > 1);
  $("failures-table").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, el("th", { text: "run" }), ...names.map((name) => el("th", { text: name.replace(/_/g, " ") })), el("th", { class: "text", text: "message" }))),
    el("tbody", {}, ...rows.slice(0, 200).map((row) => el("tr", {}, el("td", { text: integer(row.run) }), ...names.map((name) => el("td", { text: valueText(axisOf[name] || { name }, row.where[name]) })), el("td", { class: "text wrap", text: row.message || "–" }))))));
}

function drawProvenance() {
  $("notes").replaceChildren(...data.notes.map((text) => el("li", { text })));
  const rows = [...(data.file ? [["file", data.file]] : []), ...data.provenance, ["core-hours", number(data.core_hours)], ["report", `${data.program}, ${data.generated}`]];
  $("origin").replaceChildren(...rows.flatMap(([label, text]) => [el("dt", { text: label }), el("dd", { text })]));
  $("config").textContent = data.config.trim() || "The file does not hold it.";
  $("footer").textContent = `Made by ${data.program} with plotly.js, from ${data.file ? data.file.replace(/^.*\//, "") : "a result file of sgdmap"} alone.`;
}
