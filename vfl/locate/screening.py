"""The screen of a function: estimates of what each layer does, from its first pairs, which are swept in full besides.

out/screen.json   {function: scores}, so that a resumed run leaves out the same layers
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from vfl.engine.swap_estimates import SwapEstimates, swap_estimates
from vfl.errors import InputError
from vfl.io.json_files import write_text
from vfl.locate.curves import LayerSpan
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker, expected_text
from vfl.probes.pair import Pair
from vfl.stats import Floats

SCREENS = "screen.json"
# A layer that serves a quarter of the pairs serves none of 16 with a probability of 1 % (.75 ** 16); pairs of a group
# are too much alike to count for more than one. With the sweep's own image caches, the estimates for a pair cost some
# ten passes over its text.
SCREENED = 16


class Scores(BaseModel):
    """What a screen found, over `pairs` kept pairs whose right answers are the likelier ones on both images.

    Attributes:
        pairs: how many.
        samples: how many groups they are of; a pair without a group is one of its own.
        away: (L,) mean share of the log-odds that a layer's swap alone would take from the target's answer, at most 1.
        back: (L,) the same of the source's answer where its text reads the target: in a function that several layers
            can each serve, none takes anything away, but each brings it back.
        changed: blocks (first, last) whose swap did change an answer of these pairs that the control's did not.
        asked: pairs that were swept in full for it, kept or not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: int
    samples: int
    away: list[float]
    back: list[float]
    changed: list[LayerSpan]
    asked: int


def refuse_unscreenable(vlm: VLM) -> None:
    """Say so where estimates can't be had of any prompt."""
    if not vlm.shares_prefix:
        raise InputError(
            f"--screen can't estimate the swaps of {vlm.family.name}: the states of its images depend on the text "
            "behind them. Leave it out; every layer is swept then."
        )


Both = tuple[SwapEstimates, SwapEstimates]
"""Estimates of a pair: of the target's prompt, and of the source's."""


def estimates_of(asker: Asker, pair: Pair) -> Both:
    """What each layer's swap would do to a pair's answers; InputError names the pair."""
    vlm = asker.vlm
    try:
        target, source = asker.ask_all(pair, ["image", "source_image"])
        answer, other = (expected_text(vlm, pair, text, target.encoded) for text in (pair.answer, pair.source_answer))
        return (
            swap_estimates(vlm, target.encoded, target.image_cache, source.image_cache, (answer, other)),
            swap_estimates(vlm, source.encoded, source.image_cache, target.image_cache, (other, answer)),
        )
    except InputError as error:
        raise InputError(f"Pair {pair.id!r}: {error}") from error


def is_usable(both: Both) -> bool:
    """Whether there is something to take from both right answers, and no estimate left the range of its numbers."""
    return all(one.log_odds > 0 and bool(one.drops.isfinite().all()) for one in both)


def scores_of(
    found: dict[str, Both], records: pa.Table, function: str, num_layers: int, *, samples: int, asked: int
) -> Scores:
    """Scores over pairs, by their ids, of which the records hold every block.

    A drop counts by the log-odds that it is taken from: what is small beside one answer's turns another that is close
    to the other one. It counts as 1 at most, since an answer can't turn more than once.
    """

    def mean_share(of: Callable[[Both], SwapEstimates]) -> list[float]:
        if not found:
            return [0.0] * num_layers
        shares: Floats = np.array([np.abs(of(both).drops.numpy()) / of(both).log_odds for both in found.values()])
        return [float(share) for share in np.minimum(shares, 1.0).mean(axis=0)]

    return Scores(
        pairs=len(found),
        samples=samples,
        away=mean_share(lambda both: both[0]),
        back=mean_share(lambda both: both[1]),
        changed=_changed(records, function, found),
        asked=asked,
    )


def _changed(records: pa.Table, function: str, pair_ids: Iterable[str]) -> list[LayerSpan]:
    """Blocks whose swap changed an answer of the pairs that the control's did not, narrow ones first."""
    rows = records.filter((pc.field("function") == function) & pc.field("changed"))
    rows = rows.filter(pc.is_in(rows["pair_id"], value_set=pa.array(list(pair_ids), pa.string())))
    columns = (rows[name].to_pylist() for name in ("pair_id", "swap", "first", "last"))
    by_swap: dict[str, set[tuple[str, int, int]]] = {"source": set(), "control": set()}
    for pair_id, swap, first, last in zip(*columns, strict=True):
        by_swap[swap].add((pair_id, first, last))
    blocks = {(first, last) for _, first, last in by_swap["source"] - by_swap["control"]}
    return sorted(blocks, key=lambda block: (block[1] - block[0], block))


def read_scores(out: Path) -> dict[str, Scores]:
    """The scores that a run has saved in its folder."""
    path = out / SCREENS
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: Scores.model_validate(scores) for name, scores in content.items()}
    except (ValueError, AttributeError, ValidationError) as error:
        raise InputError(f"{path} is not what `vfl locate --screen` wrote. Remove it, and it is made anew.") from error


def save_scores(out: Path, function: str, scores: Scores) -> None:
    """Add a function's scores to those in the run's folder."""
    content = {name: of.model_dump(mode="json") for name, of in (read_scores(out) | {function: scores}).items()}
    write_text(out / SCREENS, json.dumps(content, indent=2, allow_nan=False) + "\n")
