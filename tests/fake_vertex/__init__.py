"""A Vertex AI that runs here: the real gRPC services over plain-text TCP, told what to do by the test.

    async with FakeVertex(location="us-central1") as vertex:      # vertex.endpoint == "127.0.0.1:PORT"
        vertex.answer("text")                    # or a function of the raw GenerateContentRequest
        vertex.pieces(["one ", "two"])           # the answer; a stream comes in exactly these pieces
        vertex.think("a thought")                # a thought part before the text
        vertex.name_model("gemini-3.5-flash-001")   # model_version of the answers; the model asked for unless told
        vertex.usage(cached_tokens=5, thinking_tokens=7)   # input_tokens, output_tokens: estimated where not given
        vertex.delay(0.1)                        # seconds before every answer or failure
        vertex.follow_law(seed=1, first_token_share=0.3)   # instead: the delays of the performance report, see law.py
        vertex.fail(grpc.StatusCode.UNAVAILABLE, times=2, retry_after_seconds=1.5)
        vertex.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, after_pieces=2)   # a stream: after two pieces
        vertex.error_rate(0.5, seed=1)           # that share of calls fails at once with UNAVAILABLE; 0: none
        vertex.hang()                            # until cancelled, past its deadline, or vertex.release()
        vertex.hold_after_pieces(1)              # a stream: after one piece, until the same
        vertex.block_for_safety()                # finish_reason SAFETY, or vertex.finish(FinishReason.SPII)
        vertex.block_prompt()                    # prompt_feedback.block_reason, no candidates
        vertex.empty()                           # no candidates
        vertex.cut_off(after_characters=10)      # MAX_TOKENS; a stream is aborted midway with UNAVAILABLE
        vertex.break_off(after_characters=10, cleanly=True)   # no finish reason, no usage; or else UNAVAILABLE there
        vertex.behave()                          # no behaviours and no errors any more, hanging calls answer
        vertex.reset()                           # back to the default answer; forgets the calls
        await vertex.wait_for_calls(2)           # until two calls have come in; returns them
        await vertex.wait_for_outcome("cancelled", count=1)   # until one has ended so; returns those
        vertex.calls[0].request, .metadata, .method, .time_remaining_seconds (rounded up to ms), .outcome
        await vertex.stop(); await vertex.start()   # an outage; it comes back on the same port

Behaviours (fail, hang, hold_after_pieces, finish, block_*, empty, cut_off, break_off) take `times`: None means until
`reset`. They are used in the order given, so `fail(..., times=2)` then `hang(times=1)` fails twice, hangs once, then
answers. An outcome is "running", "ok", "failed" or "cancelled" (by the caller, or by its deadline).
The default answer names the persona label and a digest of the last turn, so equal requests get equal answers.
Requests that Vertex would refuse (no contents, other roles, labels out of its rules, another location's resource name)
get INVALID_ARGUMENT. Waiting ends with TimeoutError after `timeout_seconds` (5 unless told).

Under the law, a unary answer takes the total of a delay; a stream sends its first piece after the share of the first
token and spreads the rest evenly until the total, or, without a share, sends all at its end. The same seed and location
give the same delays, one a call in the order of their coming, whatever becomes of the calls. Counting is not delayed.

As a program: `python -m tests.fake_vertex --port 0 --delay-ms 100 --location us-central1` prints one line that ends in
the port when it is ready; SIGTERM ends it. It keeps no calls, and sends pieces of 64 characters, since Vertex sends few
and large ones (`--piece-characters`). `--law --seed 1 --first-token-share 0.3` and `--error-rate 0.5` are as above.
`--script "10:hang;30:healthy;40:errors=0.5;50:down;60:healthy"` is followed from its start, in seconds: `down` listens
no more, what comes after it listens again, on the same port. `--control-port` takes such commands while it runs, one a
line (`echo down | nc 127.0.0.1 PORT`), also `delay=SECONDS`, `law=SEED[,FIRST_TOKEN_SHARE]` and `counts`.
"""

from tests.fake_vertex.messages import FinishReason
from tests.fake_vertex.script import UPSTREAM_TEXT
from tests.fake_vertex.server import Call, FakeVertex

__all__ = ["UPSTREAM_TEXT", "Call", "FakeVertex", "FinishReason"]
