"""How many tokens of a row the backward pass goes through."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EVERY = 3  # what the experiment ran (experiments/layers)


class BackwardConfig(BaseModel):
    """In most steps the backward pass goes through the tokens after the image alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: Literal["after_image"]
    whole_every: int = Field(
        default=EVERY, ge=0, description="one step in so many, the first too, goes through all tokens; 0: none"
    )


def in_short(value: Any) -> Any:
    """A word stands for a configuration: `after_image`, or `whole` for none."""
    words = {"whole": None, "after_image": {"tokens": "after_image"}}
    if not isinstance(value, str):
        return value
    if value not in words:
        raise ValueError("expected whole, after_image, or {tokens: after_image, whole_every: 3}")
    return words[value]
