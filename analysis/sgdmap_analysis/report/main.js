// Start, refresh, themes and print.

async function loadPlotly() {
  const source = new TextDecoder().decode(await embedded("data-plotly"));
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  if (!window.Plotly) throw new Error("plotly.js did not start");
}

function say(text, trouble) {
  $("waiting").textContent = text;
  $("waiting").classList.toggle("trouble", Boolean(trouble));
  $("waiting").hidden = !text;
}

function drawAll() {
  drawControls();
  drawMap();
  drawDetail();
  drawChosen();
}

let started = false;

function show(numbers) {
  adopt(numbers);
  if (!started) chooseFirst();
  document.title = data.title || "sgdmap";
  $("title").textContent = data.title || "A sweep without a title";
  $("content").hidden = false;
  $("contents").hidden = false;
  say("");
  drawSummary();
  makeColumns();
  drawTable();
  drawFailures();
  drawProvenance();
  drawAll();
  if (!started) bind();
  started = true;
}

function bind() {
  const redraw = (change) => (event) => { change(event.target); drawControls(); everythingChosen(); };
  $("quantity").addEventListener("change", redraw((node) => { state.quantity = node.value; }));
  const axis = (own, other) => redraw((node) => {
    // The axis that the other one has: they change places.
    if (node.value === state[other]) state[other] = state[own];
    state[own] = node.value;
  });
  $("axis-x").addEventListener("change", axis("x", "y"));
  $("axis-y").addEventListener("change", axis("y", "x"));
  $("show-boundary").addEventListener("change", (event) => { state.boundary = event.target.checked; drawMap(); });
  $("phases-axis").addEventListener("change", (event) => { state.phasesAxis = event.target.value; drawPhases(); });
  $("boundary-axis").addEventListener("change", (event) => { state.critical = Number(event.target.value); drawBoundary(); });
  $("boundary-along").addEventListener("change", (event) => { if (state.lines === event.target.value) state.lines = state.along; state.along = event.target.value; drawBoundary(); });
  $("boundary-lines").addEventListener("change", (event) => { state.lines = event.target.value; state.linesUntouched = false; drawBoundary(); });
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  $("map-plot").addEventListener("keydown", mapKeys);
  $("map-plot").addEventListener("mouseleave", hideTip);
  addEventListener("scroll", hideTip, { passive: true });
  downloads($("map-downloads"), "map", mapRows, mapFigure);
  bindTable();

  let width = innerWidth, timer = 0;
  addEventListener("resize", () => {
    if (innerWidth === width || printing) return;
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(drawAll, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const print = (on) => { if (printing !== on) { printing = on; drawAll(); } };
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
}

// -- A page that is served ---------------------------------------------------------------------------------------------

let tag = null;

async function refresh() {
  let answer;
  const badge = $("live");
  badge.hidden = false;
  try {
    answer = await fetch("data.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
  } catch (error) {
    badge.className = "live lost";
    badge.textContent = "the server has ended; this is its last state";
    if (!started) say("The server does not answer.", true);
    return;
  }
  if (answer.status === 503) {
    const { message } = await answer.json();
    badge.className = "live busy";
    badge.textContent = "waiting";
    if (!started) say(message);
    return;
  }
  const trouble = answer.headers.get("X-Sgdmap-Trouble");
  if (answer.status === 200) {
    const numbers = await answer.json();
    if (!window.Plotly) await loadPlotly();
    tag = answer.headers.get("ETag");
    show(numbers);
  } else if (answer.status !== 304) {
    badge.className = "live lost";
    badge.textContent = `the server answered ${answer.status}`;
    return;
  }
  const left = data.counts.pending + (data.counts.running || 0);
  badge.className = left && !trouble ? "live busy" : trouble ? "live lost" : "live";
  badge.textContent = trouble ? `last state; ${decodeURIComponent(trouble)}` : left ? `${percent(1 - left / data.runs)} done, refreshed every ${number(live.interval)} s` : "complete";
}

async function main() {
  const settings = document.body.dataset.live;
  if (settings) {
    live = JSON.parse(settings);
    for (;;) {
      try { await refresh(); } catch (error) { say(`The report could not be drawn: ${error.message}`, true); console.error(error); }
      await new Promise((resolve) => setTimeout(resolve, 1000 * live.interval));
    }
  }
  if (typeof DecompressionStream === "undefined") {
    say("This browser is too old for the report: it needs one of 2023 or later (Chrome 80, Firefox 113, Safari 16.4).", true);
    return;
  }
  try {
    const [numbers] = await Promise.all([embedded("data-numbers"), loadPlotly()]);
    show(JSON.parse(new TextDecoder().decode(numbers)));
  } catch (error) {
    say(`The report could not be drawn: ${error.message}`, true);
    console.error(error);
  }
}

main();
