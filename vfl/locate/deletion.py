"""How many samples must be deleted, the worst ones, before a chosen layer is lost: a lower and an upper bound.

The upper bound is found: samples are deleted in the order that hurts most, and the rule is asked. The lower bound is
proved: every condition of the rule that the layer meets is a sum over samples, so the worst deletion of r of them takes
the r that add most. That holds of the exact test, too: its p-value is P(X <= Y) with X and Y sums of |difference| times
a coin, over the samples that speak for the layer and those that speak against it. Conditions are bounded each by
itself, so the bound may lie below the truth; 1, which is always true, is given where the layers were tested against a
floor or come from prefixes and suffixes, or from windows of four, whose place depends on what else is named.

Legend: G samples (pairs, or groups of them), B blocks (columns).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vfl.locate.choosing import choice_of, has_control, min_control
from vfl.locate.curves import Outcomes
from vfl.locate.layer_rule import WIDTHS, Choice, ChoiceConfig, Families, inside
from vfl.locate.significance import pairs_needed, sign_flips
from vfl.proofs import Deletion
from vfl.stats import Floats

ROUNDING = 1e-9


def deletion(data: Outcomes, choice: Choice, layers: Sequence[int], config: ChoiceConfig) -> Deletion | None:
    """Bounds for each of the layers; None where one of them is not of the rule's choice."""
    if not layers or not set(layers) <= set(choice.layers):
        return None
    most = [_found(data, choice, layer, config) for layer in layers]
    least = [1] * len(layers)
    if choice.chosen_by in ("single", "window") and has_control(data, config):
        proof = _Proof(data, Families.of(data.blocks, data.num_layers), config)
        least = [_proved(proof, choice, layer) for layer in layers]
    return Deletion(at_least=[min(pair) for pair in zip(least, most, strict=True)], at_most=most)


def without(data: Outcomes, samples: Sequence[int]) -> Outcomes:
    """The outcomes without the pairs of these samples."""
    left = ~np.isin(data.group_of, samples)
    return replace(
        data,
        pair_ids=tuple(np.array(data.pair_ids)[left]),
        groups=tuple(np.array(data.groups)[left]) if data.groups else (),
        **{name: getattr(data, name)[left] for name in ("changed", "followed", "control", "effect")},
    )


def _found(data: Outcomes, choice: Choice, layer: int, config: ChoiceConfig) -> int:
    """The fewest deletions, of some orders, after which the rule does not choose the layer."""
    enough = data.samples - pairs_needed(data.num_layers, config.alpha) + 1  # fewer samples name nothing
    fewest = enough
    for values in _orders(data, choice, layer, config):
        order = np.argsort(-values, kind="stable")
        chosen = 0  # as many deletions leave it chosen
        while fewest - chosen > 1:
            middle = (chosen + fewest) // 2
            if layer in choice_of(without(data, order[:middle].tolist()), config).layers:
                chosen = middle
            else:
                fewest = middle
    return fewest


def _orders(data: Outcomes, choice: Choice, layer: int, config: ChoiceConfig) -> list[Floats]:
    """(G,) each: what a sample does for the layer or a named window that holds it, alone and beside a rival."""
    speaks = data.by_group(np.nan_to_num(data.changed) - np.nan_to_num(data.control))
    total = speaks.sum(axis=0)
    columns = [layer, *(data.blocks.index(block) for block in choice.named if block[0] <= layer <= block[1])]
    orders = []
    for column in columns:
        orders.append(speaks[:, column])
        others = [k for k in range(data.num_layers) if k != column]
        parts = [c for c, block in enumerate(data.blocks) if inside(block, data.blocks[column])]
        for rivals, share in ((others, config.half), (parts, 1.0)):
            orders += [speaks[:, column] - share * speaks[:, k] for k in sorted(rivals, key=lambda k: -total[k])[:1]]
    return orders


def _proved(proof: "_Proof", choice: Choice, layer: int) -> int:
    """One more than the most deletions that are proved to leave the layer chosen."""
    swept_anyway = [block for block in choice.named if block[1] - block[0] < max(WIDTHS)]
    windows = [proof.data.blocks.index(block) for block in swept_anyway if block[0] <= layer <= block[1]]
    holds: list[Callable[[int], bool]] = [lambda r: proof.single(layer, r)]
    holds += [lambda r, column=column: proof.window(column, r) for column in windows]  # type: ignore[misc]
    return 1 + max(_last(one, proof.data.samples) for one in holds)


