"""The mean vision embedding e_bar: what an image token is replaced by where it shall say nothing.

    e_bar = mean over images of the mean over an image's tokens of the projector's outputs

Computed once from a user's images and kept in a file, since many images make it a better blank.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vfl.engine.decoder_inputs import decoder_inputs
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def mean_embedding(vlm: VLM, images: Iterable[ImageLike]) -> torch.Tensor:
    """(d,) mean projector output, every image counting alike, at least in float32.

    Raises:
        InputError: without images, or for one that can't be read.
    """
    total, count = None, 0
    for image in images:
        mean = vision_rows(vlm, vlm.ask("?", image)).to(torch.promote_types(vlm.dtype, torch.float32)).mean(0)
        total = mean if total is None else total + mean
        count += 1
    if total is None:
        raise InputError("The mean vision embedding was asked for without images. Give at least one.")
    return total / count


def cached_mean(vlm: VLM, images: Path, cache: Path | None = None) -> torch.Tensor:
    """The mean over all images of a folder, from `cache` (safetensors) where that was made of the same model and files.

    Raises:
        InputError: for a folder without images.
    """
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{images} holds no images ({', '.join(sorted(SUFFIXES))}). Give a folder of pictures.")
    listed = ";".join(f"{file.relative_to(images)}:{file.stat().st_size}" for file in files)
    made_of = {"model": vlm.model_id, "revision": str(vlm.revision), "dtype": str(vlm.dtype), "images": listed}
    if cache is not None and cache.is_file():
        try:
            with safe_open(cache, framework="pt") as file:
                if file.metadata() == made_of:
                    return file.get_tensor("mean").to(vlm.device)
        except SafetensorError as error:
            raise InputError(f"{cache} can't be read ({error}). Remove it, or name another file.") from error
    mean = mean_embedding(vlm, files)
    if cache is not None:
        with replacing(cache) as temporary:
            save_file({"mean": mean.cpu().contiguous()}, temporary, metadata=made_of)
    return mean


def vision_rows(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(V, d) embeddings of the image tokens as they enter the decoder, which itself is not run."""
    embeds = decoder_inputs(vlm, encoded.inputs)["inputs_embeds"]
    rows: torch.Tensor = embeds[0, (encoded.input_ids[0] == vlm.parts.image_token_id).to(embeds.device)]
    return rows
