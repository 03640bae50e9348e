// The report in headless Chromium, with real clicks and keys: node report.js SETTINGS.json, written by test_report.py. Prints each check;
// ends with 1 at the first that fails.
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");

const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { chromium } = require(settings.playwright);

// Where the middle of a cell of the map is in the window.
async function cellPoint(page, i, j) {
  await page.locator("#map-canvas").scrollIntoViewIfNeeded();
  return page.evaluate(([column, row]) => {
    const plot = document.getElementById("map-canvas");
    const box = plot.getBoundingClientRect(), { xaxis, yaxis, _size: size } = plot._fullLayout;
    return { x: box.left + size.l + xaxis.l2p(column), y: box.top + size.t + yaxis.l2p(row) };
  }, [i, j]);
}

const curve = (page) => page.locator("#trajectories-grid .js-line").nth(0).getAttribute("d");

async function changes(page, what, act) {
  const before = await what();
  await act();
  await page.waitForTimeout(50);
  for (let i = 0; i < 200 && (await what()) === before; i++) await page.waitForTimeout(50);
  assert.notEqual(await what(), before);
}

async function open(browser, address, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  const trouble = [];
  page.on("console", (message) => trouble.push(`console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => trouble.push(`error: ${error.stack}`));
  page.on("dialog", (dialog) => { trouble.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(address)) trouble.push(`request: ${request.url()}`);
  });
  await page.goto(address);
  await page.waitForSelector("#content:not([hidden])", { timeout: 60000 });
  await page.waitForSelector("#trajectories-grid .js-line", { timeout: 30000 });
  return { page, trouble, context };
}

async function download(page, selector, name) {
  const [file] = await Promise.all([page.waitForEvent("download", { timeout: 120000 }), page.locator(selector).click()]);
  const place = path.join(settings.folder, name);
  await file.saveAs(place);
  return { place, suggested: file.suggestedFilename() };
}

async function picture(page, name) {
  if (settings.pictures) await page.screenshot({ path: path.join(settings.pictures, `${name}.png`), fullPage: true });
}

const checks = [];
function check(name, run) { checks.push([name, run]); }

let desktop;

check("opens without errors or requests", async (browser) => {
  desktop = await open(browser, `file://${settings.page}`);
  const { page } = desktop;
  assert.equal(await page.title(), settings.title);
  assert.equal(await page.locator("h1").textContent(), settings.title);
  for (const [name, count] of Object.entries(settings.counts)) {
    assert.equal(await page.locator(`[data-outcome="${name}"] b`).textContent(), count.toLocaleString("en-US"), name);
  }
  await picture(page, "light");
});

check("a click on a cell shows the setting, its counts and its trajectories", async () => {
  const { page } = desktop;
  for (const cell of settings.cells) {
    const point = await cellPoint(page, cell.x, cell.y);
    await changes(page, () => curve(page), () => page.mouse.click(point.x, point.y));
    assert.equal(await page.locator("#detail-count").textContent(), cell.count);
    assert.match(await page.locator("#detail .under").textContent(), new RegExp(cell.interval));
    for (const word of cell.words) assert.ok((await page.locator("#detail .setting").textContent()).includes(word), word);
  }
  assert.equal(await page.locator("#trajectories-grid > .small").count(), 6);
});

check("hover shows the setting and its counts", async () => {
  const { page } = desktop;
  const cell = settings.cells[0];
  const point = await cellPoint(page, cell.x, cell.y);
  await page.mouse.move(point.x + 1, point.y);
  await page.mouse.move(point.x, point.y);
  await page.waitForSelector("#tip:not([hidden])");
  const text = await page.locator("#tip").textContent();
  assert.ok(text.includes(`${cell.count} converged, ${cell.interval}`), text);
  for (const word of cell.words) assert.ok(text.includes(word), text);
  await page.mouse.move(4, 4);
  await page.waitForSelector("#tip", { state: "hidden" });
});

check("menus and sliders choose the quantity, the axes and the other settings", async () => {
  const { page } = desktop;
  const colours = () => page.evaluate(() => JSON.stringify([document.getElementById("map-canvas").data[0].colorscale, document.getElementById("map-canvas").data[0].z]));
  for (const name of await page.locator("#quantity option").evaluateAll((options) => options.map((option) => option.value))) {
    if (name === "probability") continue;
    await changes(page, colours, () => page.locator("#quantity").selectOption(name));
    assert.ok((await page.locator("#map-legend").textContent()).length > 0, name);
  }
  await page.locator("#quantity").selectOption("outcome");
  await picture(page, "outcome");
  await page.locator("#slider-dimension").focus();
  await changes(page, () => page.locator("#map-where").textContent(), () => page.keyboard.press("ArrowRight"));
  assert.ok((await page.locator("#map-where").textContent()).includes("d = 50"));
  await page.keyboard.press("ArrowLeft");
  const axes = () => page.evaluate(() => { const { xaxis, yaxis } = document.getElementById("map-canvas").layout; return `${xaxis.title.text}/${yaxis.title.text}`; });
  assert.equal(await axes(), "step size η/initialization scale");
  await page.locator("#axis-x").selectOption("init_scale");
  assert.equal(await axes(), "initialization scale/step size η"); // they change places
  await page.locator("#axis-y").selectOption("dimension");
  assert.equal(await axes(), "initialization scale/dimension d");
  assert.equal(await page.locator("#slider-step_size").count(), 1);
  await page.locator("#axis-x").selectOption("step_size");
  await page.locator("#axis-y").selectOption("init_scale");
  await page.locator("#quantity").selectOption("probability");
  await page.locator("#show-boundary").uncheck();
  assert.equal(await page.evaluate(() => document.getElementById("map-canvas").data.length), 1);
  await page.locator("#show-boundary").check();
  assert.ok(await page.evaluate(() => document.getElementById("map-canvas").data.length) > 1);
});

check("phases and boundary follow their menus", async () => {
  const { page } = desktop;
  const cut = () => page.evaluate(() => document.querySelector("#phases-grid .js-plotly-plot").layout.xaxis.title.text);
  await page.locator("#phases-axis").selectOption("init_scale");
  assert.equal(await cut(), "initialization scale");
  const lines = () => page.evaluate(() => document.querySelector("#boundary-plot .js-plotly-plot").data.length);
  await changes(page, lines, () => page.locator("#boundary-lines").selectOption("init_scale"));
  await page.locator("#boundary-along").selectOption("init_scale");
  assert.notEqual(await page.locator("#boundary-lines").inputValue(), "init_scale");
});

check("the table sorts, filters, and shows a setting", async () => {
  const { page } = desktop;
  const column = async (key) => {
    const at = await page.locator("#table-box thead button").evaluateAll((buttons, name) => buttons.findIndex((button) => button.dataset.key === name), key);
    return page.locator("#table-box tbody tr").evaluateAll((rows, index) => rows.map((row) => Number(row.cells[index].textContent.replace(/,/g, ""))), at);
  };
  const ascending = (values) => values.every((value, i) => i === 0 || values[i - 1] <= value);
  await page.locator('#table-box button[data-key="probability"]').click();
  assert.equal(await page.locator("#table-box th[aria-sort]").getAttribute("aria-sort"), "ascending");
  assert.ok(ascending(await column("probability")));
  await page.locator('#table-box button[data-key="probability"]').click();
  assert.equal(await page.locator("#table-box th[aria-sort]").getAttribute("aria-sort"), "descending");
  const falling = await column("probability");
  assert.ok(falling[0] === 1 && ascending([...falling].reverse()));
  for (const { text, count } of settings.filters) {
    await page.locator("#filter").fill(text);
    await page.waitForFunction((wanted) => document.getElementById("table-count").textContent.startsWith(wanted), count, { timeout: 10000 });
  }
  await page.locator("#filter").fill("depth>3");
  await page.waitForFunction(() => /depth is not a column/.test(document.getElementById("table-count").textContent));
  await page.locator("#filter").fill("d=50");
  await page.waitForFunction(() => /^850 of/.test(document.getElementById("table-count").textContent));
  await page.locator('#pager button:has-text("Next")').click();
  assert.ok((await page.locator("#pager").textContent()).includes("51 to 100 of 850"));
  // By keyboard: to the second row, and its setting is chosen on the map.
  await page.locator("#table-box tbody tr").first().focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.ok((await page.locator("#map-where").textContent()).includes("d = 50"));
  assert.equal(await page.evaluate(() => document.activeElement.id), "map-plot");
  assert.equal(await page.locator("#table-box tr.chosen").count(), 1);
});

check("data and pictures are downloaded", async () => {
  const { page } = desktop;
  await page.locator("#filter").fill("");
  await page.waitForFunction(() => /^1,700 settings/.test(document.getElementById("table-count").textContent));
  const map = await download(page, '#map-downloads [data-kind="csv"]', "map.csv");
  assert.equal(map.suggested, "realistic-map.csv");
  await download(page, '#table-downloads [data-kind="csv"]', "settings.csv");
  await download(page, '#trajectories-downloads [data-kind="csv"]', "trajectories.csv");
  await download(page, '#phases-downloads [data-kind="csv"]', "phases.csv");
  await download(page, '#boundary-downloads [data-kind="csv"]', "boundary.csv");
  const png = await download(page, '#map-downloads [data-kind="png"]', "map.png");
  assert.equal(fs.readFileSync(png.place).subarray(1, 4).toString(), "PNG");
  const svg = await download(page, '#boundary-downloads [data-kind="svg"]', "boundary.svg");
  assert.match(fs.readFileSync(svg.place, "utf8"), /^<svg/);
});

check("the keyboard reaches everything, with a visible focus", async () => {
  const { page } = desktop;
  await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
  await page.reload();
  await page.waitForSelector("#trajectories-grid .js-line", { timeout: 60000 });
  const seen = [];
  for (let i = 0; i < 120; i++) {
    await page.keyboard.press("Tab");
    const here = await page.evaluate(() => {
      const node = document.activeElement;
      const style = getComputedStyle(node), box = node.getBoundingClientRect();
      return { name: node.id || node.dataset.key || node.getAttribute("aria-label") || node.textContent.slice(0, 30), tag: node.tagName, outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
        inside: box.width > 0 && box.height > 0 && box.right > 0 };
    });
    if (here.tag === "BODY") break;
    assert.ok(here.outline, `no visible focus on ${here.name}`);
    assert.ok(here.inside, `${here.name} cannot be seen`);
    seen.push(here.name);
  }
  for (const name of ["Skip to the map", "quantity", "axis-x", "axis-y", "show-boundary", "slider-dimension", "slider-teacher_norm", "map-plot", "Download map as CSV", "phases-axis",
    "boundary-axis", "filter", "probability", "table-box", "config"]) assert.ok(seen.includes(name), `${name} is not reached: ${seen.join(", ")}`);

  await page.locator("#map-plot").focus();
  const words = () => page.locator("#announce").textContent();
  await changes(page, words, () => page.keyboard.press("ArrowUp"));
  await changes(page, words, () => page.keyboard.press("ArrowRight"));
  await page.keyboard.press("Home");
  await page.keyboard.press("PageDown");
  assert.ok((await page.locator("#detail .setting").textContent()).includes(settings.corner), await page.locator("#detail .setting").textContent());
  await changes(page, () => curve(page), async () => { await page.keyboard.press("End"); await page.keyboard.press("Enter"); });
  assert.match(await words(), /Its trajectories are shown/);
});

check("the dark page has its plots repainted", async () => {
  const { page } = desktop;
  const look = () => page.evaluate(() => [getComputedStyle(document.body).backgroundColor, document.getElementById("map-canvas").layout.font.color].join());
  await changes(page, look, () => page.emulateMedia({ colorScheme: "dark" }));
  const lightness = (colour) => { const [r, g, b] = colour.match(/\d+/g).map(Number); return (r + g + b) / 765; };
  const [paper, ink] = await page.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("#map-canvas .xtick text")).fill]);
  assert.ok(lightness(paper) < 0.15 && lightness(ink) > 0.5, `${paper} ${ink}`);
  await picture(page, "dark");
  await page.emulateMedia({ colorScheme: "light" });
});

