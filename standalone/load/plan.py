"""What is to be done: how many callers, for how long, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

MESSAGES: Final = (
    "The deploy broke again and nobody even answers me.",
    "왜 이게 안 되는지 모르겠어요. 답답해요.",
    "Which index does this query use?",
    "How would you split this module into two services?",
    "What does the p99 of last week tell us?",
    "이번 분기 지표를 지난 분기와 비교해 주세요.",
    "Prod is down, who takes what?",
    "우리 팀 일정부터 같이 정리해 볼까요?",
    "I finally fixed it, what a day!",
    "I am not sure that I understand the difference.",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: requests a second, of all callers together; None: each calls again as soon as it is answered."""

    callers: int
    seconds: float
    rate: float | None = None
    messages: Sequence[str] = MESSAGES


@dataclass(frozen=True, slots=True)
class Manner:
    """How to call. `session`: each caller keeps a conversation, which is deleted in the end."""

    timeout_seconds: float
    stream: bool = False
    session: bool = False
    bypass_cache: bool = False
    user_id: str = ""
    authorization: str = field(default="", repr=False)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address; other names are not looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def host_of_url(url: str) -> str:
    """Raises ValueError saying what is allowed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL, such as http://127.0.0.1:8080")
    return parts.hostname


def host_of_target(target: str) -> str:
    """Of a gRPC target: `host:port`, `dns:///host:port`, `ipv4:1.2.3.4:50051`. A socket's file is on this machine."""
    if target.startswith("unix:"):
        return "localhost"
    rest = target.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:")
    return urlsplit(f"//{rest}").hostname or rest
