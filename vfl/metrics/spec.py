"""What a metric says of itself: what it is measured on, its units, how its figure is read, and where it is from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vfl.probes.pair import Pair
from vfl.report.words import SHARE as SHARE

Needs = Literal["prompts", "pairs", "pairs of images", "pairs with boxes", "pairs with boxes and labels"]

Layout = Literal["function", "line", "small"]

# Units by the last part of a value's name, where many metrics give such values.
COMMON_UNITS = {
    "accuracy": SHARE,
    "no_image": SHARE,
    "chance": SHARE,
    "kept": SHARE,
    "right": SHARE,
    "logprob": "nats per token",
    "tolerated": "",
}

# Papers that several metrics are from.
EARLY = "“Unmasking the functionality of early layers in VLMs”, Hartman et al."
SKIP = "“Skip-It”, Hartman et al."
NEO = "“Towards Interpreting Visual Information Processing in Vision-Language Models”, Neo et al., ICLR 2025"
VFL = "“Vision Function Layer in Multimodal LLMs”, Shi et al., arXiv 2509.24791"
HEADS = "“Unveiling Visual Perception in Language Models”, Bi et al., CVPR 2025"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The one description of a metric, `SPEC` in its file; commands, training callbacks and pages read it.

    Attributes:
        function: what measures: `function(vlm, prompts or pairs, **options)` gives a result (vfl/metrics/result.py).
            The metric bears its name.
        needs: "prompts" is each pair's question on its target image, encoded; the others are pairs, of which "pairs of
            images" have a source image, and "pairs with boxes (and labels)" give numbers only where the object's
            box (and name) is known.
        title: a heading.
        read: how to read the figure, a few sentences.
        use: what to do with the figure, a sentence.
        source: the paper.
        equation: what is computed, a line.
        unit: of values whose names have none of their own.
        units: by the last part of a value's name ("counting/peak" is a "peak"), beside COMMON_UNITS.
        panels: how a curve's name is laid out. "function": "counting/accuracy" is a line of a panel "counting"; "line":
            "mask/vision" is the line "mask" of a panel "vision"; "small": "counting/object to last_token/drop" is the
            line "counting" of a small panel "object to last_token: drop".
        one_scale: whether all panels of one unit have one scale.
        dots: what the axis of lone numbers shows.
        scatter: two tables by layer and head whose heads are drawn against each other: to the right and upwards.
        table_units: of tables whose unit is another than `unit`.
        check: `check(vlm, **some of the options)` raises InputError for values that the model can't be measured with;
            asked before a pass, and by `function` itself.
        unfit: why the metric can't apply to these pairs with these options, None where it can; asked before a pass.
        only_images: why a model that hears sounds can't be asked; empty where it can.
    """

    function: Callable[..., dict[str, Any]]
    needs: Needs
    title: str
    read: str
    use: str
    source: str
    equation: str
    unit: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    panels: Layout = "function"
    one_scale: bool = False
    dots: str = ""
    scatter: tuple[str, str] | None = None
    table_units: Mapping[str, str] = field(default_factory=dict)
    check: Callable[..., object] | None = None
    unfit: Callable[[Sequence[Pair], Mapping[str, Any]], str | None] | None = None
    only_images: str = ""

    @property
    def name(self) -> str:
        """What the metric is asked for by."""
        return self.function.__name__

    def unit_of(self, name: str) -> str:
        """The unit of a scalar or curve."""
        own = self.own_unit(name.rsplit("/", 1)[-1])
        return self.unit if own is None else own

    def own_unit(self, quantity: str) -> str | None:
        """The unit of a quantity that is called the same wherever it stands; None for a name that only tells lines."""
        return self.units.get(quantity, COMMON_UNITS.get(quantity))
