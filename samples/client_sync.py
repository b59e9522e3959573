"""Talk to a running ION from Python.

    .venv/bin/python samples/client_sync.py                           # http://127.0.0.1:8080, where `make run` serves
    .venv/bin/python samples/client_sync.py grpc://127.0.0.1:50051    # the same over gRPC: `ion serve --grpc`

A service that wants a key finds it in ION_API_KEY.
"""

from __future__ import annotations

import sys

import ion_client

SESSION = "sample-sync"


def main(url: str = "http://127.0.0.1:8080") -> None:
    with ion_client.connect(url, user_id="ann") as ion:
        # Who would answer, and why? No model is called.
        routing = ion.route("Compare the two indexes for this query, with numbers.")
        print(f"{routing.persona}: {routing.choice.reasoning}")

        # An answer, as part of a conversation that ION keeps.
        reply = ion.chat("I rewrote the parser three times and it still breaks!", session_id=SESSION)
        print(f"{reply.persona} ({reply.choice.confidence:.2f}): {reply.text}")

        # The same as it comes. The choice is there before the first text.
        with ion.stream("And what would you do next?", session_id=SESSION) as stream:
            print(f"{stream.choice.persona}: ", end="")
            for text in stream:
                print(text, end="", flush=True)
        print(f"\n[{stream.reply.generation or stream.reply.failure}]")

        for turn in ion.turns(SESSION):
            print(f"{turn.turn_id} {turn.created_at:%H:%M} {turn.persona}: {turn.message}")
        ion.delete_session(SESSION)

        try:
            ion.chat("   ")
        except ion_client.InvalidRequest as error:
            print(f"{error.reason}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
