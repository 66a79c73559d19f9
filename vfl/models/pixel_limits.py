"""How large an image processor makes its pictures: the limits in force, and setting them.

Qwen2-VL and its kin (GLM-4V, PaddleOCR-VL, ...) cut a picture at its own proportions into a grid of patches, of as
many pixels as the processor's `size` allows: `shortest_edge` and `longest_edge` hold pixels of the area there, whatever
their names say. They are called min_pixels and max_pixels here, as in these families' model cards. Other processors
resize to fixed sides or tiles.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from transformers.image_utils import SizeDict

from vfl.errors import InputError

SAVED = "preprocessor_config.json"
"""Where Transformers keeps an image processor's settings."""
# What processors that can't take these limits have instead, where they have it.
_INSTEAD = (
    "size",
    "image_grid_pinpoints",
    "min_patches",
    "max_patches",
    "max_image_size",
    "max_soft_tokens",
    "max_crops",
    "max_image_tokens",
    "do_pan_and_scan",
)


class PixelLimits(NamedTuple):
    """Least and most pixels of a resized picture, as the processor counts them.

    GLM-4V counts a picture twice, as the two frames that a patch of it holds.
    """

    min_pixels: int
    max_pixels: int

    def __str__(self) -> str:
        return f"min_pixels {self.min_pixels}, max_pixels {self.max_pixels}"


def limits_of(processor: Any) -> PixelLimits | None:
    """The limits of a processor (or image processor) in force; None where it resizes otherwise, or hears."""
    images = getattr(processor, "image_processor", processor)
    if "image_grid_thw" not in getattr(images, "model_input_names", ()):
        return None
    size = dict(images.size or {})
    low, high = size.get("shortest_edge"), size.get("longest_edge")
    return None if low is None or high is None else PixelLimits(int(low), int(high))


def set_limits(processor: Any, family: str, *, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
    """Change a processor's limits; None leaves one as it is.

    Args:
        processor: changed in place.
        family: its name, for messages.
        min_pixels, max_pixels: as the processor counts them.

    Raises:
        InputError: for limits that no picture can keep, or a processor that has none.
    """
    named = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    asked = {name: value for name, value in named.items() if value is not None}
    if not asked:
        return
    now = limits_of(processor)
    if now is None:
        raise InputError(f"{' and '.join(asked)} can't be set for {family}: {_instead(processor)}")
    images = processor.image_processor
    side = images.patch_size * images.merge_size
    for name, value in asked.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < side * side:
            raise InputError(
                f"{name} is {value}; expected a whole number of pixels, at least {side * side}: {side} x {side} of "
                f"them make one vision token of {family}."
            )
    limits = PixelLimits(**{**now._asdict(), **asked})
    if limits.min_pixels > limits.max_pixels:
        own = {f"the processor's own {name} {value}" for name, value in now._asdict().items() if name not in asked}
        raise InputError(
            f"min_pixels is {limits.min_pixels}, above max_pixels {limits.max_pixels}"
            + (f" ({own.pop()}): give both." if own else ": expected the smaller one first.")
        )
    images.size = SizeDict(shortest_edge=limits.min_pixels, longest_edge=limits.max_pixels)


def take_over(
    processor: Any, family: str, folder: Path, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> str:
    """Give a processor the limits that an adapter was trained with, where a user does not say others.

    Args:
        processor: of the adapter's base model; changed in place.
        family: its name, for messages.
        folder: of the adapter.
        min_pixels, max_pixels: what a user said.

    Returns:
        A warning where the limits in force are not the adapter's; else nothing.
    """
    trained = saved_limits(folder)
    now = limits_of(processor)
    if trained is None or now is None:
        return ""
    set_limits(
        processor,
        family,
        min_pixels=trained.min_pixels if min_pixels is None else min_pixels,
        max_pixels=trained.max_pixels if max_pixels is None else max_pixels,
    )
    now = limits_of(processor)
    if now == trained:
        return ""
    return f"The adapter in {folder} was trained on pictures of {trained}; here they have {now}."


def save_limits(processor: Any, folder: Path) -> None:
    """Leave the image processor's settings beside an adapter, as Transformers writes them, if it has limits."""
    if limits_of(processor) is not None:
        processor.image_processor.save_pretrained(folder)


def saved_limits(folder: Path) -> PixelLimits | None:
    """The limits that `save_limits` left in a folder; None where there are none.

    Raises:
        InputError: for a file that can't be read.
    """
    path = folder / SAVED
    if not path.is_file():
        return None
    try:
        size = json.loads(path.read_text(encoding="utf-8"))["size"]
        return PixelLimits(int(size["shortest_edge"]), int(size["longest_edge"]))
    except KeyError:  # of a processor that has other settings
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} can't be read as an image processor's settings ({error}). Remove it, or save it again."
        ) from error


def _instead(processor: Any) -> str:
    images = getattr(processor, "image_processor", None)
    if images is None:
        return "it hears sounds and has no pictures to resize. Leave them out."
    written = images.to_dict()
    settings = ", ".join(f"{name} {written[name]}" for name in _INSTEAD if written.get(name) is not None)
    return (
        f"its {type(images).__name__} does not count a picture's pixels, it has {settings or 'no size'}. Leave them "
        "out, and give smaller pictures or change preprocessor_config.json in the model's folder."
    )
