"""The HTTP application: its routes, in one place, and what stands around them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from chassis.caller import Door, OpenDoor
from chassis.errors import IonError
from gateway_http import assets, chat, choosing, documents, errors, exposition, probes, sessions
from gateway_http.compression import Compressing
from gateway_http.front import Front
from gateway_http.health import HealthMonitor
from gateway_http.openai import errors as openai_errors
from gateway_http.openai.routes import ROUTES as OPENAI_ROUTES
from gateway_http.openapi import document
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings

VERSION: Final = version("ion-chat")
_ROUTES: Final[tuple[Any, ...]] = (
    chat.chat,
    choosing.route,
    choosing.personas,
    sessions.session_methods,  # before the others of its path
    sessions.list_sessions,
    sessions.get_session,
    sessions.list_messages,
    sessions.export_session,
    sessions.delete_session,
    *OPENAI_ROUTES,
    probes.health,
    probes.livez,
    probes.readyz,
    exposition.metrics,
    documents.info,
    documents.openapi,
    documents.docs,
    documents.docs_start,
)


def build_app(
    settings: HttpSettings, router: RouterClient, monitor: HealthMonitor, door: Door | None = None
) -> tuple[ASGIApp, State]:
    """The application, and its state: set `draining` to have it report that it is not ready."""
    page = assets.read_page()
    state = State(
        {
            "router": router,
            "monitor": monitor,
            "draining": False,
            "request_timeout_seconds": settings.request_timeout_seconds,
            "version": VERSION,
            "page": page,
        }
    )
    app = Litestar(
        route_handlers=[*_ROUTES, page.asset_handler(), documents.docs_assets()],
        state=state,
        openapi_config=OpenAPIConfig(title="ION", version=VERSION, render_plugins=[JsonRenderPlugin()]),
        exception_handlers={
            IonError: errors.on_ion_error,
            HTTPException: _on_http_error,
            UnicodeDecodeError: errors.on_bad_text,
            Exception: errors.on_defect,
        },
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
    )
    app.state.openapi = cache(lambda: msgspec.json.encode(document(app.openapi_schema.to_schema(), settings.auth)))
    paths = frozenset(route.path for route in app.routes if not route.path_parameters)
    front = Front(Compressing(app), door or OpenDoor(), paths=paths, writes_lines=settings.access_log)
    return _behind_proxies(settings, front), app.state


def _on_http_error(request: Request[Any, Any, State], error: HTTPException) -> Response[Any]:
    """Also for paths without a route, which have no handlers of their own."""
    if openai_errors.is_openai(request.scope["path"]):
        return openai_errors.on_http_error(request, error)
    return errors.on_http_error(request, error)


def _behind_proxies(settings: HttpSettings, app: Any) -> Any:
    """With the client's address as trusted proxies tell it."""
    return ProxyHeadersMiddleware(app, list(settings.trusted_proxies)) if settings.trusted_proxies else app
