"""Talk to a running ION from asyncio: many messages at once, each within its own time.

.venv/bin/python samples/client_async.py                           # http://127.0.0.1:8080, where `make run` serves
.venv/bin/python samples/client_async.py grpc://127.0.0.1:50051    # the same over gRPC: `ion serve --grpc`
"""

from __future__ import annotations

import asyncio
import sys

import ion_client

MESSAGES = (
    "Why does the build fail only on Fridays?",
    "회의가 너무 많아서 지쳤어요.",
    "Let us plan the release together.",
)


async def answer(ion: ion_client.AsyncClient, message: str) -> str:
    try:
        reply = await ion.chat(message, timeout_seconds=20)
    except ion_client.IonClientError as error:
        return f"{error.reason} (try again: {error.retryable})"
    return f"{reply.persona} for {reply.choice.resonance_key}: {reply.text.splitlines()[0]}"


async def main(url: str = "http://127.0.0.1:8080") -> None:
    async with ion_client.connect_async(url) as ion:
        for line in await asyncio.gather(*(answer(ion, message) for message in MESSAGES)):
            print(line)

        # Leaving the block early stops the model too.
        async with ion.stream("Tell me all about indexes.", persona="elro") as stream:
            async for text in stream:
                print(f"{stream.choice.persona} begins: {text.splitlines()[0]}")
                break


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
