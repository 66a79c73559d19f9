"""The recipe of a training run: YAML, overridden by `key.inner=value` arguments, saved beside the results."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    model_validator,
)

from vfl.io.config import read_yaml, set_dotted, validated
from vfl.io.fields import (
    MaxPixels,
    MinPixels,
    Quantize,
    split,
    switch,
)
from vfl.loading.beds import EMBEDDED_ID
from vfl.train.backward.config import BackwardConfig, in_short
from vfl.train.data_config import DataConfig
from vfl.train.evaluation_config import EvaluationConfig
from vfl.train.grpo.config import GrpoConfig
from vfl.train.layers.choice import LayerChoice
from vfl.train.layers.freeze import FreezeConfig
from vfl.train.layers.protect import ProtectConfig
from vfl.train.nonfinite import OnNan
from vfl.train.strict import Strict
from vfl.train.study_config import StudyConfig


class Recipe(Strict):
    """A training run. `lora` and `trainer` go to PEFT's LoraConfig and TRL's config of the method as they are."""

    model: str = Field(default=EMBEDDED_ID, description="folder, hub id, or embedded: the test model")
    revision: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float64"] = "auto"
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
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
    fsdp: bool = Field(
        default=False, description="PyTorch's FSDP2 spreads the layers' frozen weights over the processes"
    )
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
    def _streams_in_an_order_of_its_own(self) -> Self:
        if not self.data.streaming:
            return self
        if self.packing:
            raise ValueError(
                "packing lays rows of any row groups together, and data.streaming reads a row group for all of its "
                "rows: leave one of the two out"
            )
        if self.method == "grpo":
            raise ValueError(
                "under method: grpo TRL draws the questions in an order of its own, and data.streaming needs one by "
                "row groups: leave streaming out"
            )
        strategy = self.trainer.get("train_sampling_strategy", "random")
        if strategy not in ("random", "sequential"):
            raise ValueError(
                f"trainer.train_sampling_strategy: {strategy} puts rows of any row groups together, and data.streaming "
                "reads a row group for all of its rows: leave one of the two out"
            )
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
    def _is_spread_one_way(self) -> Self:
        if self.fsdp and self.deepspeed is not None:
            raise ValueError(f"fsdp and deepspeed: {self.deepspeed} both spread the weights: leave one of the two out")
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
