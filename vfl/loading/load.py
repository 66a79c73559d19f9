"""Load a vision-language model and check what the experiments rely on before anything else is run."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from vfl.engine.memory import is_out_of_memory
from vfl.errors import InputError
from vfl.io.fields import Quantize
from vfl.loading.beds import EMBEDDED, EMBEDDED_ID, SMOL_ID, bed_folders
from vfl.loading.checks import check
from vfl.loading.quantization import compute_as_asked, quantization
from vfl.loading.weight_files import check_weight_files
from vfl.models.boxes import convention_of
from vfl.models.discover import discover, refuse_by_config
from vfl.models.families import family_of
from vfl.models.pixel_limits import set_limits
from vfl.models.precision import DTYPES, dtype_of
from vfl.models.vlm import VLM

logger = logging.getLogger(__name__)

# Which of transformers' tables holds a family's class.
AUTO_CLASSES: dict[str, Any] = {"image": AutoModelForImageTextToText, "audio": AutoModelForMultimodalLM}


def load(
    model: str | Path | None = EMBEDDED_ID,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    quantize: Quantize = None,
    attn_implementation: str = "sdpa",
    revision: str | None = None,
    chat_template: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    boxes: str | None = None,
    trust_remote_code: bool = False,
) -> VLM:
    """Load a model and its processor from a folder or the hub, and check them.

    Args:
        model: a local folder, a hub id, "embedded": the test model, which is also what None loads; or "smol".
        dtype: "auto" is bfloat16 on GPUs that have it, float16 on older ones and float32 elsewhere; or float32,
            float16, bfloat16, float64.
        device: such as "cuda:0"; by default the GPU if there is one.
        device_map: spread the model over devices as accelerate does ("auto" or a dict).
        quantize: read the decoder layers' weights in "4bit" (NF4, double quantization) or "8bit", or by fields of
            BitsAndBytesConfig (needs bitsandbytes).
        attn_implementation: "sdpa" or "eager": swaps and hidden tokens need an implementation that takes masks.
        revision: branch, tag or commit on the hub.
        chat_template: replaces the processor's.
        min_pixels: pictures of fewer pixels are enlarged, where the family counts pixels (Qwen2-VL and its kin); by
            default as the model's processor says.
        max_pixels: pictures of more are made smaller: fewer vision tokens, less memory.
        boxes: how the model writes boxes and points, by the convention's name; by default as its family does.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: for what can't be found, loaded or supported; the message says why and what to do.
    """
    if attn_implementation not in ("sdpa", "eager"):
        raise InputError(
            f"attn_implementation={attn_implementation!r} can't be used: hiding tokens needs masks. Expected "
            "sdpa or eager."
        )
    if boxes is not None:
        convention_of(boxes)
    loaded, processor, name = read_pretrained(
        model,
        dtype=dtype,
        device=device,
        device_map=device_map,
        quantize=quantize,
        attn_implementation=attn_implementation,
        revision=revision,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        trust_remote_code=trust_remote_code,
    )
    return wrap(loaded, processor, model_id=name, chat_template=chat_template, boxes=boxes)


def read_pretrained(
    model: str | Path | None,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    quantize: Quantize = None,
    attn_implementation: str = "sdpa",
    revision: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    trust_remote_code: bool = False,
    place: bool = True,
) -> tuple[PreTrainedModel, Any, str]:
    """Model, processor and name from a folder or the hub, nothing checked yet but that all weights are there.

    Args: as of `load`; place=False leaves the model where it was read, for launchers that place it themselves.

    Raises:
        InputError: for what can't be found or loaded; the message says why and what to do.
    """
    import_torchvision()
    name, local = resolve(model)
    if dtype != "auto" and dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is unknown; expected auto, {', '.join(DTYPES)}.")
    try:
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"device={device!r} is no device; expected such as cpu, cuda or cuda:0.") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={device!r} was asked for, but PyTorch sees no CUDA device. Use device='cpu'.")
    common: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "local_files_only": local,
    }
    try:
        config = AutoConfig.from_pretrained(name, **common)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(_first_line(f"No model configuration could be loaded from {name!r}", error)) from error
    family = family_of(config.model_type)  # refuses before gigabytes are read
    refuse_by_config(config)
    auto_class = AUTO_CLASSES[family.modality]
    if type(config) not in auto_class._model_mapping and not trust_remote_code:
        raise InputError(
            f"{name!r} is a {config.model_type!r} model, which Transformers does not list as image-text-to-text: it is "
            "text-only or needs its own code. Give a vision-language model, or trust_remote_code=True "
            "(--trust-remote-code) if you trust the repository."
        )
    weights: dict[str, Any] = {"dtype": dtype_of(dtype, target), "attn_implementation": attn_implementation}
    if weights["dtype"] == torch.float64:
        weights["experts_implementation"] = "eager"  # grouped kernels take shorter floats alone
    if quantize is not None:
        weights["quantization_config"] = quantization(quantize, auto_class, config, weights["dtype"])
        device_map = device_map or {"": str(target)}
    if device_map is not None:
        weights["device_map"] = device_map
    if local:
        check_weight_files(Path(name))
    try:
        processor = AutoProcessor.from_pretrained(name, **common)
    except Exception as error:  # absent files surface as errors of any kind
        raise InputError(
            _first_line(f"The processor of {name!r} (tokenizer and preprocessor files) could not be loaded", error)
        ) from error
    set_limits(processor, family.name, min_pixels=min_pixels, max_pixels=max_pixels)
    try:
        with _bars_on_terminals():
            loaded, info = auto_class.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, **weights, **common
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(_first_line(f"{name!r} could not be loaded", error)) from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise InputError(
            f"{len(info['missing_keys'])} weights of {name!r} are not in its files ({some} ...), so they would be "
            "random. Check that the folder holds the full model, not an adapter, and its Transformers version."
        )
    if place and device_map is None:
        try:
            loaded = loaded.to(target)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise InputError(_first_line(f"device={device!r} can't be used here", error)) from error
    return loaded, processor, str(name)


def wrap(
    model: PreTrainedModel,
    processor: Any,
    *,
    model_id: str,
    chat_template: str | None = None,
    boxes: str | None = None,
) -> VLM:
    """A VLM from a model and processor that are already in memory, checked like a loaded one.

    A PeftModel is followed as the model inside it, with its adapter active.

    Raises:
        InputError: when the model can't be swept, with what was not found on it.
    """
    plain = _plain(model).eval()
    _check_weights_are_here(plain, model_id)
    _check_attention(plain, model_id)
    vlm = describe(plain, processor, model_id=model_id, chat_template=chat_template)
    check(vlm)
    if boxes is not None:
        vlm.family = replace(vlm.family, boxes=convention_of(boxes))
    elif not vlm.family.known and vlm.family.modality == "image":
        vlm.notes.append(
            f"how {vlm.family.name} writes boxes is not known: they are read as fractions from 0 to 1; give another "
            "way with --boxes NAME (boxes= in Python) if you ask for places"
        )
    for note in vlm.notes:
        logger.warning("%s: %s", model_id, note)
    return vlm


def describe(model: PreTrainedModel, processor: Any, *, model_id: str, chat_template: str | None = None) -> VLM:
    """A VLM with its parts found and nothing run: for training, where weights may still be spread over ranks.

    Raises:
        InputError: when parts are not found, with what was not found on it.
    """
    family = family_of(model.config.model_type)
    needed = "image_processor" if family.modality == "image" else "feature_extractor"
    if not hasattr(processor, "tokenizer") or not hasattr(processor, needed):
        raise InputError(
            f"{model_id} has a {type(processor).__name__}, not a processor with tokenizer and image processor: it is "
            "text-only or its preprocessor_config.json is missing."
        )
    compute_as_asked(model)
    return VLM(
        model=model,
        processor=processor,
        family=family,
        parts=discover(model),
        model_id=model_id,
        revision=getattr(model.config, "_commit_hash", None),
        chat_template=chat_template,
    )


def _check_weights_are_here(model: PreTrainedModel, model_id: str) -> None:
    """Layers are run one by one and their weights read, which accelerate brings in for forward passes alone."""
    away = [name for name, weight in model.named_parameters() if weight.device.type == "meta"]
    if away:
        raise InputError(
            f"{len(away)} weights of {model_id} are not in memory (meta device), such as {away[0]}: accelerate has "
            "offloaded them to disk or to the CPU, or they were never loaded. Expected all of them on devices: give "
            "more GPUs to device_map, quantize='4bit', dtype='bfloat16', or device='cpu'."
        )


def _check_attention(model: PreTrainedModel, model_id: str) -> None:
    """Flex and flash attention don't take the masks that hide tokens."""
    used = model.config.get_text_config(decoder=True)._attn_implementation
    if used not in ("sdpa", "eager"):
        raise InputError(
            f"{model_id} was loaded with attn_implementation={used!r}, and its attention takes no masks that hide "
            "tokens. Expected sdpa or eager: call model.set_attn_implementation('sdpa') first."
        )


