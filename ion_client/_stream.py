"""What a stream of a reply knows so far."""

from __future__ import annotations

from collections import deque

from ion_client.results import Analysis, Choice, Done, Event, Reply, Routed, Text


class Progress:
    """`held` are events that came and were not handed out yet."""

    def __init__(self) -> None:
        self.held: deque[Event] = deque()
        self._pieces: list[str] = []
        self._routed: Routed | None = None
        self._reply: Reply | None = None

    def take(self, event: Event) -> None:
        self.held.append(event)
        if isinstance(event, Routed):
            self._routed = event
        elif isinstance(event, Text):
            self._pieces.append(event.text)
        elif isinstance(event, Done):
            self._reply = event.reply

    @property
    def choice_known(self) -> bool:
        return self._routed is not None

    @property
    def routed(self) -> Routed:
        if self._routed is None:
            raise RuntimeError("the choice is not known yet: enter the stream by `with`, or read it")
        return self._routed

    @property
    def choice(self) -> Choice:
        return self.routed.choice

    @property
    def analysis(self) -> Analysis | None:
        return self.routed.analysis

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def reply(self) -> Reply:
        if self._reply is None:
            raise RuntimeError("the reply is not complete yet: read the stream to its end")
        return self._reply
