"""The latency plot: before, ours and the limit, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np

from bench.tail import limit
from bench.tail.latency import CASES, Case, Cell
from bench.tail.limit import Seconds

PANELS: Final = {
    "distinct": "all messages distinct",
    "35 % repeats": "35 % repeats",
    "early first token": "a first token after 30 % of the time",
}
RATE: Final = 100
_LEAST_SHARE: Final = 2e-3
_COLOURS: Final = {"before": "#9aa0a6", "ours": "#1a73e8", "limit": "#202124"}


def draw(cells: list[Cell], path: Path) -> None:
    """The share of requests that take longer than so many seconds; whatever of the panels was measured."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cases = [case for case in CASES if case.name in PANELS and any(cell.case == case.name for cell in cells)]
    if not cases:
        return
    width = 4.4 * len(cases)
    figure, panels = plt.subplots(1, len(cases), figsize=(width, 3.8), sharey=True, squeeze=False, layout="constrained")
    for axes, case in zip(panels[0], cases, strict=True):
        _draw_panel(axes, case, [cell for cell in cells if (cell.case, cell.rate) == (case.name, RATE)])
    panels[0][0].set(ylabel="requests that take longer")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_panel(axes: Any, case: Case, cells: list[Cell]) -> None:
    for cell in cells:
        _draw_curve(axes, cell.load.seconds, cell.who, "-")
    simulated = limit.simulate(case.first_token_share, case.repeat_share)
    _draw_curve(axes, simulated.whole, "limit", "--")
    axes.axhline(0.01, color="#dadce0", linewidth=0.8, zorder=0)
    axes.set(yscale="log", ylim=(_LEAST_SHARE, 1), xlim=(0, 5), xlabel="seconds", title=PANELS[case.name])
    axes.set_yticks([1, 0.5, 0.1, 0.05, 0.01], ["100 %", "50 %", "10 %", "5 %", "1 %"])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")


def _draw_curve(axes: Any, seconds: Seconds, who: str, style: str) -> None:
    shares = np.geomspace(1, _LEAST_SHARE, 300)
    p99 = float(np.percentile(seconds, 99))
    label = f"{who}: P99 {p99:.2f} s"
    width = 1.2 if who == "limit" else 2.2
    axes.plot(np.quantile(seconds, 1 - shares), shares, style, color=_COLOURS[who], linewidth=width, label=label)
