#!/usr/bin/python3
"""The paper's claims, with verdicts: one HTML page and a figure each from the sweeps of jobs/paper.

    jobs/paper/report.py FOLDER [-o PAGE] [--json]

FOLDER holds link.h5, phases.h5, … as jobs/paper/run.sh leaves them. The page is FOLDER/report.html, works offline and loads nothing;
figures stand beside it as NAME.png and NAME.svg. --json prints the numbers behind the page. A claim whose sweep is missing is in the
table as "not run". Exit statuses are those of sgdmap-analysis.
"""
from __future__ import annotations

import argparse
import base64
import html
import json
import logging
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(os.path.realpath(__file__)).parent.parent.parent
sys.path[:0] = [str(ROOT / "analysis"), str(ROOT / "jobs" / "paper")]

import claims  # noqa: E402
from claims import common  # noqa: E402
from sgdmap_analysis import ArgumentError, SweepError, open_sweep  # noqa: E402
from sgdmap_analysis.cli import Parser  # noqa: E402
from sgdmap_analysis.sweep import has_outcome  # noqa: E402

CONFIGS = ROOT / "jobs" / "paper"
PANEL_WIDTH, PANEL_HEIGHT = 2.4, 2.15  # inches
PAPER = "Y. Li, Y. Yuan, Convergence Analysis of Two-layer Neural Networks with ReLU Activation, NeurIPS 2017, arXiv:1705.09886"


def available() -> list[str]:
    """The claims that have a config, in the report's order."""
    return [name for name in claims.NAMES if (CONFIGS / f"{name}.yaml").exists()]


# -- A claim's results -------------------------------------------------------------------------------------------------


