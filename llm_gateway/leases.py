"""One model call for equal requests of all replicas: one leads, by a lease in Redis, and the others follow it.

For a reply key K and each way of asking (W: unary or streamed) Redis holds, in one slot of a cluster:
  K            the stored reply; answers both ways
  K:W          the lease: the token of who leads; gone with its leader
  K:W:newest   the fence: the newest token there is; it outlives the lease, so that a late leader cannot store
  K:W:<token>  the log of one leader's call: its pieces in order, and how it ended
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from chassis.deadline import Deadline
from chassis.errors import RULES, DeadlineExceeded, IonError
from llm_gateway.redis_store import Store
from llm_gateway.stored import Found

LEASE_SECONDS: Final = 2.0
# Until the first renewal: a lease whose grant was lost on the way has nobody to give it back.
FIRST_LEASE_SECONDS: Final = 0.5
RENEWALS_PER_LEASE: Final = 3
FENCE_SECONDS: Final = 60.0  # after the last renewal
LOG_SECONDS: Final = 10.0  # after the last piece or renewal
SETTLED_SECONDS: Final = 2.0  # for followers to read how it ended: a hundred polls
POLL_SECONDS: Final = 0.020  # also the window in which pieces of a stream are merged
MOST_LATE_POLLS: Final = 2  # in a row

# A value that says no times is handed out as well, for the caller to count. Tokens are microseconds, so that they
# increase even where Redis has lost its data.
_ENTER: Final = """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' then
  local made = tonumber(string.sub(value, 6, 18)) or tonumber(ARGV[3])
  local fresh = tonumber(string.sub(value, 19, 31)) or tonumber(ARGV[3])
  if made >= tonumber(ARGV[1]) and fresh > tonumber(ARGV[2]) then return {0, value} end
