"""What the projector hands the decoder for an image, and its mean: what says nothing in an image token's place.

    e_bar = mean over images of the mean over an image's tokens of the projector's outputs

Every image counts alike, however many tokens it has: the tokens of one picture are much the same, so a single large
page would else make the mean its own background.
"""

from collections.abc import Iterable, Sequence

import torch

from vfl.engine.decoder_inputs import inputs_of_each
from vfl.errors import InputError
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM


def vision_embeddings(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(V, d) embeddings of the image tokens as they enter the decoder, which itself is not run; markers left out."""
    return embeddings_of_each(vlm, [encoded])[0]


def embeddings_of_each(vlm: VLM, prompts: Sequence[Encoded]) -> list[torch.Tensor]:
    """As `vision_embeddings` of each prompt; the vision tower sees the images of those that are alike together."""
    embeddings = []
    for encoded, arguments in zip(prompts, inputs_of_each(vlm, prompts), strict=True):
        embeds = arguments["inputs_embeds"]
        embeddings.append(embeds[0, (encoded.input_ids[0] == vlm.parts.image_token_id).to(embeds.device)])
    return embeddings


def mean_embedding(vlm: VLM, images: Iterable[ImageLike]) -> torch.Tensor:
    """(d,) mean vision embedding of some images, at least in float32.

    Raises:
        InputError: without images, or for one that can't be read.
    """
    return mean_of(vision_embeddings(vlm, vlm.ask("?", image)) for image in images)


def mean_of(embeddings: Iterable[torch.Tensor]) -> torch.Tensor:
    """(d,) as `mean_embedding`, of the embeddings (V, d) of each image.

    Raises:
        InputError: without images.
    """
    total, count = None, 0
    for of_image in embeddings:
        mean = of_image.to(torch.promote_types(of_image.dtype, torch.float32)).mean(0)
        total = mean if total is None else total + mean
        count += 1
    if total is None:
        raise InputError("The mean vision embedding was asked for without images. Give at least one.")
    return total / count
