"""The recipe of a training run: YAML, overridden by `key.inner=value` arguments, saved beside the results."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    field_serializer,
    model_validator,
)

from vfl.data import Kind
from vfl.evaluate.right_answers import RowMatch
from vfl.evaluate.sources import DataSet
from vfl.io.config import read_yaml, set_dotted, validated
from vfl.io.fields import (
    MaxPixels,
    MinPixels,
    Names,
    OnBadRow,
    Paths,
    Quantize,
    SomeNames,
    SystemPrompt,
    several,
    split,
    switch,
)
from vfl.loading.beds import EMBEDDED_ID
from vfl.train.backward.config import BackwardConfig, in_short
from vfl.train.grpo.config import GrpoConfig
from vfl.train.layers.choice import LayerChoice
from vfl.train.layers.freeze import FreezeConfig
from vfl.train.layers.protect import ProtectConfig
from vfl.train.nonfinite import OnNan
from vfl.train.old_rows import OldRowsConfig
from vfl.train.study_config import StudyConfig


class _Strict(BaseModel):
    # protected_namespaces: `model` and its like are keys here, not pydantic's.
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ReplayConfig(OldRowsConfig):
    """Rows of what the model can do already, mixed into every epoch so that it keeps that."""

    functions: SomeNames | None = Field(default=None, description="of the probes; default: the paper's four, or all")


class TrainingSet(_Strict):
    """A set of rows with settings of its own; those that are left out are the ones of `data`."""

    path: Annotated[Paths, Field(min_length=1)]
    images: Path | None = Field(default=None, description="folder of this set's images")
    format: Kind | Literal["auto"] | None = None
    image_column: SomeNames | None = None
    match: RowMatch | None = None
    weight: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="share of the rows of an epoch, over the sum of all weights; left out everywhere: each row once",
    )

    @property
    def plain(self) -> bool:
        """Whether it says nothing but where its rows are."""
        return self.model_dump(exclude_none=True).keys() == {"path"}


def _sets(value: Any) -> Any:
    """Paths and sets as sets: paths beside each other are one."""
    value = several(value)
    if not isinstance(value, Sequence):
        return value
    entries: list[Any] = []
    paths: list[Any] = []
    for entry in value:
        if not isinstance(entry, str | Path):
            paths = []
            entries.append(entry)
        elif paths:
            paths.append(entry)
        else:
            paths = [entry]
            entries.append({"path": paths})
    return entries


class DataConfig(_Strict):
    """Rows to train on; formats are those of `vfl.data`."""

    train: Annotated[tuple[TrainingSet, ...], BeforeValidator(_sets), Field(min_length=1)] = Field(
        description="a path, several, or sets with the keys below"
    )
    stopping_strategy: Literal["all_exhausted", "first_exhausted"] = Field(
        default="all_exhausted",
        description="with weights: an epoch ends when every row of all sets has come, or when one set is through",
    )
    images: Path | None = Field(default=None, description="folder of the images; default: the data file's own")
    format: Kind | Literal["auto"] = Field(default="auto", description="the kind of rows: see docs/data-formats.md")
    max_length: int | None = Field(
        default=None, ge=1, description="most tokens of a row, image tokens included; under grpo, of its question"
    )
    system_prompt: SystemPrompt | None = Field(
        default=None,
        description="the system turn of every row, in place of its own; the run's evaluations ask under it",
    )
    on_bad_row: OnBadRow = "error"
    on_long_row: OnBadRow = "error"
    allow_remote: bool = False
    image_column: SomeNames | None = Field(
        default=None, description="column, or columns in order, with the images; default: images or image"
    )
    match: RowMatch = Field(
        default="auto",
        description="under grpo, how sampled answers are compared with a row's own; places are in pixels of the file",
    )
    workers: int | None = Field(
        default=None, ge=0, description="processes that encode rows once before the first step; default: one a core"
    )
    token_weights: Path | None = Field(
        default=None, description="token-weights.parquet of a subset: the loss is over the answer tokens of weight 1"
    )
    replay: ReplayConfig | None = None

    @model_validator(mode="after")
    def _weighs_all_or_none(self) -> Self:
        weighed = [source.weight is not None for source in self.train]
        if any(weighed) and not all(weighed):
            raise ValueError(
                "weights are shares of an epoch, and a set of train has none: give each set a weight ({path: ..., "
                "weight: ...}), or none of them"
            )
        if self.stopping_strategy == "first_exhausted" and not any(weighed):
            raise ValueError("stopping_strategy: first_exhausted is about weights, and no set of train has one")
        return self

    @field_serializer("train")
    def _as_written(self, train: tuple[TrainingSet, ...]) -> list[Any]:
        if len(train) == 1 and train[0].plain:
            return [str(path) for path in train[0].path]
        return [source.model_dump(mode="json", exclude_none=True) for source in train]

    @property
    def sets(self) -> tuple[TrainingSet, ...]:
        """The sets of `train`, each with all that it needs to be read."""
        own = {name: getattr(self, name) for name in ("images", "format", "image_column", "match")}
        return tuple(
            source.model_copy(update={key: value for key, value in own.items() if getattr(source, key) is None})
            for source in self.train
        )


class EvaluationConfig(_Strict):
    """What is measured before, during and after training."""

    probes: str | None = Field(default=None, description="micro, standard, or the folder of a probe suite")
    functions: SomeNames | None = None
    pairs: int = Field(default=20, ge=1, description="generated pairs a function")
    seed: int = Field(default=1, ge=0, description="of generated probes; not the one the map was located with")
    data: dict[str, DataSet] = Field(default_factory=dict, description="your own sets, by name")
    metrics: Names = Field(default=(), description="names of `vfl.metrics`")
    at_start: bool = Field(default=True, description="measure step 0; without it there is no before")
    metric_pairs: int = Field(default=4, ge=1, description="probe pairs a function that metrics are measured on")
    batch: int = Field(default=16, ge=1)
    every: int | None = Field(default=None, ge=1, description="optimizer steps; None: only before and after")
    heldout: Paths = Field(default=(), description="rows like those of data.train, whose loss is measured")
    best: str | None = Field(
        default=None, description="loss, or the function or set whose accuracy decides: the best step is the result"
    )
    patience: int | None = Field(
        default=None, ge=1, description="evaluations without a better one, then training stops"
    )

    @model_validator(mode="after")
    def _judges_by_what_it_measures(self) -> Self:
        if self.patience is not None and self.best is None:
            raise ValueError("patience waits for a better step: say by what with best, which is loss or a function")
        if self.best is not None and self.every is None:
            raise ValueError("best is looked for at every evaluation: give every, a number of steps")
        if self.best == "loss" and not self.heldout:
            raise ValueError("best: loss is that of held-out rows: give their files with heldout")
        return self

    @property
    def wanted(self) -> bool:
        """Whether anything is to be measured."""
        return self.probes is not None or bool(self.data)


class Recipe(_Strict):
    """A training run. `lora` and `trainer` go to PEFT's LoraConfig and TRL's config of the method as they are."""

    model: str = Field(default=EMBEDDED_ID, description="folder, hub id, or embedded: the test model")
    revision: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float64"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    quantize: Quantize = None
    chat_template: Path | None = None
    min_pixels: MinPixels = None
    max_pixels: MaxPixels = None
    trust_remote_code: bool = False
    adapter: Path | None = Field(default=None, description="folder of an adapter of this model, to train it further")
    out: Path
    method: Literal["sft", "dpo", "kto", "grpo"] = "sft"
    grpo: GrpoConfig | None = Field(
        default=None, description="with method: grpo: rewards, and fields of TRL's GRPOConfig about sampling and loss"
    )
    data: DataConfig
    layers: LayerChoice
    protect: ProtectConfig | None = None
    freeze: FreezeConfig | None = Field(default=None, description="lower layers are trained in the first steps alone")
    match_rank: bool = Field(default=False, description="scale the rank to as many trainable parameters as full-LoRA")
    lora: dict[str, Any] = Field(default_factory=dict)
    also_adapt: Annotated[tuple[Literal["vision", "projector"], ...], BeforeValidator(split)] = ()
    learning_rates: dict[Literal["vision", "projector"], PositiveFloat] = Field(
        default_factory=dict, description="of the adapters that also_adapt adds; default: trainer.learning_rate"
    )
    trainer: dict[str, Any] = Field(default_factory=dict)
    deepspeed: str | None = Field(default=None, description="zero2, zero2-offload, zero3, zero3-offload, or a file")
    checkpointing: Annotated[Literal["auto", "on", "off"], BeforeValidator(switch)] = "auto"
    packing: bool = Field(
        default=False,
        description="several short rows in one sequence of at most data.max_length tokens, where none sees another",
    )
    backward: Annotated[BackwardConfig | None, BeforeValidator(in_short)] = Field(
        default=None, description="after_image: most steps' backward pass ends at the image; or whole"
    )
    on_nan: OnNan = Field(default="stop", description="at a step whose gradient is not finite")
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(default=0, ge=0)
    study: StudyConfig | None = Field(default=None, description="the arms of `vfl arms`; `vfl train` passes over it")

    @model_validator(mode="after")
    def _goes_on_from_an_adapter(self) -> Self:
        if self.adapter is None:
            return self
        written = {
            "lora": bool(self.lora),
            "match_rank": self.match_rank,
            "protect": self.protect is not None,
            "layers.rule": self.layers.by_data,
        }
        if taken := [key for key in written if written[key]]:
            raise ValueError(f"adapter keeps its own rank, modules and layers: leave {taken[0]} out")
        return self

    @model_validator(mode="after")
    def _has_rates_for_what_it_adapts(self) -> Self:
        if idle := sorted(set(self.learning_rates) - set(self.also_adapt)):
            raise ValueError(
                f"learning_rates names {' and '.join(idle)}, and no adapter is trained there: add also_adapt: "
                f"[{', '.join(idle)}], or leave the rate out"
            )
        return self

    @model_validator(mode="after")
    def _freezes_what_the_backward_pass_ends_at(self) -> Self:
        if self.freeze is not None and self.also_adapt:
            raise ValueError(
                f"freeze ends the backward pass above the lower layers, and also_adapt: {', '.join(self.also_adapt)} "
                "leads it through all of them: leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _trains_what_the_backward_pass_reaches(self) -> Self:
        if self.backward is None:
            return self
        if self.method not in ("sft", "dpo"):
            raise ValueError(
                f"backward: after_image is for method: sft and dpo, not {self.method}: set backward: whole"
            )
        if self.also_adapt:
            raise ValueError(
                "backward: after_image gives nothing before the decoder a gradient, and also_adapt: "
                f"{', '.join(self.also_adapt)} trains what is there: leave one of the two out"
            )
        if self.checkpointing == "on" and not self.backward.whole_every:
            raise ValueError(
                "backward: after_image reads the image's keys from a cache, which checkpointed layers don't have, and "
                "with whole_every: 0 every step does: leave checkpointing out, or set backward: whole"
            )
        for key in ("modules_to_save", "trainable_token_indices"):
            if self.lora.get(key):
                raise ValueError(
                    f"backward: after_image is for LoRA in the decoder's layers, and lora.{key} trains other weights: "
                    "leave one of the two out"
                )
        return self

    @model_validator(mode="after")
    def _weighs_single_answers(self) -> Self:
        if self.method != "sft" and self.data.token_weights is not None:
            what = {
                "dpo": "dpo compares two",
                "kto": "kto takes good and bad ones",
                "grpo": "grpo learns from answers that it samples",
            }[self.method]
            raise ValueError(f"data.token_weights weigh the tokens of one answer, and {what}: use method: sft")
        return self

    @model_validator(mode="after")
    def _takes_labels(self) -> Self:
        if self.method != "kto":
            return self
        if self.evaluation.heldout:
            raise ValueError(
                "kto's loss of a row depends on those beside it, so held-out rows have none of their own: measure "
                "accuracy with evaluation.data"
            )
        if self.layers.by_data:
            raise ValueError(
                f"layers.rule {self.layers.rule} reads the loss of all answers, and kto's rows hold bad ones: rank the "
                "layers by the good ones with `vfl layers`, and write the list"
            )
        return self

    @model_validator(mode="after")
    def _samples_answers_that_it_can_judge(self) -> Self:
        if self.method != "grpo":
            matched = self.data.match != "auto" or any(source.match is not None for source in self.data.train)
            for key, written in (("grpo", self.grpo is not None), ("data.match", matched)):
                if written:
                    raise ValueError(f"{key} is about answers that are sampled and rewarded: use it with method: grpo")
            return self
        if self.evaluation.heldout:
            raise ValueError("grpo has no loss of held-out rows: measure their accuracy with evaluation.data")
        if self.layers.by_data:
            raise ValueError(
                f"layers.rule {self.layers.rule} reads the loss of the rows' own answers, and grpo takes none of them: "
                "rank the layers with `vfl layers` and write the list"
            )
        if self.lora.get("lora_dropout"):
            raise ValueError("grpo trains the model that it samples from, and dropout makes two of it: leave it out")
        if self.data.replay is not None and self.data.replay.probes is not None:
            raise ValueError("data.replay.probes are not asked under grpo: replay rows with data.replay.data instead")
        return self

    @model_validator(mode="after")
    def _packs_up_to_a_length(self) -> Self:
        if not self.packing:
            return self
        if self.method != "sft":
            raise ValueError(
                f"packing is for method: sft; the loss of {self.method} looks at whole answers, each of which is a row "
                "by itself"
            )
        if self.backward is not None:
            raise ValueError(
                "packing lays rows behind each other, and backward: after_image runs everything up to the image first, "
                "which in a pack would be the other rows' answers: leave one of the two out"
            )
        if self.data.max_length is None:
            raise ValueError("packing fills sequences up to data.max_length: give that many tokens, such as 4096")
        return self

    @model_validator(mode="after")
    def _has_a_model_to_hold_to(self) -> Self:
        """What a KL term compares with is the model without its adapter."""
        if self.protect is None or self.protect.how != "kl":
            return self
        if self.method != "sft":
            own = "grpo.beta" if self.method == "grpo" else "trainer.beta"
            raise ValueError(f"protect.how: kl is for method: sft; {self.method} has a KL term of its own ({own})")
        start, bias = self.lora.get("init_lora_weights", True), self.lora.get("bias", "none")
        if start not in (True, False, "gaussian") or bias != "none":
            raise ValueError(
                "protect.how: kl holds the model to what it says without its adapter, and "
                + (f"lora.bias {bias!r}" if bias != "none" else f"lora.init_lora_weights {start!r}")
                + " changes the weights beside the adapter: leave it out"
            )
        replay = self.data.replay.share if self.data.replay else 0.0
        if (share := replay + self.protect.anchors.share) >= 1:  # type: ignore[union-attr]
            raise ValueError(f"data.replay.share and protect.anchors.share are {share:g} together: no row is new then")
        return self

    @model_validator(mode="after")
    def _skips_where_it_can(self) -> Self:
        if self.on_nan == "skip" and self.deepspeed:
            raise ValueError(
                "on_nan: skip can't be had under DeepSpeed, which steps before it tells the norm; use stop"
            )
        return self


def read_recipe(source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A validated recipe from a YAML file (or its keys and values) and `key=value` arguments with dotted keys.

    Raises:
        InputError: for an unreadable file, an unknown key or a value of the wrong kind, named with what is allowed.
    """
    values = deepcopy(dict(source)) if isinstance(source, Mapping) else read_yaml(Path(source))
    for override in overrides:
        set_dotted(values, override)
    return validated(Recipe, values, source="the recipe" if isinstance(source, Mapping) else str(source))