def _plain(model: Any) -> PreTrainedModel:
    """The Transformers model itself: a PEFT wrapper's positions and parts can't be found through it."""
    if isinstance(model, PreTrainedModel):
        return model
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        if any(config.is_prompt_learning for config in model.peft_config.values()):
            raise InputError(
                f"{type(model).__name__} holds learned prompt tokens, which are not part of the prompt that is swept. "
                "Give the model without them, or an adapter that changes weights, such as LoRA."
            )
        return _plain(model.get_base_model())
    raise InputError(
        f"A {type(model).__name__} was given; expected a Transformers model (PreTrainedModel) or a PeftModel. "
        "Give the model inside the wrapper."
    )


def resolve(model: str | Path | None) -> tuple[str, bool]:
    """(name for from_pretrained, whether it is a folder); only what looks like a hub id may reach the hub.

    Raises:
        InputError: when a path does not exist or holds no model.
    """
    beds = bed_folders()
    path = EMBEDDED if model is None else beds.get(str(model)) or Path(model).expanduser()
    if model == SMOL_ID and not path.is_dir():
        raise InputError(
            "The model smol is built on this machine first, in a minute: pip install 'vfl[smol]', then python -m"
            " vfl.testbeds.smol.build. For a folder of that name give ./smol."
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            what = "a PEFT adapter" if (path / "adapter_config.json").is_file() else "no config.json"
            raise InputError(f"The folder {path} holds {what}. Give the folder of a full model.")
        return str(path), True
    text = str(model)
    if model is None or isinstance(model, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise InputError(
            f"No model folder at {path}. Give a folder with config.json, a hub id such as 'org/name', or embedded."
        )
    return text, False


def import_torchvision() -> None:
    """Image processors need torchvision built for the installed torch; say so instead of failing deep inside.

    Raises:
        InputError: when it is missing or does not match.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"torchvision does not work with torch {torch.__version__} ({error}). Image processors need the build that "
            "matches the installed torch: pip install --upgrade torch torchvision"
        ) from error


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Transformers' bars overwrite themselves, which in a log file is one endless line."""
    if sys.stderr.isatty() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def _first_line(what: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{what}: {lines[0] if lines else type(error).__name__} Check the name or folder and its files."
