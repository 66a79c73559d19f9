"""What `--model_args` may hold: a model, an adapter and a plan, by the words of vfl's own commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vfl.evaluate.items import LONGEST
from vfl.io.config import validated
from vfl.io.fields import Names, SystemPrompt, layers_each_once, split
from vfl.loading.config import ModelConfig


def unwrapped(value: Any) -> Any:
    """ "[5-7,9]" or "'5-7,9'" as "5-7,9": lmms-eval cuts at commas outside of brackets and quotes, and leaves those."""
    if isinstance(value, str) and len(value) > 1 and value[0] + value[-1] in ("[]", "''", '""'):
        return value[1:-1].strip()
    return value


def layers_or_all(value: Any) -> Any:
    """Layers as `layers_each_once`; "all" stays."""
    value = unwrapped(value)
    return value if value is None or value == "all" else layers_each_once(value)


ArgNames = Annotated[Names, BeforeValidator(lambda value: split(unwrapped(value)))]


class LmmsEvalConfig(ModelConfig):
    """Which model, and what its text reads of the image at which layers."""

    adapter: Path | None = Field(default=None, description="folder of a LoRA adapter to put on the model")
    hide: Annotated[list[int] | Literal["all"] | None, BeforeValidator(layers_or_all)] = Field(
        default=None, description="layers at which the text does not see the image: 10-12, [10-12,20] or all"
    )
    drop: int | None = Field(default=None, ge=0, description="hide the image in so many last layers")
    entry: int | None = Field(default=None, ge=0, description="vision tokens enter at this layer (0)")
    exit: int | None = Field(default=None, ge=0, description="and are gone from this layer on (the last)")
    map: Path | None = Field(default=None, description="map.json of `vfl locate`, or the folder that holds it")
    functions: ArgNames = Field(default=(), description="with a map: hide the image at these functions' layers")
    keep: ArgNames = Field(default=(), description="with a map: skip the layers of all other functions")
    allow_other_model: bool = Field(default=False, description="the map's model was fine-tuned into this one")
    system_prompt: SystemPrompt | None = Field(default=None, description="the system turn of every question")
    max_new_tokens: int = Field(default=LONGEST, ge=1, description="most tokens of an answer whose task sets no bound")
    batch_size: int = Field(default=1, ge=1, description="questions asked at a time (lmms-eval's --batch_size)")

    @model_validator(mode="after")
    def _one_plan(self) -> Self:
        ways = {
            "hide": self.hide is not None,
            "drop": self.drop is not None,
            "entry and exit": self.entry is not None or self.exit is not None,
            "functions": bool(self.functions),
            "keep": bool(self.keep),
        }
        if len(given := [way for way, is_given in ways.items() if is_given]) > 1:
            raise ValueError(f"{' and '.join(given)} are plans, of which one is run at a time; leave out all but one")
        if (self.map is None) == bool(self.functions or self.keep):
            raise ValueError("map belongs to functions or keep: whose layers are hidden, or whose are not skipped")
        return self


def read_arguments(arguments: Mapping[str, Any]) -> LmmsEvalConfig:
    """lmms-eval's arguments of the model, those of its own flags among them.

    Raises:
        InputError: for an unknown word, or a value of the wrong kind; all of them at once.
    """
    left_out = ("max_batch_size",)  # for sizes that are found by trying, which an out-of-memory error does here
    return validated(
        LmmsEvalConfig,
        {name: unwrapped(value) for name, value in arguments.items() if name not in left_out},
        source="--model_args of lmms-eval",
    )
