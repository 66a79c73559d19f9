"""What a run is going to do, known before its first step: printed for a person, saved as preflight.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.train.preflight.audit import LossAudit
from vfl.train.preflight.lengths import LengthHistogram
from vfl.train.preflight.processes import LaunchFacts

TRAINING = ("peft", "trl", "accelerate", "datasets", "deepspeed")


class _Facts(BaseModel):
    # protected_namespaces: `model` and its like are names of facts here, not of pydantic's.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelFacts(_Facts):
    """The base model as it was loaded; `id` is a hub id, a folder, or "embedded"."""

    id: str
    on_hub: bool
    family: str
    num_layers: int
    dtype: str
    attention: str
    parameters: int
    bytes: int
    revision: str | None = None
    weights_sha256: str | None = None
    min_pixels: int | None = None  # limits of resized pictures, where the family counts pixels
    max_pixels: int | None = None
    test_bed: bool = False  # embedded or smol: no claim about large models


class ArmFacts(_Facts):
    """Which layers are trained, and what chose them."""

    arm: str  # function, full, reversed, random, list, a rule or a preset
    layers: tuple[int, ...]  # ascending
    functions: tuple[str, ...] = ()
    map_path: str | None = None
    map_sha256: str | None = None
    rank: int | None = None  # LoRA's r, after `match_rank`
    reason: str | None = None  # why a rule chose these layers
    protected: str | None = None  # which layers are spared for other functions, and how
    frozen: str | None = None  # which layers are frozen on the way, and when


class AfterImageFacts(_Facts):
    """What of a step's tokens the backward pass goes through where it ends at the image."""

    whole_every: int  # steps, one of which goes through all tokens; 0: none does
    tokens: float  # share of the longest batch's

    @property
    def sentence(self) -> str:
        """To go on with from what the backward pass costs."""
        steps = f", but one step in {self.whole_every}" if self.whole_every else ""
        return f", for the tokens after the image alone ({self.tokens:.0%} of the longest batch's){steps}"


class TowerModules(_Facts):
    """Adapted modules of one tower, and what training adds to them."""

    tower: Literal["language", "vision", "projector"]
    modules: int
    parameters: int
    bytes: int
    layers: tuple[int, ...] = ()  # decoder layers; empty for the other towers
    learning_rate: float | None = None  # where it is not the trainer's


class MemoryFacts(_Facts):
    """Peak of one forward and backward pass on the longest batch."""

    peak_bytes: int
    device_bytes: int | None  # what the device has
    how: str  # how it was measured, in words
    rows: int
    tokens: int  # of the longest row
    packed: bool = False  # the rows are packs of rows


class SetFacts(_Facts):
    """One of several data sets: its usable rows, and how many an epoch draws from it."""

    name: str
    used: int
    drawn: int


class DataFacts(_Facts):
    """Rows as they were read; `files` maps what a person calls a source to the hash of its bytes."""

    rows: int  # read
    used: int
    bad: int = 0  # skipped: an image or the row itself cannot be read
    too_long: int = 0  # skipped by on_long_row
    weighed: float | None = None  # share of the answer tokens that the loss is over; None for all of them
    sets: tuple[SetFacts, ...] = ()  # of several sets, each
    replay: int = 0  # old rows mixed into each epoch, besides the new ones
    anchors: int = 0  # rows of each epoch that hold the model to its old answers, besides both
    system_prompt: str | None = None  # of every row
    system_added: int = 0  # rows that had none
    system_replaced: int = 0  # rows that had one of their own
    desirable: int | None = None  # under kto, rows whose answer is good
    matches: dict[str, int] = {}  # under grpo, rows of each match kind
    text_only: int = 0
    multi_turn: int = 0
    multi_image: int = 0
    files: dict[str, str] = {}
    hub: tuple[str, ...] = ()  # data set ids on the hub

    @property
    def new(self) -> int:
        """Rows of an epoch that are not replayed."""
        return sum(each.drawn for each in self.sets) if self.sets else self.used


class OrderFacts(_Facts):
    """The order of rows whose pictures are read from parquet files where they lie."""

    readers: int  # processes that it is made for
    sentence: str


class TimeEstimate(_Facts):
    """Seconds, extrapolated from one measured step: an estimate, and called so wherever it is shown."""

    step_seconds: float
    steps: int
    evaluation_seconds: float
    evaluations: int
    total_seconds: float
    how: str


