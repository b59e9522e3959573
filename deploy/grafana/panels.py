"""What dashboards are made of: Grafana's own parts, with the choices that all of ION's share."""

from __future__ import annotations

import string
from typing import Any, Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, piechart, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import piechart as pie
from grafana_foundation_sdk.models import units

from chassis import telemetry
from deploy.grafana.queries import PROCESS, SHOWN_PROCESS, Query, of_each, rate

P = TypeVar("P", timeseries.Panel, stat.Panel, piechart.Panel, bargauge.Panel)

PER_SECOND: Final = "reqps"
_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_STAT_HEIGHT, _GRAPH_HEIGHT = 4, 8
_COLUMNS: Final = 24
_NAMES: Final = string.ascii_uppercase  # of a panel's queries


def limits(*steps: tuple[float, str]) -> dashboard.ThresholdsConfig:
    """Values from which on a panel has another colour than green."""
    found = [model.Threshold(value=None, color="green")]
    found += [model.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


# Where the alerts begin: deploy/prometheus/ion.rules.yml.
CHAT_LIMITS: Final = limits((2.0, "yellow"), (3.0, "orange"), (5.0, "red"))
_MEMORY_LIMITS: Final = limits((400e6, "orange"))


def new(uid: str, title: str, about: str) -> dashboard.Dashboard:
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    job = dashboard.QueryVariable("job").label("Service").datasource(_SOURCE).refresh(model.VariableRefresh(2))
    job.query(f"label_values({telemetry.PROCESS_UPTIME.prometheus_name}, job)").sort(model.VariableSort(1))
    job.multi(True).include_all(True).all_value(".+").current(model.VariableOption(text="All", value="$__all"))
    made = dashboard.Dashboard(title).uid(uid).description(about).tags(["ion"]).readonly().time("now-1h", "now")
    made.refresh("30s").timezone("browser").tooltip(model.DashboardCursorSync(1))
    others = dashboard.DashboardLink("ION").type(model.DashboardLinkType.DASHBOARDS).tags(["ion"])
    return made.variables([source, job]).link(others.keep_time(True).include_vars(True))


def add_row(made: dashboard.Dashboard, title: str, *panels: Any) -> None:
    made.with_row(dashboard.Row(title))
    for panel in panels:
        made.with_panel(panel)


def graph(title: str, unit: str, *queries: Query, width: int = 8, about: str = "") -> timeseries.Panel:
    panel = _placed(timeseries.Panel(), title, width, _GRAPH_HEIGHT).unit(unit).min(0).description(about)
    for name, (expression, legend) in zip(_NAMES, queries, strict=False):
        panel.with_target(_query(expression, legend).ref_id(name).exemplar("histogram_quantile" in expression))
    names = common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True)
    panel.legend(names.placement(options.LegendPlacement.BOTTOM)).show_points(options.VisibilityMode.NEVER)
    return panel.tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)).fill_opacity(10)


def stacked(title: str, unit: str, *queries: Query, width: int = 8, about: str = "") -> timeseries.Panel:
    stack = common.StackingConfig().mode(options.StackingMode.NORMAL)
    return graph(title, unit, *queries, width=width, about=about).stacking(stack).fill_opacity(50)


def marked(panel: timeseries.Panel, at: dashboard.ThresholdsConfig) -> timeseries.Panel:
    """With a line at each limit."""
    lines = common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.LINE)
    return panel.thresholds(at).thresholds_style(lines)


def number(title: str, unit: str, expression: str, at: dashboard.ThresholdsConfig | None = None) -> stat.Panel:
    panel = _placed(stat.Panel(), title, _COLUMNS // 6, _STAT_HEIGHT).unit(unit).with_target(_query(expression, ""))
    panel.reduce_options(_last()).graph_mode(options.BigValueGraphMode.AREA)
    return panel.thresholds(at or limits())


def pieces(title: str, query: Query, *, width: int = 8) -> piechart.Panel:
    panel = _placed(piechart.Panel(), title, width, _GRAPH_HEIGHT).with_target(_query(*query).instant())
    beside = piechart.PieChartLegendOptions().show_legend(True).placement(options.LegendPlacement.RIGHT)
    beside.display_mode(options.LegendDisplayMode.TABLE).values([pie.PieChartLegendValues.PERCENT])
    return panel.pie_type(pie.PieChartType.DONUT).reduce_options(_last()).legend(beside)


def bars(title: str, query: Query, *, width: int = 8) -> bargauge.Panel:
    panel = _placed(bargauge.Panel(), title, width, _GRAPH_HEIGHT).unit(units.Short).min(0)
    panel.with_target(_query(f"sort_desc({query[0]})", query[1]).instant()).reduce_options(_last())
    panel.display_mode(options.BarGaugeDisplayMode.BASIC)
    return panel.orientation(options.VizOrientation.HORIZONTAL).thresholds(limits())


def cpu(width: int) -> timeseries.Panel:
    busy = (rate(telemetry.PROCESS_CPU, *PROCESS), SHOWN_PROCESS)
    return graph("CPU", units.PercentUnit, busy, width=width, about="100 %: one core.")


def memory(width: int) -> timeseries.Panel:
    return marked(graph("Memory", units.BytesSI, of_each(telemetry.PROCESS_MEMORY), width=width), _MEMORY_LIMITS)


def _placed(panel: P, title: str, width: int, height: int) -> P:
    return panel.title(title).datasource(_SOURCE).span(width).height(height)


def _query(expression: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(_NAMES[0]).range()


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])
