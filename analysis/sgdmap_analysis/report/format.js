// Elements, numbers as text, files to download.

function $(id) { return document.getElementById(id); }

// An element; text is always set as text, never as markup.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function power(exponent) { return "10" + String(exponent).replace(/./g, (c) => SUPERSCRIPTS[c]); }

// '0.05', '20,000', '10⁻⁴', '3.2×10⁻⁵': three significant digits.
function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "string") return value.replace(/_/g, " ");
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e6) {
    const text = size >= 1000 ? Math.round(size).toLocaleString("en-US") : String(Number(size.toPrecision(digits)));
    return (value < 0 ? "−" : "") + text;
  }
  let [mantissa, exponent] = size.toExponential(digits - 1).split("e");
  mantissa = String(Number(mantissa));
  return (value < 0 ? "−" : "") + (mantissa === "1" ? "" : mantissa + "×") + power(Number(exponent));
}

function integer(value) { return value.toLocaleString("en-US"); }

function percent(share) {
  if (!Number.isFinite(share)) return "–";
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return String(Number((100 * share).toPrecision(share >= 0.1 ? 3 : 2))) + " %";
}

function plural(count, one, many = one + "s") { return `${integer(count)} ${count === 1 ? one : many}`; }

// Names of inputs and teachers.
const NAMES = { gaussian: "Gaussian", sphere: "sphere", student_t: "Student t₅", laplace: "Laplace", uniform: "uniform",
  rademacher: "Rademacher" };

function valueText(axis, value) {
  if (axis.name === "data" && value === 0) return "online";
  if (axis.name === "input" || axis.name === "teacher") return NAMES[value] || number(value);
  return number(value);
}

// 'd = 10', 'identity link', 'online data', 'η = 0.01 to 0.02' where values were merged.
function settingText(axis, index) {
  const value = axis.values[index];
  if (axis.name === "link") return value === "none" ? "no link" : `${value} link`;
  if (axis.name === "input") return `${valueText(axis, value)} input`;
  if (["gradient", "teacher", "schedule"].includes(axis.name)) return `${valueText(axis, value).replace(/ /g, "-")} ${axis.name}`;
  if (axis.merged && axis.merged[index][0] !== axis.merged[index][1]) {
    return `${axis.symbol} = ${axis.merged[index].map((end) => valueText(axis, end)).join(" to ")}`;
  }
  if (axis.name === "data" && value === 0) return "online data";
  if (axis.name === "batch_size" && value === 0) return "no minibatch";
  return `${axis.symbol} = ${valueText(axis, value)}`;
}

function csv(rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function saveCsv(name, rows) { save(name, new Blob(["\ufeff", csv(rows)], { type: "text/csv" })); }
