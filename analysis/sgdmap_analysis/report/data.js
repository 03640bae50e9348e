// The numbers of the page: decoding, and the settings as a box of axes.

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function embedded(id) {
  const text = $(id).textContent.trim();
  return text ? gunzip(fromBase64(text)) : null;
}

let data = null; // the numbers
let axes = []; // those of the settings
let axisOf = {}; // by name
let settingCount = 0;

// What the reader chose; survives a refresh. `at` is the chosen setting, an index of each axis.
const state = { x: null, y: null, quantity: "probability", at: {}, boundary: true, phasesAxis: null, critical: 0, along: null, lines: "",
  sort: { key: null, down: false }, filter: "", pageAt: 0 };

function adopt(numbers) {
  data = numbers;
  // JSON has no infinity.
  for (const values of Object.values(data.phases || {})) values.forEach((value, i) => { if (value >= 1e300) values[i] = Infinity; });
  axes = data.axes;
  axisOf = Object.fromEntries(axes.map((axis) => [axis.name, axis]));
  let stride = 1;
  for (const axis of [...axes].reverse()) {
    axis.stride = stride;
    axis.size = axis.values.length;
    stride *= axis.size;
  }
  settingCount = stride;
}

function varying() { return axes.filter((axis) => axis.size > 1); }

function settingIndex(at) { return axes.reduce((sum, axis) => sum + axis.stride * at[axis.name], 0); }

function settingAt(index) {
  return Object.fromEntries(axes.map((axis) => [axis.name, Math.floor(index / axis.stride) % axis.size]));
}

function settingWords(at, names) {
  return axes.filter((axis) => (names ? names.includes(axis.name) : true)).map((axis) => settingText(axis, at[axis.name]));
}

// The first choice: the usual axes, and a cell at the boundary, where there is something to see.
function chooseFirst() {
  const usual = ["step_size", "init_scale", "teacher_norm", "dimension", "batch_size", "link", "input", "noise", "data", "teacher", "schedule", "gradient"]
    .filter((name) => name in axisOf);
  const size = (name) => axisOf[name].size;
  const byLength = [...usual].sort((a, b) => size(b) - size(a));
  const preferred = [...usual.slice(0, 2).filter((name) => size(name) > 1), ...byLength];
  const order = preferred.filter((name, i) => preferred.indexOf(name) === i);
  [state.x, state.y] = order;
  state.at = Object.fromEntries(axes.map((axis) => [axis.name, 0]));
  const x = axisOf[state.x], y = axisOf[state.y];
  let best = Infinity;
  const middle = { x: (x.size - 1) / 2, y: (y.size - 1) / 2 };
  const found = { x: Math.round(middle.x), y: Math.round(middle.y) };
  for (let i = 0; i < x.size; i++) {
    for (let j = 0; j < y.size; j++) {
      const cell = settingIndex({ ...state.at, [x.name]: i, [y.name]: j });
      const { n, k } = { n: data.cells.n[cell], k: data.cells.k[cell] };
      if (n === 0) continue;
      // Far from the middle costs, agreement costs more.
      const cost = Math.abs(i - middle.x) / x.size + Math.abs(j - middle.y) / y.size + (k > 0 && k < n ? 0 : k > 0 ? 0.6 : 2);
      if (cost < best) { best = cost; found.x = i; found.y = j; }
    }
  }
  state.at[x.name] = found.x;
  state.at[y.name] = found.y;
}

function interval(cell) { return data.cells.interval[`${data.cells.k[cell]}/${data.cells.n[cell]}`]; }

function probability(cell) { return data.cells.n[cell] > 0 ? data.cells.k[cell] / data.cells.n[cell] : null; }

function finalError(cell) { const value = data.cells.final_error[cell]; return value === -1 ? Infinity : value; }

function outcomeName(cell) { return data.outcomes[data.cells.most_frequent[cell]]; }

// Null where the file does not say.
function phase(name, cell) { return data.phases && data.phases[name] ? data.phases[name][cell] : null; }

function phaseOneLength(cell) {
  const measured = phase("phase1_length", cell);
  if (measured !== null) return Number.isFinite(measured) ? measured : null;
  return data.cells.phase1_length ? data.cells.phase1_length[cell] : null;
}

// -- Trajectories -----------------------------------------------------------------------------------------------------

let curves = null; // decoded from the page, when first asked for
let live = null; // { interval, file } in a page that is served
const fetched = new Map();

async function decodeCurves() {
  const header = data.trajectories;
  const bytes = await embedded("data-trajectories");
  const names = axes.map((axis) => axis.name);
  const kept = names.map((name) => header.axes[name].length);
  const settings = kept.reduce((a, b) => a * b, 1);
  const records = header.steps.length, bands = header.quantiles.length;
  const plane = bands * settings * records;
  const fields = header.fields.map((field, i) => {
    const start = 2 * plane * i;
    return { ...field, low_bytes: bytes.subarray(start, start + plane), high_bytes: bytes.subarray(start + plane, start + 2 * plane) };
  });
  return { header, kept, settings, records, bands, fields };
}

// { steps, fields: [{ name, label, values: [quantile][record] }], words } of the setting, or of the one nearest to it in the page.
async function trajectoriesOf(at) {
  if (live) {
    const key = settingIndex(at);
    const mark = data.cells.n[key];
    const known = fetched.get(key);
    if (known && known.mark === mark) return known.value;
    const answer = await fetch(`trajectories.json?setting=${key}`);
    if (!answer.ok) return null;
    const value = { ...(await answer.json()), exact: true, at };
    if (fetched.size > 200) fetched.clear();
    fetched.set(key, { mark, value });
    return value;
  }
  if (!data.trajectories || data.trajectories.fields.length === 0) return null;
  if (!curves) curves = await decodeCurves();
  const { header, kept, settings, records, bands, fields } = curves;
  let place = 0, exact = true;
  const nearest = {};
  axes.forEach((axis, i) => {
    const values = header.axes[axis.name];
    const wanted = axis.values[at[axis.name]];
    let best = 0;
    if (typeof wanted === "string") best = Math.max(0, values.indexOf(wanted));
    else {
      const scaled = (value) => (axis.scale === "log" ? Math.log(value) : value);
      values.forEach((value, j) => {
        if (Math.abs(scaled(value) - scaled(wanted)) < Math.abs(scaled(values[best]) - scaled(wanted))) best = j;
      });
    }
    if (values[best] !== wanted) exact = false;
    nearest[axis.name] = values[best];
    place = place * kept[i] + best;
  });
  const decode = (field, band) => {
    const start = (band * settings + place) * records;
    const ret = new Array(records);
    let code = 0;
    for (let r = 0; r < records; r++) {
      code = (code + field.low_bytes[start + r] + 256 * field.high_bytes[start + r]) & 0xffff;
      const scaled = field.low + ((code - 1) * (field.high - field.low)) / 65534;
      ret[r] = code === 0 ? null : field.unit === null ? 10 ** scaled : Math.sinh(scaled) * field.unit;
    }
    return ret;
  };
  return {
    steps: header.steps, quantiles: header.quantiles, exact, nearest,
    fields: fields.map((field) => ({ name: field.name, label: field.label,
      values: Array.from({ length: bands }, (_, band) => decode(field, band)) })),
  };
}
