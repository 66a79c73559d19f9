"""How far states move when the image is cut off in the first k layers: masking beside skipping.

    s_m(l) = mean_i cos(h_base[l]_i, h_intervened[l]_i) over the tokens i of modality m, l = 0 .. L

"mask": below layer k no attention to a vision token, nor from one, but its own to itself (see `ways` of mask.py).
"skip" (late entry): below k the text does not see the vision tokens, which stay what the projector made of them and
enter at layer k. The text is that after the image's first token: what stands before it does not change. Source:
"Unmasking the functionality of early layers in VLMs" (Hartman et al.).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vfl.engine.attention_tap import BlockedEdges, tapped
from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.states import between_layers, forward, is_vision
from vfl.errors import InputError
from vfl.metrics.cosine import cosine_distance
from vfl.metrics.mask import check_ways
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result
from vfl.metrics.spec import EARLY, Metric
from vfl.models.depth import in_proportion
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

EDITS = ("mask", "skip")


def similarity(vlm: VLM, prompts: Iterable[Encoded], *, below: int | None = None, ways: str = "all") -> Result:
    """Cosine similarity of intervened to plain states, by modality, for masking and skipping the first layers.

    One prompt's L+1 plain states are held at a time (0.7 GB for 2,600 tokens of 4,096 numbers in bfloat16, 33 states).

    Args:
        vlm: the model.
        prompts: N prompts.
        below: k, the number of first layers in which the image is cut off, 1 .. L-1; by default an eighth of the
            layers (the paper's "0-3" of 32).
        ways: what masking cuts, as in `mask`.

    Returns:
        Curves "mask/vision", "mask/text", "skip/vision" and "skip/text" over states h[0] .. h[L] (bootstrap over
        samples) and scalars of the same names: the similarity of the last state.

    Raises:
        InputError: for a `below` outside of 1 .. L-1, or unknown ways.
    """
    first = check(vlm, below=below, ways=ways)
    images: list[Hashable] = []
    samples = [similarities(vlm, encoded, first, ways) for encoded in noted(prompts, images)]
    curves, scalars = {}, {}
    for row, edit in enumerate(EDITS):
        for column, modality in enumerate(("vision", "text")):
            values = [sample[row, column].tolist() for sample in samples]
            curves[f"{edit}/{modality}"] = mean_curve(values, axis="state", clusters=images)
            scalars[f"{edit}/{modality}"] = mean_scalar([value[-1] for value in values], clusters=images)
    options = {"below": first, "ways": ways, "vision": "span", "text": "after the image's first token"}
    return result(len(samples), scalars, curves, options)


def similarities(vlm: VLM, encoded: Encoded, below: int, ways: str = "all") -> torch.Tensor:
    """(2, 2, L+1) of one prompt: by edit (mask, skip), modality (vision, text) and state."""
    vision = is_vision(encoded)
    text = ~vision
    text[: encoded.spans[0].start] = False
    plain: list[torch.Tensor] = []
    with _each_state(vlm, lambda at, state: plain.append(state)):
        forward(vlm, encoded)
    cosines = torch.zeros(len(EDITS), 2, vlm.num_layers + 1, dtype=torch.float64)

    def compare(row: int) -> Callable[[int, torch.Tensor], None]:
        def visit(at: int, state: torch.Tensor) -> None:
            near = 1 - cosine_distance(plain[at], state)
            for column, here in enumerate((vision, text)):
                cosines[row, column, at] = near[here.to(near.device)].mean(dtype=torch.float64).item()

        return visit

    for row, edit in enumerate(EDITS):
        with cut_off(vlm, encoded, below, edit, ways), _each_state(vlm, compare(row)):
            forward(vlm, encoded)
    return cosines


@contextmanager
def cut_off(vlm: VLM, encoded: Encoded, below: int, edit: str, ways: str = "all") -> Iterator[None]:
    """Passes over this prompt run with the image cut off in layers 0 .. below - 1, by "mask" (in `ways`) or "skip"."""
    vision = is_vision(encoded)
    layers = frozenset(range(below))
    blocks = [BlockedEdges(layers, ~vision[None], vision[None])]
    if edit == "mask" and ways != "image_to_text":
        unseen = ~vision if ways == "cross" else torch.ones_like(vision)
        blocks.append(BlockedEdges(layers, vision[None], unseen[None], itself=False))
    raw: list[torch.Tensor] = []

    def keep_raw(
        layer_idx: int, state: torch.Tensor, arguments: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, Any]] | None:
        here = vision.to(state.device)
        if layer_idx == 0:
            raw[:] = [state[:, here]]
            return None
        state = state.clone()
        state[:, here] = raw[0].to(state)
        return state, arguments

    layers_with_raw = range(below + 1) if edit == "skip" else ()
    with layer_hooks(vlm.layers, keep_raw, only=layers_with_raw), tapped(vlm, blocks=blocks):
        yield


@contextmanager
def _each_state(vlm: VLM, visit: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Call `visit(l, h[l])` with (T, d) states for l = 0 .. L."""

    def both(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        if layer_idx == 0:
            visit(0, before[0])
        visit(layer_idx + 1, after[0])

    with between_layers(vlm.layers, both):
        yield


def check(vlm: VLM, *, below: int | None = None, ways: str = "all") -> int:
    """The number of first layers; InputError for one outside of 1 .. L-1, or unknown ways."""
    check_ways(ways)
    num_layers = vlm.num_layers
    first = max(1, in_proportion(4, num_layers)) if below is None else below
    if not 0 < first < num_layers:
        raise InputError(f"below={below}: the model has {num_layers} layers; give 1 to {num_layers - 1}.")
    return first


SPEC = Metric(
    function=similarity,
    check=check,
    needs="prompts",
    title="States after masking and skipping",
    read="Similarity of a token’s state to that of the plain model when the first layers are masked (no attention "
    "to or from image tokens but each one’s to itself) or skipped. A curve that returns to 1 has recovered; text that "
    "stays low carries the damage to the answer.",
    use="Choose skipping over masking where its curves come back to 1 sooner; where the text’s never does, use a "
    "smaller below.",
    source=EARLY,
    equation="sₘ(l) = meanᵢ cos(h_plain[l]ᵢ, h_edited[l]ᵢ) over the tokens i of a modality m",
    unit="cosine similarity",
    panels="line",
    one_scale=True,
)
