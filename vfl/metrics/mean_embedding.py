"""The mean vision embedding (`vfl.engine.vision_embeddings`) of a folder of pictures, kept in a file.

Many images make it a better blank, and take a while.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vfl.engine.vision_embeddings import mean_embedding
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.models.vlm import VLM

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


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
