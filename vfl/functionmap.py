"""The function map: which decoder layers of a model serve which visual function, as `map.json` (docs/map-format.md)."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfl.errors import InputError
from vfl.io.hub import fetched
from vfl.io.json_files import Versioned, write_text
from vfl.io.layers import layer_list
from vfl.io.notebook import html_table, percent, percent_interval
from vfl.proofs import Deletion, Equivalence, LayerNull, OffManifold, RandomWeights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAP = Versioned("map.json", "function map", schema=1, key="functions", command="vfl locate MODEL")
Rate = Annotated[float, Field(ge=0, le=1)]
logger = logging.getLogger(__name__)

PIXELS = ("min_pixels", "max_pixels")
"""Limits of resized pictures, as settings and results name them."""


class _Strict(BaseModel):
    # allow_inf_nan: NaN is not JSON, and a curve with a hole in it must not pass for one without.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True)


class ModelId(_Strict):
    """The model a map belongs to; `weights_sha256` settles identity where known, else id and revision.

    `min_pixels` and `max_pixels` are the limits of its resized pictures, where its family counts pixels.
    """

    id: str
    revision: str | None = None
    weights_sha256: str | None = None
    family: str
    num_layers: int = Field(ge=1)
    min_pixels: int | None = None
    max_pixels: int | None = None

    @property
    def pixels(self) -> str:
        """The limits of its pictures in words; empty where it has none."""
        return pixels_in_words({"min_pixels": self.min_pixels, "max_pixels": self.max_pixels})


class Block(_Strict):
    """Layers swapped together, and what that did to the kept pairs."""

    layers: list[int] = Field(min_length=1)
    changed: Rate
    ci: tuple[Rate, Rate]
    followed_source: Rate | None = None
    control: Rate | None = None


class Screen(_Strict):
    """Which layers were not swept, since an estimate by gradients says that they do next to nothing."""

    pairs: int = Field(ge=0)
    bound: Rate
    scores: list[Rate]
    largest: Rate
    skipped: list[int]
    fallback: str | None = None

    def in_words(self) -> str:
        """What was left out, with the bound, in a sentence without a full stop."""
        if self.fallback:
            return f"all layers were swept: {self.fallback}"
        if not self.skipped:
            return f"no layer was skipped: none is estimated to do less than {self.bound:.0%} of what the peak does"
        most = max(self.scores[k] for k in self.skipped)
        return (
            f"{len(self.skipped)} of {len(self.scores)} layers were skipped ({layer_list(self.skipped)}): each is "
            f"estimated to do less than {self.bound:.0%} of what the peak does ({most:.1%} at most), and changed no "
            f"answer of {self.pairs} pairs"
        )


class FunctionEntry(_Strict):
    """One function's curves (one number a layer, over kept pairs) and the layers chosen from them.

    Layers that a screen left out are None in every curve.
    """

    layers: list[int]
    peak: int | None
    distributed: bool
    pairs: int = Field(ge=1)
    kept: int = Field(ge=1)
    groups: int | None = None
    accuracy: Rate
    changed: list[Rate | None]
    followed_source: list[Rate | None]
    ci_low: list[Rate | None]
    ci_high: list[Rate | None]
    control: list[Rate | None] | None
    logprob_effect: list[float | None] | None
    blocks: list[Block] = []
    gaps: list[Block] = []
    unfiltered: list[Rate | None] | None = None
    stability: list[Rate] | None = None
    chosen_by: Literal["single", "window", "range", "user", "nothing"] = "single"
    tested_against: Literal["control", "floor"] = "control"
    floor: Rate | None = None
    also_significant: list[int] = []
    explained: Rate | None = None
    warnings: list[str] = []
    screen: Screen | None = None
    layer_null: LayerNull | None = None
    deletion: Deletion | None = None
    equivalence: Equivalence | None = None
    random_weights: RandomWeights | None = None
    off_manifold: OffManifold | None = None

    def lines(self) -> list[str]:
        """What a person should read beside the layers: the warnings, and what a screen left out."""
        lines = [*self.warnings, *([] if self.screen is None else [f"Screen: {self.screen.in_words()}."])]
        if self.random_weights is not None and self.random_weights.layers:
            lines.append(f"{self.random_weights.in_words().capitalize()}.")
        return lines

    def rate(self, layer: int) -> float:
        """`changed` of a layer that was swept, as all named ones were."""
        rate = self.changed[layer]
        assert rate is not None, f"layer {layer} was not swept"
        return rate

    def interval(self, layer: int) -> tuple[float, float]:
        """Wilson's 95 % interval of a swept layer's `changed`."""
        low, high = self.ci_low[layer], self.ci_high[layer]
        assert low is not None, f"layer {layer} was not swept"
        assert high is not None
        return low, high

    @model_validator(mode="after")
    def _layers_belong_together(self) -> Self:
        num_layers = len(self.changed)
        skipped = [] if self.screen is None else self.screen.skipped
        for name in ("changed", "followed_source", "ci_low", "ci_high", "control", "logprob_effect", "unfiltered"):
            curve = getattr(self, name)
            if curve is None:
                continue
            if len(curve) != num_layers:
                raise ValueError(f"{name} has {len(curve)} layers, changed has {num_layers}")
            if [k for k, value in enumerate(curve) if value is None] != skipped:
                raise ValueError(f"{name} must have a number for every layer but those skipped, {skipped}")
        if any(after <= before for before, after in pairwise(self.layers)):
            raise ValueError(f"layers must ascend without repeats, got {self.layers}")
        named = [*self.layers, *([] if self.peak is None else [self.peak]), *self.also_significant]
        named += [k for block in (*self.blocks, *self.gaps) for k in block.layers]
        if outside := [k for k in named if not 0 <= k < num_layers]:
            raise ValueError(f"layer {outside[0]} lies outside 0..{num_layers - 1}")
        if self.screen is not None and len(self.screen.scores) != num_layers:
            raise ValueError(f"screen.scores has {len(self.screen.scores)} layers, changed has {num_layers}")
        if unswept := [k for k in [*self.layers, *self.also_significant] if k in skipped]:
            raise ValueError(f"layer {unswept[0]} is named and skipped")
        if self.stability is not None and len(self.stability) != len(self.layers):
            raise ValueError(f"stability has {len(self.stability)} values for {len(self.layers)} layers")
        if self.deletion is not None and not (
            len(self.deletion.at_least) == len(self.deletion.at_most) == len(self.layers)
        ):
            raise ValueError(f"deletion must have a bound for each of {len(self.layers)} layers")
        if self.equivalence is not None and not (
            len(self.equivalence.at_most) == len(self.equivalence.states) == num_layers
        ):
            raise ValueError(f"equivalence must have a state for each of {num_layers} layers")
        if self.off_manifold is not None and len(self.off_manifold.ratio) != num_layers:
            raise ValueError(f"off_manifold has {len(self.off_manifold.ratio)} layers, changed has {num_layers}")
        if self.random_weights is not None and len(self.random_weights.changed) != num_layers:
            raise ValueError(f"random_weights has {len(self.random_weights.changed)} layers, changed has {num_layers}")
        if self.kept > self.pairs:
            raise ValueError(f"{self.kept} pairs kept of {self.pairs}")
        return self


def _kept(entry: FunctionEntry) -> str:
    groups = "" if entry.groups is None else f", {entry.groups} groups"
    return f"{entry.kept} of {entry.pairs}{groups}"


class FunctionMap(_Strict):
    """What `vfl locate` found; load, check against the model at hand, then ask for layers.

    >>> fmap = FunctionMap.load("out/map.json")  # doctest: +SKIP
    >>> fmap = fmap.check_model(id="Qwen/Qwen2.5-VL-7B-Instruct", num_layers=28)  # doctest: +SKIP
    >>> fmap.layers_of(["counting", "ocr"], expand=1)  # doctest: +SKIP
    """

    # `schema` itself is a method of pydantic's BaseModel.
    schema_version: Literal[1] = Field(default=1, alias="schema")
    model: ModelId
    functions: dict[str, FunctionEntry] = Field(min_length=1)
    settings: dict[str, Any] = {}
    probes_sha256: str | None = None
    versions: dict[str, str] = {}
    derived_from: ModelId | None = None

    @model_validator(mode="after")
    def _depths_agree(self) -> Self:
        for name, entry in self.functions.items():
            if len(entry.changed) != self.model.num_layers:
                raise ValueError(f"{name} has {len(entry.changed)} layers, the model has {self.model.num_layers}")
        return self

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {layer_list(entry.layers)}" for name, entry in self.functions.items())
        return f"FunctionMap({self.model.id}, {self.model.num_layers} layers: {found})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = []
        for name, entry in self.functions.items():
            at = entry.peak
            changed = None if at is None else percent(entry.rate(at))
            ends = None if at is None else percent_interval(*entry.interval(at))
            rows.append((name, layer_list(entry.layers), at, changed, ends, _kept(entry)))
        return html_table(
            f"Function layers of {self.model.id} ({self.model.num_layers} layers)",
            ("function", "layers", "peak", "answers changed at the peak", "95 %", "kept pairs"),
            rows,
            (f"{name}: {line}" for name, entry in self.functions.items() for line in entry.lines()),
        )

    def plot(self, planted: Mapping[str, Sequence[int]] | None = None) -> "Figure":
        """The curves of all functions over the layers: changed answers with 95 % intervals, chosen layers shaded.

        Args:
            planted: the true layers of each function, where they are known; drawn on the axis.
        """
        from vfl.report.map_figure import curves_figure

        return curves_figure(self, planted)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a map, of a file, a folder or an address on the hub; InputError says in one line why there is none."""
        return MAP.read(cls, fetched(path))

    @classmethod
    def from_hub(cls, repo: str, revision: str | None = None) -> Self:
        """The map that `vfl push` put into a data set of the hub, such as ORG/NAME.

        Raises:
            InputError: when there is none, or it can't be reached.
        """
        return cls.load(f"hf://datasets/{repo}" + (f"@{quote(revision, safe='')}" if revision else ""))

    def save(self, path: str | Path) -> None:
        """Write the map, whole or not at all."""
        write_text(Path(path), self.to_json())

    def to_json(self) -> str:
        """The map as JSON; lists of numbers stand on one line, so that a map can be read and compared by eye."""
        content = self.model_dump(mode="json", by_alias=True)
        content["model"] = self.model.model_dump(exclude_none=True)
        for name, entry in self.functions.items():
            for optional in ("screen", "random_weights", "off_manifold"):
                if getattr(entry, optional) is None:
                    del content["functions"][name][optional]
        if self.derived_from is None:
            del content["derived_from"]
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        # A JSON string holds no raw line break, so this only ever joins lists, and only those without strings.
        return re.sub(r"\[\n[^\[\]{}\"]*\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text) + "\n"

    def check_model(
        self,
        id: str,
        num_layers: int,
        revision: str | None = None,
        weights_sha256: str | None = None,
        family: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        allow_other_model: bool = False,
    ) -> "FunctionMap":
        """Return the map for this model, or raise InputError naming both models.

        With `allow_other_model` a derivative of equal depth (a fine-tuned model) is accepted: the map returned carries
        the new model, and the one it was located on in `derived_from`. Pictures of another size are a warning: the
        layers are of the same model, and were found on those of the map.
        """
        here = ModelId(
            id=id,
            revision=revision,
            weights_sha256=weights_sha256,
            family=family or self.model.family,
            num_layers=num_layers,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )
        named = f"The map was located on {_name(self.model)}, the model at hand is {_name(here)}"
        if num_layers != self.model.num_layers:
            raise InputError(f"{named}. Depths differ, so its layers mean nothing there: run `vfl locate {id}`.")
        if self.model.pixels and here.pixels and self.model.pixels != here.pixels:
            logger.warning(
                "The map was located on pictures of %s, here they have %s: its layers and rates are of those. Load the "
                "model alike, or locate at this size.",
                self.model.pixels,
                here.pixels,
            )
        if _same_model(self.model, here):
            return self
        if not allow_other_model:
            raise InputError(
                f"{named}. Run `vfl locate {id}`, or pass --allow-other-model if one was fine-tuned from the other."
            )
        return self.model_copy(update={"model": here, "derived_from": self.derived_from or self.model})

    def layers_of(self, functions: str | Iterable[str], expand: int = 0) -> list[int]:
        """The union of the functions' layers, ascending; `expand` adds neighbours on each side, clipped."""
        names = [functions] if isinstance(functions, str) else list(functions)
        if expand < 0:
            raise InputError(f"expand is {expand}; expected 0 or more layers to add on each side.")
        if not names:
            raise InputError(f"No function named; the map has {', '.join(self.functions)}.")
        if unknown := [name for name in names if name not in self.functions]:
            raise InputError(f"The map has no function {', '.join(unknown)}; it has {', '.join(self.functions)}.")
        if empty := [name for name in names if not self.functions[name].layers]:
            raise InputError(
                f"No layers were found for {', '.join(empty)} on {self.model.id}: name layers yourself, "
                "or locate with more pairs."
            )
        chosen = [k for name in names for k in self.functions[name].layers]
        return sorted({n for k in chosen for n in range(k - expand, k + expand + 1) if 0 <= n < self.model.num_layers})

    def relative_peaks(self) -> dict[str, float]:
        """Peak / (num_layers - 1) of each function that has a peak, shallowest first."""
        depth = max(self.model.num_layers - 1, 1)
        peaks = {name: entry.peak / depth for name, entry in self.functions.items() if entry.peak is not None}
        return dict(sorted(peaks.items(), key=lambda item: (item[1], item[0])))

    def order(self) -> list[str]:
        """The functions from the shallowest peak to the deepest; ties by name, functions without a peak left out."""
        return list(self.relative_peaks())


def pixels_in_words(facts: Mapping[str, Any]) -> str:
    """The limits of resized pictures among the facts of a model; empty where there are none."""
    return ", ".join(f"{name} {facts[name]}" for name in PIXELS if facts.get(name) is not None)


def other_pixels(labels: Sequence[str], models: Sequence[ModelId]) -> str:
    """A warning where results that are set side by side are of one family on pictures of other sizes; else nothing."""
    sizes: dict[str, dict[str, str]] = {}
    for label, model in zip(labels, models, strict=True):
        if model.pixels:
            sizes.setdefault(model.family, {}).setdefault(model.pixels, label)
    for family, labelled in sizes.items():
        if len(labelled) > 1:
            named = "; ".join(f"{label}: {pixels}" for pixels, label in labelled.items())
            return f"The pictures of {family} had other sizes ({named}): differences may come from that."
    return ""


def _same_model(a: ModelId, b: ModelId) -> bool:
    if a.weights_sha256 and b.weights_sha256:
        return a.weights_sha256 == b.weights_sha256
    if a.revision and b.revision:
        return (a.id, a.revision) == (b.id, b.revision)
    if a.id == b.id:
        logger.info("%s is taken for the map's model by its name: no revision or weight hash to compare.", b.id)
        return True
    return False


def _name(model: ModelId) -> str:
    facts = [f"{model.num_layers} layers"]
    facts += [f"revision {model.revision[:12]}"] if model.revision else []
    facts += [f"weights {model.weights_sha256[:12]}"] if model.weights_sha256 else []
    return f"{model.id} ({', '.join(facts)})"
