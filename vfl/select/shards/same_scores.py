"""Whether scores, their map and a subset belong together, the size of their pictures included."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.functionmap import pixels_in_words
from vfl.io.run_folder import differing


def size_notes(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know of the pictures that a manifest's scores were made on: another size than the map's."""
    scored, located = (pixels_in_words(manifest.get(key) or {}) for key in ("model", "map"))
    if scored and located and scored != located:
        yield (
            f"The scores were made on pictures of {scored}, their map was located on pictures of {located}: the layers"
            " are of those. Locate at the size of the scores, or score at the map's."
        )


def check_subset(scores: Mapping[str, Any], subset: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError where a subset was chosen from other scores, by what both manifests tell.

    Args:
        scores, subset: their manifests.
        folder: of the scores, for the message.
    """
    now, then = _facts(scores), _facts(subset)
    both = sorted(now.keys() & then.keys())
    other = list(differing({key: then[key] for key in both}, {key: now[key] for key in both}))
    if other:
        raise InputError(
            f"The subset was chosen from other scores than those in {folder} ({', '.join(text for _, text in other)})."
            " Name the scores that it was chosen from, or choose again with `vfl select filter`."
        )


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What scores depend on, flat; not the model's name, which changes where its folder is moved."""
    model, of_map = manifest.get("model") or {}, manifest.get("map") or {}
    facts = {f"model.{key}": value for key, value in model.items() if key not in ("id", "parameters")}
    facts |= {"map": of_map["sha256"]} if "sha256" in of_map else {}
    return facts | {f"layers of {name}": layers for name, layers in (manifest.get("functions") or {}).items()}
