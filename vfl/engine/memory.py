"""How many rows fit into a batch, and what counts as running out of memory."""

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from traceback import walk_tb
from typing import TypeVar

import psutil
import torch

from vfl.engine.layer_trace import LayerTrace
from vfl.models.vlm import VLM

logger = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")

# Functions in which memory runs out, the innermost decides: Transformers' name for the tower, and our own.
_PLACES = {
    "read_pretrained": "while the weights were read",
    "prefill": "while an image was prefilled",
    "prefill_all": "while images were prefilled together",
    "get_image_features": "in the vision tower",
}
# Rows also need room for activations that the estimate does not list (RoPE, norms, kernels' workspaces).
SHARE_FOR_ROWS = 0.5
MOST_ROWS = 1024
# Of a batch of whole prompts: with more a pass only takes more memory, no less time a token.
TOKENS_AT_ONCE = 8192
# With gradients on a CPU: activations that outgrow its caches cost more than a larger batch spares.
GRADIENT_TOKENS_AT_ONCE = 1280
# Rounding of the allocator and fragments that no later step can use: part of the free memory stays unplanned.
USABLE = 0.9
ADAM_BYTES = 3 * 4  # of a trained weight at most: two moments, and a copy where it is narrower, all in float32


def guess_row_limit(vlm: VLM, trace: LayerTrace) -> int:
    """Rows that should fit into half of the free memory; too many are caught and halved where they run."""
    keys = trace.keys[0]
    config = vlm.model.config.get_text_config(decoder=True)
    per_row = row_bytes(
        trace.length,
        trace.masks[0].shape[-1],
        num_layers=vlm.num_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=keys.shape[1],
        head_dim=keys.shape[3],
        vocabulary=config.vocab_size,
        element=keys.element_size(),
    )
    return row_limit(free_bytes(keys.device), per_row)


def prompt_limit(vlm: VLM, length: int, *, gradients: bool = False) -> int:
    """Whole prompts of so many tokens that are worth a batch and should fit into half of the free memory.

    Args:
        vlm: the model; what it met the end of memory with before (`row_limit`) is not exceeded.
        length: tokens of a prompt, its answer's included.
        gradients: rows keep the activations of all layers for a backward pass.
    """
    config = vlm.model.config.get_text_config(decoder=True)
    hidden, intermediate, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    element = vlm.dtype.itemsize
    per_row = row_bytes(
        length,
        length,
        num_layers=vlm.num_layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=heads,  # no more than these
        head_dim=hidden // heads,
        vocabulary=config.vocab_size,
        element=element,
    )
    if gradients:
        per_row += element * vlm.num_layers * length * (12 * hidden + 4 * intermediate + heads * length)
    at_once = GRADIENT_TOKENS_AT_ONCE if gradients and vlm.device.type == "cpu" else TOKENS_AT_ONCE
    most = max(1, min(vlm.row_limit or MOST_ROWS, at_once // length))
    return min(most, row_limit(free_bytes(vlm.device), per_row))


def row_limit(free: float, per_row: float) -> int:
    """Rows of so many bytes each that should fit into half of the free memory."""
    return max(1, min(MOST_ROWS, int(SHARE_FOR_ROWS * free / per_row)))


def row_bytes(
    length: int,
    num_keys: int,
    *,
    num_layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    vocabulary: int,
    element: float,
) -> float:
    """Memory of one row of `length` tokens that attend to `num_keys`, of numbers of `element` bytes."""
    cached = 2 * kv_heads * head_dim * length * num_layers
    # Assembled keys and values of one layer, once as cached and once repeated for all query heads.
    assembled = 2 * num_keys * head_dim * (kv_heads + heads)
    activations = length * (6 * hidden + 3 * intermediate)
    scores = length * num_keys * heads
    return element * (cached + assembled + activations + scores) + 8 * vocabulary


def in_parts(
    items: Sequence[S], limit: int, run: Callable[[Sequence[S]], Sequence[T]], what: str
) -> tuple[list[T], int]:
    """Run items in parts that fit: an out-of-memory error halves the part and goes on, saying so.

    Args:
        items: what to run, in order.
        limit: most of them in a part, to begin with.
        run: gives the results of a part.
        what: the items in the plural, for the warning.

    Returns:
        All results in order, and the limit in the end: less than at the beginning where memory ran out.
    """
    results: list[T] = []
    done = 0
    while done < len(items):
        part = items[done : done + limit]
        try:
            results += run(part)
            done += len(part)
            continue
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(part) == 1:
                raise
        # Outside of `except`, or the traceback would keep the failed part's tensors alive.
        release()
        limit = len(part) // 2
        logger.warning("out of memory with %d %s in a batch; going on with %d", len(part), what, limit)
    return results, limit


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, what PyTorch holds but does not use included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has held so far, in words."""
    import resource  # not on Windows, where nothing else of this file should fail

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    own = f"{peak / 1e9:.1f} GB"
    if device.type != "cuda":
        return own
    return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on the GPU, {own} beside it"


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA raises its own class, the CPU allocator a plain RuntimeError, Python a MemoryError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def not_enough_memory(error: BaseException) -> str:
    """A lack of memory as one paragraph: where it was met, and what to lower."""
    names = [frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)]
    place = next((_PLACES[name] for name in reversed(names) if name in _PLACES), "for this step")
    return (
        f"There is not enough memory {place} ({' '.join(str(error).split())[:200] or type(error).__name__}). Lower "
        "max_pixels (Qwen2-VL and its kin) or give smaller pictures, use a smaller batch where there is one, "
        "attn_implementation: sdpa, dtype: bfloat16, quantize: 4bit, or device_map: auto over several GPUs. Results "
        "that were finished are kept: a command that knows --resume goes on from them."
    )


def release() -> None:
    """Give freed memory back before a smaller try."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
