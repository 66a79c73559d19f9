"""Settings of `vfl estimate`: which model, which work, how much of it, and on what."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vfl.estimate.cards import CardName
from vfl.io.fields import MaxPixels, SomeNames
from vfl.io.layers import parse_layers
from vfl.loading.beds import EMBEDDED_ID
from vfl.train.backward.config import BackwardConfig, in_short

Work = Literal["locate", "score", "train", "measure"]
WORKS: tuple[Work, ...] = ("locate", "score", "train", "measure")


def _size(written: object) -> object:
    """ "1024x768" -> (1024, 768)."""
    if isinstance(written, str):
        sides = [part.strip() for part in written.lower().split("x")]
        if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
            raise ValueError("expected width and height in pixels, such as 1024x768")
        return tuple(map(int, sides))
    return written


def _layers(written: object) -> object:
    return tuple(parse_layers(written)) if isinstance(written, str) else written


class EstimateConfig(BaseModel):
    """What is to be estimated. What is left out is typical of the work, and said with the result."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(default=EMBEDDED_ID, description="folder, hub id, or embedded: its config alone is read")
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantize: Literal["4bit", "8bit"] | None = None
    work: Work | None = Field(default=None, description="default: all four")
    gpu: CardName = Field(default="h100", description="card, by its short name")
    gpus: int = Field(default=1, ge=1, description="cards of that kind")
    spread: bool = Field(default=False, description="weights over all cards: device_map auto, or ZeRO-3 in training")
    functions: SomeNames = Field(
        default=("recognition", "counting", "grounding", "ocr"), description="that are located, scored or measured"
    )
    metrics: SomeNames | None = Field(default=None, description="that are measured; default: all")
    pairs: int | None = Field(default=None, ge=1, description="a function: located (100), or measured (12)")
    data_rows: int = Field(default=10_000, ge=1, description="of data, to score or to train on once")
    steps: int | None = Field(default=None, ge=1, description="of training, instead of one pass over the rows")
    rows_a_step: int = Field(default=128, ge=1, description="rows of a training step, over all cards")
    vision_tokens: int | None = Field(default=None, ge=1, description="of a picture, instead of its size")
    picture: Annotated[tuple[int, int], BeforeValidator(_size)] | None = Field(
        default=None,
        description="width and height in pixels, such as 1024x768, for families whose pictures keep their grid; "
        "448x448 (generated pairs) to locate and measure, 1024x768 of rows",
    )
    max_pixels: MaxPixels = None
    text_tokens: int | None = Field(default=None, ge=1, description="of a prompt beside the picture's: 40, of rows 80")
    answer_tokens: int | None = Field(default=None, ge=1, description="of an answer: 2, of rows 60")
    batch_size: int | None = Field(default=None, ge=1, description="rows at a time on a card: 16 to score, 4 to train")
    train_layers: Annotated[tuple[int, ...], BeforeValidator(_layers)] | None = Field(
        default=None, description="decoder layers that are trained; default: all"
    )
    rank: int = Field(default=64, ge=1, description="of LoRA")
    checkpointing: bool = Field(default=False, description="recompute the activations of layers in the backward pass")
    backward: Annotated[BackwardConfig | None, BeforeValidator(in_short)] = Field(
        default=None, description="after_image: most steps' backward pass ends at the image; or whole"
    )
