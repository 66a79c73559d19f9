"""Sets of an image's tokens: the object's, those of outlying norm, the highest by a score, random ones, a user's own.

Legend: V image tokens, in reading order.
"""

from collections.abc import Sequence

import torch

from vfl.engine.decoder_inputs import prompt_inputs
from vfl.errors import InputError
from vfl.metrics.objects import object_tokens
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

REGISTER_DEVIATIONS = 2.0

Chosen = Sequence[int] | Sequence[Sequence[float]]


def token_sets(
    vlm: VLM,
    encoded: Encoded,
    regions: torch.Tensor,
    boxes: Sequence[Sequence[float]],
    random_shares: Sequence[float],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """(V,) bool by name: the object's sets, register tokens (perhaps none) and random ones.

    Register tokens: ||E[i]|| > mean + 2 std over the image's tokens.
    """
    embeds = prompt_inputs(vlm, encoded)["inputs_embeds"]
    rows = embeds[0, (encoded.input_ids[0] == vlm.parts.image_token_id).to(embeds.device)]
    norms = rows.to(torch.promote_types(rows.dtype, torch.float32)).norm(dim=-1).cpu()
    sets = {name: object_tokens(regions, boxes, ring) for ring, name in enumerate(("object", "object+1", "object+2"))}
    sets["register"] = norms > norms.mean() + REGISTER_DEVIATIONS * norms.std()
    shuffled = torch.randperm(len(norms), generator=generator)
    counts = {"random_object": int(sets["object"].sum())}
    counts |= {f"random_{percent(share)}": _count(share, len(norms)) for share in random_shares}
    for name, count in counts.items():
        sets[name] = _at(shuffled[:count], len(norms))
    return sets


def chosen_tokens(name: str, own: Chosen, regions: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """(V,) bool of a set that a user chose, see `chosen` of `token_ablation`.

    Raises:
        InputError: for what is neither numbers of tokens that the image has nor boxes within it.
    """
    numbers = [token for token in own if isinstance(token, int) and 0 <= token < len(regions)]
    if own and len(numbers) == len(own):
        return _at(torch.tensor(numbers), len(regions))
    width, height = encoded.image_sizes[0]
    boxes: list[list[float]] = []
    for box in own:
        if (
            isinstance(box, int | float)
            or len(box) != 4
            or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)
        ):
            raise InputError(
                f"The set {name!r} holds {box}; expected numbers of image tokens, 0 to {len(regions) - 1}, or boxes "
                "[x0, y0, x1, y1] in shares of the image's sides, 0 to 1."
            )
        boxes.append([box[0] * width, box[1] * height, box[2] * width, box[3] * height])
    return object_tokens(regions, boxes)


def top_tokens(scores: torch.Tensor, share: float) -> torch.Tensor:
    """(V,) bool of the share of tokens with the highest scores, (V,); at least one."""
    chosen = scores.argsort(descending=True, stable=True)[: _count(share, len(scores))]
    return _at(chosen, len(scores))


def _at(places: torch.Tensor, length: int) -> torch.Tensor:
    return torch.zeros(length, dtype=torch.bool).index_fill(0, places, True)


def _count(share: float, num_tokens: int) -> int:
    return max(1, round(share * num_tokens))


def percent(share: float) -> str:
    """A share in the name of a set."""
    return f"{100 * share:g}%"
