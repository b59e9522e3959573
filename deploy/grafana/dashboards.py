"""The dashboards, as Grafana takes them. `make dashboards` writes them anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana.model_calls import model_calls
from deploy.grafana.overview import overview
from deploy.grafana.resources import resources

FOLDER: Final = Path(__file__).parent / "dashboards"


def written() -> dict[str, str]:
    """The text of each file, by its name."""
    made = [maker().build() for maker in (overview, model_calls, resources)]
    return {f"{each.uid}.json": _text(each) for each in made}


def _text(made: model.Dashboard) -> str:
    for number, panel in enumerate(made.panels or (), start=1):
        panel.id_val = number
    return json.dumps(made, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, text in written().items():
        (FOLDER / name).write_text(text)
