"""Lengths of what a model is asked, and the memory of its weights: what all works share."""

from dataclasses import dataclass

from vfl.estimate.config import EstimateConfig, Work
from vfl.models.shape import Picture, Shape, picture_of

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
# Of bitsandbytes: four bits, and for each 64 numbers a scale of eight bits, of which 256 share a float32 scale (double
# quantization); eight bits and a scale for each row.
QUANTIZED = {"4bit": 0.5 + (1 + 4 / 256) / 64, "8bit": 1.0}
_PICTURES = {"locate": (448, 448), "measure": (448, 448), "score": (1024, 768), "train": (1024, 768)}
_TEXT = {"locate": 40, "measure": 40, "score": 80, "train": 80}
_ANSWERS = {"locate": 2, "measure": 2, "score": 60, "train": 60}
_BEFORE = 15  # tokens of a chat template before the picture


@dataclass(frozen=True)
class Prompt:
    """Tokens of one prompt: before its picture, of it, after it, and of the answer."""

    before: int
    picture: Picture
    after: int
    answer: int

    @property
    def shared(self) -> int:
        """Tokens up to the end of the picture, which are prefilled once."""
        return self.before + self.picture.tokens

    @property
    def length(self) -> int:
        """Tokens up to the answer."""
        return self.shared + self.after


def prompt_of(config: EstimateConfig, shape: Shape, work: Work) -> Prompt:
    """The prompt that a work is estimated with."""
    picture = picture_of(shape, config.vision_tokens, config.picture or _PICTURES[work], config.max_pixels)
    text = config.text_tokens or _TEXT[work]
    before = min(_BEFORE, text // 2)
    return Prompt(before, picture, text - before, config.answer_tokens or _ANSWERS[work])


def element_of(config: EstimateConfig) -> float:
    """Bytes of a number that is computed with."""
    return BYTES[config.dtype]


def weight_bytes(config: EstimateConfig, shape: Shape) -> float:
    """Memory of the weights, as they are loaded."""
    element = element_of(config)
    if config.quantize is None:
        return shape.parameters * element
    return shape.quantized * QUANTIZED[config.quantize] + (shape.parameters - shape.quantized) * element


def prefix_bytes(shape: Shape, tokens: int, element: float) -> float:
    """Keys and values of so many tokens at all layers."""
    return 2 * shape.num_layers * shape.kv_heads * shape.head_dim * tokens * element


def running_bytes(shape: Shape, tokens: int, element: float) -> float:
    """What one decoder layer holds while so many tokens pass through it and nothing is kept for a way back."""
    return tokens * (6 * shape.hidden + 3 * shape.intermediate) * element


def said_of(config: EstimateConfig, shape: Shape, prompt: Prompt) -> list[str]:
    """The lengths in words."""
    picture = prompt.picture
    tiles = f" in {picture.tiles} tile{'s' if picture.tiles > 1 else ''}" if shape.tower.tile is not None else ""
    return [
        f"a picture is {picture.tokens:,} vision tokens{tiles}, the text beside it "
        f"{prompt.before + prompt.after} tokens, an answer {prompt.answer}",
    ]
