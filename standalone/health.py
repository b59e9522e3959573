"""`ion health`."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

_ASK_SECONDS = 2.0
_PAUSE_SECONDS = 0.1


def ask(url: str, *, wait_seconds: float) -> dict[str, Any]:
    """The gateway's own words, or `{"status": "unreachable"}`; asked again until healthy for `wait_seconds`."""
    until = time.monotonic() + wait_seconds
    answer = _ask_once(url)
    while answer.get("status") != "healthy" and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
        answer = _ask_once(url)
    return answer


def _ask_once(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=_ASK_SECONDS) as response:  # noqa: S310 - the user's URL
            answer = json.loads(response.read())
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return {"status": "unreachable", "url": url}
    return answer if isinstance(answer, dict) else {"status": "unreachable", "url": url}