end
local leader = redis.call('GET', KEYS[2])
if leader then return {2, leader} end
local now = redis.call('TIME')
local token = tonumber(now[1]) * 1000000 + tonumber(now[2])
local newest = tonumber(redis.call('GET', KEYS[3]) or '0')
token = string.format('%.0f', math.max(token, newest + 1))
redis.call('SET', KEYS[2], token, 'PX', ARGV[4])
redis.call('SET', KEYS[3], token, 'PX', ARGV[5])
return {1, token}
"""
# A lease that ran out is taken up again where nobody else has led since.
_RENEW: Final = """
local leader = redis.call('GET', KEYS[1])
if (leader and leader ~= ARGV[1]) or redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return 1
"""
# A piece is appended only behind all before it: the log never has a hole.
_PUBLISH: Final = """
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_SETTLE: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[4] ~= '0' then redis.call('SET', KEYS[4], string.sub(ARGV[2], 2), 'PX', ARGV[4]) end
redis.call('RPUSH', KEYS[3], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('DEL', KEYS[1])
return 1
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_POLL: Final = """
return {redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0, redis.call('LRANGE', KEYS[2], ARGV[2], -1)}
"""
_NO_TIME: Final = 10**14  # later than any time of a value
_PIECE, _REPLY, _FAILURE = b"p", b"r", b"f"

ReadReply = Callable[[bytes], Found | None]


class Call:
    """The keys of one leader's call."""

    __slots__ = ("fence", "lease", "log", "reply", "token")

    def __init__(self, key: str, token: str, *, streamed: bool) -> None:
        self.reply = key
        self.token = token
        self.lease, self.fence = _lease_keys(key, streamed=streamed)
        self.log = f"{self.lease}:{token}"


def _lease_keys(key: str, *, streamed: bool) -> tuple[str, str]:
    lease = f"{key}:{'stream' if streamed else 'unary'}"
    return lease, f"{lease}:newest"


async def enter(
    store: Store, key: str, *, streamed: bool, made_after: float, fresh_after: float, read: ReadReply
) -> bytes | Lease | Followed | None:
    """In one round trip: the stored value where it was made at or after `made_after` and is fresh after `fresh_after`
    (Unix seconds), else the lease where nobody leads, else whom to follow. None where Redis is not to be had in time.
    `read` makes what a followed call ends with a reply."""
    lease, fence = _lease_keys(key, streamed=streamed)
    times = [_milliseconds(time) for time in (made_after, fresh_after)]
    durations = [_milliseconds(seconds) for seconds in (FIRST_LEASE_SECONDS, FENCE_SECONDS)]
    asked = store.send("EVAL", _ENTER, 3, key, lease, fence, *times, _NO_TIME, *durations)
    is_taken = False
    try:
        match await store.in_time(asked, question="EVAL enter"):
            case [0, bytes(value)]:
                return value
            case [1, bytes(token)]:
                is_taken = True
                return Lease(store, Call(key, token.decode(), streamed=streamed))
            case [2, bytes(token)]:
                return Followed(store, Call(key, token.decode(), streamed=streamed), read)
            case _:
                return None
    finally:
        if not is_taken:
            asked.add_done_callback(lambda asked: _give_back(store, lease, asked.result()))


def _give_back(store: Store, lease: str, answer: Any) -> None:
    """A lease that was granted to a caller who had gone on without it."""
    match answer:
        case [1, bytes(token)]:
            store.send("EVAL", _RELEASE, 1, lease, token)


def _milliseconds(seconds: float) -> int:
    return round(min(_NO_TIME, seconds * 1000))


class Lease:
    """Held by who leads; it renews itself until it is settled or released. `token` increases with each lease of a key.
    `lost`: another replica has taken over."""

    def __init__(self, store: Store, call: Call) -> None:
        self.token = int(call.token)
        self.lost = False
        self._store = store
        self._call = call
        self._published = 0
        self._is_over = False
        self._renewal = self._renew_after(FIRST_LEASE_SECONDS / RENEWALS_PER_LEASE)

    def publish(self, text: str) -> None:
        """The next piece of a stream, to those who follow."""
        piece = _PIECE + text.encode()
        self._store.send("EVAL", _PUBLISH, 1, self._call.log, self._published, piece, _milliseconds(LOG_SECONDS))
        self._published += 1

    def finish(self, value: bytes, *, ttl_seconds: float | None) -> asyncio.Future[Any]:
        """The reply to those who follow and, where `ttl_seconds` is given, to all who ask later. The answer is 0 where
        another replica has led since: nothing is stored then."""
        return self._settle(_REPLY + value, ttl_seconds)

    async def settle(self, failure: IonError | None) -> None:
        """The call is over. Those who follow are told the reason of a failure; without one, and without a reply before,
        they take over."""
        if self._is_over:
            return
        if failure is None:
            await self.release()
        else:
            self._settle(_FAILURE + b"%d" % failure.reason, None)

    async def release(self) -> None:
        """Given up: those who follow take over at once."""
        if not self._is_over:
            self._end()
            self._store.send("EVAL", _RELEASE, 1, self._call.lease, self._call.token)

    def _settle(self, entry: bytes, ttl_seconds: float | None) -> asyncio.Future[Any]:
        self._end()
        call = self._call
        ttl = 0 if ttl_seconds is None else max(1, _milliseconds(ttl_seconds))
        keys = (call.lease, call.fence, call.log, call.reply)
        return self._store.send("EVAL", _SETTLE, 4, *keys, call.token, entry, _milliseconds(SETTLED_SECONDS), ttl)

    def _end(self) -> None:
        self._is_over = True
        self._renewal.cancel()

    def _renew_after(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._renew)

    def _renew(self) -> None:
        call = self._call
        durations = [_milliseconds(seconds) for seconds in (LEASE_SECONDS, FENCE_SECONDS, LOG_SECONDS)]
        keys = (call.lease, call.fence, call.log)
        asked = self._store.send("EVAL", _RENEW, 3, *keys, call.token, *durations)
        asked.add_done_callback(lambda asked: self._note_renewal(asked.result()))

    def _note_renewal(self, answer: Any) -> None:
        """No answer is no loss: Redis may be back before anybody else leads."""
        self.lost = answer == 0
        if not (self.lost or self._is_over):
            self._renewal = self._renew_after(LEASE_SECONDS / RENEWALS_PER_LEASE)


class Followed:
    """A call that another replica leads, for one reader."""

    def __init__(self, store: Store, call: Call, read: ReadReply) -> None:
        self._store = store
        self._call = call
        self._read = read
        self._seen = 0
        self._text = ""
        self._late_polls = 0
        self._is_over = False
        self._outcome: Found | IonError | None = None

    async def pieces(self) -> AsyncIterator[str]:
        """The text so far, then what comes, until the call is over; `outcome` then says how it ended."""
        while not self._is_over:
            text = await self._poll()
            if text:
                yield text
            if not self._is_over:
                await asyncio.sleep(POLL_SECONDS)

    async def outcome(self, deadline: Deadline) -> Found | IonError | None:
        """How the call ended: DeadlineExceeded where it has not within `deadline`, None where its leader is gone, or
        Redis is: the caller is to take over."""
        while not self._is_over:
            await self._poll()
            if not deadline.remaining_seconds():
                return DeadlineExceeded()
            if not self._is_over:
                await asyncio.sleep(min(POLL_SECONDS, deadline.remaining_seconds()))
        return self._outcome

    async def _poll(self) -> str:
        """The text that is new."""
        call = self._call
        match await self._store.in_time(
            self._store.send("EVAL", _POLL, 2, call.lease, call.log, call.token, self._seen)
        ):
            case [int(is_led), list(entries)]:
                self._late_polls = 0
                return self._take(entries, is_led=bool(is_led))
            case _:
                self._late_polls += 1
                self._is_over = self._late_polls >= MOST_LATE_POLLS
                return ""

    def _take(self, entries: list[bytes], *, is_led: bool) -> str:
        self._seen += len(entries)
        pieces = [entry[1:] for entry in entries if entry.startswith(_PIECE)]
        new = b"".join(pieces).decode("utf-8", "replace")
        self._text += new
        if entries and not entries[-1].startswith(_PIECE):
            return new + self._end(entries[-1])
        self._is_over = not is_led
        return new

    def _end(self, entry: bytes) -> str:
        """The text that no piece has brought."""
        self._is_over = True
        if entry.startswith(_FAILURE):
            self._outcome = _failure(entry[1:])
            return ""
        found = self._read(entry[1:]) if entry.startswith(_REPLY) else None
        if found is None or not found.reply.text.startswith(self._text):
            return ""
        self._outcome = found
        return found.reply.text[len(self._text) :]


def _failure(reason: bytes) -> IonError | None:
    number = int(reason) if reason.isdigit() else 0
    return IonError(number) if number in RULES else None  # type: ignore[arg-type]  # an enum value is an int
