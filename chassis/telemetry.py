"""What ION tells of itself: every span, attribute and metric, declared once.

Names without "ion." are those of the OpenTelemetry semantic conventions (HTTP, RPC, GenAI, DB, process). Nothing here
holds what people write, keys, or ids of users. docs/telemetry.md is made from these declarations: `make telemetry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from opentelemetry.trace import SpanKind

SCOPE: Final = "ion"  # of instrumentation


class Instrument(StrEnum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"
    UP_DOWN = "up-down counter"


@dataclass(frozen=True, slots=True)
class SpanType:
    """`name` as the documentation shows it; what is in braces is an attribute's value. `where`: the services that make
    such spans."""

    name: str
    kind: SpanKind
    where: str
    description: str
    attributes: tuple[str, ...]
    links: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """`attributes` have few values each. `buckets`: upper bounds, of a histogram. `where`: as of SpanType."""

    name: str
    instrument: Instrument
    unit: str
    where: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """As Prometheus knows it; a histogram has `_bucket`, `_sum` and `_count` behind it."""
        name = self.name.replace(".", "_")
        unit = _PROMETHEUS_UNITS.get(self.unit, "")
        if unit and not name.endswith(f"_{unit}"):
            name = f"{name}_{unit}"
        return f"{name}_total" if self.instrument is Instrument.COUNTER else name


_PROMETHEUS_UNITS: Final = {"s": "seconds", "By": "bytes"}  # units in braces have no name there

ATTRIBUTES: Final[dict[str, str]] = {}  # descriptions by key
SPANS: Final[list[SpanType]] = []
METRICS: Final[list[Metric]] = []


def _attribute(key: str, description: str) -> str:
    ATTRIBUTES[key] = description
    return key


def _span(name: str, kind: SpanKind, where: str, description: str, *attributes: str, links: str = "") -> SpanType:
    declared = SpanType(name, kind, where, description, attributes, links=links)
    SPANS.append(declared)
    return declared


def _metric(
    name: str,
    instrument: Instrument,
    unit: str,
    where: str,
    description: str,
    *attributes: str,
    buckets: tuple[float, ...] = (),
) -> Metric:
    declared = Metric(name, instrument, unit, where, description, attributes, buckets)
    METRICS.append(declared)
    return declared


# Attributes of the semantic conventions

HTTP_METHOD: Final = _attribute("http.request.method", "GET, POST, …; _OTHER for what is no method of HTTP")
HTTP_ROUTE: Final = _attribute(
    "http.route",
    "path of the route that was asked, ids as names in braces; none where there is no such route, and where one with "
    "ids was refused at the door",
)
HTTP_STATUS: Final = _attribute("http.response.status_code", "status as a number")
URL_SCHEME: Final = _attribute("url.scheme", "http or https")
URL_PATH: Final = _attribute("url.path", "as http.route: ids of sessions are not told")
NETWORK_PROTOCOL_VERSION: Final = _attribute("network.protocol.version", "1.0 or 1.1")
ERROR_TYPE: Final = _attribute(
    "error.type",
    "why it failed: a reason of ION's contract, or a status where there is none; of HTTP where ION is to blame, and "
    "CANCELLED where the caller left",
)
SERVER_ADDRESS: Final = _attribute("server.address", "host that is called, as configured")
SERVER_PORT: Final = _attribute("server.port", "its port")
RPC_SYSTEM: Final = _attribute("rpc.system.name", "grpc")
RPC_METHOD: Final = _attribute("rpc.method", "full name, such as ion.router.v1.PersonaRouterService/Chat")
RPC_STATUS: Final = _attribute("rpc.response.status_code", "status as a name: OK, UNAVAILABLE, …")
GEN_AI_OPERATION: Final = _attribute("gen_ai.operation.name", "generate_content")
GEN_AI_PROVIDER: Final = _attribute("gen_ai.provider.name", "gcp.vertex_ai, or ion.offline where no model is asked")
GEN_AI_CONVERSATION: Final = _attribute("gen_ai.conversation.id", "digest that all turns of a session share")
GEN_AI_REQUEST_MODEL: Final = _attribute("gen_ai.request.model", "model as asked for")
GEN_AI_REQUEST_TEMPERATURE: Final = _attribute("gen_ai.request.temperature", "as asked for")
GEN_AI_REQUEST_TOP_P: Final = _attribute("gen_ai.request.top_p", "as asked for")
GEN_AI_REQUEST_MAX_TOKENS: Final = _attribute("gen_ai.request.max_tokens", "most output tokens, as asked for")
GEN_AI_REQUEST_STREAM: Final = _attribute("gen_ai.request.stream", "whether the reply comes in pieces")
GEN_AI_OUTPUT_TYPE: Final = _attribute("gen_ai.output.type", "text or json")
GEN_AI_RESPONSE_MODEL: Final = _attribute("gen_ai.response.model", "model that answered")
GEN_AI_RESPONSE_FINISH_REASONS: Final = _attribute("gen_ai.response.finish_reasons", "one: stop or max_tokens")
GEN_AI_RESPONSE_FIRST_CHUNK: Final = _attribute("gen_ai.response.time_to_first_chunk", "seconds from the call to it")
GEN_AI_USAGE_INPUT: Final = _attribute("gen_ai.usage.input_tokens", "tokens of the prompt, cached ones included")
GEN_AI_USAGE_OUTPUT: Final = _attribute("gen_ai.usage.output_tokens", "tokens made, reasoning included")
GEN_AI_USAGE_CACHED: Final = _attribute("gen_ai.usage.cache_read.input_tokens", "part of the input that was cached")
GEN_AI_USAGE_REASONING: Final = _attribute("gen_ai.usage.reasoning.output_tokens", "part of the output: reasoning")
GEN_AI_TOKEN_TYPE: Final = _attribute("gen_ai.token.type", "input or output")
GEN_AI_SYSTEM_INSTRUCTIONS: Final = _attribute(
    "gen_ai.system_instructions", "the prompt's instructions; by opt-in only"
)
GEN_AI_INPUT_MESSAGES: Final = _attribute("gen_ai.input.messages", "the conversation; by opt-in only")
GEN_AI_OUTPUT_MESSAGES: Final = _attribute("gen_ai.output.messages", "the reply; by opt-in only")
DB_SYSTEM: Final = _attribute("db.system.name", "redis, postgresql or sqlite")
DB_OPERATION: Final = _attribute("db.operation.name", "EVAL, SET, SELECT, INSERT, UPDATE, DELETE, …")
DB_SUMMARY: Final = _attribute("db.query.summary", "operation and what it is for, such as SELECT session")
DB_POOL: Final = _attribute("db.client.connection.pool.name", "sql")
DB_CONNECTION_STATE: Final = _attribute("db.client.connection.state", "used, or idle: kept open for the next")
CPU_MODE: Final = _attribute("cpu.mode", "user or system")

# Attributes of ION

PERSONA: Final = _attribute("ion.persona", "name of the persona; of metrics (other) beyond the first 100 of a process")
SECONDARY_PERSONA: Final = _attribute("ion.persona.secondary", "second best")
RESONANCE_KEY: Final = _attribute("ion.resonance_key", "tone-pace-intent")
TONE: Final = _attribute("ion.tone", "one of nine")
PACE: Final = _attribute("ion.pace", "one of four")
INTENT: Final = _attribute("ion.intent", "one of ten")
READ_BY: Final = _attribute("ion.read_by", "reader, model, or key where a resonance key was given")
ROUTING_SCORE: Final = _attribute("ion.routing.score", "the persona's match, 0 to 1: the confidence")
ROUTING_MARGIN: Final = _attribute("ion.routing.margin", "how far ahead of the second")
ROUTING_PERSONAS: Final = _attribute("ion.routing.personas", "the ten best, best first")
ROUTING_SCORES: Final = _attribute("ion.routing.scores", "their scores, in the same order")
ROUTING_DECIDED_BY: Final = _attribute("ion.routing.decided_by", "what told near-equals apart: topic, session, draw")
ROUTING_PINNED: Final = _attribute("ion.routing.pinned", "whether the caller had named the persona")
FALLBACK: Final = _attribute("ion.fallback", "true where the reply is an apology")
HISTORY: Final = _attribute("ion.history", "what became of the turn: stored, unavailable or skipped")
CACHE_STATUS: Final = _attribute("ion.cache.status", "hit, stale, coalesced, miss or off")
CACHE_AGE: Final = _attribute("ion.cache.age", "seconds since the stored reply was begun")
CACHE_TIER: Final = _attribute(
    "ion.cache.tier",
    "near: in this process; flight: a call under way in it; shared: Redis; none: the reply was not there",
)
CACHE_OUTCOME: Final = _attribute("ion.cache.outcome", "hit, stale, coalesced or miss")
CACHE_ERROR: Final = _attribute(
    "ion.cache.error",
    "late: not waited for; refused by Redis; foreign: not a value of ION's; fenced_off: another replica had led since",
)
REDIS_USE: Final = _attribute("ion.redis.use", "cache or limits")
LOCATION: Final = _attribute("ion.location", "region that a model call goes to")
ATTEMPT_KIND: Final = _attribute("ion.attempt.kind", "first, retry, hedge, or probe of a location that was away")
ATTEMPT_OUTCOME: Final = _attribute(
    "ion.attempt.outcome", "won: its reply is the answer; lost: another's was; failed; or cancelled with the request"
)
ATTEMPTS: Final = _attribute("ion.attempts", "model calls made for the reply")
HEDGES: Final = _attribute("ion.hedges", "of them beside one that was late")
QUEUED: Final = _attribute("ion.queued", "seconds before its turn for a model call")
HEDGE_OUTCOME: Final = _attribute("ion.hedge.outcome", "won, lost, or denied by the budget")
HEDGE_ON: Final = _attribute("ion.hedge.on", "reply or first_token: what is late when a hedge goes out")
RETRY_OUTCOME: Final = _attribute("ion.retry.outcome", "made, or denied by the budget")
BREAKER_STATE: Final = _attribute("ion.breaker.state", "closed, open or half_open")
TOKEN_TYPE: Final = _attribute(
    "ion.token.type",
    "input; cached_input, a part of it; output; thinking; lost_input and lost_output of calls that were not used",
)
COUNT_OF_TEXTS: Final = _attribute("ion.stream.messages", "messages that a stream had")
FIRST_MESSAGE: Final = _attribute("ion.stream.time_to_first_message", "seconds from the call to the first of a stream")
SIGNAL: Final = _attribute("ion.telemetry.signal", "traces, metrics or logs")

_GATEWAY, _ROUTER, _LLM = "gateway_http", "router_service", "llm_gateway"
_GRPC = "router_service, llm_gateway"
_ALL = "all"

# Log lines

LOG_FIELDS: Final[dict[str, str]] = {
    "time": "RFC 3339, UTC, microseconds",
    "severity": "DEBUG, INFO, WARNING, ERROR, CRITICAL",
    "logger": "module that writes; ion.request for the one line a request",
    "message": "what happened, always in the same words",
    "service": "name of the service",
    "request_id": "of the request that it belongs to; absent where there is none",
    "trace_id": "of its trace",
    "span_id": "of the span that was open",
    "exc_info": "of a defect: stack and types of the errors, not their texts; with google stack_trace",
    "method": "of a request: GET, POST, …",
    "route": "of a request: path with ids as names in braces; absent as http.route is",
    "status": "of a request: HTTP status",
    "duration_seconds": "of a request: until its last byte",
    "reason": "of a request: why it failed",
    "persona": "of a request: who answered",
    "cache": "of a request: hit, stale, coalesced, miss or off",
    "fallback": "of a request: true where the reply is an apology",
    "dropped": "of the line that says that log lines were dropped: how many",
}

# Spans

HTTP_SERVER: Final = _span(
    "{http.request.method} {http.route}",
    SpanKind.SERVER,
    _GATEWAY,
    "One HTTP exchange, until its last byte: a stream until its last event.",
    HTTP_METHOD,
    HTTP_ROUTE,
    URL_PATH,
    URL_SCHEME,
    NETWORK_PROTOCOL_VERSION,
    HTTP_STATUS,
    ERROR_TYPE,
    FIRST_MESSAGE,
    COUNT_OF_TEXTS,
)
RPC_CLIENT: Final = _span(
    "{rpc.method}",
    SpanKind.CLIENT,
    "gateway_http, router_service",
    "One call to a service, until its last message.",
    RPC_SYSTEM,
    RPC_METHOD,
    RPC_STATUS,
    SERVER_ADDRESS,
    SERVER_PORT,
    ERROR_TYPE,
    FIRST_MESSAGE,
    COUNT_OF_TEXTS,
)
RPC_SERVER: Final = _span(
    "{rpc.method}",
    SpanKind.SERVER,
    _GRPC,
    "One call as the service sees it, until its last message. The router's says how it chose, the LLM gateway's how "
    "the reply came about.",
    RPC_SYSTEM,
    RPC_METHOD,
    RPC_STATUS,
    ERROR_TYPE,
    FIRST_MESSAGE,
    COUNT_OF_TEXTS,
    RESONANCE_KEY,
    TONE,
    PACE,
    INTENT,
    READ_BY,
    PERSONA,
    SECONDARY_PERSONA,
    ROUTING_SCORE,
    ROUTING_MARGIN,
    ROUTING_PERSONAS,
    ROUTING_SCORES,
    ROUTING_DECIDED_BY,
    ROUTING_PINNED,
    FALLBACK,
    HISTORY,
    GEN_AI_CONVERSATION,
    GEN_AI_REQUEST_MODEL,
    CACHE_STATUS,
    CACHE_TIER,
    CACHE_AGE,
    ATTEMPTS,
    HEDGES,
    QUEUED,
    links="The call that made the reply, where it was made for another request: of a cache hit, and of a follower.",
)
GEN_AI_CLIENT: Final = _span(
    "{gen_ai.operation.name} {gen_ai.request.model}",
    SpanKind.CLIENT,
    _LLM,
    "One attempt at a reply, until its last token. Retries and hedges are siblings.",
    GEN_AI_OPERATION,
    GEN_AI_PROVIDER,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_REQUEST_TEMPERATURE,
    GEN_AI_REQUEST_TOP_P,
    GEN_AI_REQUEST_MAX_TOKENS,
    GEN_AI_REQUEST_STREAM,
    GEN_AI_OUTPUT_TYPE,
    GEN_AI_RESPONSE_MODEL,
    GEN_AI_RESPONSE_FINISH_REASONS,
    GEN_AI_RESPONSE_FIRST_CHUNK,
    GEN_AI_USAGE_INPUT,
    GEN_AI_USAGE_OUTPUT,
    GEN_AI_USAGE_CACHED,
    GEN_AI_USAGE_REASONING,
    GEN_AI_SYSTEM_INSTRUCTIONS,
    GEN_AI_INPUT_MESSAGES,
    GEN_AI_OUTPUT_MESSAGES,
    SERVER_ADDRESS,
    SERVER_PORT,
    ERROR_TYPE,
    PERSONA,
    LOCATION,
    ATTEMPT_KIND,
    ATTEMPT_OUTCOME,
)
DB_CLIENT: Final = _span(
    "{db.query.summary}",
    SpanKind.CLIENT,
    _ALL,
    "One question to Redis or to the SQL database for a request, until its answer; of SQL with the wait for a "
    "connection.",
    DB_SYSTEM,
    DB_OPERATION,
    DB_SUMMARY,
    SERVER_ADDRESS,
    SERVER_PORT,
    ERROR_TYPE,
)

# Metrics

# Cached replies take 1 to 3 ms; alerts are at 2, 3 and 5 s.
_REQUEST_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 30.0,
)  # fmt: skip
# As the GenAI conventions say.
_MODEL_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(float(4**power) for power in range(14))
# As the DB conventions say, and finer: Redis is waited for 5 ms.
_DB_SECONDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_SHORT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

HTTP_DURATION: Final = _metric(
    "http.server.request.duration",
    Instrument.HISTOGRAM,
    "s",
    _GATEWAY,
    "HTTP exchanges, until the last byte",
    HTTP_METHOD,
    HTTP_ROUTE,
    HTTP_STATUS,
    URL_SCHEME,
    ERROR_TYPE,
    buckets=_REQUEST_SECONDS,
)
HTTP_ACTIVE: Final = _metric(
    "http.server.active_requests",
    Instrument.UP_DOWN,
    "{request}",
    _GATEWAY,
    "HTTP exchanges under way",
    HTTP_METHOD,
    URL_SCHEME,
)
HTTP_STREAMS: Final = _metric(
    "ion.http.server.open_streams", Instrument.UP_DOWN, "{stream}", _GATEWAY, "streams of events being sent"
)
HTTP_FIRST_EVENT: Final = _metric(
    "ion.http.server.time_to_first_text",
    Instrument.HISTOGRAM,
    "s",
    _GATEWAY,
    "from a request for a stream to the first text of it",
    HTTP_ROUTE,
    buckets=_REQUEST_SECONDS,
)
RPC_SERVER_DURATION: Final = _metric(
    "rpc.server.call.duration",
    Instrument.HISTOGRAM,
    "s",
    _GRPC,
    "calls as the service sees them, until the last message",
    RPC_SYSTEM,
    RPC_METHOD,
    RPC_STATUS,
    ERROR_TYPE,
    buckets=_REQUEST_SECONDS,
)
RPC_CLIENT_DURATION: Final = _metric(
    "rpc.client.call.duration",
    Instrument.HISTOGRAM,
    "s",
    "gateway_http, router_service",
    "calls as the caller sees them, until the last message",
    RPC_SYSTEM,
    RPC_METHOD,
    RPC_STATUS,
    ERROR_TYPE,
    buckets=_REQUEST_SECONDS,
)
RPC_ACTIVE: Final = _metric(
    "ion.rpc.server.active_calls",
    Instrument.UP_DOWN,
    "{call}",
    _GRPC,
    "calls under way, streams among them",
    RPC_METHOD,
)
ROUTING_DECISIONS: Final = _metric(
    "ion.routing.decisions",
    Instrument.COUNTER,
    "{decision}",
    _ROUTER,
    "personas chosen",
    PERSONA,
    TONE,
    INTENT,
)
CHAT_FALLBACKS: Final = _metric(
    "ion.chat.fallbacks",
    Instrument.COUNTER,
    "{reply}",
    "gateway_http, router_service",
    "apologies in the place of a reply, by why",
    ERROR_TYPE,
)
GEN_AI_DURATION: Final = _metric(
    "gen_ai.client.operation.duration",
    Instrument.HISTOGRAM,
    "s",
    _LLM,
    "attempts at a reply, until the last token",
    GEN_AI_OPERATION,
    GEN_AI_PROVIDER,
    GEN_AI_REQUEST_MODEL,
    ERROR_TYPE,
    LOCATION,
    ATTEMPT_KIND,
    buckets=_MODEL_SECONDS,
)
GEN_AI_FIRST_CHUNK: Final = _metric(
    "gen_ai.client.operation.time_to_first_chunk",
    Instrument.HISTOGRAM,
    "s",
    _LLM,
    "of streamed attempts",
    GEN_AI_OPERATION,
    GEN_AI_PROVIDER,
    GEN_AI_REQUEST_MODEL,
    LOCATION,
    buckets=_MODEL_SECONDS,
)
GEN_AI_TOKENS: Final = _metric(
    "gen_ai.client.token.usage",
    Instrument.HISTOGRAM,
    "{token}",
    _LLM,
    "tokens of attempts that gave a reply",
    GEN_AI_OPERATION,
    GEN_AI_PROVIDER,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_TOKEN_TYPE,
    buckets=_TOKENS,
)
CACHE_LOOKUPS: Final = _metric(
    "ion.cache.lookups",
    Instrument.COUNTER,
    "{lookup}",
    _LLM,
    "requests by where their reply was found",
    CACHE_TIER,
    CACHE_OUTCOME,
)
CACHE_ERRORS: Final = _metric(
    "ion.cache.errors", Instrument.COUNTER, "{error}", _LLM, "shared replies that could not be had or kept", CACHE_ERROR
)
CACHE_STORED: Final = _metric("ion.cache.stored", Instrument.COUNTER, "{reply}", _LLM, "replies that were kept")
CACHE_INVALIDATED: Final = _metric(
    "ion.cache.invalidated", Instrument.COUNTER, "{reply}", _LLM, "stored replies not used since they were invalidated"
)
CACHE_ENTRIES: Final = _metric("ion.cache.entries", Instrument.GAUGE, "{reply}", _LLM, "replies kept in this process")
REDIS_CONNECTED: Final = _metric(
    "ion.redis.connected",
    Instrument.GAUGE,
    "{state}",
    _ALL,
    "1 while Redis is there; nothing where none is configured",
    REDIS_USE,
)
MODEL_ATTEMPTS: Final = _metric(
    "ion.model.attempts", Instrument.COUNTER, "{call}", _LLM, "calls to the model", ATTEMPT_KIND, LOCATION
)
MODEL_HEDGES: Final = _metric(
    "ion.model.hedges", Instrument.COUNTER, "{call}", _LLM, "second calls beside a late one", HEDGE_OUTCOME
)
MODEL_RETRIES: Final = _metric(
    "ion.model.retries", Instrument.COUNTER, "{call}", _LLM, "calls after a failed one", RETRY_OUTCOME
)
MODEL_RUNNING: Final = _metric(
    "ion.model.running", Instrument.UP_DOWN, "{call}", _LLM, "calls to the model under way", LOCATION
)
MODEL_LATENCY: Final = _metric(
    "ion.model.latency",
    Instrument.GAUGE,
    "s",
    _LLM,
    "moving average of whole replies, as the choice of location sees it",
    LOCATION,
)
MODEL_HEDGE_DELAY: Final = _metric(
    "ion.model.hedge_delay",
    Instrument.GAUGE,
    "s",
    _LLM,
    "after which a call counts as late",
    GEN_AI_REQUEST_MODEL,
    HEDGE_ON,
)
BREAKER: Final = _metric(
    "ion.model.breaker",
    Instrument.GAUGE,
    "{state}",
    _LLM,
    "1 for the state that a location's breaker is in, else 0",
    LOCATION,
    BREAKER_STATE,
)
BREAKER_OPENINGS: Final = _metric(
    "ion.model.breaker.openings",
    Instrument.COUNTER,
    "{opening}",
    _LLM,
    "how often a location's breaker opened",
    LOCATION,
)
ADMISSION_RUNNING: Final = _metric(
    "ion.admission.running", Instrument.UP_DOWN, "{request}", _LLM, "requests whose reply is in the making"
)
ADMISSION_QUEUED: Final = _metric(
    "ion.admission.queued", Instrument.UP_DOWN, "{request}", _LLM, "requests that wait for their turn"
)
ADMISSION_SHED: Final = _metric(
    "ion.admission.shed", Instrument.COUNTER, "{request}", _LLM, "requests refused since too many waited"
)
ADMISSION_WAIT: Final = _metric(
    "ion.admission.wait",
    Instrument.HISTOGRAM,
    "s",
    _LLM,
    "time in the queue, of requests that a model was asked for",
    buckets=_SHORT_SECONDS,
)
MODEL_REPLIES: Final = _metric(
    "ion.model.replies", Instrument.COUNTER, "{reply}", _LLM, "replies made by a model", PERSONA, GEN_AI_REQUEST_MODEL
)
MODEL_TOKENS: Final = _metric(
    "ion.model.tokens", Instrument.COUNTER, "{token}", _LLM, "tokens used", PERSONA, GEN_AI_REQUEST_MODEL, TOKEN_TYPE
)
MODEL_COST: Final = _metric(
    "ion.model.cost",
    Instrument.COUNTER,
    "{USD}",
    _LLM,
    "estimated US dollars by list prices; nothing for a model without a price",
    PERSONA,
    GEN_AI_REQUEST_MODEL,
)
DB_DURATION: Final = _metric(
    "db.client.operation.duration",
    Instrument.HISTOGRAM,
    "s",
    _ALL,
    "questions to Redis and to the SQL database, until their answer",
    DB_SYSTEM,
    DB_OPERATION,
    ERROR_TYPE,
    buckets=_DB_SECONDS,
)
DB_CONNECTIONS: Final = _metric(
    "db.client.connection.count",
    Instrument.UP_DOWN,
    "{connection}",
    _ALL,
    "connections to the SQL database",
    DB_POOL,
    DB_CONNECTION_STATE,
)
DB_CONNECTIONS_MAX: Final = _metric(
    "db.client.connection.max", Instrument.UP_DOWN, "{connection}", _ALL, "most that there may be", DB_POOL
)
DB_AVAILABLE: Final = _metric(
    "ion.database.available",
    Instrument.GAUGE,
    "{state}",
    _ALL,
    "1 while the SQL database answers; nothing where none is used",
)
ACCESS_REFUSED: Final = _metric(
    "ion.access.refused", Instrument.COUNTER, "{request}", _ALL, "callers that were not let in, by why", ERROR_TYPE
)
PROCESS_CPU: Final = _metric("process.cpu.time", Instrument.COUNTER, "s", _ALL, "CPU time of the process", CPU_MODE)
PROCESS_MEMORY: Final = _metric(
    "process.memory.usage", Instrument.UP_DOWN, "By", _ALL, "physical memory of the process"
)
PROCESS_THREADS: Final = _metric("process.thread.count", Instrument.UP_DOWN, "{thread}", _ALL, "threads of the process")
PROCESS_FILES: Final = _metric(
    "process.unix.file_descriptor.count", Instrument.UP_DOWN, "{file_descriptor}", _ALL, "open files and sockets"
)
PROCESS_UPTIME: Final = _metric("process.uptime", Instrument.GAUGE, "s", _ALL, "time since the start")
LOOP_LAG: Final = _metric(
    "ion.event_loop.lag",
    Instrument.HISTOGRAM,
    "s",
    _ALL,
    "how late the event loop ran what was due, asked twice a second",
    buckets=_SHORT_SECONDS,
)
TELEMETRY_DROPPED: Final = _metric(
    "ion.telemetry.dropped", Instrument.COUNTER, "{item}", _ALL, "spans and log records that were thrown away", SIGNAL
)
TELEMETRY_EXPORTING: Final = _metric(
    "ion.telemetry.exporting",
    Instrument.GAUGE,
    "{state}",
    _ALL,
    "1 while the receiver takes what is sent, else 0",
    SIGNAL,
)
