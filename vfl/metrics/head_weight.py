"""Attention of every head to the image, and to the object's region inside it.

    w[l, h] = sum over image tokens i of a_i,    r[l, h] = sum over the region's tokens i of a_i

The region are the image tokens that share any area with the boxes. An even head would give it its share of the image's
tokens. Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025).
"""

from collections.abc import Sequence

import torch

from vfl.metrics.edited_prompts import check_pairs
from vfl.metrics.heads import TOP, head_values, head_weight
from vfl.metrics.objects import Places, object_tokens
from vfl.metrics.prompts import prompts_of
from vfl.metrics.result import Result, mean_curve, mean_scalar, table
from vfl.metrics.var import Query
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair


def weights_of_pairs(vlm: VLM, pairs: Sequence[Pair], *, query: Query = "token") -> Result:
    """Attention w[l, h] to the image, and r[l, h] to the boxes of pairs that have some, on the pairs' target images.

    Args:
        vlm: the model.
        pairs: probe pairs.
        query: whose attention, see vfl/metrics/heads.py.

    Returns:
        What `head_weight` gives, and where there are boxes: curve "region" (L points, mean over heads), scalars
        "region", "region_share" (r / w over all heads) and "region_tokens" (what even attention would give: the share
        of image tokens), "region_heads": L x H table of mean r, "region_top": its highest heads. "without_object": ids
        of pairs without a box.
    """
    check_pairs(pairs, "head_weight")
    found = head_weight(vlm, prompts_of(vlm, pairs), query=query)
    places = Places(vlm)
    boxed = [pair for pair in pairs if pair.boxes.get("image")]
    found["without_object"] = [pair.id for pair in pairs if pair not in boxed]
    if not boxed:
        return found
    regions, shares, sizes = [], [], []
    for pair, encoded in zip(boxed, prompts_of(vlm, boxed), strict=True):
        inside = object_tokens(places.of(encoded), pair.boxes["image"])
        masses = region_masses(vlm, encoded, inside, query=query)
        regions.append(masses[1])
        shares.append(float(masses[1].sum() / masses[0].sum()))
        sizes.append(float(inside.double().mean()))
    means = torch.stack(regions).mean(0)
    ranked = means.flatten().argsort(descending=True, stable=True)[:TOP].tolist()
    top = [divmod(at, means.shape[1]) for at in ranked]
    found["curves"]["region"] = mean_curve([one.mean(1).tolist() for one in regions])
    found["scalars"] |= {
        "region": mean_scalar([float(one.mean()) for one in regions]),
        "region_share": mean_scalar(shares),
        "region_tokens": mean_scalar(sizes),
    }
    found["region_heads"] = table(means)
    found["region_top"] = [{"layer": layer, "head": head, "value": float(means[layer, head])} for layer, head in top]
    found["options"]["region"] = "any overlap with the box"
    return found


def region_masses(vlm: VLM, encoded: Encoded, inside: torch.Tensor, *, query: Query = "token") -> torch.Tensor:
    """(2, L, H) of one prompt: attention to all image tokens and to those of a region, (V,) bool."""

    def value(layer_idx: int, weights: torch.Tensor) -> torch.Tensor:
        return torch.stack([weights.sum(-1), weights[:, inside.to(weights.device)].sum(-1)], dim=-1)  # (H, 2)

    return head_values(vlm, encoded, value, query=query).movedim(-1, 0)
