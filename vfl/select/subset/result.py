"""A subset as a person holds it: its folder, and what its manifest says."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vfl.errors import InputError
from vfl.io.notebook import html_table, percent
from vfl.select.shards.score_folder import MANIFEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Subset:
    """Chosen rows in a folder; `Path(subset)` is that folder, and vfl/select/subset/write.py says what lies there.

    Attributes:
        folder: that holds it.
        manifest: its manifest.json.
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The subset that `vfl select filter` or `vfl.filter` wrote.

        Raises:
            InputError: the folder is no subset.
        """
        path = Path(folder)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            expected = "expected a folder that `vfl select filter` wrote"
            raise InputError(f"{path} is no subset ({error}); {expected}.") from None
        if not isinstance(manifest, dict) or manifest.get("kind") != "vfl subset":
            raise InputError(f"{path} is no subset; expected a folder that `vfl select filter` wrote.")
        return cls(path, manifest)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Subset({self.folder}: {self.manifest['rows']:,} of {self.manifest['scored']:,} rows)"

    def _repr_html_(self) -> str:
        rows = [
            (name, f"{count['rows']:,}", f"{count['chosen_rows']:,}", percent(count["chosen_rows"] / count["rows"]))
            for name, count in self.manifest["counts"]["class"].items()
        ]
        budget = self.manifest["budget"]
        title = (
            f"{self.manifest['rows']:,} of {self.manifest['scored']:,} rows, by {self.manifest['settings']['policy']}"
        )
        spent = f"{budget['spent']:,} of {budget['limit']:,} {budget['unit']} spent"
        return html_table(title, ("class", "rows", "chosen", "kept"), rows, [spent, *self.manifest["notes"]])

    def plot(self) -> "Figure":
        """What the data and the subset are made of: each class's share of the rows."""
        from vfl.report.dots import Dot
        from vfl.report.picture import picture
        from vfl.report.words import SHARE

        classes = self.manifest["counts"]["class"]
        dots = []
        for part, key in (("the data", "rows"), ("the subset", "chosen_rows")):
            total = max(sum(count[key] for count in classes.values()), 1)
            dots += [Dot(name, SHARE, count[key] / total, group=part) for name, count in classes.items()]
        figure = picture(f"Rows of {self.folder.name}", dots=dots, axis="share of the rows, %")
        if figure is None:
            raise InputError(f"{self.folder / MANIFEST} counts no class, so there is nothing to draw.")
        return figure
