"""Every rule's ranking side by side, where the map says that functions read, and what a step on each choice costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from vfl.engine.operations import relative_step
from vfl.functionmap import FunctionMap
from vfl.io.atomic import replacing
from vfl.io.layers import layer_list
from vfl.train.layers.rules import evenly_spaced, highest, shares


@dataclass(frozen=True)
class Choice:
    """What one rule would train; `step` and `checkpointed` are a step's cost over that of all layers."""

    rule: str
    layers: tuple[int, ...]
    step: float
    checkpointed: float


def choices(
    scores: Mapping[str, Sequence[float]], count: int, num_layers: int, reading: Sequence[int] = ()
) -> list[Choice]:
    """`count` layers by each rule, all layers, and those that the map's functions read at (`reading`)."""
    chosen: dict[str, Sequence[int]] = {rule: highest(values, count) for rule, values in scores.items()}
    chosen["uniform"] = evenly_spaced(count, num_layers)
    if reading:
        chosen["function"] = reading
    chosen["full"] = range(num_layers)
    return [
        Choice(rule, tuple(layers), relative_step(layers, num_layers), relative_step(layers, num_layers, True))
        for rule, layers in chosen.items()
    ]


def choice_table(choices: Sequence[Choice], num_layers: int) -> Table:
    """A line a rule."""
    table = Table(title=Text("What each rule would train"), box=SIMPLE_HEAD)
    for heading in ("rule", "layers", "share", "step", "step, recomputed"):
        side = "left" if heading in ("rule", "layers") else "right"
        table.add_column(heading, justify=side, no_wrap=heading != "layers")  # type: ignore[arg-type]
    for choice in choices:
        share = f"{len(choice.layers) / num_layers:.0%}"
        cells = (choice.rule, layer_list(choice.layers), share, f"{choice.step:.2f}", f"{choice.checkpointed:.2f}")
        table.add_row(*map(Text, cells))
    return table


def score_table(scores: Mapping[str, Sequence[float]], num_layers: int, fmap: FunctionMap | None) -> Table:
    """A line a layer: its share of each rule's sum, its place in the ranking, and the functions that read there."""
    table = Table(title=Text("Layers by rule: per cent of the sum, and place"), box=SIMPLE_HEAD)
    table.add_column("layer", justify="right")
    for rule in scores:
        table.add_column(rule, justify="right", no_wrap=True)
    table.add_column("read here")
    places = {rule: _places(values) for rule, values in scores.items()}
    share = {rule: shares(values) for rule, values in scores.items()}
    for layer in range(num_layers):
        cells = [f"{100 * share[rule][layer]:.1f} ({places[rule][layer]})" for rule in scores]
        names = [name for name, entry in fmap.functions.items() if layer in entry.layers] if fmap else []
        table.add_row(*map(Text, (str(layer), *cells, ", ".join(names))))
    return table


def draw(scores: Mapping[str, Sequence[float]], num_layers: int, fmap: FunctionMap | None, path: Path) -> None:
    """The same as a picture: a line a rule, a band a function."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for rule, values in scores.items():
        axes.plot(range(num_layers), [100 * value for value in shares(values)], marker="o", label=rule)
    for place, (name, entry) in enumerate(fmap.functions.items() if fmap else ()):
        for number, layer in enumerate(entry.layers):
            label = f"{name} read" if number == 0 else None
            axes.axvspan(layer - 0.5, layer + 0.5, color=f"C{place + 5}", alpha=0.15, label=label)
    axes.set(xlabel="decoder layer", ylabel="% of the rule's sum", xlim=(-0.5, num_layers - 0.5))
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _places(scores: Sequence[float]) -> list[int]:
    """Each layer's place in the ranking, from 1."""
    order = sorted(range(len(scores)), key=lambda layer: (-scores[layer], layer))
    return [order.index(layer) + 1 for layer in range(len(scores))]
