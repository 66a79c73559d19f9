"""Visual attention ratio: how much of a head's attention goes to the image when the answer is predicted.

    VAR[l, h] = sum over vision positions j of A[l, h, q, j]
    SVAR_a-b = sum over layers a .. b of the mean over heads of VAR[l, h]

q is the query that predicts the answer token ("predicts", the last prompt position; Skip-It) or the generated token
itself ("token"; "Unveiling Visual Perception in Language Models"). In every row the masses of vision, of text and of
the query's own position add up to 1.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, get_args

import torch
from transformers import DynamicCache

from vfl.engine.attention_tap import Reader, tapped
from vfl.engine.decoder_inputs import joined_inputs
from vfl.engine.states import forward, is_vision
from vfl.errors import InputError
from vfl.metrics.edited_prompts import head_logits
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result, table
from vfl.metrics.spec import SKIP, Metric
from vfl.models.depth import in_proportion
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

Query = Literal["predicts", "token"]
PAPER_LAYERS = (5, 18)  # of 32
SMALL = 0.25  # of the largest attention mass on the image: what the skipping rule calls small


def var(
    vlm: VLM, prompts: Iterable[Encoded], *, query: Query = "predicts", layers: tuple[int, int] | None = None
) -> Result:
    """Visual attention ratio of every head, and its sum over layers.

    Args:
        vlm: the model.
        prompts: N prompts.
        query: which position's attention counts, see above.
        layers: first and last layer of SVAR, both included; by default the paper's 5 to 18 of 32, in proportion.

    Returns:
        Curves "vision", "text" and "self" (L points each: attention mass, mean over heads), the scalar "svar" (in
        0 .. number of its layers) and "vision" (mean over layers), and "heads": L x H table of mean VAR.

    Raises:
        InputError: for layers that the model lacks, or an unknown query.
    """
    first, last = check(vlm, layers=layers)
    images: list[Hashable] = []
    samples = [masses(vlm, encoded, query=query) for encoded in noted(prompts, images)]
    by_layer = [sample.mean(-1) for sample in samples]  # (3, L)
    curves = {
        name: mean_curve([sample[row].tolist() for sample in by_layer], clusters=images)
        for row, name in enumerate(MASSES)
    }
    scalars = {
        "svar": mean_scalar([float(sample[0, first : last + 1].sum()) for sample in by_layer], clusters=images),
        "vision": mean_scalar([float(sample[0].mean()) for sample in by_layer], clusters=images),
    }
    heads = torch.stack([sample[0] for sample in samples]).mean(0)
    options = {"query": query, "vision": "span", "svar_layers": [first, last]}
    return result(len(samples), scalars, curves, options, heads=table(heads))


MASSES = ("vision", "text", "self")


def masses(vlm: VLM, encoded: Encoded, *, query: Query = "predicts") -> torch.Tensor:
    """(3, L, H) attention mass of one prompt's query on vision, on text other than itself, and on itself."""
    return vlm.once([(encoded, ("masses", query))], lambda places: [measured_masses(vlm, encoded, query=query)])[0]


def measured_masses(vlm: VLM, encoded: Encoded, *, query: Query = "predicts") -> torch.Tensor:
    """As `masses`, by a pass that takes place whatever is kept: hooks may look at it."""
    vision = is_vision(encoded)
    by_layer: list[torch.Tensor] = []

    def read(layer_idx: int, weights: torch.Tensor) -> None:
        row = weights[0, :, 0]  # (H, K)
        seen = vision.to(row.device)
        itself = row[:, -1]
        on_vision = row[:, : len(seen)][:, seen].sum(-1)
        by_layer.append(torch.stack([on_vision, row.sum(-1) - on_vision - itself, itself]).double().cpu())

    read_query(vlm, encoded, read, query=query)
    return torch.stack(by_layer, dim=1)


def read_query(vlm: VLM, encoded: Encoded, read: Reader, *, query: Query = "predicts") -> None:
    """Call `read(layer, weights)` with the (1, H, 1, K) attention of the query, layer by layer.

    Raises:
        InputError: for an unknown query.
    """
    if query not in get_args(Query):
        raise InputError(f"query={query!r} is unknown; expected one of {', '.join(get_args(Query))}.")
    if query == "predicts":
        with tapped(vlm, read=read):
            forward(vlm, encoded)
        return
    read_together(vlm, [encoded], read, query=query)


@torch.no_grad()
def read_together(vlm: VLM, prompts: Sequence[Encoded], read: Reader, *, query: Query = "predicts") -> None:
    """As `read_query` for B prompts that are alike: `read(layer, weights)` gets the (B, H, 1, K) attention of all.

    Raises:
        InputError: for an unknown query.
    """
    if query not in get_args(Query):
        raise InputError(f"query={query!r} is unknown; expected one of {', '.join(get_args(Query))}.")
    inputs, cache = joined_inputs(vlm, prompts), DynamicCache()
    if query == "predicts":
        with tapped(vlm, read=read):
            vlm.parts.decoder(**inputs, use_cache=False)
        return
    output = vlm.parts.decoder(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
    token = head_logits(vlm, output[:, -1:]).argmax(-1).to(vlm.device)
    positions = torch.cat([encoded.positions[..., -1:] + 1 for encoded in prompts], dim=-2)
    with tapped(vlm, read=read):
        vlm.parts.decoder(inputs_embeds=vlm.embed(token), position_ids=positions, past_key_values=cache, use_cache=True)


def svar_layers(num_layers: int) -> tuple[int, int]:
    """The paper's layers 5 to 18 of 32, both included, in proportion to another depth."""
    first, last = (in_proportion(layer, num_layers) for layer in PAPER_LAYERS)
    return first, max(first, min(last, num_layers - 1))


def check(vlm: VLM, *, layers: tuple[int, int] | None = None) -> tuple[int, int]:
    """First and last layer of SVAR; InputError for layers that the model lacks."""
    first, last = layers or svar_layers(vlm.num_layers)
    if not 0 <= first <= last < vlm.num_layers:
        raise InputError(f"layers={(first, last)} for SVAR: the model has {vlm.num_layers}, 0 to {vlm.num_layers - 1}.")
    return first, last


SPEC = Metric(
    function=var,
    check=check,
    needs="prompts",
    title="Visual attention ratio",
    read="Attention of the position that predicts the answer: how much goes to the image, to other text, and to itself "
    "(together 1). Layers with little to the image may lose it: early exit from the last rise on. The table below "
    "shows every head.",
    use="Take the layer after the last rise as the exit of vfl skip, and check it with drop.",
    source=f"{SKIP}; SVAR sums the layers 5 to 18 of 32, in proportion",
    equation="VAR[l, h] = Σⱼ A[l, h, q, j] over vision positions j",
    unit="attention mass",
    units={"svar": ""},
)
