"""The standard variables say where each signal goes."""

from __future__ import annotations

import pytest

from chassis.observability import exporters

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}
NEW = {
    "traces": exporters.new_span_exporter,
    "metrics": exporters.new_metric_exporter,
    "logs": exporters.new_log_exporter,
}


@pytest.fixture
def given(monkeypatch):
    def give(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, {}),
        (ENDPOINT, {"traces": "otlp", "metrics": "otlp", "logs": "otlp"}),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, {}),
        (
            ENDPOINT | {"OTEL_SDK_DISABLED": "false", "OTEL_LOGS_EXPORTER": "none"},
            {"traces": "otlp", "metrics": "otlp"},
        ),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317"}, {"metrics": "otlp"}),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "otlp"}, {"traces": "console", "logs": "otlp"}),
    ],
)
def test_what_is_sent_where(given, variables, wanted):
    given(variables)
    assert {signal: exporters.wanted(signal) for signal in exporters.SIGNALS if exporters.wanted(signal)} == wanted


@pytest.mark.parametrize("signal", exporters.SIGNALS)
@pytest.mark.parametrize(
    ("variables", "module"),
    [
        ({}, "exporter.otlp.proto.grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "exporter.otlp.proto.http"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_{}_PROTOCOL": "grpc"},
            "exporter.otlp.proto.grpc",
        ),
        ({"OTEL_{}_EXPORTER": "console"}, "sdk."),
    ],
)
def test_the_protocol_of_a_signal_goes_before_that_of_all(given, signal, variables, module):
    given(ENDPOINT | {name.format(signal.upper()): value for name, value in variables.items()})
    exporter = NEW[signal]()
    assert type(exporter).__module__.startswith(f"opentelemetry.{module}")
    exporter.shutdown()


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "udp", "grpc or http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "traceidratio, parentbased_always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "a number from 0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "a number from 0 to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a whole number greater than 0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1s", "a whole number greater than 0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon", "a number of seconds greater than 0"),
    ],
)
def test_what_there_is_not_ends_the_start_with_a_line(given, capsys, variable, value, allowed):
    given({variable: value})
    with pytest.raises(SystemExit) as ended:
        exporters.check()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith(f"ion: {variable}={value!r}: must be ")
    assert allowed in line


def test_every_bad_variable_has_its_line_and_none_matters_where_telemetry_is_disabled(given, capsys):
    given({"OTEL_LOGS_EXPORTER": "file", "OTEL_BLRP_SCHEDULE_DELAY": "-1"})
    with pytest.raises(SystemExit):
        exporters.check()
    assert len(capsys.readouterr().err.splitlines()) == 2
    given({"OTEL_SDK_DISABLED": "true"})
    exporters.check()


def test_good_values_pass(given):
    given(ENDPOINT | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"})
    given({"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5", "OTEL_METRICS_EXPORTER": ""})
    exporters.check()
