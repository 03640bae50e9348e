// What all plots share: colours of the page, axes, drawing, downloads.

let printing = false;

function theme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(name).trim();
  return { ink: get("--ink"), muted: get("--muted"), line: get("--line"), paper: get("--paper"), curve: get("--curve"), band: get("--band"),
    shade: get("--shade"), select: get("--select"), font: get("--sans"), noData: get("--no-data") };
}

// Series: told apart by lightness too. [light page, dark page]
const SERIES = [["#1d4e94", "#8fb6de"], ["#b4531f", "#f0a077"], ["#3f8f86", "#8ed4c9"], ["#8a6d1a", "#f0d585"], ["#6b4a94", "#c4abe0"],
  ["#474747", "#d4d2cc"]];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];

function isDark() { return !printing && matchMedia("(prefers-color-scheme: dark)").matches; }

function seriesColour(i) { return SERIES[i % SERIES.length][isDark() ? 1 : 0]; }

// Paper has a width that the window does not have yet when the browser asks for a print.
function widthOf(node, printed) { return printing ? printed : Math.max(200, Math.floor(node.parentElement.clientWidth)); }

function baseLayout(width, height) {
  const look = theme();
  return {
    width, height, autosize: false, showlegend: false, hovermode: "closest", dragmode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: look.font, size: 12.5, color: look.muted },
    margin: { l: 56, r: 10, t: 8, b: 44, pad: 0 },
    hoverlabel: { bgcolor: look.paper, bordercolor: look.line, font: { family: look.font, size: 12.5, color: look.ink } },
  };
}

function baseAxis(more) {
  const look = theme();
  return { showgrid: false, zeroline: false, showline: true, linecolor: look.line, linewidth: 1, ticks: "outside", ticklen: 4, tickcolor: look.line,
    tickfont: { size: 12, color: look.muted }, fixedrange: true, automargin: true, ...more,
    title: { text: (more && more.title) || "", font: { size: 12.5, color: look.ink }, standoff: 8 } };
}

const QUIET = { displayModeBar: false, displaylogo: false, responsive: false, scrollZoom: false, doubleClick: false, showTips: false };

function draw(node, traces, layout) { return Plotly.react(node, traces, layout, QUIET); }

// Ticks of an axis of cells, which stand at 0, 1, ...: positions and texts, at most `room` of them.
function cellTicks(axis, room) {
  const values = axis.values;
  const every = (list) => {
    const step = Math.max(1, Math.ceil(list.length / room));
    return list.filter((_, i) => i % step === Math.floor(((list.length - 1) % step) / 2));
  };
  const each = () => {
    const kept = every(values.map((value, i) => [i, plotText(valueText(axis, value))]));
    return { tickvals: kept.map((tick) => tick[0]), ticktext: kept.map((tick) => tick[1]) };
  };
  if (values.length <= Math.min(room, 9) || axis.scale === "ordinal" || axis.scale === "categorical") return each();
  const scaled = (value) => (axis.scale === "log" ? Math.log10(value) : value);
  const first = values[0], last = values[values.length - 1];
  let marks = [];
  if (axis.scale === "log") {
    const low = Math.ceil(Math.log10(first) - 1e-9), high = Math.floor(Math.log10(last) + 1e-9);
    for (let e = low; e <= high; e++) marks.push(10 ** e);
    if (marks.length < 2) {
      marks = [];
      for (let e = low - 1; e <= high + 1; e++) for (const m of [1, 2, 5]) marks.push(m * 10 ** e);
    }
    marks = marks.filter((mark) => mark >= first * (1 - 1e-9) && mark <= last * (1 + 1e-9));
    if (marks.length < 2) return each();
  } else {
    const raw = (last - first) / Math.min(room, 6);
    const size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw * (1 - 1e-9));
    for (let k = Math.ceil(first / step - 1e-9); k * step <= last + 1e-9 * step; k++) marks.push(Number((k * step).toPrecision(12)));
  }
  marks = every(marks);
  return { tickvals: marks.map((mark) => cellPosition(axis, mark)), ticktext: marks.map((mark) => number(mark)) };
}

// Where a value lies among the cells; null outside of them.
function cellPosition(axis, value) {
  const values = axis.values;
  const scaled = (v) => (axis.scale === "log" || (axis.scale === "ordinal" && v > 0 && values.every((w) => w > 0)) ? Math.log(v) : v);
  if (value === null || !Number.isFinite(value)) return null;
  for (let i = 0; i + 1 < values.length; i++) {
    if (value >= values[i] * (1 - 1e-9) && value <= values[i + 1] * (1 + 1e-9)) {
      return i + (scaled(value) - scaled(values[i])) / (scaled(values[i + 1]) - scaled(values[i]));
    }
  }
  return null;
}

// Buttons for the data and the picture of plots. `figure` gives { data, layout } for paper, `rows` the table.
function downloads(node, name, rows, figures) {
  const buttons = [el("span", { text: "Download" }), el("button", { type: "button", text: "CSV", "data-kind": "csv",
    "aria-label": `Download ${name} as CSV`, onclick: () => saveCsv(`${fileStem()}-${name}.csv`, rows()) })];
  for (const kind of figures ? ["png", "svg"] : []) {
    buttons.push(el("button", { type: "button", text: kind.toUpperCase(), "data-kind": kind, "aria-label": `Download ${name} as ${kind.toUpperCase()}`,
      onclick: async () => {
        const list = figures();
        for (const [index, figure] of list.entries()) {
          const url = await Plotly.toImage(figure, { format: kind, width: figure.layout.width, height: figure.layout.height, scale: kind === "png" ? 3 : 1 });
          const suffix = list.length > 1 ? `-${figure.name || index + 1}` : "";
          save(`${fileStem()}-${name}${suffix}.${kind}`, toBlob(url));
        }
      } }));
  }
  node.replaceChildren(...buttons);
}

// No fetch of a data: address, which the page's policy forbids.
function toBlob(url) {
  const [head, body] = [url.slice(5, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
  const type = head.split(";")[0];
  return new Blob([head.endsWith(";base64") ? fromBase64(body) : decodeURIComponent(body)], { type });
}

function fileStem() { return (data.file || "sweep").replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "") || "sweep"; }

// A plot as it is, on white paper.
function onPaper(node, more) {
  const layout = JSON.parse(JSON.stringify(node.layout));
  const dark = isDark();
  const repaint = (item) => {
    for (const [key, value] of Object.entries(item)) {
      if (value && typeof value === "object") repaint(value);
      else if (/color$/.test(key) && typeof value === "string" && dark) item[key] = PAPER[value] || value;
    }
  };
  const traces = JSON.parse(JSON.stringify(node.data));
  if (dark) { repaint(layout); traces.forEach(repaint); }
  return { data: traces, layout: { ...layout, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", ...more } };
}

// Colours of the dark page and what they are on paper.
const PAPER = { "#ebe9e4": "#1c1c1c", "#a8a6a0": "#5c5c5c", "#37363a": "#dedcd6", "#8fb6de": "#1d4e94", "rgba(143, 182, 222, .22)": "rgba(29, 78, 148, .18)",
  "rgba(220, 200, 140, .10)": "rgba(140, 120, 70, .10)", "#fff": "#111111", ...Object.fromEntries(SERIES.map(([light, dark]) => [dark, light])) };
