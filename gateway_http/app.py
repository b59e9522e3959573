"""The HTTP interface: one function a route."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import Parameter
from litestar.static_files import create_static_files_router
from litestar.types import ASGIApp

from chassis.deadline import Deadline
from chassis.errors import InvalidField, IonError
from gateway_http import apology, errors, schemas, translation
from gateway_http.front import Front, cancelled_when_client_leaves
from gateway_http.health import HealthMonitor
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2

VERSION: Final = version("ion-chat")
DOCS: Final = Path(__file__).parent / "docs"
# Failures that mean "no answer in time" and not "a bad question": /chat apologises for these.
APOLOGISED: Final = (Reason.REASON_ROUTER_UNAVAILABLE, Reason.REASON_DEADLINE_EXCEEDED)
_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
_INVALID: Final = {422: ResponseSpec(schemas.ValidationFailed, description="Invalid input", generate_examples=False)}
_NOT_FOUND: Final = {404: ResponseSpec(schemas.Problem, description="Unknown persona", generate_examples=False)}
_AWAY: Final = {503: ResponseSpec(schemas.Problem, description="Try again later", generate_examples=False)}

TimeoutHeader = Annotated[
    float | None,
    Parameter(header="X-Request-Timeout", gt=0, le=300, description="Seconds the answer may take.", required=False),
]


@post("/chat", status_code=200, responses=_INVALID | _NOT_FOUND | _AWAY, tags=["chat"])
async def chat(
    request: Request[Any, Any, State], state: State, data: schemas.ChatRequest, timeout_seconds: TimeoutHeader = None
) -> Response[schemas.ChatResponse]:
    """Answer a message as the persona that fits it best, and say why."""
    deadline = _deadline(state, timeout_seconds)
    message = router_pb2.ChatRequest(
        message=data.message,
        user_id=data.user_id or "",
        session_id=data.session_id or "",
        persona=data.persona or "",
        previous_persona=data.previous_persona or "",
    )
    async with cancelled_when_client_leaves(request.scope, request.receive):
        try:
            answer = await state.router.chat(message, deadline.less_margin())
        except IonError as error:
            if error.reason not in APOLOGISED:
                raise
            return Response(apology.reply(error, data), headers={"X-Cache": "off"})
    headers = {"X-Cache": translation.cache_name(answer), "Server-Timing": translation.server_timing(answer.timings)}
    return Response(translation.chat_response(answer), headers=headers)


@post("/route", status_code=200, responses=_INVALID | _NOT_FOUND | _AWAY, tags=["routing"])
async def route(
    state: State, data: schemas.RouteRequest, timeout_seconds: TimeoutHeader = None
) -> schemas.RouteResponse:
    """Choose a persona for a message or a resonance key, without a reply, and say why."""
    if (data.message is None) == (data.resonance_key is None):
        raise InvalidField("message", "exactly one of message and resonance_key must be given")
    previous = data.previous_persona or ""
    if data.message is not None:
        message = router_pb2.RouteRequest(message=data.message, previous_persona=previous)
    else:
        message = router_pb2.RouteRequest(resonance_key=data.resonance_key or "", previous_persona=previous)
    return translation.route_response(await state.router.route(message, _deadline(state, timeout_seconds)))


@get("/personas", responses=_AWAY, tags=["routing"])
async def personas(state: State, timeout_seconds: TimeoutHeader = None) -> schemas.Personas:
    """All personas, by name."""
    listed = await state.router.list_personas(_deadline(state, timeout_seconds))
    return schemas.Personas([translation.persona(item) for item in listed.personas])


@get("/health", tags=["health"])
async def health(state: State) -> schemas.Health:
    """What works, as last seen; never waits for a service that is away."""
    monitor: HealthMonitor = state.monitor
    return schemas.Health(
        status="healthy" if monitor.healthy else "degraded",
        version=VERSION,
        pipeline_ready=monitor.pipeline_ready,
        router=monitor.router,
        llm_gateway=monitor.llm_gateway,
        redis_cache=schemas.RedisCache(monitor.redis_enabled, monitor.redis_connected),
        personas=schemas.PersonaFiles(monitor.persona_count, monitor.persona_problem),
    )


@get("/livez", tags=["health"])
async def livez() -> schemas.Alive:
    """The process answers."""
    return schemas.Alive("alive")


@get("/readyz", responses=_AWAY, tags=["health"])
async def readyz(state: State) -> Response[Any]:
    """Whether requests should be sent here."""
    if state.draining or not state.monitor.pipeline_ready:
        detail = "The service is shutting down." if state.draining else "The services behind are not ready."
        return errors.problem(503, detail, "NOT_READY", {"Retry-After": "1"})
    return Response(schemas.Alive("ready"))


@get("/", tags=["health"])
async def info() -> schemas.ServiceInfo:
    """What this is."""
    return schemas.ServiceInfo("내다AI Ion API", VERSION, "running", "/docs", "/health")


@get("/openapi.json", include_in_schema=False, media_type="application/json")
async def openapi(request: Request[Any, Any, State]) -> bytes:
    return msgspec.json.encode(request.app.openapi_schema.to_schema())


@get("/docs", include_in_schema=False, media_type=MediaType.HTML)
async def docs() -> Response[bytes]:
    page = (DOCS / "index.html").read_bytes()
    return Response(page, media_type=MediaType.HTML, headers={"Content-Security-Policy": _DOCS_POLICY})


@get("/docs/start.js", include_in_schema=False, media_type="text/javascript")
async def docs_start() -> bytes:
    return (DOCS / "start.js").read_bytes()


def build_app(settings: HttpSettings, router: RouterClient, monitor: HealthMonitor) -> tuple[ASGIApp, State]:
    """The application, and its state: set `draining` to have it report that it is not ready."""
    state = State(
        {
            "router": router,
            "monitor": monitor,
            "draining": False,
            "request_timeout_seconds": settings.request_timeout_seconds,
        }
    )
    app = Litestar(
        route_handlers=[chat, route, personas, health, livez, readyz, info, openapi, docs, docs_start, _docs_assets()],
        state=state,
        openapi_config=OpenAPIConfig(title="ION", version=VERSION, render_plugins=[JsonRenderPlugin()]),
        exception_handlers={
            IonError: errors.on_ion_error,
            HTTPException: errors.on_http_error,
            UnicodeDecodeError: errors.on_bad_text,
            Exception: errors.on_defect,
        },
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
    )
    return Front(app), app.state


def _docs_assets() -> Any:
    """Swagger UI from its package, found without importing that package."""
    spec = find_spec("flask_swagger_ui")
    folder = Path(spec.submodule_search_locations[0]) / "dist" if spec and spec.submodule_search_locations else DOCS
    return create_static_files_router("/docs/assets", [folder], include_in_schema=False, name="docs-assets")


def _deadline(state: State, timeout_seconds: float | None) -> Deadline:
    return Deadline.after(timeout_seconds or state.request_timeout_seconds)