def _last(holds: Callable[[int], bool], end: int) -> int:
    """The largest r below `end` for which it holds, where it holds for all smaller ones; 0 if for none."""
    low, high = 0, end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class _Proof:
    """The conditions of the rule after any r deletions, for outcomes that are tested against control swaps."""

    data: Outcomes
    families: Families
    config: ChoiceConfig

    @cached_property
    def singles(self) -> list[int]:
        """Layers that were swept; one that a screen left out changes nothing in any sample."""
        return np.flatnonzero(self.data.swept).tolist()

    @cached_property
    def columns(self) -> list[int]:
        """All blocks that may be named and were swept."""
        swept = np.asarray(~np.isnan(self.data.changed).all(axis=0))
        return [*self.singles, *(c for c in self.families.windows if swept[c])]

    @cached_property
    def controlled(self) -> Floats:
        """(P, B) whether the control swap was run."""
        return (~np.isnan(self.data.control)).astype(float)

    @cached_property
    def sums(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Changed and disrupted (G, B), pairs and controlled pairs (G,)."""
        data = self.data
        ones = np.ones((data.kept, 1))
        return (
            data.by_group(np.nan_to_num(data.changed)),
            data.by_group(np.nan_to_num(data.control)),
            data.by_group(ones)[:, 0],
            data.by_group(self.controlled[:, self.singles[:1]])[:, 0],
        )

    @cached_property
    def whole(self) -> bool:
        """Whether every layer and window was swept for every pair, and controlled for the same ones."""
        swept = ~np.isnan(self.data.changed[:, self.columns])
        same = self.controlled[:, self.columns] == self.controlled[:, self.singles[:1]]
        return bool(swept.all() and same.all())

    def enough(self, r: int) -> bool:
        """Whether samples, and controls, remain in numbers that can decide."""
        data, config = self.data, self.config
        needed = pairs_needed(data.num_layers, config.alpha)
        controls = int((self.sums[3] > 0).sum())
        all_controlled = controls == data.samples
        base = needed if data.groups else max(config.min_kept, needed)
        assert all_controlled or controls >= min_control(data, config)
        return self.whole and data.samples - r >= needed and (all_controlled or controls - r >= base)

    def single(self, layer: int, r: int) -> bool:
        """Whether the layer is chosen for itself after any r deletions."""
        config = self.config
        if not (self.enough(r) and self.stands(layer, r, self.data.num_layers) and self.leads(layer, r)):
            return False
        # The cap may cut a longer run of layers that qualify, but never its peak.
        run = [layer]
        for step in (-1, 1):
            k = layer + step
            while k in self.singles and self.may_be({k: 1, layer: -config.half}, 0.0, r):
                run.append(k)
                k += step
        return len(run) <= config.cap or all(self.must_be({layer: 1, k: -1}, 0.0, r) for k in run[1:])

    def window(self, column: int, r: int) -> bool:
        """Whether the window is named after any r deletions."""
        if not (self.enough(r) and self.stands(column, r, len(self.families.windows)) and self.leads(column, r)):
            return False
        return all(self.must_be(form, self.config.margin, r) for form in self.beyond(column))

    def beyond(self, column: int) -> list[dict[int, float]]:
        """What a window does beyond nothing, and beyond each layer and narrower window in it."""
        blocks = self.data.blocks
        parts = [c for c in self.columns if inside(blocks[c], blocks[column])]
        return [{column: 1.0}, *({column: 1.0, part: -1.0} for part in parts)]

    def stands(self, column: int, r: int, hypotheses: int) -> bool:
        """Whether the block is significant, by Bonferroni, which Holm's correction never falls short of."""
        data = self.data
        changed, disrupted = (np.nan_to_num(values[:, [column]]) for values in (data.changed, data.control))
        difference = data.by_group(self.controlled[:, [column]] * (changed - disrupted))
        left = np.ones((1, data.samples))
        left[0, [g for g in np.argsort(-difference[:, 0])[:r] if difference[g, 0] > 0]] = 0
        return bool(sign_flips(difference, left)[0, 0] <= self.config.alpha / hypotheses * (1 - ROUNDING))

    def leads(self, column: int, r: int) -> bool:
        """Whether the block keeps the floor, and half of whatever may be the peak."""
        config, singles = self.config, self.singles
        wide = [c for c in self.columns if c >= self.data.num_layers]
        windows = [c for c in wide if all(self.may_be(form, config.margin, r) for form in self.beyond(c))]
        return self.must_be({column: 1}, config.floor, r) and all(
            self.must_be({column: 1, rival: -config.half}, 0.0, r) for rival in {*singles, *windows} - {column}
        )

    def must_be(self, form: Mapping[int, float], least: float, r: int) -> bool:
        """Whether the weighted sum of rates beyond the control is above `least` after any r deletions."""
        return all(v.sum() - np.sort(np.maximum(v, 0))[::-1][:r].sum() > ROUNDING for v in self.values(form, least, r))

    def may_be(self, form: Mapping[int, float], least: float, r: int) -> bool:
        """Whether it may be at or above `least` after some r deletions."""
        return any(v.sum() - np.sort(np.minimum(v, 0))[:r].sum() >= -ROUNDING for v in self.values(form, least, r))

    def values(self, form: Mapping[int, float], least: float, r: int) -> list[Floats]:
        """(G,) each: what samples add to pairs x (the weighted sum - least).

        Rates are over all pairs and the control's over those that have one, so the sum depends on the ratio of the two
        after deletions. It is linear in the ratio: its ends are enough.
        """
        changed, disrupted, pairs, controlled = self.sums
        ratios = {1.0}
        if controlled.sum() < pairs.sum():
            biggest = np.sort(pairs)[::-1][:r].sum()
            low = max(1.0, (pairs.sum() - biggest) / controlled.sum())
            high = pairs.sum() / max(controlled.sum() - np.sort(controlled)[::-1][:r].sum(), 1.0)
            ratios = {low, high}
        return [
            sum(weight * (changed[:, c] - ratio * disrupted[:, c]) for c, weight in form.items()) - least * pairs
            for ratio in ratios
        ]
