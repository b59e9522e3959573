"""The measurements of telemetry: cached replies, the cheapest requests, to which it adds the greatest share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from bench import chains, load
from bench.cells import Cell, Memory, Opened, interleave

OFF: Final = "off"
DEFAULT: Final = "default"
ONE: Final = "1 %"
ALL: Final = "100 %"
DOWN: Final = "100 %, receiver down"
SLOW: Final = "100 %, receiver slow"
THREE: Final = "three"
STANDALONE: Final = "standalone"
SLOW_SECONDS: Final = 5.0
# About 200 requests a second: two cores keep up with it at 100 % too, so that latencies are not those of a queue.
GENTLE: Final = load.Demand(16, pause_ms=75)


def cached(rounds: int, seconds: float) -> tuple[list[Cell], Memory]:
    """Cells are named by shape and telemetry. Paced: at full speed the cheaper
    chain would be asked more."""
    with _receiver(0) as receiver, _receiver(SLOW_SECONDS) as slow, load.sample_bodies(distinct=False) as bodies:
        nobody = f"127.0.0.1:{chains.free_port()}"
        both = {
            OFF: {"OTEL_SDK_DISABLED": "true", "ION_ACCESS_LOG": "0"},
            DEFAULT: {},
            ONE: _sent_to(receiver, "0.01"),
            ALL: _sent_to(receiver, "1"),
        }
        outages = {DOWN: _sent_to(nobody, "1"), SLOW: _sent_to(slow, "1")}
        opened: Opened = {f"{THREE}, {name}": chains.three(env) for name, env in (both | outages).items()}
        opened |= {f"{STANDALONE}, {name}": chains.standalone(env) for name, env in both.items()}
        return interleave(opened, bodies, "hit", (GENTLE,), rounds, seconds)


def _sent_to(receiver: str, ratio: str) -> Mapping[str, str]:
    """Traces, metrics and logs."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }


@contextmanager
def _receiver(seconds: float) -> Iterator[str]:
    """It takes `seconds` for each export."""
    port = chains.free_port()
    with chains.python("bench.telemetry.receiver", str(port), str(seconds)):
        chains.wait_for_port(port)
        yield f"127.0.0.1:{port}"
