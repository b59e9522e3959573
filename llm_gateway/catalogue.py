"""What is known of the models: how to ask each, until when it is served, what it costs. The facts are in
`catalogue.toml`, with their date and sources; a model that is not there is asked as it is."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import resources
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ion.error.v1.reason_pb2 import Reason
from llm_gateway import spending
from llm_gateway.generation import NO_USAGE, GenerationRequest, ModelError, Parameters, Usage
from llm_gateway.spending import Price

Parameter = Literal["temperature", "top_p", "stop_sequences", "response_json_schema"]
PARAMETERS: Final[tuple[Parameter, ...]] = ("temperature", "top_p", "stop_sequences", "response_json_schema")
_UNSET: Final = Parameters()
# A stable version: "gemini-2.0-flash-001", "gemini-2.0-flash@001".
_VERSION: Final = re.compile(r"[-@]\d{3}$")

Tokens = Annotated[int, Field(ge=1)]
_log = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Part):
    """When facts were gathered, and where."""

    date: date
    sources: Annotated[list[str], Field(min_length=1)]


class Thinking(_Part):
    """The least thinking that a model can be asked for: exactly one is set, `budget` in tokens."""

    level: Literal["minimal", "low"] | None = None
    budget: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_is_set(self) -> Self:
        if (self.level is None) == (self.budget is None):
            raise ValueError("either level or budget")
        return self


class Model(_Part):
    """One model. None: not known, and nothing follows from it."""

    accepts: list[Parameter] | None = None
    input_limit: Tokens | None = None
    output_limit: Tokens | None = None
    thinking: Thinking | None = None
    locations: list[str] | None = None
    retires: date | None = None
    retires_not_before: date | None = None
    replacement: str | None = None
    prices: list[Price] = []

    @model_validator(mode="after")
    def _retires_for_another(self) -> Self:
        if self.retires and not self.replacement:
            raise ValueError("a model that retires has a replacement")
        return self

    def retired(self, today: date) -> bool:
        return self.retires is not None and today > self.retires


class _File(_Part):
    facts: Source
    prices: Source
    models: dict[str, Model]


class ModelRetired(ModelError):
    """The model is not served any more."""

    def __init__(self, retirement: str) -> None:
        super().__init__(Reason.REASON_MODEL_NOT_FOUND, f"The model {retirement}.")


def _today() -> date:
    return datetime.now(UTC).date()


class Catalogue:
    """The models by id. It warns once of each parameter that a model does not take."""

    def __init__(self, data: dict[str, Any], *, today: Callable[[], date] = _today) -> None:
        """`data` as in `catalogue.toml`. Raises pydantic's ValidationError."""
        read = _File.model_validate(data)
        self.facts = read.facts
        self.prices = read.prices
        self.models = read.models
        self._today = today
        self._warned: set[tuple[str, str]] = set()

    @classmethod
    def load(cls) -> Self:
        """What ION is shipped with."""
        return cls(tomllib.loads(resources.files(__package__).joinpath("catalogue.toml").read_text("utf-8")))

    def model(self, model_id: str) -> Model | None:
        """A stable version ("-001") is its model, unless it is listed itself. None: not known."""
        return self.models.get(self._base_id(model_id))

    def known_as(self, model_id: str) -> str | None:
        """The id under which the model is listed; None where it is not."""
        base_id = self._base_id(model_id)
        return base_id if base_id in self.models else None

    def thinking_of(self, model_id: str) -> Thinking | None:
        """None where the model is not known, or does not think, or cannot be told how much."""
        model = self.model(model_id)
        return model.thinking if model else None

    def retirement(self, model_id: str) -> str | None:
        """One line for whoever asks for a model that is retired: since when, and what to use; None for all others."""
        model = self.model(model_id)
        if model is None or not model.retired(self._today()):
            return None
        return f"was retired on {model.retires}: use {model.replacement}"

    def misplacement(self, model_id: str, locations: Sequence[str]) -> str | None:
        """One line for whoever asks for a model where it is not served; None for all others."""
        model = self.model(model_id)
        if model is None or model.locations is None or set(locations) <= set(model.locations):
            return None
        return f"{model_id} is served at {', '.join(model.locations)} only"

    def check_usable(self, model_id: str) -> None:
        """Raises ModelRetired."""
        retirement = self.retirement(model_id)
        if retirement:
            raise ModelRetired(retirement)

    def input_limit(self, model_id: str, *limits: int) -> int:
        """Most input tokens: the least of the model's own limit and `limits`, of which 0 is none. 0: none at all."""
        model = self.model(model_id)
        known = [*limits, (model and model.input_limit) or 0]
        return min((limit for limit in known if limit), default=0)

    def fit(self, request: GenerationRequest) -> GenerationRequest:
        """The request without the parameters that its model ignores or refuses, and within its output limit."""
        model = self.model(request.model)
        if model is None:
            return request
        dropped = _not_taken(request.parameters, model)
        parameters = _within(_without(request.parameters, dropped), model)
        self._warn(request.model, dropped)
        return request if parameters is request.parameters else replace(request, parameters=parameters)

    def cost_usd(self, model_id: str, usage: Usage, lost_usage: Usage = NO_USAGE) -> float | None:
        """What one reply and the calls lost on the way to it cost today; None where the model has no price."""
        model = self.model(model_id)
        prices, today = model.prices if model else [], self._today()
        cost = spending.cost_usd(prices, usage, today)
        lost = 0.0 if lost_usage == NO_USAGE else spending.cost_usd(prices, lost_usage, today)
        return None if cost is None or lost is None else cost + lost

    def _base_id(self, model_id: str) -> str:
        return model_id if model_id in self.models else _VERSION.sub("", model_id)

    def _warn(self, model_id: str, parameters: list[Parameter]) -> None:
        model = self._base_id(model_id)
        for parameter in parameters:
            if (model, parameter) not in self._warned:
                self._warned.add((model, parameter))
                _log.warning("%s does not take %s: it is left out", model, parameter)


def _not_taken(parameters: Parameters, model: Model) -> list[Parameter]:
    """Those that are set and of no use."""
    if model.accepts is None:
        return []
    set_ones = [name for name in PARAMETERS if getattr(parameters, name) != getattr(_UNSET, name)]
    return [name for name in set_ones if name not in model.accepts]


def _without(parameters: Parameters, dropped: list[Parameter]) -> Parameters:
    changes: dict[str, Any] = {name: getattr(_UNSET, name) for name in dropped}
    return replace(parameters, **changes) if changes else parameters


def _within(parameters: Parameters, model: Model) -> Parameters:
    if model.output_limit is None or parameters.max_output_tokens <= model.output_limit:
        return parameters
    return replace(parameters, max_output_tokens=model.output_limit)
