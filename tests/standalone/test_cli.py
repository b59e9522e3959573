"""The `ion` command, as people run it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import httpx
import pytest

from tests.stack.harness import ROOT, bound_to, free_port, start
from tests.stack.harness import standalone as running
from tests.standalone.command import FRUSTRATED, environment, ion, jsons

DEAD_VERTEX = {
    "ION_LLM_BACKEND": "vertex",
    "ION_VERTEX_INSECURE": "1",
    "ION_VERTEX_ENDPOINTS": "us-central1=127.0.0.1:1",
}


def test_chat_shows_who_answers_what_and_why():
    done = ion("chat", FRUSTRATED)
    assert done.returncode == 0
    assert "🌊 Lua" in done.stdout
    assert "(offline reply: no model was called)" in done.stdout
    assert all(f"  {name:<6} " in done.stdout for name in ("Lua", "Nana", "Riri", "Elro"))
    assert "Tone frustrated" in done.stdout
    assert done.stderr == ""


def test_route_tells_apart_near_equals_by_who_answered_last():
    def chosen(*arguments: str) -> dict:
        (answer,) = jsons(ion("route", "--key", "calm-flowing-inquiry", "--json", *arguments).stdout)
        return answer

    first = chosen()
    other = chosen("--previous-persona", first["secondary_persona"])
    assert other["persona"] == first["secondary_persona"]
    assert other["contributions"][other["persona"]]["session_bonus"] > 0


def test_previous_persona_and_a_file_do_not_go_together():
    done = ion("route", "--file", "-", "--previous-persona", "Lua", stdin="{}")
    assert done.returncode == 2
    assert "previous_persona" in done.stderr


def test_chat_as_json_is_one_object_as_http_gives_it():
    done = ion("chat", "--json", "--persona", "riri", "hello")
    (answer,) = jsons(done.stdout)
    assert answer["persona_used"] == "Riri"
    assert answer["metadata"]["routing"]["pinned"] is True


def test_an_apology_is_exit_status_1():
    done = ion("chat", "hello", "--timeout", "5", **DEAD_VERTEX)
    assert done.returncode == 1
    assert "Nana" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chat", " "], "must not be blank"),
        (["chat", "hi", "--persona", "Bob"], "must be one of Elro, Lua, Nana, Riri"),
        (["route", "x" * 1001], "at most 1000"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_1(arguments, words):
    done = ion(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_session_at_the_terminal_goes_on_after_a_bad_message_until_quit():
    done = ion("chat", stdin=f"hello there\n\n{'x' * 1001}\nprod is down!\n/quit\nnever said\n")
    assert done.returncode == 0
    assert done.stdout.count("(offline reply") == 2
    assert "at most 1000" in done.stderr


def test_session_ends_with_the_end_of_input():
    done = ion("chat", stdin="hello\n")
    assert done.returncode == 0
    assert done.stdout.count("(offline reply") == 1


def test_route_of_a_message_and_of_a_key():
    shown = ion("route", FRUSTRATED).stdout
    assert shown.startswith("Lua")
    assert re.search(r"^  frustrated: \w+ \(\+\d+\.\d\d\)", shown, re.M)
    (routed,) = jsons(ion("route", "--key", "frustrated-burst-expressive", "--json").stdout)
    assert (routed["persona"], routed["confidence"]) == ("Lua", 1.0)


@pytest.mark.parametrize("arguments", [[], ["hi", "--key", "calm-medium-inquiry"]])
def test_route_wants_exactly_one_input(arguments):
    done = ion("route", *arguments)
    assert done.returncode == 2
    assert "exactly one" in done.stderr


def test_route_of_a_file_counts_personas():
    done = ion("route", "--file", "samples/messages.jsonl")
    assert done.returncode == 0
    counts = [int(cell) for cell in done.stdout.replace("│", " ").split() if cell.isdigit()]
    assert sum(counts) == len((ROOT / "samples/messages.jsonl").read_text("utf-8").splitlines())


LINES = (
    '{"id": "a", "message": "hello"}\n\n{"message": " "}\nnot json\n{"id": 7, "message": "급합니다!", "more": 1}\r\n'
)


@pytest.mark.parametrize("from_stdin", [True, False])
def test_route_of_lines_keeps_order_and_ids_and_answers_bad_ones_in_place(tmp_path, from_stdin):
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES.encode())
    done = ion("route", "--json", "--file", "-" if from_stdin else str(path), stdin=LINES)
    answers = jsons(done.stdout)
    assert [answer.get("id") for answer in answers] == ["a", None, None, 7]
    assert ["persona" in answer for answer in answers] == [True, False, False, True]
    assert [answer["error"]["reason"] for answer in answers[1:3]] == ["MESSAGE_BLANK", "INVALID_LINE"]
    assert done.returncode == 1


def test_a_line_may_say_who_answered_last():
    lines = '{"message": "hello", "previous_persona": "nana"}\n{"message": "hello", "previous_persona": "Bob"}\n'
    first, second = jsons(ion("route", "--json", "--file", "-", stdin=lines).stdout)
    assert first["contributions"]["Nana"]["session_bonus"] == 0.03
    assert second["error"]["reason"] == "PERSONA_NOT_FOUND"


def test_session_at_the_terminal_says_who_answered_last():
    """Whoever answered a message is ahead by the bonus when the same comes again."""
    done = ion("chat", "--json", stdin=f"{FRUSTRATED}\n{FRUSTRATED}\n")
    first, second = jsons(done.stdout.replace("> ", ""))
    margins = [answer["metadata"]["routing"]["margin"] for answer in (first, second)]
    assert second["persona_used"] == first["persona_used"]
    assert margins[1] - margins[0] == pytest.approx(0.03)


def test_more_lines_than_a_batch_keep_their_order():
    lines = "".join(json.dumps({"id": number, "message": f"message {number}"}) + "\n" for number in range(250))
    done = ion("route", "--json", "--file", "-", stdin=lines)
    assert [answer["id"] for answer in jsons(done.stdout)] == list(range(250))


def test_an_empty_file_is_no_error_and_a_missing_one_is_one_line(tmp_path):
    (tmp_path / "empty").touch()
    done = ion("route", "--json", "--file", str(tmp_path / "empty"))
    assert (done.returncode, done.stdout) == (0, "")
    done = ion("route", "--file", str(tmp_path / "missing"))
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_ends_it_quietly():
    command = f"{sys.executable} -m standalone route --json --file samples/messages.jsonl | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_personas_are_listed():
    assert [persona["name"] for persona in jsons(ion("personas", "--json").stdout)] == ["Elro", "Lua", "Nana", "Riri"]
    assert "루아" in ion("personas").stdout


def test_config_lists_values_and_defaults_and_hides_secrets():
    done = ion("config", "--json", ION_CACHE_TTL_SECONDS="60", REDIS_URL="redis://:hunter2@host")
    rows = {row["variable"]: row for row in jsons(done.stdout)}
    assert (rows["ION_CACHE_TTL_SECONDS"]["value"], rows["ION_CACHE_TTL_SECONDS"]["default"]) == ("60", "1800")
    assert rows["REDIS_URL"]["value"] == "(hidden)"
    assert rows["ION_HTTP_BIND"]["value"] == "127.0.0.1:8080"
    assert "hunter2" not in ion("config", REDIS_URL="redis://:hunter2@host").stdout
    done = ion("config", ION_HTTP_BIND="x", ION_CACHE_TTL_SECONDS="y")
    assert done.returncode == 2
    assert [line.split("=")[0] for line in done.stderr.splitlines()] == [
        "ion: ION_HTTP_BIND",
        "ion: ION_CACHE_TTL_SECONDS",
    ]


COMMANDS = [
    *("serve", "chat", "route", "eval", "health", "config", "load", "top"),
    *("sessions", "sessions show", "sessions export", "sessions delete"),
    *("keys", "keys create", "keys list", "keys revoke"),
    *("personas", "personas import", "personas export"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    done = ion(*command.split(), "--help")
    assert done.returncode == 0
    assert f"ion {command}" in " ".join(done.stdout.split()).split("Example")[1]


def test_help_lists_all_commands_and_says_what_exit_statuses_mean():
    shown = ion("--help").stdout
    assert {command.split()[0] for command in COMMANDS} == set(re.findall(r"^  (\w+) {2,}\w", shown, re.M)) - {"--help"}
    assert re.search(r"Exit status: 0 .+; 1 .+; 2 .+; 130 ", " ".join(shown.split()))


@pytest.mark.parametrize("command", [["chat"], ["chat", "hi"], ["route", "hi"], ["sessions"]])
def test_settings_that_cannot_be_used_end_it_with_one_line(tmp_path, command):
    done = ion(*command, ION_PERSONAS_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ion: {tmp_path}: must have at least one persona file (*.toml)\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["chat", " "], "MESSAGE_BLANK"), (["chat", "hi", "--persona", "Bob"], "PERSONA_NOT_FOUND")],
)
def test_a_failure_is_json_where_answers_are(arguments, reason):
    done = ion(*arguments, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    ((told),) = jsons(done.stderr)
    assert told["error"].keys() == {"reason", "message", "retryable"}
    assert (told["error"]["reason"], told["error"]["retryable"]) == (reason, False)


@pytest.mark.parametrize("arguments", [["chat", "\udcff"], ["chat", "--session", "\udcff"], ["route", "\udcff"]])
def test_bytes_that_are_no_text_are_bad_usage(arguments):
    done = ion(*arguments)
    assert (done.returncode, done.stderr) == (2, "ion: arguments must be text in UTF-8\n")


def test_bytes_that_are_no_text_do_not_end_a_conversation():
    done = ion("chat", "--no-session", stdin="\udcff\nhello\n")
    assert done.returncode == 0
    assert done.stdout.count("(offline reply") == 2


def test_a_terminal_without_all_letters_gets_those_it_has():
    done = subprocess.run(
        [sys.executable, "-m", "standalone", "chat", "hello"],
        cwd=ROOT,
        env=environment() | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"? Riri  calm-")


def test_a_key_is_hidden_and_must_fit_a_header():
    rows = jsons(ion("config", "--json", ION_API_KEY="hunter2").stdout)
    assert [row["value"] for row in rows if row["variable"] == "ION_API_KEY"] == ["(hidden)"]
    for key in ("hunter 2", "비밀"):
        done = ion("chat", "hi", "--server", "127.0.0.1:1", ION_API_KEY=key)
        assert done.returncode == 2
        assert done.stderr.startswith("ion: ION_API_KEY=(hidden): must be")


def test_config_lists_each_setting_once():
    variables = [row["variable"] for row in jsons(ion("config", "--json").stdout)]
    assert len(variables) == len(set(variables))
    assert {"ION_API_KEY", "DATABASE_URL", "ION_AUTH", "ION_SERVICE_TOKEN", "ION_STATE_DIR"} <= set(variables)


def test_health_of_nobody_is_exit_status_1():
    done = ion("health", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stdout.startswith("unreachable")


async def test_health_waits_for_a_service_that_starts():
    port = free_port()
    asking = asyncio.create_task(
        asyncio.to_thread(ion, "health", "--json", "--wait", "20", "--url", f"http://127.0.0.1:{port}")
    )
    async with start("ion", "standalone", "serve", env={"ION_HTTP_BIND": f"127.0.0.1:{port}"}):
        done = await asking
    assert done.returncode == 0
    assert jsons(done.stdout)[0]["status"] == "healthy"


async def test_chat_with_a_running_router_waits_while_it_starts():
    target = f"127.0.0.1:{free_port()}"
    asking = asyncio.create_task(asyncio.to_thread(ion, "route", "--json", "--server", target, "hello"))
    async with start("router", "router_service", env={"ION_ROUTER_BIND": target}) as process:
        await bound_to(process)
        done = await asking
    assert done.returncode == 0
    assert jsons(done.stdout)[0]["persona"]


async def test_route_of_a_file_prints_what_http_answers_but_for_the_evidence():
    async with running({}) as chain, httpx.AsyncClient(base_url=chain.url) as http:
        over_http = (await http.post("/route", json={"message": "왜 이게 안 되죠?"})).json()
    assert over_http["analysis"].pop("evidence")
    over_http["analysis"]["evidence"] = []  # which a batch leaves out
    lines = '{"id": "x", "message": "왜 이게 안 되죠?"}\n'
    assert jsons(ion("route", "--json", "--file", "-", stdin=lines).stdout) == [{"id": "x"} | over_http]