class SampledQuestion(_Facts):
    """A question, and what the model said to it before training."""

    where: str
    prompt_tail: str
    expected: str
    match: str
    sampled: tuple[str, ...]
    rewards: tuple[float, ...]


class GrpoFacts(_Facts):
    """What is sampled and rewarded, and a round of it from the model as it was."""

    generations: int  # answers to a question
    together: int  # answers that are sampled at a time, over all processes
    longest: int  # most tokens of one
    temperature: float
    beta: float  # weight of the KL term
    loss: str
    rewards: dict[str, float]  # weights of the parts
    sampled: int  # answers in this round
    reward: float  # their mean
    questions: tuple[SampledQuestion, ...]


class Preflight(_Facts):
    """Everything that is known before the first step; what was not measured is None."""

    schema_version: Literal[1] = 1
    method: Literal["sft", "dpo", "kto", "grpo"]
    model: ModelFacts
    arm: ArmFacts
    adapted: tuple[TowerModules, ...]
    launch: LaunchFacts
    data: DataFacts
    checkpointing: str  # a sentence: whether layers are recomputed, and why
    after_image: AfterImageFacts | None = None  # where the backward pass of most steps ends at the image
    versions: dict[str, str]
    packing: str | None = None  # a sentence: how many packs the rows lie in, and how full these are
    order: OrderFacts | None = None  # with data.streaming
    audit: LossAudit | None = None
    grpo: GrpoFacts | None = None
    lengths: LengthHistogram | None = None
    memory: MemoryFacts | None = None
    time: TimeEstimate | None = None
    notes: tuple[str, ...] = ()  # further warnings for a person

    @property
    def trainable_parameters(self) -> int:
        return sum(tower.parameters for tower in self.adapted)

    @property
    def trainable_bytes(self) -> int:
        return sum(tower.bytes for tower in self.adapted)

    @property
    def cost(self) -> str:
        """Which lowest layer decides what the backward pass costs."""
        cost = backward_cost(self.arm.layers, [tower.tower for tower in self.adapted if tower.modules])
        return cost if self.after_image is None else f"{cost}{self.after_image.sentence}"

    @property
    def warnings(self) -> tuple[str, ...]:
        warnings = self.launch.warnings + self.notes
        if self.grpo is not None and self.grpo.reward == 0:
            warnings += (
                f"None of {self.grpo.sampled} sampled answers earned anything, and nothing is learned from such: see "
                "above what they say and how it is compared (data.match), raise grpo.num_generations, or train with "
                "method: sft first.",
            )
        if self.audit is not None and self.audit.unclosed:
            warnings += (
                f"{self.audit.unclosed} answers have no end token in the loss, so the model would not learn to stop: "
                "check the chat template and the tokenizer's eos_token.",
            )
        return warnings

    def save(self, path: Path) -> None:
        """Write preflight.json, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Preflight":
        """Read preflight.json; InputError for a file that is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
        except ValueError as error:  # pydantic's ValidationError is one
            first = str(error).splitlines()[0]
            raise InputError(f"{path} is not a preflight.json of this version ({first}); run with --check.") from None


def backward_cost(layers: Sequence[int], towers: Sequence[str] = ("language",)) -> str:
    """In words, where the backward pass ends."""
    if outside := [tower for tower in towers if tower != "language"]:
        return f"training also the {' and the '.join(outside)}: the backward pass goes through every decoder layer"
    lowest = min(layers)
    if lowest == 0:
        return "layer 0 is trained: the backward pass goes through every layer"
    below = "layer 0 runs" if lowest == 1 else f"layers 0-{lowest - 1} run"
    return f"{below} without autograd; the backward pass ends at layer {lowest}"


def estimate_time(
    step_seconds: float,
    steps: int,
    *,
    evaluation_seconds: float = 0.0,
    evaluations: int = 0,
    how: str = "one step on the longest batch",
) -> TimeEstimate:
    """Time of a run from one measured optimizer step and, where it was measured, one evaluation (both in seconds).

    A step on the longest batch makes it an upper bound as far as lengths go; starting up and saving are left out.
    """
    return TimeEstimate(
        step_seconds=step_seconds,
        steps=steps,
        evaluation_seconds=evaluation_seconds,
        evaluations=evaluations,
        total_seconds=step_seconds * steps + evaluation_seconds * evaluations,
        how=how,
    )
