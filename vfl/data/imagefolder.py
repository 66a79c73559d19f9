"""From what a row says of an image to an ImageRef; no name leads out of the image folder.

Data comes from anywhere, so its names must not reach what its user did not give: `..` and absolute names end at the
folder. Links in the folder are the user's own (datasets are linked in, and hub caches consist of links): they are
followed wherever they lead.
"""

import base64
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vfl.data.imageref import ImageRef
from vfl.data.remote import check_address, is_remote
from vfl.errors import InputError

KEYS = ("image", "path", "url", "image_url", "source")
"""Where an object that stands for an image may hold its name, next to `bytes` and `base64`."""


PACKED = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
"""How PNG, JPEG, GIF and WebP begin in base64, which has no dots."""


class MissingImageError(InputError):
    """No file is where a row's name leads to."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


@dataclass(frozen=True)
class ImageFolder:
    """Where the images of a source lie; `root` is None where there is no folder (data in memory)."""

    root: Path | None
    allow_remote: bool = False

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The folder as it was given and without links: absolute names may begin with either."""
        assert self.root is not None
        return tuple(dict.fromkeys((os.path.abspath(self.root), os.path.realpath(self.root))))

    def ref(self, value: Any, members: Mapping[str, bytes]) -> ImageRef:
        """The image that `value` stands for: a name, bytes, or an object with `bytes`, `path`, `image` or `url`.

        Args:
            members: images that came with the row (of a tar archive) by name; they go before the folder.

        Raises:
            InputError: the image is absent, leaves the folder, is on the network, or `value` is nothing of this.
        """
        if isinstance(value, bytes):
            return ImageRef(None, value, "embedded")
        if isinstance(value, dict):
            data, name = value.get("bytes"), next((value[key] for key in KEYS if value.get(key) is not None), None)
            if isinstance(data, bytes):
                return ImageRef(None, data, name if isinstance(name, str) else "embedded")
            packed = value.get("base64") or value.get("data")
            if isinstance(packed, str):
                return ImageRef(None, _base64(packed, "embedded"), "embedded")
            if name is None:
                raise InputError(
                    f"an image has neither bytes nor base64 nor one of {', '.join(KEYS)}; its keys: {_keys(value)}"
                )
            return self.ref(name, members)
        if not isinstance(value, str) or not value:
            raise InputError(f"an image is {_brief(value)}; expected a file name, or an object with bytes or path")
        if value.startswith("data:"):
            return ImageRef(None, _data_address(value), value[:40])
        if value.startswith(PACKED) and "." not in value:
            return ImageRef(None, _base64(value, value[:40]), value[:40])
        member = _member(value, members)
        if member is not None:
            return ImageRef(None, members[member], value)
        if is_remote(value):
            check_address(value, allowed=self.allow_remote)
            return ImageRef(None, None, value, url=value)
        return ImageRef(self._find(value), None, value)

    def _find(self, name: str) -> Path:
        if self.root is None:
            raise InputError(f"image {name!r} is a file name; say with `images` in which folder it lies")
        plain = unquote(name.removeprefix("file://")) if name.startswith("file://") else name
        # `..` is taken from the name and not from where links lead: linked/../x is x in this folder.
        path = os.path.normpath(os.path.join(self.roots[-1], plain))
        if not any(path.startswith(os.path.join(root, "")) for root in self.roots):
            raise InputError(
                f"image {name!r} leads to {path}, outside the image folder {self.root}; give the folder that holds"
                " all images with `images`, or link theirs into it"
            )
        try:
            path = os.path.realpath(path)
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise MissingImageError(f"image {name!r} does not exist in {self.root}", Path(path)) from None
        # a NUL, a lone surrogate, a name that is too long, a loop of links, no permission
        except (OSError, ValueError) as error:
            raise MissingImageError(f"image {name!r} cannot be read ({error})", Path(path)) from error
        if not stat.S_ISREG(mode):
            raise MissingImageError(f"image {name!r} is no file in {self.root}", Path(path))
        return Path(path)


def _member(name: str, members: Mapping[str, bytes]) -> str | None:
    """The one member that `name` means: by its whole name, its last part ("7.jpg"), or its extension ("0.jpg")."""
    if name in members:
        return name
    last = name.rpartition("/")[2]
    matching = [member for member in members if member.rpartition("/")[2] == last]
    matching = matching or [member for member in members if member.rpartition("/")[2].partition(".")[2] == name]
    if len(matching) > 1:
        raise InputError(f"image {name!r} could be {' or '.join(matching)}")
    return matching[0] if matching else None


def _data_address(value: str) -> bytes:
    head, separator, text = value.partition(",")
    if not separator or not head.endswith(";base64"):
        raise InputError(f"image {value[:40]!r} is no address with base64 data")
    return _base64(text, value[:40])


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except ValueError as error:
        raise InputError(f"image {name!r} holds broken base64 data ({error})") from error


def is_blank(value: Any) -> bool:
    """Whether a value stands for no image; Arrow fills the columns that a row leaves out with nothing."""
    return value in (None, "", [], {}) or (isinstance(value, dict) and all(member is None for member in value.values()))


def _keys(value: dict[Any, Any]) -> str:
    return ", ".join(map(str, value)) or "none"


def _brief(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
