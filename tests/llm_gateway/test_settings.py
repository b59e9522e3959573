"""Which backend answers, where it is asked, and what does not go together."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.settings import Bind, load, parse_bind
from llm_gateway.settings import LOCATIONS, LlmSettings, parse_endpoints

EMULATOR = {"ION_VERTEX_INSECURE": "1", "ION_LLM_BACKEND": "vertex"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in os.environ:
        if name.startswith(("ION_", "GOOGLE_", "REDIS_URL")):
            monkeypatch.delenv(name)


@pytest.fixture
def settings_of(monkeypatch):
    def read(**variables: str) -> LlmSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(LlmSettings)

    return read


@pytest.fixture
def refusal_of(settings_of, capsys):
    """The one line that ends a start with these variables."""

    def refuse(**variables: str) -> str:
        with pytest.raises(SystemExit) as ended:
            settings_of(**variables)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refuse


def test_nothing_set_is_offline_with_a_cache_in_this_process(settings_of):
    settings = settings_of()
    assert (settings.backend_name, settings.redis_url) == ("offline", None)
    assert settings.llm_bind == Bind("127.0.0.1", 50052)
    assert (settings.model, settings.locations) == ("gemini-3.5-flash", LOCATIONS)
    assert LOCATIONS == ("us-central1", "us-west1", "europe-west1")
    assert (settings.cache_ttl_seconds, settings.cache_max_entries) == (1800, 1000)


@pytest.mark.parametrize(
    ("variables", "backend"),
    [
        ({"GOOGLE_CLOUD_PROJECT": "p"}, "vertex"),
        ({"GOOGLE_CLOUD_PROJECT": ""}, "offline"),
        ({"GOOGLE_CLOUD_PROJECT": "p", "ION_LLM_BACKEND": "offline"}, "offline"),
        ({"GOOGLE_CLOUD_PROJECT": "p", "ION_LLM_BACKEND": "vertex"}, "vertex"),
        ({"ION_VERTEX_ENDPOINTS": "a=h:1", **EMULATOR}, "vertex"),
        ({"ION_VERTEX_INSECURE": "1"}, "offline"),
    ],
)
def test_the_backend_is_the_one_named_or_vertex_where_there_is_a_project(variables, backend, settings_of):
    assert settings_of(**variables).backend_name == backend


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ION_LLM_BACKEND": "vertex"}, "GOOGLE_CLOUD_PROJECT is not set"),
        ({"ION_LLM_BACKEND": "vertex", "ION_VERTEX_ENDPOINTS": "a=h:1"}, "GOOGLE_CLOUD_PROJECT is not set"),
        (EMULATOR, "ION_VERTEX_ENDPOINTS is not set"),
        ({"GOOGLE_CLOUD_PROJECT": "p", "ION_VERTEX_INSECURE": "1"}, "ION_VERTEX_ENDPOINTS is not set"),
    ],
)
def test_what_does_not_go_together_is_refused(variables, said, refusal_of):
    line = refusal_of(**variables)
    assert line.startswith(f"ion: {said}: must be ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ION_LLM_BACKEND", "gpt"),
        ("ION_LLM_BIND", "50052"),
        ("ION_VERTEX_LOCATIONS", " , "),
        ("ION_VERTEX_ENDPOINTS", "us-central1"),
        ("ION_VERTEX_ENDPOINTS", "us-central1=host"),
        ("ION_VERTEX_ENDPOINTS", "=host:1"),
        ("ION_VERTEX_ENDPOINTS", "a=h:1,b"),
        ("ION_VERTEX_ENDPOINTS", "a=https://h:443"),
        ("ION_VERTEX_INSECURE", "perhaps"),
        ("ION_CACHE_TTL_SECONDS", "0"),
        ("ION_CACHE_TTL_SECONDS", "2592001"),
        ("ION_CACHE_TTL_SECONDS", "1.5"),
        ("ION_CACHE_MAX_ENTRIES", "-1"),
        ("ION_CACHE_MAX_ENTRIES", "1000001"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name, value, refusal_of):
    line = refusal_of(**{name: value})
    assert line.startswith(f"ion: {name}={value!r}: ")
    assert "must " in line


@pytest.mark.parametrize(("name", "most"), [("ION_CACHE_TTL_SECONDS", "2592000"), ("ION_CACHE_MAX_ENTRIES", "1000000")])
def test_bounds_themselves_are_allowed(name, most, settings_of):
    assert settings_of(**{name: most})


def test_no_entries_means_no_cache_in_this_process(settings_of):
    assert settings_of(ION_CACHE_MAX_ENTRIES="0").cache_max_entries == 0


@pytest.mark.parametrize("url", ["http://u:hunter2@h", "unix:///hunter2", "hunter2", "redis:/hunter2"])
def test_another_scheme_is_refused_without_saying_the_url(url, refusal_of):
    line = refusal_of(REDIS_URL=url)
    assert line == "ion: REDIS_URL=(hidden): must start with redis://, rediss://, redis+cluster://"


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster"])
def test_the_password_of_redis_is_not_in_the_text_of_settings(scheme, settings_of):
    settings = settings_of(REDIS_URL=f"{scheme}://u:hunter2@h:1")
    assert settings.redis_url
    assert settings.redis_url.get_secret_value() == f"{scheme}://u:hunter2@h:1"
    assert "hunter2" not in f"{settings!r}{settings}{settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("locations", "endpoints", "usable"),
    [
        ("a,b,c", "c=h:3,a=h:1", ("a", "c")),
        ("a", "a=h:1,b=h:2", ("a",)),
        ("a,b", "x=h:1,y=h:2", ("x", "y")),
    ],
)
def test_without_encryption_nothing_goes_to_google(locations, endpoints, usable, settings_of):
    settings = settings_of(ION_VERTEX_LOCATIONS=locations, ION_VERTEX_ENDPOINTS=endpoints, **EMULATOR)
    assert settings.usable_locations == usable


def test_with_encryption_all_locations_are_usable(settings_of):
    settings = settings_of(GOOGLE_CLOUD_PROJECT="p", ION_VERTEX_LOCATIONS="a, b", ION_VERTEX_ENDPOINTS="b=h:1")
    assert settings.usable_locations == ("a", "b")
    assert settings.endpoints == {"b": "h:1"}


names = st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True)
endpoints = st.builds(Bind, names | st.ip_addresses().map(str), st.integers(0, 65535)).map(str)
spaces = st.sampled_from(["", " ", "\t"])


@given(st.dictionaries(names, endpoints), spaces, st.sampled_from(["", ","]))
def test_endpoints_are_read_as_they_are_written(pairs, space, tail):
    text = f"{space},{space}".join(f"{location}{space}={space}{endpoint}" for location, endpoint in pairs.items())
    assert parse_endpoints(text + tail) == pairs


@given(st.text(alphabet="ab=:,.[]1 ") | st.text())
def test_any_text_is_endpoints_or_refused(text):
    try:
        read = parse_endpoints(text)
    except ValueError:
        return
    assert isinstance(read, dict)
    assert all(location.strip() and str(parse_bind(endpoint)) == endpoint for location, endpoint in read.items())