check("in print nothing that is for the screen is left", async () => {
  const { page } = desktop;
  await page.emulateMedia({ media: "print" });
  await page.waitForTimeout(300);
  for (const id of ["map-controls", "map-downloads", "pager", "contents"]) assert.ok(await page.locator(`#${id}`).isHidden(), id);
  const widths = await page.locator(".main-svg").evaluateAll((nodes) => nodes.map((node) => node.getBoundingClientRect().width));
  assert.ok(Math.max(...widths) <= 420, String(widths));
  await page.emulateMedia({ media: null });
  const pdf = await page.pdf({ format: "A4", printBackground: true, ...(settings.pictures ? { path: path.join(settings.pictures, "print.pdf") } : {}) });
  assert.ok(pdf.length > 20000);
  assert.deepEqual(desktop.trouble, []);
  await desktop.context.close();
});

check("a phone's width needs no sideways scrolling, and taps work", async (browser) => {
  const phone = await open(browser, `file://${settings.page}`, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  const { page } = phone;
  const wide = () => page.evaluate(() => [document.documentElement.scrollWidth, innerWidth, ...[...document.querySelectorAll("main *")]
    .filter((node) => !node.closest(".table-box, .config, .hidden") && node.getBoundingClientRect().right > 361 && !node.closest("svg")).map((node) => node.id || node.className || node.tagName)]);
  assert.deepEqual(await wide(), [360, 360]);
  const cell = settings.cells[0];
  const point = await cellPoint(page, cell.x, cell.y);
  await changes(page, () => curve(page), () => page.touchscreen.tap(point.x, point.y));
  assert.equal(await page.locator("#detail-count").textContent(), cell.count);
  await picture(page, "phone");
  assert.deepEqual(phone.trouble, []);
  await phone.context.close();
});

check("texts of a hostile file are inert", async (browser) => {
  const { page, trouble, context } = await open(browser, `file://${settings.hostile}`);
  assert.equal(await page.locator("h1").textContent(), settings.hostileText);
  assert.ok((await page.locator("#config").textContent()).includes(settings.hostileText));
  // The names of links come from the file too: on the map, and in the text of plots.
  await page.locator("#axis-y").selectOption("link");
  assert.ok((await page.locator("#map-canvas").textContent()).includes("<img/src"));
  await page.locator("#boundary-lines").selectOption("link").catch(() => null);
  assert.equal(await page.locator("main img, h1 img, body > img, svg b").count(), 0);
  assert.deepEqual(trouble, []);
  await context.close();
});

check("a served page fills in and keeps what was chosen", async (browser) => {
  const { page, trouble, context } = await open(browser, settings.live.url);
  const count = () => page.locator('[data-outcome="converged"] b').textContent();
  assert.equal(await count(), settings.live.before);
  await page.locator("#quantity").selectOption("outcome");
  const point = await cellPoint(page, 0, 1);
  await changes(page, () => page.locator("#detail .setting").textContent(), () => page.mouse.click(point.x, point.y));
  const chosen = await page.locator("#detail .setting").textContent();
  fs.writeFileSync(settings.live.go, "");
  await page.waitForFunction((wanted) => document.querySelector('[data-outcome="converged"] b').textContent === wanted, settings.live.after, { timeout: 30000 });
  assert.equal(await page.locator("#quantity").inputValue(), "outcome");
  assert.equal(await page.locator("#detail .setting").textContent(), chosen);
  assert.match(await page.locator("#live").textContent(), /done|complete/);
  await picture(page, "live");
  assert.deepEqual(trouble, []);
  await context.close();
});

(async () => {
  const browser = await chromium.launch({ executablePath: settings.chromium, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    for (const [name, run] of checks) {
      const start = Date.now();
      await run(browser);
      console.log(`ok ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
    }
  } catch (error) {
    console.log(`FAILED after the checks above: ${error.stack}`);
    if (desktop) console.log(desktop.trouble.join("\n"));
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
})();
