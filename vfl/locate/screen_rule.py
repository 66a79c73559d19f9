"""Which layers a screen leaves out of the sweep, and when everything is swept all the same.

Estimates only ever leave layers out: what is named, and how much it changes, comes from swaps. A layer that was not
swept stays a hypothesis that was not rejected (p = 1), so that Holm's correction runs over all layers as ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vfl.functionmap import Screen
from vfl.locate.choosing import choice_and_share, has_control
from vfl.locate.config import LocateConfig
from vfl.locate.curves import LayerSpan, outcomes
from vfl.locate.explained import HALF
from vfl.locate.layer_rule import ChoiceConfig, layers_in
from vfl.locate.left_out import LeftOut
from vfl.locate.records import pending
from vfl.locate.screening import Scores, read_scores
from vfl.locate.significance import pairs_needed
from vfl.probes.pair import Pair

# The layer rule names no layer that changes fewer than 5 % of the answers. The larger an effect, the more its estimate
# lacks: on the embedded model a factor of up to 3.4 in nats, 2 in scores. 2 % of the largest score is 5 % less that.
BOUND = 0.02
# On the embedded model the peak is estimated to take 60 % of the log-odds where one layer serves a function (33 % in
# the worst of 1,000 resamples of ten pairs), and 4 % where four layers can each do it alone (10 % in the best of them).
# The sum over the layers tells less: a layer that saturates may come out with the wrong sign on some pairs.
SMALL = 0.2


@dataclass(frozen=True)
class Screening:
    """The screen of one function: its scores, and what is decided with them.

    Attributes:
        function: its name.
        scores: from its first pairs, which are swept in full.
        pair_ids: of all its pairs.
        whole: the blocks that every pair is asked with where nothing is left out.
        num_layers: of the model.
        config: of the run.
    """

    function: str
    scores: Scores
    pair_ids: tuple[str, ...]
    whole: tuple[LayerSpan, ...]
    num_layers: int
    config: LocateConfig

    def left_out(self, records: pa.Table) -> LeftOut:
        """What is left out, decided anew from what has been swept: the same for the same records.

        First every block without a layer that passed. Once the others are swept, nothing any longer where these explain
        less than half of the answers, or where the floor, which is the median of all layers, has to decide; and no
        layer of a window that is named, since its share in that has to be known.
        """
        choice = self.config.choice
        keep, fallback = survivors(self.scores, self.num_layers, choice)
        if not fallback and self.scores.asked >= len(self.pair_ids):
            fallback = f"there are no more pairs than the {self.scores.asked} that a screen sweeps in full"
        keep |= set(self.config.layers.get(self.function, ()))
        while not fallback:
            blocks = tuple(block for block in self.whole if keep.isdisjoint(layers_in(block)))
            if not blocks or not self._swept(records, blocks):
                return LeftOut(blocks, self._screen(blocks))
            data = outcomes(records, self.function, self.num_layers, blocks)
            named, share = choice_and_share(data, choice)
            if not has_control(data, choice):
                fallback = (
                    "too few kept pairs have a control image, and the floor is what the median of all layers does"
                )
            elif share < HALF:
                fallback = f"the layers that passed the screen explain {share:.0%} of the answers"
            elif keep >= set(named.layers):
                return LeftOut(blocks, self._screen(blocks))
            keep |= set(named.layers)
        return LeftOut((), self._screen((), fallback))

    def asked(self, records: pa.Table) -> list[LayerSpan]:
        """The blocks that every pair is asked with."""
        left_out = set(self.left_out(records).blocks)
        return [block for block in self.whole if block not in left_out]

    def _swept(self, records: pa.Table, left_out: Sequence[LayerSpan]) -> bool:
        """Whether all other blocks are swept, of every pair that is swept."""
        rows = records.filter(pc.field("function") == self.function)
        if not set(self.pair_ids) <= set(rows["pair_id"].to_pylist()):
            return False
        kept = set(rows.filter(pc.field("kept"))["pair_id"].to_pylist())
        ids = [pair_id for pair_id in self.pair_ids if self.config.unfiltered or pair_id in kept]
        return bool(kept) and not pending(records, self.function, ids, set(self.whole) - set(left_out))

    def _screen(self, blocks: Sequence[LayerSpan], fallback: str = "") -> Screen:
        away, back = _of_peak(self.scores.away), _of_peak(self.scores.back)
        return Screen(
            pairs=self.scores.pairs,
            bound=BOUND,
            scores=[round(max(both), 6) for both in zip(away, back, strict=True)],
            largest=round(max(self.scores.away), 6),
            skipped=[first for first, last in blocks if first == last],
            fallback=fallback or None,
        )


def screening(
    config: LocateConfig,
    function: str,
    scores: Scores,
    pairs: Sequence[Pair],
    whole: Sequence[LayerSpan],
    num_layers: int,
) -> Screening:
    """A function's screen; `pairs` are all of it, `whole` are the blocks of `first_blocks`."""
    return Screening(function, scores, tuple(pair.id for pair in pairs), tuple(whole), num_layers, config)


def saved_screenings(
    config: LocateConfig, pairs: Mapping[str, Sequence[Pair]], whole: Sequence[LayerSpan], num_layers: int
) -> dict[str, Screening]:
    """The screens that a run has saved, by function; none where it does not screen."""
    saved = read_scores(config.out) if config.screen else {}
    return {
        name: screening(config, name, scores, pairs[name], whole, num_layers)
        for name, scores in saved.items()
        if name in pairs
    }


def survivors(scores: Scores, num_layers: int, choice: ChoiceConfig) -> tuple[set[int], str]:
    """Layers that pass the screen by what they take away, bring back or change, or why it can't be relied on."""
    needed = pairs_needed(num_layers, choice.alpha)
    if scores.samples < needed:
        which = "pairs" if scores.samples == scores.pairs else "groups of pairs"
        return (
            set(),
            f"{scores.samples} {which} could be screened, and {needed} are needed for a layer to be significant",
        )
    if max(scores.away) < SMALL:
        return set(), (
            f"no layer alone is estimated to take more than {max(scores.away):.0%} of the log-odds, as where several "
            "can each serve the function"
        )
    away, back = _of_peak(scores.away), _of_peak(scores.back)
    passed = {k for k in range(num_layers) if max(away[k], back[k]) >= BOUND}
    for block in scores.changed:  # narrow ones first: a window passes where no layer inside it did
        if passed.isdisjoint(layers_in(block)):
            passed |= set(layers_in(block))
    return passed, ""


def _of_peak(scores: Sequence[float]) -> list[float]:
    peak = max(scores)
    return [score / peak if peak else 0.0 for score in scores]
