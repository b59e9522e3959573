"""The routes of the OpenAI-compatible interface."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody

from chassis.caller import note_tokens
from chassis.deadline import Deadline
from chassis.errors import IonError
from gateway_http import exchange
from gateway_http import translation as common
from gateway_http.departure import cancelled_when_client_leaves
from gateway_http.openai import answers, errors, schemas, streams
from gateway_http.openai.body import StrictBody
from gateway_http.openai.models import Catalogue, model_not_found
from gateway_http.openai.translation import chat_request, refused, stream_request
from gateway_http.parameters import TimeoutHeader, cache_control_of, deadline_of
from gateway_http.router_client import RouterClient
from gateway_http.streaming import Streamed
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2


def _fails(description: str) -> ResponseSpec:
    return ResponseSpec(schemas.ErrorBody, description=description, generate_examples=False)


_REFUSED: Final = {
    400: _fails("Invalid or unsupported input; `param` names it"),
    401: _fails("No or bad credentials"),
    429: _fails("The caller's limit is reached; Retry-After says for how long"),
    503: _fails("No answer now; `code` says why, Retry-After when a retry makes sense"),
    504: _fails("No answer in time"),
}
_NOT_FOUND: Final = {404: _fails("Unknown model")}
_BODY: Final = {413: _fails("Too large a body"), 415: _fails("Another media type than JSON")}


@post(
    "/chat/completions",
    status_code=200,
    dto=StrictBody,
    return_dto=None,
    responses=_REFUSED | _NOT_FOUND | _BODY,
    tags=["openai"],
)
async def chat_completions(
    request: Request[Any, Any, State],
    state: State,
    data: JSONBody[schemas.ChatCompletionRequest],
    timeout_seconds: TimeoutHeader = None,
) -> Response[schemas.ChatCompletion]:
    """Answer a conversation as the persona that the model names; with `ion-auto` as the one that fits the last message
    best. With `stream` the answer comes as server-sent events, each a chat.completion.chunk, and ends with `[DONE]`."""
    deadline = deadline_of(state, timeout_seconds)
    asked = chat_request(data, cache_control_of(request.scope))
    answer = _stream if data.stream else _complete
    try:
        return await answer(request, state.router, data, asked, deadline.less_margin())
    except IonError as error:
        raise refused(data, error) from error


async def _stream(
    request: Request[Any, Any, State],
    router: RouterClient,
    data: schemas.ChatCompletionRequest,
    asked: router_pb2.ChatRequest,
    deadline: Deadline,
) -> Response[Any]:
    include_usage = data.stream_options is not None and bool(data.stream_options.include_usage)
    parts = streams.events(router, stream_request(asked), deadline, include_usage=include_usage)
    return await Streamed.begun(request, parts, streams.STREAM)


async def _complete(
    request: Request[Any, Any, State],
    router: RouterClient,
    data: schemas.ChatCompletionRequest,
    asked: router_pb2.ChatRequest,
    deadline: Deadline,
) -> Response[Any]:
    async with cancelled_when_client_leaves(request.scope, request.receive):
        try:
            answer = await router.chat(asked, deadline)
        except IonError as error:
            if error.reason != Reason.REASON_MODEL_BLOCKED:
                raise
            return Response(answers.blocked(data.model), headers={"X-Cache": "off"})
    if answer.fallback:  # by a router of an older version
        raise IonError(answer.failure.reason)
    note_tokens(common.used_tokens(answer.generation))
    cache = common.cache_name(answer)
    exchange.current().note_reply(answer.routing.persona, cache, is_fallback=False)
    headers = {"X-Cache": cache, "Server-Timing": common.server_timing(answer.timings)}
    return Response(answers.completion(answer), headers=headers)


@get("/models", responses=_REFUSED, tags=["openai"])
async def list_models(state: State, timeout_seconds: TimeoutHeader = None) -> schemas.Models:
    """`ion-auto`, and one model for each persona there is."""
    models = await _catalogue(state).models(deadline_of(state, timeout_seconds))
    return schemas.Models(data=list(models.values()))


@get("/models/{model:str}", responses=_REFUSED | _NOT_FOUND, tags=["openai"])
async def get_model(state: State, model: FromPath[str], timeout_seconds: TimeoutHeader = None) -> schemas.Model:
    """One model."""
    models = await _catalogue(state).models(deadline_of(state, timeout_seconds))
    if model not in models:
        raise model_not_found()
    return models[model]


def _catalogue(state: State) -> Catalogue:
    """Made with the first request, as the state belongs to the application."""
    if "openai_models" not in state:
        state["openai_models"] = Catalogue(state.router)
    catalogue: Catalogue = state["openai_models"]
    return catalogue


# What the framework refuses, with or without a route, is the application's to answer.
ROUTES: Final = [
    Router(
        "/v1",
        route_handlers=[chat_completions, list_models, get_model],
        exception_handlers={
            IonError: errors.on_ion_error,
            errors.BadParameter: errors.on_bad_parameter,
            Exception: errors.on_defect,
        },
    )
]
