"""What Prometheus asks: the metrics of this process."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException

from chassis import caller
from chassis.errors import IonError
from chassis.observability import exposition
from ion.error.v1.reason_pb2 import Reason


@get(exposition.PATH, include_in_schema=False)
async def metrics(request: Request[Any, Any, State]) -> Response[bytes]:
    """For the tier "admin", and for everybody where authentication is off."""
    asking = caller.current()
    if asking.principal and asking.tier != caller.OPERATORS:
        raise IonError(Reason.REASON_PERMISSION_DENIED)
    shown = exposition.current()
    if shown is None:
        raise NotFoundException
    text, media_type = await asyncio.to_thread(shown.render, request.headers.get("accept", ""))
    return Response(text, headers={"content-type": media_type})
