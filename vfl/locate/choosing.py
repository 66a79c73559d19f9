"""The choice of layers for one function's outcomes: the tests and the rule together, on the pairs or on resamples."""

import numpy as np

from vfl.io.layers import runs
from vfl.locate.curves import LayerSpan, Outcomes
from vfl.locate.explained import explained
from vfl.locate.gaps import Swept, gaps_of, open_gaps, wide_windows, with_wide_windows
from vfl.locate.layer_rule import Choice, ChoiceConfig, Families, choose, layers_in, significant, window_blocks
from vfl.locate.significance import Levels, levels, pairs_needed
from vfl.stats import Floats


def choice_of(data: Outcomes, config: ChoiceConfig) -> Choice:
    """The layer rule applied to the sample itself (no bootstrap, and a range is not yet verified)."""
    return choices(data, np.ones((1, data.kept)), config)[0]


def choice_and_share(data: Outcomes, config: ChoiceConfig) -> tuple[Choice, float]:
    """The choice, and the share of the kept pairs that it explains: 0 where nothing is named."""
    choice = choice_of(data, config)
    if not choice.layers:
        return choice, 0.0
    spans = [(k, k) for k in choice.layers] + [
        (run[0], run[-1]) for run in [*runs(choice.layers), *map(layers_in, choice.named)]
    ]
    return choice, explained(data, spans, levels_of(data, np.ones((1, data.kept)), config))


def has_control(data: Outcomes, config: ChoiceConfig) -> bool:
    """Whether every swept layer is tested against a control swap, and none against the floor."""
    level = levels_of(data, np.ones((1, data.kept)), config)
    return bool(level.has_control[: data.num_layers][data.swept].all())


def choices(data: Outcomes, weights: Floats, config: ChoiceConfig) -> list[Choice]:
    """The layer rule under each row of pair weights (S, P): a row of ones is the sample itself."""
    families = Families.of(data.blocks, data.num_layers)
    level = levels_of(data, weights, config)
    above = significant(families, level.excess, level.p, config)
    if data.samples < pairs_needed(data.num_layers, config.alpha):
        return [Choice()] * len(weights)
    chosen = [choose(families, level.excess[s], above[s], config) for s in range(len(weights))]
    if not _tells_of_gaps(data, config):
        return chosen
    return [with_wide_windows(one, _swept(data, level, s), config) for s, one in enumerate(chosen)]


def next_in_gaps(data: Outcomes, choice: Choice, config: ChoiceConfig) -> list[LayerSpan]:
    """The gaps beside the chosen layers, and windows of four in those that are open."""
    if choice.chosen_by == "range" or not _tells_of_gaps(data, config):
        return []
    swept = _swept(data, levels_of(data, np.ones((1, data.kept)), config), 0)
    windows = [window for gap in open_gaps(choice, swept, config) for window in wide_windows(gap)]
    return [*gaps_of(choice.layers, data.num_layers), *windows]


def left_open(data: Outcomes, choice: Choice, config: ChoiceConfig) -> list[LayerSpan]:
    """Gaps beside the chosen layers that change answers as a block, and no window in them tells which layers do."""
    if not _tells_of_gaps(data, config):
        return []
    return open_gaps(choice, _swept(data, levels_of(data, np.ones((1, data.kept)), config), 0), config)


def _tells_of_gaps(data: Outcomes, config: ChoiceConfig) -> bool:
    """Whether a gap can be compared with all that lies in it, beyond a control.

    A floor, which is what one layer does, says nothing of many; `--mode single` and `suffix` lack the windows.
    """
    return has_control(data, config) and set(window_blocks(data.num_layers)) <= set(data.blocks)


def _swept(data: Outcomes, level: Levels, sample: int) -> Swept:
    column = {block: n for n, block in enumerate(data.blocks)}
    return Swept(data.num_layers, column, level.excess[sample], level.p[sample])


def levels_of(data: Outcomes, weights: Floats, config: ChoiceConfig) -> Levels:
    """Rates and p-values of all blocks under pair weights (S, P), by the settings of a map."""
    return levels(data, weights, config.floor, min_control(data, config))


def min_control(data: Outcomes, config: ChoiceConfig) -> int:
    """Fewer pairs, or groups, with a control swap than this can't decide: the floor does."""
    needed = pairs_needed(data.num_layers, config.alpha)
    return min(data.samples, needed if data.groups else max(config.min_kept, needed))
