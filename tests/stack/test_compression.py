"""Compressed answers: for those who take them, where it pays, and never in a stream of events."""

from __future__ import annotations

import pytest

from tests.fake_vertex import FakeVertex
from tests.stack.harness import Chain

LARGE = "/openapi.json"
SMALL = "/livez"


async def encoding_of(chain: Chain, accepted: str | None, path: str = LARGE) -> str | None:
    """What the answer came in; it must be JSON once decoded."""
    request = chain.http.build_request("GET", path, headers={"Accept-Encoding": accepted or ""})
    if accepted is None:
        del request.headers["Accept-Encoding"]
    response = await chain.http.send(request)
    assert response.status_code == 200
    assert response.json()
    return response.headers.get("content-encoding")


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip;q=0.5, br;q=0", "gzip"),
        ("deflate", None),
        ("gzip;q=0", None),
        ("identity", None),
        ("", None),
        (None, None),
    ],
)
async def test_a_large_answer_comes_as_the_client_takes_it(chain: Chain, accepted, encoding):
    assert await encoding_of(chain, accepted) == encoding


@pytest.mark.parametrize("accepted", ["gzip", "br", "zstd"])
async def test_a_small_answer_comes_as_it_is(chain: Chain, accepted):
    assert await encoding_of(chain, accepted, SMALL) is None


async def test_caches_are_told_that_it_depends(chain: Chain):
    response = await chain.http.get(LARGE, headers={"Accept-Encoding": "gzip"})
    assert response.headers["vary"] == "Accept-Encoding"
    assert int(response.headers["content-length"]) < len(response.content) / 2


async def test_a_long_reply_is_compressed(chain: Chain, vertex: FakeVertex, unique):
    vertex.answer("아주 긴 대답입니다. " * 200)
    response = await chain.http.post("/chat", json={"message": unique("hi")}, headers={"Accept-Encoding": "br"})
    assert response.headers["content-encoding"] == "br"
    assert len(response.json()["content"]) > 2000


@pytest.mark.parametrize("accepted", ["gzip", "br", "zstd"])
async def test_events_are_never_compressed(chain: Chain, vertex: FakeVertex, unique, accepted):
    vertex.answer("A long answer. " * 200)
    headers = {"Accept": "text/event-stream", "Accept-Encoding": accepted}
    response = await chain.http.post("/chat", json={"message": unique("hi")}, headers=headers)
    assert "content-encoding" not in response.headers
    assert response.text.startswith("event: routing\n")


async def test_what_is_compressed_already_stays_as_it_is(chain: Chain):
    page = await chain.http.get("/", headers={"Accept": "text/html", "Accept-Encoding": "br, gzip"})
    asset = next(part for part in page.text.split('"') if part.startswith("./assets/")).removeprefix(".")
    for encoding in ("br", "gzip"):
        response = await chain.http.get(asset, headers={"Accept-Encoding": encoding})
        assert response.headers["content-encoding"] == encoding
        known = {"Accept-Encoding": encoding, "If-None-Match": response.headers["etag"]}
        assert (await chain.http.get(asset, headers=known)).status_code == 304


async def test_a_head_has_the_headers_alone(chain: Chain):
    response = await chain.http.head("/", headers={"Accept-Encoding": "gzip"})
    assert (response.status_code, response.content) == (200, b"")
    assert "content-encoding" not in response.headers
