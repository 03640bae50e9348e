"""How figures look: colours, fonts, the words and symbols of axes.

One colour has one meaning in every figure: blue is convergence, orange divergence, grey no result. Outcomes differ in
lightness too, so that they survive colour blindness and a grey-scale print; ramps are uniform in OKLab.
"""
from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure

from .sweep import ONLINE

INK = "#1c1c1c"
MUTED = "#5c5c5c"

OUTCOME_COLOURS = {
    "converged": "#1d4e94",
    "diverged": "#dd6a2f",
    "stalled": "#f6dc86",
    "unfinished": "#7fc4ba",
    "failed": "#474747",
}
# Where training neither converged nor diverged, among colours for how fast it did.
NEITHER = "#f4f4f2"
# No result yet: told by its hatching too, since a pale tint is close to any grey for some readers.
NO_DATA = "#ececec"
HATCH = "#a3a3a3"


# -- Colour ------------------------------------------------------------------------------------------------------------

# OKLab: B. Ottosson, "A perceptual color space for image processing", 2020. Rows: linear sRGB to cone response, and
# its cube root to lightness and two opponent axes.
_TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])
_TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab [..., 3] from sRGB in [0, 1] [..., 3]."""
    rgb = np.asarray(rgb, dtype=np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T


def srgb(lab: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] [..., 3] from OKLab [..., 3], clipped into the gamut."""
    linear = (np.asarray(lab) @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def ramp(name: str, stops: Sequence[str], count: int = 256) -> ListedColormap:
    """A colour map through the stops whose steps are equally large in OKLab: perceptually uniform."""
    points = oklab(np.array([to_rgb(stop) for stop in stops]))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    where = np.linspace(0, length[-1], count)
    lab = np.stack([np.interp(where, length, points[:, channel]) for channel in range(3)], axis=-1)
    return ListedColormap(srgb(lab), name)


def tinted(colours: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """sRGB [..., 3] between white (strength 0) and the colours (strength 1), straight in OKLab."""
    strength = np.asarray(strength)[..., None]
    return srgb(oklab(np.ones(3)) * (1 - strength) + oklab(colours) * strength)


# From almost white to the blue of `converged`: a cell that is sure to converge has one colour in all blocks.
PROBABILITY = ramp("sgdmap_probability", ["#f6f8fb", "#8fb6de", OUTCOME_COLOURS["converged"]])
# Steps run from dark (at once) to pale (as the budget ends), in blue and from red to orange. Their pale ends stop where
# one cell can still be told from one of the other ramp or of NEITHER: the fine structure of a boundary is made of the
# slowest runs.
CONVERGENCE_STEPS = ramp("sgdmap_convergence_steps", ["#08204a", OUTCOME_COLOURS["converged"], "#7fadde", "#b4d3f2"])
DIVERGENCE_STEPS = ramp("sgdmap_divergence_steps", ["#7a1418", OUTCOME_COLOURS["diverged"], "#fccb9f"])


def share_strength(share: np.ndarray) -> np.ndarray:
    """Strength of an outcome's colour from its share of the replicates: pale at a quarter, full when all agree."""
    return 0.42 + 0.58 * np.clip((np.nan_to_num(share, nan=1.0) - 0.25) / 0.75, 0, 1)


# -- Type --------------------------------------------------------------------------------------------------------------

_FONTS = ("Helvetica Neue", "Helvetica", "Arial", "Nimbus Sans", "Liberation Sans", "TeX Gyre Heros", "DejaVu Sans")


def parameters() -> dict[str, Any]:
    """matplotlib's rc parameters of a figure for print."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return {
        # Only what is there: matplotlib warns of each font that is not.
        "font.family": [font for font in _FONTS if font in installed][:1] or ["sans-serif"],
        "mathtext.fontset": "dejavusans",
        "font.size": 7,
        "axes.titlesize": 7,
        "axes.labelsize": 7,
        "xtick.labelsize": 6.2,
        "ytick.labelsize": 6.2,
        "axes.linewidth": 0.5,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.direction": "out",
        "ytick.direction": "out",
        "xtick.major.width": 0.5,
        "ytick.major.width": 0.5,
        "xtick.minor.width": 0.35,
        "ytick.minor.width": 0.35,
        "xtick.major.size": 2.2,
        "ytick.major.size": 2.2,
        "xtick.minor.size": 1.2,
        "ytick.minor.size": 1.2,
        "xtick.major.pad": 1.8,
        "ytick.major.pad": 1.8,
        "hatch.linewidth": 0.4,
        "pdf.fonttype": 42,  # TrueType: what journals ask for
        "svg.hashsalt": "sgdmap",  # the same figure has the same bytes
    }


def text_width(text: str, size: float = 6.2) -> float:
    """Inches that a line of text of so many points takes."""
    figure = Figure(figsize=(1, 1), dpi=100)
    canvas = FigureCanvasAgg(figure)
    return figure.text(0, 0, text, fontsize=size).get_window_extent(canvas.get_renderer()).width / 100


def broken(text: str, width: float) -> str:
    """The text, in 7 points, broken at commas into lines that are no wider than so many inches."""
    lines = [""]
    for part in text.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if lines[-1] and text_width(longer, 7) > width:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


# -- Words -------------------------------------------------------------------------------------------------------------

AXIS_LABELS = {
    "dimension": "dimension $d$",
    "batch_size": "batch size $B$",
    "input": "input distribution",
    "replicate": "replicate",
    "gradient": "gradient",
    "data": "training samples $N$",
    "teacher": "teacher",
    "teacher_norm": "teacher norm ‖$W^{*}$‖$_2$",
    "link": "link",
    "noise": r"label noise $\varepsilon$",
    "schedule": "step size schedule",
    "step_size": r"step size $\eta$",
    "init_scale": "initialization scale",
}

_SYMBOLS = {
    "dimension": "$d$",
    "batch_size": "$B$",
    "data": "$N$",
    "teacher_norm": "‖$W^{*}$‖$_2$",
    "noise": r"$\varepsilon$",
    "step_size": r"$\eta$",
    "init_scale": "init. scale",
    "replicate": "replicate",
}

# Names of inputs and teachers.
_NAMES = {
    "gaussian": "Gaussian",
    "sphere": "sphere",
    "student_t": "Student $t_5$",
    "laplace": "Laplace",
    "uniform": "uniform",
    "rademacher": "Rademacher",
}


def value_text(value: Any, axis: str = "") -> str:
    """'0.05', '200', '10$^{-4}$', 'online' or a name, short enough for a tick."""
    if axis == "data" and value == 0:
        return ONLINE
    if isinstance(value, str):
        return _NAMES.get(value, value.replace("_", " "))
    value = float(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.0f}" if value == round(value) else f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = rf"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else rf"${mantissa}{{\times}}{power}$"


def setting_text(axis: str, value: Any) -> str:
    """'$d$ = 10', 'identity link', 'Gaussian input', 'online data'."""
    if axis == "link":
        return "no link" if value == "none" else f"{value_text(value)} link"
    if axis in ("input", "gradient", "teacher", "schedule"):
        return f"{value_text(value).replace(' ', '-') if axis != 'input' else value_text(value)} {axis}"
    if axis == "data" and value == 0:
        return f"{ONLINE} data"
    if axis == "batch_size" and value == 0:
        return "no minibatch"
    if axis == "replicate":
        return f"replicate {value_text(value)}"
    return f"{_SYMBOLS[axis]} = {value_text(value)}"
