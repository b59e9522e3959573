"""Call any unary method of a running ION, knowing nothing but what its reflection service tells.

    .venv/bin/python samples/reflection.py 127.0.0.1:50051                                        # list the services
    .venv/bin/python samples/reflection.py 127.0.0.1:50051 ion.router.v1.PersonaRouterService/Route '{"message": "hi"}'

The same as `grpcurl -plaintext -d JSON TARGET METHOD`, for machines without grpcurl.
"""

from __future__ import annotations

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT_SECONDS = 30


def call(channel: grpc.Channel, pool: DescriptorPool, name: str, request: str) -> str:
    service, _, method_name = name.partition("/")
    method = pool.FindServiceByName(service).FindMethodByName(method_name)
    request_type, response_type = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    invoke = channel.unary_unary(
        f"/{name}", request_serializer=request_type.SerializeToString, response_deserializer=response_type.FromString
    )
    response = invoke(Parse(request, request_type()), timeout=TIMEOUT_SECONDS)
    return MessageToJson(response, preserving_proto_field_name=True, ensure_ascii=False)


def main(target: str, method: str = "", request: str = "{}") -> None:
    with grpc.insecure_channel(target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if method:
            sys.stdout.write(call(channel, DescriptorPool(database), method, request) + "\n")
        else:
            sys.stdout.write("\n".join(database.get_services()) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
