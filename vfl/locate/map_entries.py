"""From sweep records to the entries of a function map: curves, chosen layers, how stable the choice is, warnings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vfl import functionmap
from vfl.errors import InputError
from vfl.functionmap import FunctionEntry, Screen
from vfl.io.layers import layer_list, runs
from vfl.locate.choosing import choice_of, choices, left_open, levels_of, min_control
from vfl.locate.curves import LayerSpan, Outcomes, curves, outcomes
from vfl.locate.deletion import deletion
from vfl.locate.equivalence import equivalence
from vfl.locate.explained import explained, unexplained
from vfl.locate.gaps import gaps_of
from vfl.locate.layer_null import layer_null
from vfl.locate.layer_rule import Choice, ChoiceConfig, Families, layers_in, significant
from vfl.locate.left_out import LeftOut
from vfl.locate.records import checked, read_records
from vfl.locate.significance import Levels, pairs_needed
from vfl.proofs import RandomWeights
from vfl.stats import Floats, clustered_wilson


def build_entries(
    records: pa.Table | Path,
    num_layers: int,
    choice: ChoiceConfig | None = None,
    override: Mapping[str, Sequence[int]] | None = None,
    left_out: Mapping[str, LeftOut] | None = None,
) -> dict[str, FunctionEntry]:
    """The map's entry of every function in the records, in the order in which the functions first appear.

    Args:
        records: the table, or the path of pairs.parquet.
        num_layers: decoder layers of the model.
        choice: the numbers of the layer rule; the defaults when None.
        override: layers a user wants instead of the rule's, per function.
        left_out: what a screen left out of the sweep, per function.

    Raises:
        InputError: a function without a kept pair, an unfinished sweep, an override of what is not there.
    """
    table = read_records(records) if isinstance(records, Path) else checked(records)
    config, override, left_out = choice or ChoiceConfig(), override or {}, left_out or {}
    counts = kept_counts(table)
    if unknown := [name for name in override if name not in counts]:
        raise InputError(f"Layers were given for {', '.join(unknown)}; the records hold {', '.join(counts)}.")
    if unanswered := [name for name, (kept, _) in counts.items() if not kept]:
        raise InputError(
            f"No pair was answered correctly on both images for {', '.join(unanswered)}, so there is nothing "
            "that a swap could change. Leave these functions out (--functions), or use probes the model can answer."
        )
    entries = {}
    for name in counts:
        out = left_out.get(name)
        data = outcomes(table, name, num_layers, out.blocks if out else ())
        entries[name] = _entry(data, config, override.get(name), out.screen if out else None)
    return entries


def with_random_weights(
    entries: Mapping[str, FunctionEntry], anew: Mapping[str, FunctionEntry], seed: int
) -> dict[str, FunctionEntry]:
    """The entries, each with what the same pairs and the same rule give on weights drawn anew."""
    return {
        name: entry.model_copy(
            update={
                "random_weights": RandomWeights(
                    seed=seed, layers=anew[name].layers, changed=anew[name].changed, control=anew[name].control
                )
            }
        )
        for name, entry in entries.items()
    }


def kept_counts(records: pa.Table) -> dict[str, tuple[int, int]]:
    """Per function, in order of appearance: pairs kept, and pairs in all."""
    pairs = records.group_by(["function", "pair_id"]).aggregate([("kept", "max")])
    names = pc.unique(records["function"]).to_pylist()
    rows = {name: pairs.filter(pc.field("function") == name) for name in names}
    return {name: (pc.sum(rows[name]["kept_max"]).as_py() or 0, rows[name].num_rows) for name in names}


def _entry(
    data: Outcomes, config: ChoiceConfig, override: Sequence[int] | None, screen: Screen | None
) -> FunctionEntry:
    curve = curves(data)
    single = levels_of(data, np.ones((1, data.kept)), config)
    against_control = bool(single.has_control[: data.num_layers][data.swept].all())
    choice = choice_of(data, config)
    warnings = _few_pairs(data, config) + _floor(data, single, config)
    if choice.chosen_by == "range":
        choice, warning = _verified(data, choice, single.excess[0], single.p[0], config)
        warnings += warning
    layers, chosen_by, distributed = list(choice.layers), choice.chosen_by, choice.distributed
    if override is not None:
        layers, chosen_by = _own_layers(data, override), "user"
        distributed = len(layers) > config.distributed_above * data.num_layers
    above = significant(Families.of(data.blocks, data.num_layers), single.excess, single.p, config)[0]
    enough = data.samples >= pairs_needed(data.num_layers, config.alpha)
    above_control = [k for k in range(data.num_layers) if enough and above[k]]
    unread = equivalence(data, choice.layers, above_control, config)
    stability = _stability(data, layers, config)
    if not layers:
        warnings.append(
            "No layer or block of layers changes these answers beyond what a control swap or noise does: either the "
            "function is spread over more layers than were swapped together, or its answers do not need the image. "
            f"Layers {unread.in_words()}."
        )
    elif shaky := [k for k, share in zip(layers, stability or [], strict=False) if share < 0.5]:
        warnings.append(f"Layers {layer_list(shaky)} are chosen again in fewer than half of the bootstrap resamples.")
    spans = [(k, k) for k in layers] + [(block.layers[0], block.layers[-1]) for block in _blocks(data, choice, layers)]
    share = explained(data, spans, single) if layers else None
    if share is not None and chosen_by != "user" and (few := unexplained(data, layers, share, single)):
        warnings.append(few)
    if chosen_by != "user":
        warnings += [_unresolved(data, gap) for gap in left_open(data, choice, config)]
    peak = _peak(layers, single.excess[0], single.effect[0])
    return FunctionEntry(
        layers=layers,
        peak=peak,
        distributed=distributed,
        pairs=data.pairs,
        kept=data.kept,
        groups=data.samples if data.groups else None,
        accuracy=_rounded(data.accuracy),
        changed=_list(curve.changed),
        followed_source=_list(curve.followed),
        ci_low=_list(curve.ci_low),
        ci_high=_list(curve.ci_high),
        control=None if curve.control is None else _list(curve.control),
        logprob_effect=None if curve.effect is None else _list(curve.effect),
        blocks=_blocks(data, choice, layers),
        gaps=[_block(data, gap) for gap in gaps_of(layers, data.num_layers) if gap in data.blocks],
        unfiltered=None if data.unfiltered is None else _list(data.unfiltered),
        stability=stability,
        chosen_by=chosen_by,
        tested_against="control" if against_control else "floor",
        floor=None if against_control else _rounded(max(config.floor, float(single.background[0, 0]))),
        also_significant=[k for k in above_control if k not in layers],
        explained=None if share is None else _rounded(share),
        warnings=warnings,
        screen=screen,
        layer_null=layer_null(data, config),
        deletion=deletion(data, choice, layers, config),
        equivalence=unread,
    )


def _peak(layers: Sequence[int], excess: Floats, effect: Floats) -> int | None:
    """The layer that changes most; where none does anything alone the graded effect decides, then the middle."""
    middle = (layers[0] + layers[-1]) / 2 if layers else 0.0
    return max(
        layers, key=lambda k: (round(float(excess[k]), 9), round(float(effect[k]), 6), -abs(k - middle)), default=None
    )


def _few_pairs(data: Outcomes, config: ChoiceConfig) -> list[str]:
    warnings = []
    if data.kept < config.min_kept:
        text = (
            f"The rates and the layers are uncertain: {data.kept} of {data.pairs} pairs were kept, which is fewer than "
            f"{config.min_kept}."
        )
        needed = pairs_needed(data.num_layers, config.alpha)
        if data.samples < needed:
            text += (
                f" At least {needed} kept pairs are needed before one of {data.num_layers} layers is significant: "
                "none is named."
            )
        warnings.append(text + " Use more pairs.")
    elif data.samples < (needed := pairs_needed(data.num_layers, config.alpha)):
        warnings.append(
            f"The {data.kept} kept pairs are of {data.samples} groups, each of which counts as one sample. At least "
            f"{needed} groups are needed before one of {data.num_layers} layers is significant: none is named. Use "
            "more pairs, or smaller groups."
        )
    return warnings


def _floor(data: Outcomes, level: Levels, config: ChoiceConfig) -> list[str]:
    """What a test without control swaps means."""
    if level.has_control[: data.num_layers][data.swept].all():
        return []
    controlled = (~np.isnan(data.control[:, : data.num_layers][:, data.swept])).all(axis=1)
    with_control = len(set(data.group_of[controlled]))
    why = "No kept pair has a control swap"
    if with_control:
        why = f"Only {with_control} of {data.samples} {'groups' if data.groups else 'kept pairs'} have a control swap "
        why += f"(at least {min_control(data, config)} are needed)"
    floor = max(config.floor, float(level.background[0, 0]))
    return [
        f"{why}: layers were tested against a floor of {floor:.0%} of the answers, what a swap at the median layer "
        "changes. A layer whose swap disturbs the model more than that can't be told from one that serves the "
        "function. Give pairs with a control_image."
    ]


def _verified(
    data: Outcomes, choice: Choice, excess: Floats, p: Floats, config: ChoiceConfig
) -> tuple[Choice, list[str]]:
    """A range found by prefixes and suffixes must do together what its layers do not do alone."""
    block = (choice.layers[0], choice.layers[-1])
    name = f"layers {layer_list(choice.layers)}"
    warnings = []
    if choice.spread:
        warnings.append(
            f"The function is spread: its lower and its upper layers each change half of the answers alone; {name} "
            "are the middle of where the rate rises."
        )
    if block not in data.blocks:
        return choice, [*warnings, f"Found from prefix and suffix swaps only: {name} were not swapped together."]
    column = data.blocks.index(block)
    alone = max(float(excess[k]) for k in choice.layers)
    # One block is tested, so no correction for many.
    if p[column] > config.alpha or excess[column] - alone < config.margin:
        return Choice(), [
            *warnings,
            f"Prefix and suffix swaps pointed to {name}, but swapping these together changes only "
            f"{excess[column]:.0%} of the answers more than the control: not named.",
        ]
    return choice, warnings


def _unresolved(data: Outcomes, gap: LayerSpan) -> str:
    """A run of unnamed layers that changes answers as a block."""
    block = _block(data, gap)
    control = "" if block.control is None else f" (the control {block.control:.0%})"
    return (
        f"Layers {layer_list(block.layers)}, none of which is named, change {block.changed:.0%} of the answers when "
        f"they are swapped together{control}: some of them take part, and the blocks that were swapped don't tell "
        "which."
    )


def _own_layers(data: Outcomes, override: Sequence[int]) -> list[int]:
    layers = sorted(set(override))
    if not layers or layers[0] < 0 or layers[-1] >= data.num_layers:
        beginning = f"Layers {list(override)} were given for {data.function}"
        raise InputError(f"{beginning}; expected at least one of 0..{data.num_layers - 1}.")
    return layers


def _stability(data: Outcomes, layers: Sequence[int], config: ChoiceConfig) -> list[float] | None:
    """For each layer, the share of bootstrap resamples over pairs, or groups, in which the rule chooses it again."""
    if not config.bootstrap or data.samples < pairs_needed(data.num_layers, config.alpha):
        return None  # resamples of a handful of pairs agree whatever the truth is
    rng = np.random.default_rng(config.seed)
    drawn = rng.multinomial(data.samples, np.full(data.samples, 1 / data.samples), size=config.bootstrap)
    again = choices(data, drawn.astype(float)[:, data.group_of], config)
    return [_rounded(sum(k in choice.layers for choice in again) / len(again)) for k in layers]


def _blocks(data: Outcomes, choice: Choice, layers: Sequence[int]) -> list[functionmap.Block]:
    """Every block named, and every run of chosen layers that was swapped together."""
    spans = {(run[0], run[-1]) for run in runs(layers) if len(run) > 1}
    spans |= {block for block in choice.named if set(layers_in(block)) <= set(layers)}  # a user's may be others
    return [_block(data, block) for block in sorted(spans) if block in data.blocks]


def _block(data: Outcomes, block: LayerSpan) -> functionmap.Block:
    column = data.blocks.index(block)
    ran = ~np.isnan(data.changed[:, column])
    changed = data.changed[ran, column]
    (low,), (high,) = clustered_wilson(changed[:, None], data.group_of[ran].tolist())
    control = data.control[:, column]
    return functionmap.Block(
        layers=list(layers_in(block)),
        changed=_rounded(float(changed.mean())),
        ci=(_rounded(float(low)), _rounded(float(high))),
        followed_source=_rounded(float(np.nansum(data.followed[:, column]) / len(changed))),
        control=None if np.isnan(control).all() else _rounded(float(np.nanmean(control))),
    )


def _rounded(value: float) -> float:
    # Six digits: beyond the noise of any number of pairs, and readable in the file.
    return round(float(value), 6)


def _list(values: Floats) -> list[float | None]:
    """A curve as the map has it: nothing where a layer was not swept."""
    return [None if np.isnan(value) else _rounded(value) for value in values]
