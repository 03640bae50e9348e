"""sgdmap-analysis trajectories: medians and bands over replicates along the training."""
from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ..errors import ArgumentError
from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "trajectories",
        help="draw fields along the training: median and quantile bands over the replicates",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Draw fields against the SGD step for chosen settings: the median over the replicates as a line, a band
            between quantiles, phases I and II.

            fields:
              error, loss, test_loss, batch_loss, potential, potential_norm, alignment, gradient_norm, weight_norm,
              as far as the file holds them

            Runs that converged before the last record keep their last value. Runs that diverged count as infinite
            from then on in fields that cannot be negative, and are left out of the others. Pending, running and
            failed runs do not count.
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis trajectories sweep.nc --where 'dimension==50 and step_size<0.01'
              sgdmap-analysis trajectories sweep.nc --where dimension=10 --where init_scale=0,1 --field loss,alignment
              sgdmap-analysis trajectories sweep.nc --where step_size=0.01 --quantiles 0,1 -o figure.pdf
              sgdmap-analysis trajectories sweep.nc --where dimension=10 --json | jq '.settings[0].fields.error.median'
            """),
    )
    common.add_file(parser)
    parser.add_argument("--field", metavar="NAME[,NAME...]", type=_fields, default=("error", "potential_norm"),
                        help="a panel each (default: error,potential_norm: the distance from W* and the potential)")
    common.add_where(parser)
    parser.add_argument("--quantiles", metavar="LOW,HIGH", type=_quantiles, default=(0.25, 0.75),
                        help="edges of the band, in [0, 1] (default: 0.25,0.75)")
    parser.add_argument("--max-curves", metavar="N", type=common.ranged(int, 1, 200), default=None,
                        help="of more settings, draw N spread evenly (default: 12)")
    common.add_output(parser, "trajectories", "the numbers: medians with their intervals, quantiles and counts, a list of settings")
    common.add_title(parser)
    common.add_size(parser, "5.5, or 3.25 for a single panel")
    common.add_confidence(parser, "the interval of the median")
    parser.set_defaults(command=_trajectories)


def _trajectories(options: argparse.Namespace) -> None:
    output = common.picture(options, "trajectories")
    from .. import trajectories
    from ..sweep import open_sweep
    from ..where import choose

    sweep, chosen = choose(open_sweep(options.file), options.where)
    for field in options.field:
        trajectories.check_field(sweep, field)
    most = options.max_curves or (None if options.json and output is None else trajectories.MAX_CURVES)
    drawn, count = trajectories.curves(sweep, chosen, most)
    sweep, chosen = _smaller(sweep, chosen, drawn)
    drawn = _placed(sweep, drawn)
    data = {field: trajectories.bands(sweep, field, chosen, options.quantiles, options.confidence) for field in options.field}
    if not any(int(one.n.isel(curve.place).max()) for one in data.values() for curve in drawn):
        raise ArgumentError(f"{options.file}: none of the {count} settings chosen has a run with an outcome yet")
    if output is not None:
        figure = trajectories.draw_trajectories(sweep, data, drawn, count, title=common.title(options, sweep),
                                                width=options.width, dpi=options.dpi)
        common.save_figure(figure, output, sweep.attrs)
    common.finish(options, output, lambda: {
        **common.heading(options, sweep, output),
        "interval": {"kind": "order statistics", "confidence": options.confidence},
        **trajectories.numbers(sweep, data, drawn, count),
    })


def _smaller(sweep: Any, chosen: Any, drawn: Any) -> tuple[Any, Any]:
    """The box of the settings that are drawn: what is not drawn need not be read."""
    keep = {name: sorted({curve.place[name] for curve in drawn}) for name in drawn[0].place}
    small = sweep.isel(keep)
    return small, None if chosen is None else chosen.isel({name: places for name, places in keep.items() if name in chosen.dims})


def _placed(sweep: Any, drawn: Any) -> list[Any]:
    """The curves, at their places in the smaller box."""
    from ..trajectories import Curve

    where = {name: {value: at for at, value in enumerate(sweep[name].values.tolist())} for name in drawn[0].place}
    return [Curve({name: where[name][value] for name, value in curve.values.items()}, curve.values) for curve in drawn]


def _fields(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip().replace("-", "_") for name in text.split(",")))


def _quantiles(text: str) -> tuple[float, float]:
    try:
        low, high = (float(item) for item in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH with 0 <= LOW < HIGH <= 1")
    return low, high
