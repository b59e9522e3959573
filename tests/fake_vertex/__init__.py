"""A Vertex AI that runs here: the real gRPC services over plain-text TCP, told what to do by the test.

    async with FakeVertex(location="us-central1") as vertex:      # vertex.endpoint == "127.0.0.1:PORT"
        vertex.answer("text")                    # or a function of the raw GenerateContentRequest
        vertex.think("a thought")                # a thought part before the text
        vertex.name_model("gemini-3.5-flash-001")   # model_version of the answers; the model asked for unless told
        vertex.usage(cached_tokens=5, thinking_tokens=7)   # input_tokens, output_tokens: estimated where not given
        vertex.delay(0.1)                        # seconds before every answer or failure
        vertex.fail(grpc.StatusCode.UNAVAILABLE, times=2, retry_after_seconds=1.5)
        vertex.hang()                            # until cancelled, past its deadline, or vertex.release()
        vertex.block_for_safety()                # finish_reason SAFETY, or vertex.finish(FinishReason.SPII)
        vertex.block_prompt()                    # prompt_feedback.block_reason, no candidates
        vertex.empty()                           # no candidates
        vertex.cut_off(after_characters=10)      # MAX_TOKENS; a stream is aborted midway with UNAVAILABLE
        vertex.reset()                           # back to the default answer; forgets the calls
        await vertex.wait_for_calls(2)           # until two calls have come in; returns them
        await vertex.wait_for_outcome("cancelled", count=1)   # until one has ended so; returns those
        vertex.calls[0].request, .metadata, .method, .time_remaining_seconds (rounded up to ms), .outcome
        await vertex.stop(); await vertex.start()   # an outage; it comes back on the same port

Behaviours (fail, hang, finish, block_*, empty, cut_off) take `times`: None means until `reset`. They are used in the
order given, so `fail(..., times=2)` then `hang(times=1)` fails twice, hangs once, then answers. An outcome is
"running", "ok", "failed" or "cancelled" (by the caller, or by its deadline).
The default answer names the persona label and a digest of the last turn, so equal requests get equal answers.
Requests that Vertex would refuse (no contents, other roles, labels out of its rules, another location's resource name)
get INVALID_ARGUMENT. Waiting ends with TimeoutError after `timeout_seconds` (5 unless told).
As a program: `python -m tests.fake_vertex --port 0 --delay-ms 100 --location us-central1` prints one line that ends in
the port when it is ready; SIGTERM ends it. It keeps no calls.
"""

from tests.fake_vertex.messages import FinishReason
from tests.fake_vertex.script import UPSTREAM_TEXT
from tests.fake_vertex.server import Call, FakeVertex

__all__ = ["UPSTREAM_TEXT", "Call", "FakeVertex", "FinishReason"]
