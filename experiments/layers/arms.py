"""The arms: which layers and modules each trains, at which rank; all have the parameters of three tenths of the layers.

`full` alone has more, all layers at rank 16, and `half` half of that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from experiments.layers.tasks import Task
from vfl.functionmap import FunctionMap
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.train.adapter.towers import ATTENTION_AND_MLP
from vfl.train.layers.freeze import FreezeConfig
from vfl.train.layers.rules import drawn, evenly_spaced, highest

RANK, PART = 16, 0.3
ATTENTION = tuple(name for name in ATTENTION_AND_MLP if name[0] in "qkvo")
MLP = tuple(name for name in ATTENTION_AND_MLP if name not in ATTENTION)
DATA_RULES = ("gradient", "fisher", "warmup", "similarity")
KEPT = ", alpha kept"  # that of full LoRA, whatever the rank: LoRA's own rule (Hu et al. 2021, section 4.1)
SCORED_ARMS = (*DATA_RULES, "half", "soft")
SLOWER = 0.1  # of the learning rate: `protect.scale` as it comes


@dataclass(frozen=True)
class Arm:
    """What an arm trains; equal arms are one run."""

    layers: tuple[int, ...]
    rank: int
    modules: tuple[str, ...] = ATTENTION_AND_MLP
    multipliers: dict[int, float] = field(default_factory=dict)
    freeze: FreezeConfig | None = None
    alpha: int | None = None  # None: the rank

    def lora(self) -> dict[str, Any]:
        """Options of `build_lora`."""
        alpha = self.rank if self.alpha is None else self.alpha
        return {"r": self.rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": list(self.modules)}

    def key(self) -> str:
        values = asdict(self)
        left_out = {name for name in ("freeze", "alpha") if values[name] is None}
        return str(sorted((name, value) for name, value in values.items() if name not in left_out))


def arm_of(name: str, task: Task, scores: Mapping[str, Sequence[float]], fmap: FunctionMap, seed: int) -> Arm | None:
    """An arm by its name, or None where a task has none of this name.

    Args:
        scores: of the data rules, one number a layer.
        fmap: where the model's functions read.
    """
    if name.endswith(KEPT):
        arm = arm_of(name.removesuffix(KEPT), task, scores, fmap, seed)
        return arm and replace(arm, alpha=RANK)
    total = fmap.model.num_layers
    count, everything = _count(total), tuple(range(total))
    if name == "full":
        return Arm(everything, RANK)
    if name == "thin":
        return _equal(everything, count)
    if name == "rank 8":
        return Arm(everything, RANK // 2)
    if name == "soft":  # each layer's learning rate by its share of the gradient (arXiv 2602.12498)
        gradient = scores["gradient"]
        mean = sum(gradient) / total
        return replace(_equal(everything, count), multipliers={n: gradient[n] / mean for n in everything})
    if name == "settled":
        return replace(_equal(everything, count), freeze=FreezeConfig())
    if name == "attention":
        return Arm(everything, 12, ATTENTION)
    if name == "mlp":
        return Arm(everything, 8, MLP)
    if name in DATA_RULES:
        return Arm(tuple(highest(scores[name], count)), RANK)
    if name == "half":
        return Arm(tuple(highest(scores["gradient"], total // 2)), RANK)
    if name == "uniform":
        return Arm(tuple(evenly_spaced(count, total)), RANK)
    if name == "lowest":
        return Arm(everything[:count], RANK)
    if name == "upper":
        return _equal(everything[total // 2 :], count)
    if name.startswith("random"):
        return Arm(tuple(drawn(count, total, 100 * seed + int(name.removeprefix("random ")))), RANK)
    everyone = len(task.functions) == len(FUNCTIONS)
    reading = fmap.layers_of(task.functions, expand=0 if everyone else 1)
    if name == "function":
        return _equal(tuple(reading), count)
    if name == "reversed":
        return _equal(tuple(layer for layer in everything if layer not in reading), count)
    if name in ("protect", "slower"):
        if everyone:
            return None
        others = fmap.layers_of([other for other in FUNCTIONS if other not in task.functions])
        if name == "slower":
            return replace(_equal(everything, count), multipliers=dict.fromkeys(others, SLOWER))
        return _equal(tuple(layer for layer in everything if layer not in others), count)
    raise ValueError(f"there is no arm {name!r}")


def _count(total: int) -> int:
    """Three layers of ten, nine of thirty."""
    return round(PART * total)


def _equal(layers: tuple[int, ...], count: int) -> Arm:
    """The rank at which these layers have as many parameters as `count` at the usual one."""
    return Arm(layers, max(1, round(RANK * count / len(layers))))
