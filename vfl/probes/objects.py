"""The bundled pictures of everyday objects: one transparent PNG a class in objects/, SIL Open Font License 1.1."""

from functools import lru_cache
from pathlib import Path

from PIL import Image

from vfl.errors import InputError

FOLDER = Path(__file__).parent / "objects"


@lru_cache(maxsize=1)
def object_names() -> tuple[str, ...]:
    """The class names, in alphabetical order: the names of the files."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.png")))


@lru_cache(maxsize=128)
def object_sprite(name: str) -> Image.Image:
    """The picture of one class: RGBA, 96 x 96. Shared between callers, so do not draw on it.

    Raises:
        InputError: no picture of that name is bundled.
    """
    # Looked up in the list, never joined to a path unseen: names come from users' configs.
    if name not in object_names():
        raise InputError(f"no bundled object is called {name!r}; choose from: {', '.join(object_names())}")
    with Image.open(FOLDER / f"{name}.png") as picture:
        return picture.convert("RGBA")