def examine(name: str, folder: Path) -> dict[str, Any]:
    """What is to be said of a claim: verdict, reason, effects, table, figure, where its sweep came from.

    A sweep that is missing or has not what the claim needs is a verdict too; what is not a sweep raises SweepError.
    """
    module = claims.load(name)
    ret: dict[str, Any] = {"name": name, "title": module.TITLE, "claim": module.CLAIM, "rule": module.RULE, "verdict": common.MISSING,
                           "reason": "", "effects": [], "numbers": None, "figure": None}
    path = folder / f"{name}.h5"
    if not path.exists():
        ret["reason"] = f"there is no {path.name} in the folder: bash jobs/paper/run.sh {name}"
        return ret
    sweep = open_sweep(path)
    runs, left = int(sweep.status.size), int((~has_outcome(sweep.status)).sum())
    ret |= {"runs": runs, "left": left, "origin": origin(sweep)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of means over nothing, which the page shows as "–"
            numbers = module.measure(sweep)
            verdict, reason = module.judge(numbers)
            heading, rows = module.details(numbers)
            effects = [{"what": effect.what, "value": effect.value, "low": effect.low, "high": effect.high, "size": effect.size(),
                        "interval": effect.interval()} for effect in module.effects(numbers)]
            ret |= {"numbers": common.plain(numbers), "verdict": verdict, "reason": reason, "effects": effects, "heading": heading, "rows": rows,
                    "caption": module.caption(numbers), "figure": draw(module, numbers, sweep, folder)}
    except ArgumentError as error:
        ret["reason"] = str(error)
    return ret


def origin(sweep: Any) -> dict[str, Any]:
    attributes = sweep.attrs
    wanted = ("source", "date_created", "host", "ranks", "config_digest", "history")
    return {name: str(attributes[name]) for name in wanted if str(attributes.get(name, "")).strip()}


def draw(module: Any, numbers: dict[str, Any], sweep: Any, folder: Path) -> Path:
    """The claim's figure, as PNG and SVG beside the sweep; the PNG's path."""
    import matplotlib
    from matplotlib.figure import Figure

    from sgdmap_analysis import style

    with matplotlib.rc_context(style.parameters()):
        figure = Figure(figsize=(PANEL_WIDTH * module.PANELS, PANEL_HEIGHT), layout="constrained")
        axes = figure.subplots(1, module.PANELS, squeeze=False)[0]
        module.draw(list(axes), numbers, sweep)
        for suffix in ("svg", "png"):
            path = folder / f"{module.NAME}.{suffix}"
            figure.savefig(path, dpi=240, metadata={"Date": None} if suffix == "svg" else None)
    return path


# -- The page ----------------------------------------------------------------------------------------------------------

SYMBOLS = {"confirmed": "✓", "holds in part": "◐", "contradicted": "✗", "not decided": "?", "not run": "–"}


def _text(value: Any) -> str:
    return html.escape(str(value))


def _badge(verdict: str) -> str:
    return f'<span class="verdict {verdict.replace(" ", "-")}"><span aria-hidden="true">{SYMBOLS[verdict]}</span> {verdict}</span>'


def _table_of_claims(found: list[dict[str, Any]]) -> str:
    rows = []
    for i, one in enumerate(found, 1):
        effects = one["effects"] or [{"what": one["reason"], "size": "", "interval": ""}]
        for k, effect in enumerate(effects):
            head = ""
            if k == 0:
                span = len(effects)
                head = (f'<th scope="rowgroup" rowspan="{span}"><a href="#{one["name"]}">{i}. {_text(one["title"])}</a></th>'
                        f'<td rowspan="{span}" data-label="verdict">{_badge(one["verdict"])}</td>')
            rows.append(f'<tr{" class=first" if k == 0 else ""}>{head}<td data-label="effect">{_text(effect["what"])}</td>'
                        f'<td class="number" data-label="size">{_text(effect["size"])}</td>'
                        f'<td class="number" data-label="95 % interval">{_text(effect["interval"])}</td></tr>')
    return ('<div class="scroll"><table class="claims"><thead><tr><th scope="col">claim</th><th scope="col">verdict</th><th scope="col">effect</th>'
            f'<th scope="col" class="number">size</th><th scope="col" class="number">95 % interval</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>')


def _details(one: dict[str, Any]) -> str:
    head = "".join(f'<th scope="col">{_text(word)}</th>' for word in one["heading"])
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in one["rows"])
    return (f'<details><summary>The numbers behind it ({len(one["rows"])} rows)</summary><div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></details>")


def _section(i: int, one: dict[str, Any]) -> str:
    parts = [f'<section id="{one["name"]}"><h2>{i}. {_text(one["title"])}</h2>', f'<p class="claim">{_text(one["claim"])}</p>',
             f'<p class="outcome">{_badge(one["verdict"])} {_text(one["reason"])}{"." if one["reason"] else ""}</p>']
    if one.get("left"):
        parts.append(f'<p class="warn">{one["left"]} of the sweep\'s {one["runs"]} runs are not done: what is said here may change.</p>')
    if one["figure"] is not None:
        data = base64.b64encode(one["figure"].read_bytes()).decode()
        parts.append(f'<figure><div class="scroll"><img alt="{_text(one["caption"])}" src="data:image/png;base64,{data}"></div>'
                     f'<figcaption>{_text(one["caption"])}</figcaption></figure>')
    parts.append(f'<details><summary>How the verdict is found</summary><p>{_text(one["rule"])}</p></details>')
    if one["numbers"] is not None:
        parts.append(_details(one))
    config = CONFIGS / f'{one["name"]}.yaml'
    if config.exists():
        parts.append("<details><summary>The settings and their reasons, as stated before the run</summary>"
                     f"<pre>{_text(config.read_text())}</pre></details>")
    return "".join(parts) + "</section>"


def _reproduction(found: list[dict[str, Any]], folder: Path) -> str:
    """The commands behind each figure, as the files tell them."""
    rows = []
    for i, one in enumerate(found, 1):
        if "origin" not in one:
            continue
        name, came = one["name"], one["origin"]
        command = came.get("history", "").splitlines()[0] if came.get("history") else ""
        made = ", ".join(came[key] for key in ("source", "date_created") if key in came)
        rows.append(f"<tr><th scope='row'>{i}. {_text(one['title'])}</th><td><code>bash jobs/paper/run.sh {name}</code><br>"
                    f"<span class='muted'>which ran</span> <code>{_text(command)}</code><br><span class='muted'>{_text(made)}, {_text(one['runs'])} runs, "
                    f"config digest</span> <code>{_text(came.get('config_digest', ''))}</code></td></tr>")
    return ('<section id="reproduce"><h2>How to reproduce</h2><p>Everything: <code>bash jobs/paper/run.sh</code>, on a cluster with <code>--full</code>. The same config on '
            "the same type of CPU has the same bits, on any number of ranks. Each figure, with the command that its file names:</p>"
            f'<div class="scroll"><table class="reproduce"><tbody>{"".join(rows)}</tbody></table></div>'
            f"<p>This page: <code>jobs/paper/report.py {_text(folder)}</code></p></section>")


CSS = """
:root { --ink: #1c1c1c; --muted: #5c5c5c; --line: #dedcd6; --paper: #fdfdfb; --raised: #f5f4f0; --accent: #1d4e94; --good: #1d4e94; --part: #8a6400;
  --bad: #a8430f; --sans: "Helvetica Neue", Helvetica, Arial, "Nimbus Sans", "Liberation Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --ink: #ebe9e4; --muted: #a8a6a0; --line: #37363a; --paper: #161618; --raised: #1f1f22; --accent: #8fb6de;
  --good: #9cc3ee; --part: #e3c26f; --bad: #f0a077; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); font-variant-numeric: tabular-nums; }
.page { max-width: 1100px; margin: 0 auto; padding: 0 clamp(16px, 4vw, 48px) 80px; }
a { color: var(--accent); text-underline-offset: 3px; }
.kicker { margin: clamp(32px, 6vw, 72px) 0 12px; color: var(--muted); font-size: 14px; }
h1 { font-size: clamp(27px, 4.6vw, 44px); line-height: 1.12; letter-spacing: -.022em; font-weight: 600; margin: 0 0 16px; text-wrap: balance; }
.lede { font-size: clamp(16px, 1.7vw, 19px); color: var(--muted); margin: 0 0 34px; max-width: 46em; }
h2 { font-size: clamp(21px, 2.4vw, 27px); font-weight: 600; letter-spacing: -.014em; margin: 0 0 12px; }
section { padding: 44px 0 0; margin-top: 44px; border-top: 1px solid var(--line); scroll-margin-top: 8px; }
.claim { font-size: 17px; margin: 0 0 10px; max-width: 46em; }
.outcome { margin: 0 0 18px; max-width: 50em; }
.warn { color: var(--bad); }
.muted { color: var(--muted); }
.verdict { font-weight: 600; white-space: nowrap; color: var(--muted); }
.verdict.confirmed { color: var(--good); } .verdict.holds-in-part { color: var(--part); } .verdict.contradicted { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14.5px; }
th, td { text-align: left; vertical-align: top; padding: 5px 18px 5px 0; font-weight: 400; }
thead th { color: var(--muted); font-size: 13.5px; border-bottom: 1px solid var(--line); white-space: nowrap; }
.claims { width: 100%; }
.claims tr.first > * { border-top: 1px solid var(--line); padding-top: 9px; }
.claims tbody th { min-width: 12em; } .claims thead th { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; padding-right: 0; padding-left: 14px; }
details table td, details table th { white-space: nowrap; border-bottom: 1px solid var(--line); }
figure { margin: 0 0 18px; } figure .scroll { background: #fff; border: 1px solid var(--line); }
figure img { display: block; width: 100%; min-width: 620px; height: auto; }
figcaption { color: var(--muted); font-size: 14px; margin-top: 8px; max-width: 60em; }
details { margin: 6px 0; } summary { cursor: pointer; color: var(--accent); }
details p { max-width: 54em; margin: 8px 0; }
pre, code { font: 13px/1.5 var(--mono); } code { overflow-wrap: anywhere; }
pre { background: var(--raised); padding: 14px 16px; overflow-x: auto; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 700px) {
  .claims thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  .claims, .claims tbody, .claims tr, .claims th, .claims td { display: block; width: auto; padding: 0; border: 0; text-align: left; }
  .claims tr.first { border-top: 1px solid var(--line); padding-top: 12px; margin-top: 12px; } .claims tr.first > * { border-top: 0; padding-top: 0; }
  .claims th { font-weight: 600; } .claims td.number { display: inline-block; margin-right: 10px; font-weight: 600; }
  .claims td.number + td.number { font-weight: 400; } .claims td[data-label=effect] { color: var(--muted); margin-top: 8px; }
  figure { margin-left: -16px; margin-right: -16px; } figcaption { padding: 0 16px; }
}
@media print { details > *:not(summary) { display: block; } section { break-inside: avoid-page; } .scroll { overflow: visible; } figure img { min-width: 0; } }
"""


def page(found: list[dict[str, Any]], folder: Path) -> str:
    counts: dict[str, int] = {}
    for one in found:
        counts[one["verdict"]] = counts.get(one["verdict"], 0) + 1
    verdicts = common.joined([f"{counts[verdict]} {verdict}" for verdict in common.VERDICTS if verdict in counts])
    runs = sum(one.get("runs", 0) for one in found)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>The paper, claim by claim</title>
<style>{CSS}</style>
</head>
<body>
<div class="page">
<header>
<p class="kicker">sgdmap</p>
<h1>The paper, claim by claim</h1>
<p class="lede">{_text(PAPER)}. {len(found)} claims against {runs:,} trainings: {_text(verdicts)}. Settings, margins and the rule of each verdict were written down
before the runs; where a first run showed that the settings could not answer, their comments say what was changed and why. Intervals are of 95 % and over
independent replicates.</p>
</header>
<main>
{_table_of_claims(found)}
{"".join(_section(i, one) for i, one in enumerate(found, 1))}
{_reproduction(found, folder)}
</main>
</div>
</body>
</html>
"""


# -- The command -------------------------------------------------------------------------------------------------------


def summary(found: list[dict[str, Any]]) -> str:
    lines = []
    for i, one in enumerate(found, 1):
        lines.append(f"{i}. {one['title']}: {one['verdict']}" + (f": {one['reason']}" if one["reason"] else ""))
        lines += [f"     {effect['what']}: {effect['size']} {effect['interval'] if effect['interval'] != '–' else ''}".rstrip() for effect in one["effects"]]
    return "\n".join(lines)


def _plain(found: list[dict[str, Any]], output: Path) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {"page": str(output), "claims": [{
        **{key: one.get(key) for key in ("name", "title", "verdict", "reason", "runs", "left", "numbers")},
        "effects": [{"what": effect["what"], **{key: number(effect[key]) for key in ("value", "low", "high")}} for effect in one["effects"]],
    } for one in found]}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", help="with the sweeps, NAME.h5")
    parser.add_argument("-o", "--output", metavar="PAGE", type=Path, help="page to write (FOLDER/report.html)")
    parser.add_argument("--json", action="store_true", help="print the numbers")
    parser.add_argument("--list", action="store_true", help="print the names of the claims that have a config")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(available()))
        return 0
    if options.folder is None:
        parser.error("FOLDER is missing")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        if not options.folder.is_dir():
            raise ArgumentError(f"{options.folder}: no such folder")
        found = [examine(name, options.folder) for name in available()]
        if all("runs" not in one for one in found):
            raise ArgumentError(f"{options.folder}: holds none of {', '.join(f'{name}.h5' for name in available())}")
        output = options.output or options.folder / "report.html"
        output.write_text(page(found, options.folder))
    except (ArgumentError, SweepError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"report.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 74
    if options.json:
        print(json.dumps(_plain(found, output), ensure_ascii=False, indent=1))
    else:
        print(summary(found))
        print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
