"""The calls behind one reply: hedges, streams, retries, failover, probes, and what they teach and cost."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.breaker import LEAST_OUTCOMES, BreakerState
from llm_gateway.budgets import RatioBudget
from llm_gateway.generation import (
    ModelBlocked,
    ModelCredentials,
    ModelEmpty,
    ModelInterrupted,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
    Usage,
)
from llm_gateway.means import HedgeMode
from llm_gateway.race import LEAST_SECONDS, Made
from tests.llm_gateway.scripted_backend import (
    nothing_left_behind,  # noqa: F401
    reply,
    soon,
    until,
)
from tests.llm_gateway.track import (
    AT_ONCE,
    NEVER,
    NOTHING,
    Reader,
    Remaining,
    probing,
)

# Hedges


async def test_a_late_reply_is_hedged_elsewhere_and_the_first_complete_one_wins(new):
    track = new(mode=HedgeMode.REPLY)
    track.learned(reply=AT_ONCE)
    track.backend.hold("a")
    made = await track.race(persona="Lua")
    assert made == Made(reply(location="b"), attempts=2, hedges=1, lost_usage=Usage(11, 0), first_token_seconds=None)
    await until(lambda: track.backend.cancelled == ["a"])
    assert track.backend.asked == ["a", "b"]
    assert not any(call.streamed for call in track.backend.calls)
    assert (track.statistics.calls, track.statistics.hedges, track.statistics.hedges_won) == (2, 1, 1)
    (entry,) = track.means.ledger.entries()
    assert (entry.persona, entry.replies, entry.usage, entry.lost_usage) == ("Lua", 1, reply().usage, Usage(11, 0))


async def test_the_late_one_may_still_win(new):
    track = new(mode=HedgeMode.REPLY)
    track.learned(reply=AT_ONCE)
    track.backend.hold()
    racing = track.race()
    await track.asked(2)
    track.backend.hold("b")
    track.backend.release()
    assert (await racing).reply == reply(location="a")
    await until(lambda: track.backend.cancelled == ["b"])
    assert (track.statistics.hedges, track.statistics.hedges_won) == (1, 0)


async def test_a_late_first_token_is_hedged_for_unary_callers_too(new):
    track = new()
    track.learned(first_token=AT_ONCE)
    track.backend.hold("a")
    made = await track.race()
    assert made.reply == reply(location="b")
    assert [(call.location, call.streamed) for call in track.backend.calls] == [("a", True), ("b", True)]
    assert made.first_token_seconds >= 0


async def test_a_late_reply_is_hedged_though_its_first_token_was_in_time(new):
    track = new()
    track.learned(reply=0.05)
    track.backend.dictate("a").say("Half ")
    made = await track.race()
    assert made.reply == reply(location="b")
    assert made.lost_usage == Usage(11, 2)  # "Half " was written


@pytest.mark.parametrize(
    ("options", "fields", "locations", "budget", "denied"),
    [
        ({}, {"may_hedge": False}, "ab", None, 0),
        ({"mode": HedgeMode.OFF}, {}, "ab", None, 0),
        ({}, {}, "a", None, 0),
        ({}, {}, "ab", NOTHING, 1),
        ({"max_tokens": 5}, {}, "ab", None, 0),
    ],
    ids=["request", "off", "one location", "budget", "tokens of the request"],
)
async def test_no_hedge(new, options, fields, locations, budget, denied):
    track = new(*locations, **options)
    track.learned(first_token=AT_ONCE, reply=AT_ONCE)
    track.means.hedge_budget = budget or track.means.hedge_budget
    track.backend.hold("a")
    racing = track.race(**fields)
    await track.late()
    track.backend.release("a")
    made = await racing
    assert (made.attempts, made.hedges, made.lost_usage) == (1, 0, Usage())
    assert track.backend.asked == ["a"]
    assert (track.statistics.hedges, track.statistics.hedges_denied) == (0, denied)


async def test_calls_are_not_streamed_where_the_first_token_matters_to_nobody(new):
    track = new()
    await track.race(may_hedge=False)
    await track.race()
    assert [call.streamed for call in track.backend.calls] == [False, True]


async def test_at_most_one_hedge_a_request(new):
    track = new("a", "b", "c")
    track.means.hedge_budget = RatioBudget(floor=10)
    track.learned(first_token=AT_ONCE)
    track.backend.hold()
    racing = track.race()
    await track.late(2)
    track.backend.release()
    await racing
    assert track.backend.asked == ["a", "b"]


@pytest.mark.parametrize("error", [ModelUnavailable(), ModelNotFound()])
async def test_a_hedge_that_fails_hurts_nobody(new, error):
    track = new("a", "b", "c")
    track.learned(first_token=AT_ONCE)
    track.backend.hold("a")
    track.backend.at["b"].append(error)
    racing = track.race()
    await track.asked(2)
    await until(lambda: track.running()["b"] == 0)
    track.backend.release("a")
    assert (await racing).reply == reply(location="a")
    assert track.backend.asked == ["a", "b"]


async def test_a_call_that_fails_beside_its_hedge_is_not_retried(new):
    track = new("a", "b", "c")
    track.learned(first_token=AT_ONCE)
    first = track.backend.dictate("a")
    track.backend.hold("b")
    racing = track.race()
    await track.asked(2)
    first.say(ModelUnavailable())
    await until(lambda: track.running()["a"] == 0)
    track.backend.release("b")
    assert (await racing).reply == reply(location="b")
    assert track.backend.asked == ["a", "b"]
    assert track.statistics.retries == 0


async def test_what_is_blocked_does_not_wait_for_the_hedge(new):
    track = new()
    track.learned(first_token=AT_ONCE)
    first = track.backend.dictate("a")
    track.backend.hold("b")
    racing = track.race()
    await track.asked(2)
    first.say(ModelBlocked())
    with pytest.raises(ModelBlocked):
        await racing
    await until(lambda: track.backend.cancelled == ["b"])


async def test_two_that_answer_at_once_are_both_over(new):
    track = new(mode=HedgeMode.REPLY)
    track.learned(reply=AT_ONCE)
    first, second = track.backend.dictate("a"), track.backend.dictate("b")
    racing = track.race()
    await track.asked(2)
    second.say(reply(location="b"))
    first.say(reply(location="a"))
    assert (await racing).lost_usage == reply().usage  # of the loser, which is known


# Streams


async def test_text_comes_as_it_is_made_and_stops_the_others(new):
    track = new()
    track.learned(first_token=AT_ONCE)
    track.backend.hold("a")
    hedge, reader = track.backend.dictate("b"), Reader(wants_text=True)
    racing = track.race(reader)
    await track.asked(2)
    hedge.say("One ")
    await until(lambda: track.backend.cancelled == ["a"])
    assert reader.texts == ["One "]
    hedge.say("two")
    await until(lambda: reader.texts == ["One ", "two"])
    assert not racing.done()
    hedge.say(reply("One two", location="b"))
    made = await racing
    assert (made.reply.text, made.attempts, made.hedges) == ("One two", 2, 1)
    assert made.lost_usage == Usage(11, 0)  # the one that was stopped had read the prompt


async def test_a_stream_that_has_begun_is_not_hedged(new):
    track, reader = new(), Reader(wants_text=True)
    track.learned(reply=0.05)
    dictated = track.backend.dictate("a")
    dictated.say("One ")
    racing = track.race(reader)
    await until(lambda: reader.texts == ["One "])
    late_at = time.monotonic() + 0.05
    await until(lambda: time.monotonic() > late_at)
    track.locations.notify()
    await asyncio.sleep(0.001)
    dictated.say(reply("One ", location="a"))
    assert (await racing).attempts == 1


async def test_a_stream_that_fails_before_its_first_text_is_retried_elsewhere(new):
    track, reader = new(mode=HedgeMode.OFF), Reader(wants_text=True)
    track.backend.at["a"].append(ModelUnavailable())
    made = await track.race(reader)
    assert (made.reply, made.attempts, reader.texts) == (reply(location="b"), 2, ["Hello!"])


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ModelUnavailable(), ModelInterrupted),
        (ModelInterrupted(), ModelInterrupted),
        (DeadlineExceeded(), ModelInterrupted),  # of the service, since there is time left
        (ModelBlocked(), ModelBlocked),
    ],
)
async def test_a_stream_that_fails_after_its_first_text_is_not_retried(new, error, seen):
    track, reader = new(), Reader(wants_text=True)
    track.backend.dictate("a").say("Half ", error)
    with pytest.raises(seen):
        await track.race(reader)
    assert (track.backend.asked, reader.texts) == (["a"], ["Half "])
    (entry,) = track.means.ledger.entries()
    assert (entry.replies, entry.lost_usage.output_tokens) == (0, 2)


async def test_a_stream_whose_deadline_passes_says_so(new):
    track, reader = new(), Reader(wants_text=True)
    track.backend.dictate("a").say("Half ")
    with pytest.raises(DeadlineExceeded):
        await track.race(reader, deadline=Deadline.after(0.05))
    assert reader.texts == ["Half "]


async def test_a_stream_whose_call_ends_with_its_deadline_says_so(new):
    track, reader, deadline = new(), Reader(wants_text=True), Remaining(10.0)
    dictated = track.backend.dictate("a")
    dictated.say("Half ")
    racing = track.race(reader, deadline=deadline)
    await until(lambda: reader.texts == ["Half "])
    deadline.seconds = LEAST_SECONDS / 2
    dictated.say(DeadlineExceeded())
    with pytest.raises(DeadlineExceeded):
        await racing


async def test_a_stream_that_ends_without_its_reply_has_broken_off(new):
    track = new("a", mode=HedgeMode.OFF)

    async def cut(request, *, location, timeout_seconds):
        yield "Half "

    track.backend.stream = cut
    with pytest.raises(ModelInterrupted):
        await track.race(Reader(wants_text=True))


async def test_a_stream_that_joins_a_unary_race_settles_it_with_the_next_text(new):
    track = new()
    track.learned(reply=0.05)
    first, reader = track.backend.dictate("a"), Reader()
    track.backend.hold("b")
    racing = track.race(reader)
    first.say("One ")
    await track.asked(2)
    assert reader.texts == []
    reader.wants_text = True
    first.say("two ")
    await until(lambda: track.backend.cancelled == ["b"])
    assert reader.texts == ["One two "]
    first.say("three", reply("One two three", location="a"))
    assert (await racing).reply.location == "a"
    assert "".join(reader.texts) == "One two three"


async def test_a_reply_that_is_complete_is_not_mixed_with_the_text_of_another(new):
    track = new()
    track.learned(first_token=AT_ONCE)
    first, hedge, reader = track.backend.dictate("a"), track.backend.dictate("b"), Reader()
    racing = track.race(reader)
    await track.asked(2)
    hedge.say("Whole")
    await asyncio.sleep(0)
    reader.wants_text = True
    hedge.say(reply("Whole", location="b"))
    first.say("Other ")  # in the same turn of the loop
    made = await racing
    assert "".join(reader.texts) in ("", made.reply.text)


async def test_a_reply_and_a_text_in_one_turn(new):
    track = new()
    track.learned(first_token=AT_ONCE)
    first, hedge, reader = track.backend.dictate("a"), track.backend.dictate("b"), Reader()
    racing = track.race(reader)
    await track.asked(2)
    hedge.say(reply("Whole", location="b"))
    reader.wants_text = True
    first.say("Other ")
    assert (await racing).reply.location == "b"
    assert reader.texts == []


@pytest.mark.parametrize(("speaker", "failing"), [("a", "b"), ("b", "a")])
async def test_one_that_fails_as_the_other_begins_to_speak_hurts_nobody(new, speaker, failing):
    track, reader = new(), Reader(wants_text=True)
    track.learned(first_token=AT_ONCE)
    dictated = {name: track.backend.dictate(name) for name in "ab"}
    racing = track.race(reader)
    await track.asked(2)
    dictated[failing].say(ModelBlocked())
    dictated[speaker].say("One ")
    await until(lambda: track.running()[failing] == 0)
    dictated[speaker].say(reply("One ", location=speaker))
    assert (await racing).reply.location == speaker


# Retries


@pytest.mark.parametrize("error", [ModelUnavailable(), ModelEmpty(), ModelQuota(retry_after_seconds=3600)])
async def test_a_retry_goes_elsewhere_at_once(new, error):
    track = new()
    track.means.draw = lambda: pytest.fail("there is no pause")
    track.backend.at["a"].append(error)
    made = await track.race()
    assert (made.reply, made.attempts, made.hedges, made.lost_usage) == (reply(location="b"), 2, 0, Usage())
    assert (track.statistics.calls, track.statistics.retries) == (2, 1)


@pytest.mark.parametrize("error", [ModelUnavailable, ModelQuota, ModelEmpty])
async def test_gives_up_after_two_retries_with_the_last_error(new, error):
    track = new("a", "b", "c", "d")
    track.backend.outcomes.extend([ModelUnavailable(), ModelUnavailable(), error()])
    with pytest.raises(error):
        await track.race()
    assert track.backend.asked == ["a", "b", "c"]


async def test_four_calls_at_most(new):
    track = new("a", "b", "c", "d", "e")
    track.learned(first_token=AT_ONCE)
    first, hedge = track.backend.dictate("a"), track.backend.dictate("b")
    track.backend.outcomes.extend([ModelUnavailable()] * 10)
    racing = track.race()
    await track.asked(2)
    hedge.say(ModelUnavailable())
    first.say(ModelUnavailable())
    with pytest.raises(ModelUnavailable):
        await racing
    assert track.backend.asked == ["a", "b", "c", "d"]


@pytest.mark.parametrize("error", [ModelBlocked, ModelRejected, ModelNotFound, ModelCredentials])
async def test_what_would_fail_again_is_not_retried(new, error):
    track = new()
    track.backend.at["a"].append(error())
    with pytest.raises(error):
        await track.race()
    assert track.backend.asked == ["a"]


async def test_a_wish_to_be_asked_later_is_honoured(new):
    track = new("a")
    track.backend.at["a"].append(ModelQuota(retry_after_seconds=0.1))
    started = time.monotonic()
    assert (await track.race()).attempts == 2
    assert time.monotonic() - started >= 0.1


async def test_a_wish_beyond_the_deadline_ends_at_once(new):
    track = new("a")
    track.backend.at["a"].append(ModelQuota(retry_after_seconds=3600))
    deadline = soon()
    with pytest.raises(ModelQuota):
        await track.race(deadline=deadline)
    assert deadline.remaining_seconds() > 5
    assert track.backend.asked == ["a"]


async def test_a_retry_goes_where_it_need_not_wait(new):
    track = new()
    track.backend.at["a"].append(ModelUnavailable())
    track.backend.at["b"].append(ModelQuota(retry_after_seconds=3600))
    assert (await track.race()).reply == reply(location="a")
    assert track.backend.asked == ["a", "b", "a"]


async def test_the_pause_has_jitter(new):
    track = new("a")
    draws = iter([0.5, 1.0])
    track.means.draw = lambda: next(draws)
    track.backend.at["a"].extend([ModelUnavailable(), ModelUnavailable()])
    started = time.monotonic()
    assert (await track.race()).attempts == 3
    assert time.monotonic() - started >= 0.5 * 0.05 + 1.0 * 0.1
    assert list(draws) == []


async def test_the_process_has_a_budget_of_retries(new):
    track = new()
    track.means.retry_budget = NOTHING
    track.backend.at["a"].append(ModelUnavailable())
    with pytest.raises(ModelUnavailable):
        await track.race()
    assert (track.backend.asked, track.statistics.retries_denied) == (["a"], 1)


async def test_the_request_has_a_budget_of_tokens(new):
    track = new("a", "b", "c", max_tokens=9)  # the prompt has 4
    track.backend.outcomes.extend([ModelUnavailable(), ModelEmpty()])
    with pytest.raises(ModelEmpty):
        await track.race()
    assert track.backend.asked == ["a", "b"]
    assert track.statistics.retries_denied == 0


async def test_nothing_is_retried_once_the_deadline_has_passed(new):
    track = new("a")
    track.backend.hold()
    with pytest.raises(DeadlineExceeded):
        await track.race(deadline=Deadline.after(0.03))
    assert track.backend.asked == ["a"]
    (entry,) = track.means.ledger.entries()
    assert entry.lost_usage == Usage(4, 0)


async def test_nothing_is_retried_where_there_is_hardly_time(new):
    track, deadline = new(), Remaining(10.0)
    dictated = track.backend.dictate("a")
    racing = track.race(deadline=deadline)
    await track.asked(1)
    deadline.seconds = LEAST_SECONDS / 2
    dictated.say(ModelUnavailable())
    with pytest.raises(ModelUnavailable):
        await racing
    assert track.backend.asked == ["a"]


async def test_the_deadline_holds_for_a_call_that_does_not_keep_it(new):
    track = new("a")

    async def hang(request, *, location, timeout_seconds):
        await asyncio.Event().wait()

    track.backend.generate = hang
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(track.race(may_hedge=False, deadline=Deadline.after(0.03)), 5)


async def test_no_model_is_called_when_the_deadline_has_passed(new):
    track = new()
    with pytest.raises(DeadlineExceeded):
        await track.race(deadline=Deadline.after(0))
    assert (track.backend.calls, track.statistics.calls, track.means.ledger.entries()) == ([], 0, ())


async def test_a_timeout_of_the_service_is_retried_and_counts_against_its_location(new):
    track = new()
    track.means.retry_budget = RatioBudget(floor=100)
    track.backend.at["a"].extend([DeadlineExceeded()] * 10)
    for _ in range(10):
        assert (await track.race()).reply.location == "b"
    assert track.locations.state("a") is BreakerState.OPEN


async def test_a_caller_in_haste_says_nothing_about_a_location(new):
    track = new("a")
    track.means.retry_budget = RatioBudget(floor=100)
    for _ in range(10):
        dictated, deadline, started = track.backend.dictate("a"), Remaining(0.02), time.monotonic()
        racing = track.race(deadline=deadline)
        await until(lambda: track.running()["a"] == 1)
        deadline.seconds = 10.0  # another is more patient
        await until(lambda started=started: time.monotonic() > started + 0.05)
        dictated.say(DeadlineExceeded())
        assert (await racing).attempts == 2
    assert track.locations.state("a") is BreakerState.CLOSED


async def test_what_is_wrong_with_a_request_says_nothing_about_a_location(new):
    track = new()
    track.backend.at["a"].extend([ModelBlocked()] * 20)
    await asyncio.gather(*(track.race() for _ in range(20)), return_exceptions=True)
    assert track.locations.state("a") is BreakerState.CLOSED


async def test_a_deadline_that_is_extended_gives_another_call_the_time(new):
    track, deadline = new("a"), Deadline.after(0.05)
    track.backend.hold()
    racing = track.race(deadline=deadline)
    await track.asked(1)
    deadline.extend_to(soon())
    await track.asked(2)  # the first was made with the time there was
    track.backend.release()
    assert (await racing).attempts == 2
    assert track.backend.calls[0].timeout_seconds <= 0.05 < 5 < track.backend.calls[1].timeout_seconds


async def test_a_call_cancelled_from_below_is_a_failure(new):
    track = new("a")
    track.backend.outcomes.extend(asyncio.CancelledError() for _ in range(3))
    with pytest.raises(ModelUnavailable):
        await track.race()
    assert track.backend.asked == ["a", "a", "a"]


@pytest.mark.parametrize("wants_text", [False, True])
async def test_a_defect_reaches_the_caller_as_it_is(new, wants_text):
    track = new()
    track.backend.at["a"].append(KeyError("defect"))
    with pytest.raises(KeyError, match="defect"):
        await track.race(Reader(wants_text=wants_text))
    assert track.backend.asked == ["a"]


async def test_a_defect_in_the_midst_of_a_stream_reaches_the_caller_as_it_is(new):
    track = new()
    track.backend.dictate("a").say("Half ", KeyError("defect"))
    with pytest.raises(KeyError, match="defect"):
        await track.race(Reader(wants_text=True))


# Failover


async def test_a_call_that_shows_nothing_by_half_of_the_time_is_given_up(new):
    track = new(mode=HedgeMode.OFF)
    track.backend.hold("a")
    made = await track.race(deadline=Deadline.after(1.0))
    assert (made.reply, made.attempts, made.hedges) == (reply(location="b"), 2, 0)
    assert made.lost_usage == Usage(11, 0)
    await until(lambda: track.backend.cancelled == ["a"])
    assert track.statistics.retries == 1


async def test_giving_up_counts_against_the_location(new):
    track = new(mode=HedgeMode.OFF)
    track.means.retry_budget = RatioBudget(floor=100)
    track.backend.hold("a")
    await asyncio.gather(*(track.race(deadline=Deadline.after(1.0)) for _ in range(10)))
    assert track.locations.state("a") is BreakerState.OPEN


async def test_a_call_is_not_given_up_where_there_is_nowhere_else(new):
    track = new("a", mode=HedgeMode.OFF)
    track.learned(reply=AT_ONCE)
    track.backend.hold("a")
    racing = track.race()
    await track.late()
    track.locations.open("a")
    for _ in range(3):
        await asyncio.sleep(0)
        track.locations.notify()
    track.backend.release("a")
    assert (await racing).reply == reply(location="a")
    assert track.backend.asked == ["a"]


async def test_calls_that_were_sent_before_a_breaker_opened_go_elsewhere_whatever_the_budget(new):
    """A burst that meets a location that has just died: the budget alone would let most of it fail."""
    track = new(mode=HedgeMode.OFF)
    track.means.retry_budget = RatioBudget(share=0.0, floor=LEAST_OUTCOMES - 1)
    track.backend.at["a"].extend(ModelUnavailable() for _ in range(60))
    made = await asyncio.gather(*(track.race() for _ in range(60)))
    assert {one.reply.location for one in made} == {"b"}
    assert track.statistics.retries_denied == 0


async def test_an_outage_everywhere_does_not_multiply_load(new):
    """The first to fail open the breakers, those under way are tried once more; after that a call is one attempt."""
    track = new(mode=HedgeMode.OFF)
    track.means.retry_budget = RatioBudget(share=0.0, floor=LEAST_OUTCOMES)
    for location in "ab":
        track.backend.at[location].extend(ModelUnavailable() for _ in range(500))
    for _ in range(10):
        outcomes = await asyncio.gather(*(track.race() for _ in range(20)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ModelUnavailable}
    assert len(track.backend.calls) <= 200 + 20 + LEAST_OUTCOMES


async def test_a_late_call_to_a_location_whose_breaker_opens_is_moved_at_once(new):
    track = new()
    track.learned(first_token=AT_ONCE)
    track.means.hedge_budget = NOTHING
    track.backend.hold("a")
    deadline = soon()
    racing = track.race(deadline=deadline)
    await track.late()
    assert track.backend.asked == ["a"]
    track.locations.open("a")
    assert (await racing).reply == reply(location="b")
    assert deadline.remaining_seconds() > 5
    await until(lambda: track.backend.cancelled == ["a"])


async def test_a_late_call_is_not_moved_while_its_hedge_runs(new):
    track = new("a", "b", "c")
    track.learned(first_token=AT_ONCE)
    track.backend.hold()
    racing = track.race()
    await track.asked(2)
    track.locations.open("a")
    await asyncio.sleep(0.001)
    track.backend.release()
    await racing
    assert track.backend.asked == ["a", "b"]


async def test_a_call_that_has_shown_text_is_not_moved(new):
    track = new()
    track.learned(reply=0.05)
    track.means.hedge_budget = NOTHING
    first = track.backend.dictate("a")
    first.say("One ")
    racing = track.race()
    await track.late()
    track.locations.open("a")
    await asyncio.sleep(0)
    first.say(reply("One ", location="a"))
    assert (await racing).reply.location == "a"
    assert track.backend.asked == ["a"]


async def test_a_call_in_time_is_not_moved(new):
    track = new()
    first = track.backend.dictate("a")
    racing = track.race()
    await track.asked(1)
    track.locations.open("a")
    await asyncio.sleep(0)
    first.say(reply(location="a"))
    assert (await racing).attempts == 1


# Probes


async def test_nobody_waits_for_a_probe_which_runs_to_its_end(new):
    track = probing(new)
    track.backend.hold("a")
    made = await track.race()
    assert (made.reply, made.attempts, made.hedges) == (reply(location="b"), 2, 1)
    assert track.backend.asked == ["b", "a"]
    assert track.locations.state("a") is BreakerState.HALF_OPEN
    track.backend.release("a")
    await until(lambda: track.running()["a"] == 0)
    assert track.backend.cancelled == []


async def test_three_probes_that_lose_close_the_breaker(new):
    track = probing(new)
    for number in range(3):
        assert track.locations.state("a") is not BreakerState.CLOSED
        probe = track.backend.dictate("a")
        assert (await track.race()).reply.location == "b"
        probe.say("Hi", reply("Hi", location="a"))
        await until(lambda: track.running()["a"] == 0)
        assert len(track.backend.calls) == 2 * (number + 1)
    assert track.locations.state("a") is BreakerState.CLOSED


async def test_a_probe_may_win(new):
    track = probing(new)
    track.backend.hold("b")
    assert (await track.race()).reply == reply(location="a")
    assert track.statistics.hedges_won == 1
    await until(lambda: track.backend.cancelled == ["b"])
    assert track.latencies.added == []  # that the other was not late yet says nothing


@pytest.mark.parametrize("error", [ModelUnavailable(), ModelNotFound()])
async def test_a_probe_that_fails_hurts_nobody(new, error):
    track = probing(new)
    track.backend.at["a"].append(error)
    normal = track.backend.dictate("b")
    racing = track.race()
    await track.asked(2)
    await until(lambda: track.running()["a"] == 0)
    normal.say(reply(location="b"))
    assert (await racing).attempts == 2
    assert track.locations.state("a") is BreakerState.OPEN


async def test_a_late_probe_is_not_hedged(new):
    track = probing(new, "a", "b", "c")
    track.learned(first_token=0.05)
    track.backend.hold("a")
    normal = track.backend.dictate("b")
    normal.say("One ")
    racing = track.race()
    await track.asked(2)
    await until(lambda: track.locations.state("a") is BreakerState.OPEN)  # since the probe is late
    await asyncio.sleep(0.001)
    normal.say(reply("One ", location="b"))
    assert (await racing).reply.location == "b"
    assert track.backend.asked == ["b", "a"]
    track.backend.release("a")


async def test_a_retry_does_not_wait_for_a_probe(new):
    track = probing(new, "a", "b", "c")
    track.backend.hold("a")
    track.backend.at["b"].append(ModelUnavailable())
    assert (await track.race()).reply == reply(location="c")
    assert track.backend.asked == ["b", "a", "c"]
    track.backend.release("a")


async def test_a_probe_that_fails_while_a_retry_waits_hurts_nobody(new):
    track = probing(new)
    probe = track.backend.dictate("a")
    track.backend.at["b"].append(ModelQuota(retry_after_seconds=0.1))
    racing = track.race()
    await track.asked(2)
    await until(lambda: track.running()["b"] == 0)
    probe.say(ModelNotFound())
    assert (await racing).reply == reply(location="b")
    assert track.backend.asked == ["b", "a", "b"]


async def test_where_nothing_else_can_be_tried_a_probe_is_waited_for(new):
    track = probing(new)
    track.means.retry_budget = NOTHING
    probe = track.backend.dictate("a")
    track.backend.at["b"].append(ModelUnavailable())
    racing = track.race()
    await until(lambda: track.statistics.retries_denied == 1)
    probe.say(reply(location="a"))
    assert (await racing).reply == reply(location="a")


async def test_a_probe_that_loses_and_is_late_opens_the_breaker_again(new):
    track = probing(new)
    track.learned(first_token=NEVER, reply=0.05)
    track.backend.hold("a")
    assert (await track.race()).reply == reply(location="b")
    await until(lambda: track.locations.state("a") is BreakerState.OPEN)
    assert track.running()["a"] == 1
    track.backend.release("a")


async def test_a_probe_that_loses_and_fails_opens_the_breaker_again(new):
    track = probing(new)
    probe = track.backend.dictate("a")
    await track.race()
    probe.say(ModelUnavailable())
    await until(lambda: track.running()["a"] == 0)
    track.at += 1.5  # a probe that was only cancelled would be due by now
    assert track.locations.state("a") is BreakerState.OPEN
    assert track.locations.start_probe() is None


async def test_what_a_probe_that_loses_says_is_not_heard_and_what_it_costs_is_counted(new):
    track, reader = probing(new), Reader()
    probe, normal = track.backend.dictate("a"), track.backend.dictate("b")
    racing = track.race(reader)
    await track.asked(2)
    normal.say("Whole", reply("Whole", location="b"))
    made = await racing
    reader.wants_text = True
    probe.say("Other ", reply("Other ", location="a"))
    await until(lambda: track.running()["a"] == 0)
    await until(lambda: not track.means.probes)
    (entry,) = track.means.ledger.entries()
    assert (reader.texts, made.lost_usage) == ([], Usage())
    assert (entry.replies, entry.usage, entry.lost_usage) == (1, reply().usage, reply().usage)


async def test_a_probe_that_has_lost_cannot_win_any_more(new):
    track, reader = probing(new), Reader(wants_text=True)
    probe, normal = track.backend.dictate("a"), track.backend.dictate("b")
    racing = track.race(reader)
    await track.asked(2)
    normal.say("One ")
    await until(lambda: reader.texts == ["One "])
    probe.say(reply("Other", location="a"))
    await until(lambda: track.running()["a"] == 0)
    normal.say(reply("One ", location="b"))
    assert (await racing).reply.location == "b"


async def test_where_there_is_no_budget_for_one_beside_it_the_call_is_the_probe(new):
    track = probing(new)
    made = await track.race(may_hedge=False)
    assert (track.backend.asked, made.hedges) == (["a"], 0)


async def test_a_probe_is_cancelled_with_its_caller(new):
    track = probing(new)
    track.backend.hold()
    racing = track.race()
    await track.asked(2)
    racing.cancel()
    await asyncio.wait((racing,))
    await until(lambda: sorted(track.backend.cancelled) == ["a", "b"])


# The account; see the other parts for what was lost


async def test_a_reply_that_no_model_has_made_is_not_accounted_for(new):
    track = new()
    track.backend.outcomes.append(replace(reply(), offline=True))
    await track.race()
    assert track.means.ledger.entries() == ()


# What latencies are learned


async def test_a_first_call_teaches_its_latencies(new):
    track = new()
    made = await track.race()
    ((first_token, whole),) = track.latencies.added
    assert 0 < first_token == made.first_token_seconds < whole


async def test_without_a_stream_there_is_no_first_token_to_learn(new):
    track = new(mode=HedgeMode.REPLY)
    await track.race()
    ((first_token, whole),) = track.latencies.added
    assert first_token is None
    assert whole > 0


async def test_a_loser_is_at_least_as_slow_as_shows_and_a_hedge_teaches_nothing(new):
    track = new()
    track.learned(first_token=0.02, reply=NEVER)
    track.backend.hold("a")
    await track.race()
    ((first_token, whole),) = track.latencies.added
    assert first_token >= 0.02
    assert whole >= NEVER
    assert track.latencies.delays("model-a").first_token_seconds >= 0.02


async def test_what_a_loser_has_not_shown_takes_at_least_its_delay(new):
    track = new()
    track.learned(first_token=NEVER, reply=0.02)
    track.backend.hold("a")
    await track.race()
    ((first_token, whole),) = track.latencies.added
    assert first_token >= NEVER
    assert whole >= 9, "of a stream, as long as it might have taken: slow in both measures"


async def test_the_first_token_of_a_loser_is_known_where_it_came(new):
    track = new()
    track.learned(first_token=NEVER, reply=0.05)
    track.backend.dictate("a").say("Half ")
    await track.race()
    ((first_token, whole),) = track.latencies.added
    assert 0 < first_token < NEVER
    assert whole >= 0.05


async def test_a_late_call_that_is_moved_teaches_that_it_was_slow(new):
    track = new()
    track.learned(first_token=0.02)
    track.means.hedge_budget = NOTHING
    track.backend.hold("a")
    racing = track.race()
    await track.late()
    track.locations.open("a")
    await racing
    ((first_token, whole),) = track.latencies.added
    assert first_token >= 0.02
    assert whole >= NEVER


async def test_failures_and_retries_teach_nothing(new):
    track = new()
    track.backend.at["a"].append(ModelUnavailable())
    await track.race()
    assert track.latencies.added == []


async def test_a_winner_teaches_its_location_how_fast_it_is(new):
    track = new()
    await track.race()
    assert track.locations.latency_seconds("a") > 0
    assert track.locations.latency_seconds("b") is None


# Cancellation


@pytest.mark.parametrize("wants_text", [False, True])
async def test_cancelling_cancels_every_call(new, wants_text):
    track = new()
    track.learned(first_token=AT_ONCE)
    track.backend.hold()
    racing = track.race(Reader(wants_text=wants_text), persona="Lua")
    await track.asked(2)
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    await until(lambda: sorted(track.backend.cancelled) == ["a", "b"])
    (entry,) = track.means.ledger.entries()
    assert (entry.persona, entry.replies, entry.usage, entry.lost_usage) == ("Lua", 0, Usage(), Usage(8, 0))
    assert track.latencies.added == []


async def test_cancelled_between_attempts_calls_the_model_no_more(new):
    track = new("a")
    track.backend.at["a"].append(ModelQuota(retry_after_seconds=5))
    racing = track.race()
    await until(lambda: track.backend.asked == ["a"] and not track.running()["a"])
    racing.cancel()
    await asyncio.wait((racing,))
    assert racing.cancelled()
    assert track.backend.asked == ["a"]


async def test_cancelled_as_the_reply_comes(new):
    track = new(mode=HedgeMode.REPLY)
    outcome = track.backend.dictate("a")
    racing = track.race()
    await track.asked(1)
    outcome.say(reply())
    await asyncio.sleep(0)
    racing.cancel()
    await asyncio.wait((racing,))


@pytest.mark.parametrize(
    ("first_token", "draw", "streamed"),
    [
        (0.1, 0.9, True),  # long before the reply: worth its CPU
        (0.9, 0.9, False),
        (0.9, 0.0, True),  # one in ten, to see whether that changes
        (None, 0.9, True),  # not known yet
    ],
)
async def test_a_unary_call_is_streamed_where_its_first_token_may_tell_that_it_is_slow(
    new, first_token, draw, streamed
):
    track = new()
    track.learned(first_token=first_token, reply=1.0)
    track.means.draw = lambda: draw
    await track.race()
    assert [call.streamed for call in track.backend.calls] == [streamed]


async def test_what_is_read_as_it_comes_is_streamed_whatever_first_tokens_tell(new):
    track = new()
    track.learned(first_token=0.9, reply=1.0)
    track.means.draw = lambda: 0.9
    await track.race(Reader(wants_text=True))
    assert track.backend.calls[0].streamed
