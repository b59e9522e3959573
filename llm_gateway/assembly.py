"""Builds the LLM gateway from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc_health.v1 import health as health_service

from chassis.server import NOT_SERVING, SERVING, Hosted
from chassis.settings import stop
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from llm_gateway import observers
from llm_gateway.admission import Admission
from llm_gateway.attempt_telemetry import tells_content
from llm_gateway.backends import Backend
from llm_gateway.backends.offline import OfflineBackend
from llm_gateway.cache import ResponseCache
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.labels import Labels
from llm_gateway.locations import Locations
from llm_gateway.means import HedgeMode, Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.redis_store import NoStore, RedisStore, Store
from llm_gateway.service import LlmGatewayServicer
from llm_gateway.settings import LlmSettings
from llm_gateway.spending import Ledger

NAME = llm_pb2.DESCRIPTOR.services_by_name["LlmGatewayService"].full_name
# The entry of the health service that says whether Redis is connected; there is none where no Redis is configured.
REDIS = "redis"


@asynccontextmanager
async def open_llm_gateway(settings: LlmSettings, health: health_service.aio.HealthServicer) -> AsyncIterator[Hosted]:
    """The LLM gateway until the block ends."""
    catalogue = Catalogue.load()
    backend = await _open_backend(settings, catalogue)
    store = await _open_store(settings, health)
    cache = ResponseCache(
        store,
        ttl_seconds=settings.cache_ttl_seconds,
        stale_seconds=settings.cache_stale_seconds,
        max_entries=settings.cache_max_entries,
    )
    means = Means(
        backend,
        Locations(backend.locations, choice=settings.location_choice),
        ledger=Ledger(catalogue.cost_usd),
        hedge_mode=HedgeMode(settings.hedge),
        max_tokens_per_request=settings.max_tokens_per_request,
        labels=Labels(backend.default_model, catalogue.known_as),
        tells_content=tells_content(),
    )
    calls = ModelCalls(means)
    completion = Completion(
        calls,
        cache,
        Admission(settings.max_concurrent_calls, settings.max_queued_calls),
        catalogue=catalogue,
        max_input_tokens=settings.max_input_tokens,
        request_timeout_seconds=settings.request_timeout_seconds,
    )
    observers.observe(completion)
    servicer = LlmGatewayServicer(
        completion,
        catalogue,
        offline=settings.backend_name == "offline",
        request_timeout_seconds=settings.request_timeout_seconds,
    )
    try:
        yield Hosted(NAME, lambda server: llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(servicer, server))
    finally:
        await completion.close()
        await cache.close()
        await calls.close()


async def _open_backend(settings: LlmSettings, catalogue: Catalogue) -> Backend:
    if settings.backend_name == "offline":
        return OfflineBackend()
    retired = catalogue.retirement(settings.model)
    if retired:
        stop(f"ION_VERTEX_MODEL={settings.model!r}: {retired}")
    misplaced = None if settings.insecure else catalogue.misplacement(settings.model, settings.locations)
    if misplaced:
        stop(f"ION_VERTEX_LOCATIONS={','.join(settings.locations)!r}: {misplaced}")
    # Imported where it is used: most of a second, and 100 MB.
    from llm_gateway.backends.vertex import VertexBackend

    try:
        return await VertexBackend.connect(
            project=settings.project or "emulator",
            model=settings.model,
            locations=settings.usable_locations,
            endpoints=settings.endpoints,
            insecure=settings.insecure,
        )
    except ValueError as error:
        stop(str(error))


async def _open_store(settings: LlmSettings, health: health_service.aio.HealthServicer) -> Store:
    if settings.redis_url is None:
        return NoStore()

    async def publish(connected: bool) -> None:
        await health.set(REDIS, SERVING if connected else NOT_SERVING)

    try:
        url = settings.redis_url.get_secret_value()
        return await RedisStore.open(url, wait_seconds=settings.cache_wait_seconds, on_state=publish)
    except ValueError as error:
        stop(str(error))
