"""What people look at: the chat page and the documentation."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from litestar import HttpMethod, MediaType, Request, Response, get, route
from litestar.datastructures import State
from litestar.static_files import create_static_files_router

from gateway_http import assets, schemas

DOCS: Final = Path(__file__).parent / "docs"
_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


@route("/", http_method=[HttpMethod.GET, HttpMethod.HEAD], status_code=200, tags=["health"])
async def info(request: Request[Any, Any, State], state: State) -> Response[schemas.ServiceInfo]:
    """What this is: for browsers a page to chat on."""
    if assets.wants_page(request.headers.get("accept", "")):
        page: Response[Any] = await state.page.document.respond(request)
        return page
    told = schemas.ServiceInfo("내다AI Ion API", state.version, "running", "/docs", "/health")
    return Response(told, headers={"Vary": "Accept"})


@get("/openapi.json", include_in_schema=False)
async def openapi(state: State) -> Response[bytes]:
    return Response(state.openapi(), media_type=MediaType.JSON)


@get("/docs", include_in_schema=False, media_type=MediaType.HTML)
async def docs() -> Response[bytes]:
    page = (DOCS / "index.html").read_bytes()
    return Response(page, media_type=MediaType.HTML, headers={"Content-Security-Policy": _DOCS_POLICY})


@get("/docs/start.js", include_in_schema=False, media_type="text/javascript")
async def docs_start() -> bytes:
    return (DOCS / "start.js").read_bytes()


def docs_assets() -> Any:
    """Swagger UI from its package, found without importing that package."""
    spec = find_spec("flask_swagger_ui")
    folder = Path(spec.submodule_search_locations[0]) / "dist" if spec and spec.submodule_search_locations else DOCS
    return create_static_files_router("/docs/assets", [folder], include_in_schema=False, name="docs-assets")
