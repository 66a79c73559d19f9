"""The image files of chosen rows, put where the subset's rows look for them."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vfl.data import Sample
from vfl.errors import InputError


class ImageCopies:
    """Hard links to a sample's image files under their own names in a folder, or copies where links can't be made."""

    def __init__(self, folder: Path, data: Sequence[Path], images: Path | None) -> None:
        homes = {(path if path.is_dir() else path.parent).resolve() for path in data}
        if images is None and len(homes) > 1:
            raise InputError("copy_images needs `images`, one folder that holds all images: the data lies in several.")
        self.folder = folder
        self.left = 0

    def add(self, sample: Sample) -> None:
        """Put the sample's image files there; those whose names are no relative paths stay where they are."""
        for image in sample.images:
            if image.path is None:
                continue
            name = os.path.normpath(image.name)
            if os.path.isabs(name) or name.startswith("..") or image.name.startswith("file://"):
                self.left += 1
                continue
            target = self.folder / name
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(image.path, target)
            except OSError:  # another disk, or one without links
                shutil.copy2(image.path, target)

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        return [f"{self.left:,} images with absolute names were not copied."] if self.left else []
