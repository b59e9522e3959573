"""The gRPC server behind the fake."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import grpc
import grpc.aio

from tests.fake_vertex import messages
from tests.fake_vertex.script import UPSTREAM_TEXT, Behaviour, BreakOff, Fail, Finish, Hang, Script


@dataclass(slots=True)
class Call:
    """One call that came in. `request` is the raw protobuf message."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    time_remaining_seconds: float | None
    outcome: str = "running"


class FakeVertex(Script):
    """See the package."""

    def __init__(
        self,
        *,
        location: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        piece_characters: int = 24,
        keep_calls: bool = True,
    ) -> None:
        super().__init__(location=location, piece_characters=piece_characters)
        self.port = port
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.host = host
        self._keep_calls = keep_calls
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(self._handlers())
        self.port = self._server.add_insecure_port(self.endpoint)
        await self._server.start()

    async def stop(self) -> None:
        """Calls under way are cut off. `start` brings it back on the same port."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace=None)

    def reset(self) -> None:
        super().reset()
        self.calls.clear()
        self.counts.clear()

    async def wait_for_calls(self, count: int, *, timeout_seconds: float = 5.0) -> list[Call]:
        return await self._wait_for(lambda _: True, count, timeout_seconds)

    async def wait_for_outcome(self, outcome: str, *, count: int = 1, timeout_seconds: float = 5.0) -> list[Call]:
        return await self._wait_for(lambda call: call.outcome == outcome, count, timeout_seconds)

    async def _wait_for(self, wanted: Callable[[Call], bool], count: int, timeout_seconds: float) -> list[Call]:
        async with asyncio.timeout(timeout_seconds):
            while len(found := [call for call in self.calls if wanted(call)]) < count:
                await self._changed.wait()
        return found

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        generate_types = {
            "request_deserializer": messages.GenerateContentRequest.FromString,
            "response_serializer": messages.GenerateContentResponse.SerializeToString,
        }
        count_types = {
            "request_deserializer": messages.CountTokensRequest.FromString,
            "response_serializer": messages.CountTokensResponse.SerializeToString,
        }
        prediction = {
            "GenerateContent": grpc.unary_unary_rpc_method_handler(self._generate_content, **generate_types),
            "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(
                self._stream_generate_content, **generate_types
            ),
        }
        utility = {"CountTokens": grpc.unary_unary_rpc_method_handler(self._count_tokens, **count_types)}
        return (
            grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.PredictionService", prediction),
            grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.LlmUtilityService", utility),
        )

    async def _generate_content(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        with self._recorded("GenerateContent", request, context):
            await self._refuse_bad(request.model, request, context)
            behaviour, delay = self.next_behaviour(), self.next_delay()
            await self._wait(behaviour, delay.total_seconds, context)
            await self._misbehave(behaviour, context)
            if isinstance(behaviour, BreakOff) and not behaviour.cleanly:
                await _abort(context, Fail(grpc.StatusCode.UNAVAILABLE))
            return self.compose(request, behaviour)

    async def _stream_generate_content(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        with self._recorded("StreamGenerateContent", request, context):
            await self._refuse_bad(request.model, request, context)
            behaviour, delay = self.next_behaviour(), self.next_delay()
            *pieces, last = self.compose_stream(request, behaviour)
            misbehaves_after = min(getattr(behaviour, "after_pieces", 0), len(pieces))
            await self._wait(behaviour, delay.first_seconds, context)
            for sent, piece in enumerate(pieces):
                if sent == misbehaves_after:
                    await self._misbehave(behaviour, context)
                yield piece
                await _sleep(delay.rest_seconds / len(pieces))
            if misbehaves_after == len(pieces):
                await self._misbehave(behaviour, context)
            if await _has_end(behaviour, context):
                yield last

    async def _count_tokens(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        with self._recorded("CountTokens", request, context):
            await self._refuse_bad(request.endpoint, request, context)
            behaviour = self.next_behaviour()
            await self._wait(behaviour, self._delay.total_seconds, context)
            await self._misbehave(behaviour, context)
            count = messages.count_input(request)
            return messages.CountTokensResponse(total_tokens=count, total_billable_characters=4 * count)

    async def _wait(self, behaviour: Behaviour, seconds: float, context: grpc.aio.ServicerContext) -> None:
        """As an answer is waited for; a failure may come at once."""
        if isinstance(behaviour, Fail) and behaviour.at_once:
            await _abort(context, behaviour)
        await _sleep(seconds)

    async def _misbehave(self, behaviour: Behaviour, context: grpc.aio.ServicerContext) -> None:
        """Hangs or fails as told."""
        if isinstance(behaviour, Hang):
            await behaviour.released.wait()
        if isinstance(behaviour, Fail):
            await _abort(context, behaviour)

    async def _refuse_bad(self, resource: str, request: Any, context: grpc.aio.ServicerContext) -> None:
        if messages.problem_of(resource, request, self.location):
            await _abort(context, Fail(grpc.StatusCode.INVALID_ARGUMENT))

    @contextmanager
    def _recorded(self, method: str, request: Any, context: grpc.aio.ServicerContext) -> Iterator[None]:
        self.counts[method] += 1
        if not self._keep_calls:
            yield
            return
        call = Call(method, request, dict(context.invocation_metadata() or ()), context.time_remaining())
        self.calls.append(call)
        self._note_change()
        try:
            yield
        except BaseException as error:
            call.outcome = "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "failed"
            raise
        else:
            call.outcome = "ok"
        finally:
            self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _sleep(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


async def _has_end(behaviour: Behaviour, context: grpc.aio.ServicerContext) -> bool:
    """Whether a stream ends as it should; it may fail here instead."""
    if isinstance(behaviour, BreakOff) and behaviour.cleanly:
        return False
    if isinstance(behaviour, BreakOff) or (isinstance(behaviour, Finish) and behaviour.aborts_stream):
        await _abort(context, Fail(grpc.StatusCode.UNAVAILABLE))
    return True


async def _abort(context: grpc.aio.ServicerContext, failure: Fail) -> NoReturn:
    await context.abort(failure.code, UPSTREAM_TEXT, trailing_metadata=failure.trailers)
    raise AssertionError("abort raises")
