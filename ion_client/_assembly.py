"""What comes of a stream, part by part: sync and async, over either transport."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ion_client._asks import Ended, StreamPart
from ion_client.errors import BAD_ANSWER, CONNECTION_LOST, IonClientError, failure, interrupted
from ion_client.results import Done, Event, Reply, Routed, Text

T = TypeVar("T")
P_contra = TypeVar("P_contra", contravariant=True)
E_co = TypeVar("E_co", covariant=True)


class Intake(Protocol[P_contra, E_co]):
    """Takes the parts of one stream, which may be begun anew as long as nothing of it has reached the caller for
    good."""

    @property
    def complete(self) -> bool:
        """Nothing is missing, however the stream ends."""
        ...

    def take(self, part: P_contra) -> E_co:
        """The part as the caller is told of it."""
        ...

    def check_end(self) -> None:
        """The stream has ended. Raises IonClientError where that is too early."""
        ...

    def broken_by(self, error: IonClientError) -> IonClientError:
        """The failure as the caller is told of it: Interrupted, which is never retried, where the stream had begun."""
        ...


class Passing(Generic[T]):
    """Hands on what comes."""

    complete = False  # only the end of the stream tells

    def __init__(self) -> None:
        self._begun = False

    def take(self, part: T) -> T:
        self._begun = True
        return part

    def check_end(self) -> None:
        """Any number is complete."""

    def broken_by(self, error: IonClientError) -> IonClientError:
        return interrupted(error, "") if self._begun else error


class Assembly:
    """Puts a reply together. Begun is a stream with its first text: a choice is simply made again."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._pieces: list[str] = []
        self._routed: Routed | None = None
        self.complete = False

    def take(self, part: StreamPart) -> Event:
        if isinstance(part, Ended):
            done = Done(self._reply(part))
            self.complete = True
            return done
        if isinstance(part, Text):
            self._pieces.append(part.text)
        else:
            self._routed = part
        return part

    def check_end(self) -> None:
        if not self.complete:
            raise failure(CONNECTION_LOST, "The stream ended before the reply did.")

    def broken_by(self, error: IonClientError) -> IonClientError:
        return interrupted(error, "".join(self._pieces)) if self._pieces else error

    def _reply(self, ended: Ended) -> Reply:
        if self._routed is None:
            raise failure(BAD_ANSWER, "The stream did not begin with the choice.")
        return Reply(
            text="".join(self._pieces),
            choice=ended.choice or self._routed.choice,
            analysis=self._routed.analysis,
            generation=ended.generation,
            fallback=ended.fallback,
            failure=ended.failure,
            session_id=ended.session_id,
            history=ended.history,
            timings=ended.timings,
            request_id=self._request_id,
        )
