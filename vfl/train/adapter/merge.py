"""Merge an adapter into its base: weights in the base's own dtype, everything else as the base has it.

The merged files are read back and their logits compared with those of the adapter on the base, before the folder
takes its name.
"""

import gc
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from vfl.errors import InputError
from vfl.io.fields import MaxPixels, MinPixels
from vfl.io.folders import replacing_folder
from vfl.io.run_folder import RunFolder, write_settings
from vfl.loading.adapter import load_adapter, read_adapter_config
from vfl.loading.load import load, resolve
from vfl.models.encode import Encoded
from vfl.models.pixel_limits import take_over
from vfl.models.precision import DTYPES

logger = logging.getLogger(__name__)

# Largest difference of logits, relative to the largest logit. Rounding the merged weights to 8 bits of mantissa
# (bfloat16: 2 to 5 % on the tiny models of the tests) or 11 (float16) is most of it; in float64 it is the float32
# inside of norms.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
QUESTION = "What is in the image?"
MODEL = "config.json"
"""Without it a folder holds no model."""


@dataclass(frozen=True)
class Merged:
    """What was compared; logits over a whole prompt with an image.

    Attributes:
        folder: the merged model.
        dtype: of its weights, which is the base's.
        difference: largest |merged - adapter on base|.
        allowed: what this dtype may cost.
        effect: largest |adapter on base - base|.
    """

    folder: Path
    dtype: str
    difference: float
    allowed: float
    effect: float


class MergeConfig(BaseModel):
    """Which adapter is merged into which model."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    adapter: Path = Field(description="folder of a LoRA adapter")
    out: Path = Field(description="the folder to write; whole or not at all")
    model: str | None = Field(default=None, description="the base; default: the one that the adapter names")
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float64"] = Field(
        default="auto", description="of the merged weights; auto: the base's own"
    )
    device: str | None = Field(default=None, description='such as "cuda:0"; default: the GPU if there is one')
    min_pixels: MinPixels = None
    max_pixels: MaxPixels = None
    trust_remote_code: bool = False


def merge(config: MergeConfig, *, overwrite: bool = False) -> Merged:
    """Write the base model with the adapter merged into its weights.

    Args:
        config: what is merged.
        overwrite: replace a model that lies in `out`.

    Raises:
        InputError: when the base is quantized or not found, the adapter does not fit it, `out` is taken, or the merged
            logits differ by more than `TOLERANCE`.
    """
    adapter = read_adapter_config(config.adapter)
    base = config.model or adapter.base_model_name_or_path
    if not base:
        raise InputError(f"The adapter in {config.adapter} does not name its base model. Give it with --model.")
    revision = adapter.revision if config.model is None else None
    _check_inputs_stay(config.out, [config.adapter, Path(base)])
    with RunFolder(config.out, MODEL, holds="a model", whole=True).held(overwrite=overwrite, can_resume=False):
        return _merged(config, base, revision)


def _merged(config: MergeConfig, base: str, revision: str | None) -> Merged:
    own = _own_dtype(base, revision, config.trust_remote_code) if config.dtype == "auto" else config.dtype
    with replacing_folder(config.out) as temporary:
        before = _write_merged(temporary, config, base, own, revision)
        gc.collect()  # the model that was merged is gone before it is read again: a large one need not fit twice
        again = AutoModelForImageTextToText.from_pretrained(
            temporary, dtype=DTYPES[own], local_files_only=True, trust_remote_code=config.trust_remote_code
        )
        logits = _logits(again.to(before.encoded.input_ids.device).eval(), before.encoded)
        result = Merged(
            folder=config.out,
            dtype=own,
            difference=float((logits - before.adapted).abs().max()),
            allowed=TOLERANCE[DTYPES[own]] * max(1.0, float(before.adapted.abs().max())),
            effect=float((before.adapted - before.plain).abs().max()),
        )
        _check_difference(result)
        write_settings(temporary, config.model_dump(mode="json", by_alias=True))
    return result


@dataclass(frozen=True)
class _Before:
    """A prompt, and the logits on it of the base and of the adapter on the base."""

    encoded: Encoded
    plain: torch.Tensor
    adapted: torch.Tensor


def _write_merged(folder: Path, config: MergeConfig, base: str | Path, dtype: str, revision: str | None) -> _Before:
    """Model, generation settings and processor into `folder`, for pictures of the size that the adapter has seen."""
    adapter, low, high = config.adapter, config.min_pixels, config.max_pixels
    vlm = load(
        base,
        dtype=dtype,
        device=config.device,
        revision=revision,
        min_pixels=low,
        max_pixels=high,
        trust_remote_code=config.trust_remote_code,
    )
    if other := take_over(vlm.processor, vlm.family.name, adapter, min_pixels=low, max_pixels=high):
        logger.warning("%s", other)
    encoded = vlm.ask(QUESTION, _picture())
    plain = _logits(vlm.model, encoded)
    adapted = load_adapter(vlm.model, adapter)
    before = _Before(encoded, plain, _logits(adapted.get_base_model(), encoded))
    try:
        adapted.merge_and_unload(safe_merge=True).save_pretrained(folder)
    except ValueError as error:  # weights that are not finite, or generation settings that contradict each other
        raise InputError(f"{adapter} cannot be merged into {base}: {' '.join(str(error).split())}") from error
    vlm.processor.save_pretrained(folder)
    return before


def _check_difference(result: Merged) -> None:
    numbers = (
        f"the merged logits differ by {result.difference:.3g} from those of the adapter on its base ({result.dtype} "
        f"allows {result.allowed:.3g}; the adapter itself changes them by {result.effect:.3g})"
    )
    if not result.difference <= result.allowed:
        raise InputError(f"Nothing was written: {numbers}. Merge in a wider --dtype, or keep the adapter apart.")
    if result.effect and result.difference > result.effect / 2:
        logger.warning("Rounding takes away much of what the adapter learned: %s. A wider --dtype keeps it.", numbers)


def _check_inputs_stay(out: Path, inputs: list[Path]) -> None:
    """`out` takes the place of what lies there."""
    place = out.resolve()
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(place):
            raise InputError(f"--out {out} is, or holds, {path}, which the merge reads. Choose another folder.")


def _own_dtype(base: str | Path, revision: str | None, trust_remote_code: bool) -> str:
    """The dtype that the base's config names.

    Raises:
        InputError: when there is no such model, it is quantized, or it names none.
    """
    name, local = resolve(base)
    try:
        config = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code, local_files_only=local
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"The base {name!r} could not be loaded: {' '.join(str(error).split())}") from error
    quantized: Any = getattr(config, "quantization_config", None)
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else quantized.quant_method
        raise InputError(
            f"{name} is quantized ({method}). Merging would round the adapter away; give the unquantized model with "
            "--model, merge there, and quantize the result."
        )
    named = config.dtype or config.get_text_config().dtype
    known = {value: key for key, value in DTYPES.items()}
    if named not in known:
        raise InputError(f"{name} names {named or 'no dtype'} as its dtype. Say which to write: --dtype bfloat16.")
    return known[named]


def _picture() -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (112, 112, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@torch.no_grad()
def _logits(model: PreTrainedModel, encoded: Encoded) -> torch.Tensor:
    """(1, T, vocabulary) in float32 (float64 where the model is), on the CPU."""
    logits: torch.Tensor = model(**encoded.inputs, use_cache=False).logits.cpu()
    return logits if logits.dtype == torch.float64 else logits.float()
