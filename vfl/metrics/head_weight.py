"""Attention of every head to the image, and to the object's region inside it.

    w[l, h] = sum over image tokens i of a_i,    r[l, h] = sum over the region's tokens i of a_i

The region are the image tokens that share any area with the boxes. An even head would give it its share of the image's
tokens. Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025).
"""

from collections.abc import Sequence
from functools import partial

import torch

from vfl.metrics.edited_prompts import check_pairs
from vfl.metrics.heads import head_values, highest, image_attention
from vfl.metrics.objects import Places, object_tokens
from vfl.metrics.prompts import in_lots, prompts_of
from vfl.metrics.result import Result, cluster_of, mean_curve, mean_scalar, table
from vfl.metrics.spec import HEADS, SHARE, Metric
from vfl.metrics.var import Query
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair


def head_weight(vlm: VLM, pairs: Sequence[Pair], *, query: Query = "token") -> Result:
    """Attention w[l, h] to the image, and r[l, h] to the boxes of pairs that have some, on the pairs' target images.

    Args:
        vlm: the model.
        pairs: probe pairs.
        query: whose attention, see vfl/metrics/heads.py.

    Returns:
        What `by_head` gives of w, and where there are boxes: curve "region" (L points, mean over heads), scalars
        "region", "region_share" (r / w over all heads) and "region_tokens" (what even attention would give: the share
        of image tokens), "region_heads": L x H table of mean r, "region_top": its highest heads. "without_object": ids
        of pairs without a box.
    """
    check_pairs(pairs, "head_weight")
    weights = image_attention(vlm, prompts_of(vlm, pairs), query=query)
    places = Places(vlm)
    boxed = [pair for pair in pairs if pair.boxes.get("image")]
    weights["without_object"] = [pair.id for pair in pairs if pair not in boxed]
    if not boxed:
        return weights
    regions, shares, sizes = [], [], []
    for lot in in_lots(zip(boxed, prompts_of(vlm, boxed), strict=True)):
        prompts = [encoded for _, encoded in lot]
        insides = [object_tokens(places.of(encoded), pair.boxes["image"]) for pair, encoded in lot]
        for inside, masses in zip(insides, region_masses(vlm, prompts, insides, query=query), strict=True):
            regions.append(masses[1])
            shares.append(float(masses[1].sum() / masses[0].sum()))
            sizes.append(float(inside.double().mean()))
    means = torch.stack(regions).mean(0)
    clusters = [cluster_of(pair) for pair in boxed]
    weights["curves"]["region"] = mean_curve([region.mean(1).tolist() for region in regions], clusters=clusters)
    weights["scalars"] |= {
        "region": mean_scalar([float(region.mean()) for region in regions], clusters=clusters),
        "region_share": mean_scalar(shares, clusters=clusters),
        "region_tokens": mean_scalar(sizes, clusters=clusters),
    }
    weights["region_heads"] = table(means)
    weights["region_top"] = highest(means)
    weights["options"]["region"] = "any overlap with the box"
    return weights


def region_masses(
    vlm: VLM, prompts: Sequence[Encoded], insides: Sequence[torch.Tensor], *, query: Query = "token"
) -> list[torch.Tensor]:
    """(2, L, H) of each prompt: attention to all image tokens and to those of its region, (V,) bool."""

    def value(inside: torch.Tensor, layer_idx: int, attention: torch.Tensor) -> torch.Tensor:
        return torch.stack([attention.sum(-1), attention[:, inside.to(attention.device)].sum(-1)], dim=-1)  # (H, 2)

    values = head_values(vlm, prompts, [partial(value, inside) for inside in insides], query=query)
    return [of_prompt.movedim(-1, 0) for of_prompt in values]


SPEC = Metric(
    function=head_weight,
    needs="pairs",
    title="Image attention of heads",
    read="Attention of each head to the image tokens. Few look at it much; dark cells are those.",
    use="Note the highest heads, and see whether head_masking finds that they matter: attention alone does not show "
    "that.",
    source=HEADS,
    equation="w[l, h] = Σᵢ aᵢ over image tokens i; r[l, h] over those of the object’s region",
    unit="attention mass",
    units={"region_share": SHARE, "region_tokens": SHARE},
)
