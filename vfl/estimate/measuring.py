"""`vfl measure`: what each metric costs, in plain forward passes over a pair's prompt."""

from vfl.engine.operations import head_operations, pass_operations, tower_operations
from vfl.errors import InputError
from vfl.estimate.cards import Card
from vfl.estimate.config import EstimateConfig
from vfl.estimate.cost import Cost, Pass
from vfl.estimate.locating import rows_that_fit, sweep_memory
from vfl.estimate.tokens import prompt_of, said_of, weight_bytes
from vfl.io.did_you_mean import did_you_mean
from vfl.models.shape import Shape

PAIRS = 12
COUNTED_LAYERS = 10
FORWARDS: dict[str, float] = {
    "mask": 10,
    "late_entry": 9,
    "cosine": 1,
    "similarity": 2.9,
    "persistence": 1.3,
    "injection": 7.6,
    "token_ablation": 150,
    "lens": 2.6,
    "knockout": 22,
    "var": 1,
    "functional": 2,
    "informational": 1,
    "proximal": 1,
    "recommended": 8.6,
    "drop": 6.2,
    "swap": 7,
    "head_weight": 2,
    "concentration": 1,
    "head_score": 1,
    "head_masking": 30,
    "visual_prompt": 7.7,
}
"""Operations a pair over those of one forward pass, on the embedded model (`bench/estimate.py --metrics all`)."""
FIGURES = 3e6  # bytes of a report with its figures


def measuring(config: EstimateConfig, shape: Shape, card: Card) -> Cost:
    """Measure metrics on pairs.

    Raises:
        InputError: for an unknown metric.
    """
    names = config.metrics or tuple(FORWARDS)
    if unknown := [name for name in names if name not in FORWARDS]:
        hint = did_you_mean(unknown[0], FORWARDS) or f"there are {', '.join(FORWARDS)}."
        raise InputError(f"metrics names {unknown[0]!r}: {hint}")
    prompt = prompt_of(config, shape, "measure")
    pairs = len(config.functions) * (config.pairs or PAIRS)
    forward = tower_operations(shape, prompt.picture) + pass_operations(shape, prompt.length, prompt.length)
    forward += head_operations(shape, 1)
    forwards = sum(FORWARDS[name] for name in names)
    deeper = max(1.0, shape.num_layers / COUNTED_LAYERS)
    reads = weight_bytes(config, shape)
    limit = rows_that_fit(config, shape, prompt, card)

    def passes(times: float) -> list[Pass]:
        return [Pass(f"{times:.0f} forward passes", times * forward, times, reads)]

    return Cost(
        unit="pair",
        count=pairs,
        least=passes(forwards),
        most=passes(forwards * deeper),
        memory=sweep_memory(config, shape, prompt, card, limit),
        disk={"report and figures": FIGURES},
        assumed=[
            *said_of(config, shape, prompt),
            f"{len(names)} metric{'s' if len(names) > 1 else ''} on {pairs} pairs, {forwards:.0f} forward passes a "
            f"pair as counted on the embedded model of {COUNTED_LAYERS} layers; at most in proportion to the depth",
        ],
    )
