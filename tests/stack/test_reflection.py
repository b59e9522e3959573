"""Clients that know nothing of the protos find the services and call them, as grpcurl does."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


async def ask(channel, request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([request]), timeout=10)
    answer = await call.read()
    call.cancel()
    return answer


async def test_services_are_listed(router_channel, llm_channel):
    for channel, service in (
        (router_channel, "ion.router.v1.PersonaRouterService"),
        (llm_channel, "ion.llm.v1.LlmGatewayService"),
    ):
        answer = await ask(channel, reflection_pb2.ServerReflectionRequest(list_services="*"))
        names = {found.name for found in answer.list_services_response.service}
        assert {service, "grpc.health.v1.Health"} <= names


def _add_in_order(pool: descriptor_pool.DescriptorPool, files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    """Each file after those it imports."""
    added: set[str] = set()
    while len(added) < len(files):
        for file in files:
            if file.name not in added and added.issuperset(file.dependency):
                pool.Add(file)
                added.add(file.name)


async def test_a_method_is_called_with_what_reflection_tells_alone(router_channel):
    pool = descriptor_pool.DescriptorPool()
    symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol="ion.router.v1.PersonaRouterService")
    files = (await ask(router_channel, symbol)).file_descriptor_response.file_descriptor_proto
    _add_in_order(pool, [descriptor_pb2.FileDescriptorProto.FromString(serialised) for serialised in files])
    method = pool.FindServiceByName("ion.router.v1.PersonaRouterService").methods_by_name["Route"]
    request_type = message_factory.GetMessageClass(method.input_type)
    response_type = message_factory.GetMessageClass(method.output_type)
    call = router_channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request_type.SerializeToString,
        response_deserializer=response_type.FromString,
    )
    response = await call(
        json_format.ParseDict({"resonance_key": "urgent-burst-expressive"}, request_type()), timeout=10
    )
    assert json_format.MessageToDict(response)["routing"]["persona"] == "Nana"
