"""Budgets: how much of the data to keep, as a share, a number of rows, tokens, or training FLOPs.

A budget is never exceeded, and missed by less than one row.

The FLOPs of training on a row are estimated as 6 * P * T (Kaplan et al., arXiv 2001.08361): P parameters of the model,
T tokens of the row, image tokens included; 2 * P * T for the forward pass and twice that for the backward pass. The
attention's own products are left out, and LoRA, which needs no gradients of the frozen weights, saves up to a third:
give `flops_per_parameter: 4` for it.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from vfl.errors import InputError

Unit = Literal["share", "rows", "answer tokens", "tokens", "FLOPs"]
FLOPS_PER_PARAMETER = 6.0

_PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_PREFIXES["Z"] = 10**21
_TEXT = re.compile(
    r"\s*(?P<amount>\d[\d,_]*(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)\s*(?P<prefix>[kKMGBTPEZ]?)\s*"
    r"(?P<unit>%|rows?|samples?|answer[ -]tokens?|(?:total[ -])?tokens?|FLOPs?|flops?)?\s*"
)
COSTS: dict[Unit, str] = {
    "share": "1",
    "rows": "1",
    "answer tokens": "answer_tokens",
    "tokens": "text_tokens + image_tokens",
    "FLOPs": "text_tokens + image_tokens",
}
"""What a row costs, in columns of the score table; FLOPs are counted in tokens."""


@dataclass(frozen=True)
class Budget:
    """`amount` in `unit`; of a share, 0 to 1."""

    amount: float
    unit: Unit

    def limit(self, rows: int, parameters: int | None, flops_per_parameter: float = FLOPS_PER_PARAMETER) -> int:
        """The most that rows may cost together, in the unit of `COSTS`.

        Args:
            rows: of all scored data; a share is one of them.
            parameters: the model's, needed for FLOPs.
        """
        if self.unit == "share":
            return math.floor(self.amount * rows + 1e-9)
        if self.unit == "FLOPs":
            if not parameters:
                raise InputError(
                    "A budget in FLOPs needs the model's number of parameters, which the scores don't tell; give"
                    " --parameters, such as 7e9."
                )
            return math.floor(self.amount / (flops_per_parameter * parameters))
        return math.floor(self.amount)


def parse(value: str | int | float) -> Budget:
    """A budget as a person writes it: "20%", 0.2, 5000, "5k rows", "2M answer tokens", "1.5B tokens", "3e18 FLOPs".

    Raises:
        InputError: it is none of these, is not above zero, or a share is above the whole.
    """
    text = str(value)
    if isinstance(value, bool) or text.strip().lower() in ("true", "false"):
        raise InputError(f"The budget is {text}; expected how much: 100% for all rows, or 1 for a single row.")
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InputError(
            f"The budget {text!r} can't be read. Write a share (20%), a number of rows (5000), or an amount with its"
            " unit: 2M answer tokens, 1.5B tokens, 3e18 FLOPs."
        )
    amount = float(re.sub("[,_]", "", match["amount"])) * _PREFIXES[match["prefix"]]
    unit = _unit(match["unit"] or "")
    if not math.isfinite(amount):
        raise InputError(f"The budget {text!r} is more than can be counted; 100% means all rows.")
    if amount == 1 and not match["unit"] and text.strip() != "1":
        raise InputError(f"The budget {text} could mean all rows or a single one; write 100%, or 1.")
    if unit == "share":
        amount /= 100
    elif unit == "rows" and 0 < amount < 1 and not match["unit"]:
        unit = "share"
    if amount <= 0 or (unit == "share" and amount > 1) or (unit == "rows" and amount != int(amount)):
        raise InputError(f"The budget is {text}; expected more than nothing, at most 100%, and whole rows.")
    return Budget(amount, unit)


def _unit(text: str) -> Unit:
    text = text.lower()
    if text == "%":
        return "share"
    if text.startswith("answer"):
        return "answer tokens"
    if "token" in text:
        return "tokens"
    return "FLOPs" if text.startswith("flop") else "rows"
