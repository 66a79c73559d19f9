"""The recipe of the small vision-language model: what recipes/smol/pretrain.yaml may say."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vfl.testbeds.micro.config import PlantConfig
from vfl.testbeds.micro.questions import FUNCTIONS


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TowerConfig(Strict):
    """The vision tower's sizes, and its training before the language model joins: it learns to say what each cell of a
    picture holds, and where the cell is, near the language model's own embeddings of the words for these. Afterwards
    it stays as it is."""

    width: int = 128
    feed_forward: int = 384
    depth: int = 3
    heads: int = 4
    steps: int = 5000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.5


class Recipe(Strict):
    """One training run. `steps` may be raised while it goes on."""

    output: Path = Field(description="the trained parts: one safetensors file")
    work: Path = Field(description="checkpoints and the log")
    lm: str | None = Field(default=None, description="folder or hub id of a Llama model; by default the package's")
    start: Path | None = Field(
        default=None, description="trained parts to go on from; the tower is theirs, and its own steps are left out"
    )
    plant: PlantConfig | None = Field(default=None, description="where functions are planted; by default nowhere")
    seed: int = 0
    steps: int = 420
    decay: float = Field(default=0.25, description="share of the steps, at the end, in which the learning rate falls")
    rows: int = Field(default=3, description="rows a step")
    tokens: int = Field(default=384, description="tokens a row")
    rank: int = 16
    learning_rate: float = 2e-3
    warmup: int = 40
    weight_decay: float = 0.01
    finding: float = Field(default=0.5, description="weight of telling an object's cell at its word; fades")
    finding_steps: int = Field(default=500, description="steps over which the two helping losses fade")
    aloud: float = Field(default=0.5, description="weight of counting aloud over the picture; fades")
    texts: float = Field(default=1.0, description="weight of staying near the language model on texts of its own")
    pictures: dict[str, float] = Field(
        default={"mixed": 0.35, "recognition": 0.03, "counting": 0.37, "grounding": 0.15, "ocr": 0.1},
        description="weights of pictures that show a function alone, as probes do, and of mixed ones",
    )
    probe_phrasing: float = Field(default=0.25, description="share of questions worded as the probes word them")
    asked: dict[str, int] = Field(
        default={"recognition": 1, "counting": 1, "grounding": 2, "ocr": 1},
        description="questions of a function a picture; may be changed while the run goes on",
    )
    checkpoint_every: int = 50
    evaluate_every: int = 100
    threads: int | None = None
    tower: TowerConfig = TowerConfig()

    @field_validator("pictures")
    @classmethod
    def _each_kind(cls, pictures: dict[str, float]) -> dict[str, float]:
        kinds = ("mixed", *FUNCTIONS)
        if set(pictures) != set(kinds) or min(pictures.values()) < 0 or not sum(pictures.values()):
            raise ValueError(f"pictures must say a weight, not all of them 0, for each of {', '.join(kinds)}")
        return pictures

    @field_validator("asked")
    @classmethod
    def _each_function(cls, asked: dict[str, int]) -> dict[str, int]:
        if set(asked) != set(FUNCTIONS) or min(asked.values()) < 0:
            raise ValueError(f"asked must say a number, 0 or more, for each of {', '.join(FUNCTIONS)}")
        return asked
