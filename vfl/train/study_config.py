"""What a study compares: axes whose product, or a list whose entries, are the arms of `vfl arms`.

study:
  layers: {function: null, full: null, wide: {expand: 2}, gradient: {rule: gradient, count: 3}}
  replay: [off, on]
  learning_rates: [1e-3, 5e-3]
  seeds: 3
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vfl.io.fields import Names, split, switch

Modules = Literal["all", "attention", "mlp"]
Replay = Annotated[Literal["on", "off"], BeforeValidator(switch)]


def _listed(value: Any) -> Any:
    """`a,b` or one value alone as a list."""
    value = split(value)
    return value if isinstance(value, list | tuple) else [value]


def _named(value: Any) -> Any:
    """Names alone stand for what they say: [function, full] is {function: null, full: null}."""
    value = split(value)
    return dict.fromkeys(value) if isinstance(value, list | tuple) else value


class ArmConfig(BaseModel):
    """One arm of a list; what it leaves out is as the recipe has it."""

    model_config = ConfigDict(extra="forbid")

    layers: Any = Field(default=None, description="all that the recipe's layers may be, or keys over them")
    replay: Replay | None = Field(default=None, description="off leaves the recipe's data.replay out")
    modules: Modules | None = Field(default=None, description="over layers.modules")
    set: dict[str, Any] = Field(default_factory=dict, description="other settings by dotted keys, such as lora.r")


class StudyConfig(BaseModel):
    """The axes of `vfl arms`; every arm is run with every learning rate and seed."""

    model_config = ConfigDict(extra="forbid")

    layers: Annotated[dict[str, Any], BeforeValidator(_named)] = Field(
        default_factory=dict,
        description="name -> all that the recipe's layers may be, keys over them, or nothing where the name says it "
        "(function, full, reversed, random, auto, a rule)",
    )
    replay: Annotated[tuple[Replay, ...], BeforeValidator(_listed)] = Field(
        default=(), description="on (the recipe's data.replay), off, or both"
    )
    modules: Annotated[tuple[Modules, ...], BeforeValidator(_listed)] = Field(
        default=(), description="kinds of modules that are adapted"
    )
    arms: dict[str, ArmConfig] = Field(default_factory=dict, description="name -> an arm, in place of the axes above")
    learning_rates: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
        BeforeValidator(_listed),
    ] = Field(default=(), description="each arm is shown at its best, which the validation part decides")
    seeds: int = Field(default=5, ge=1, description="runs of each arm, from the recipe's seed on")
    new: Names = Field(
        default=(), description="groups of the evaluation that are the new skill; default: the sets of evaluation.data"
    )
    validation: float = Field(
        default=0.3, gt=0, lt=1, description="share of the new skill's items that chooses among learning rates"
    )

    @model_validator(mode="after")
    def _axes_or_list(self) -> Self:
        if self.arms and (axes := [name for name in ("layers", "replay", "modules") if getattr(self, name)]):
            raise ValueError(f"study.arms lists the arms, and study.{axes[0]} is an axis: keep one of the two")
        for name in ("replay", "modules", "learning_rates"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"study.{name} has a value twice; name each once")
        return self
