"""What the projector hands the decoder for an image, and its mean: what says nothing in an image token's place.

    e_bar = mean over images of the mean over an image's tokens of the projector's outputs

Every image counts alike, however many tokens it has: the tokens of one picture are much the same, so a single large
page would else make the mean its own background.
"""

from collections.abc import Iterable

import torch

from vfl.engine.decoder_inputs import prompt_inputs
from vfl.errors import InputError
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM


def vision_embeddings(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(V, d) embeddings of the image tokens as they enter the decoder, which itself is not run; markers left out."""
    embeds = prompt_inputs(vlm, encoded)["inputs_embeds"]
    embeddings: torch.Tensor = embeds[0, (encoded.input_ids[0] == vlm.parts.image_token_id).to(embeds.device)]
    return embeddings


def mean_embedding(vlm: VLM, images: Iterable[ImageLike]) -> torch.Tensor:
    """(d,) mean vision embedding of some images, at least in float32.

    Raises:
        InputError: without images, or for one that can't be read.
    """
    total, count = None, 0
    wide = torch.promote_types(vlm.dtype, torch.float32)
    for image in images:
        mean = vision_embeddings(vlm, vlm.ask("?", image)).to(wide).mean(0)
        total = mean if total is None else total + mean
        count += 1
    if total is None:
        raise InputError("The mean vision embedding was asked for without images. Give at least one.")
    return total / count
