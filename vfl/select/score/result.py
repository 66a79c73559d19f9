"""Scores as a person holds them: their folder, what its manifest says, and the table."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vfl.errors import InputError
from vfl.io.layers import layer_list
from vfl.io.notebook import html_table, percent
from vfl.select.shards.score_folder import MANIFEST, PARTS, open_scores

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scores:
    """Scored rows in a folder; `Path(scores)` is that folder, which every command and `vfl.filter` take.

    Attributes:
        folder: with manifest.json, parts/ and errors.parquet.
        manifest: its manifest.json.
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The scores that `vfl select score` or `vfl.score` wrote.

        Raises:
            InputError: the folder holds none.
        """
        path = Path(folder)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} holds no scores ({error}). Write them with `vfl select score`.") from None
        if not isinstance(manifest, dict) or manifest.get("kind") != "vfl scores":
            raise InputError(f"{path} holds no scores; expected a folder that `vfl select score` wrote.")
        return cls(path, manifest)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        counts = self.manifest["counts"]
        return f"Scores({self.folder}: {counts['scored']:,} of {counts['rows']:,} rows)"

    @property
    def functions(self) -> dict[str, list[int]]:
        """The layers that were ablated for each function."""
        return dict(self.manifest["functions"])

    def table(self, columns: list[str] | None = None) -> "pa.Table":
        """Score table, a row a sample (docs: data formats); all columns by default.

        Raises:
            InputError: for a column that it lacks.
        """
        import pyarrow.dataset as ds

        data = ds.dataset(open_scores(self.folder).path / PARTS, format="parquet")
        if missing := [name for name in columns or () if name not in data.schema.names]:
            known = ", ".join(data.schema.names)
            raise InputError(f"The scores in {self.folder} have no column {missing[0]!r}; expected some of {known}.")
        wanted = data.schema.names if columns is None else columns
        read: pa.Table = data.to_table(columns=list(dict.fromkeys([*wanted, "position"])))
        return read.sort_by("position").select(wanted)

    def lost(self) -> dict[str, float]:
        """Of the rows answered rightly with their image, the share that is not without it, and without each function's.

        Keys are "image" (hidden at all layers) and the functions.
        """
        import pyarrow.compute as pc

        names = {"image": "no_image_exact"} | {name: f"exact_{name}" for name in self.functions}
        rows = self.table(["exact", *names.values()])
        right = rows.filter(pc.and_(rows["exact"], pc.is_valid(rows["no_image_exact"])))
        if not right.num_rows:
            return {}
        return {name: 1.0 - float(pc.mean(right[column]).as_py()) for name, column in names.items()}

    def _repr_html_(self) -> str:
        counts, lost = self.manifest["counts"], self.lost()
        rows = [
            (name, layer_list(self.functions[name]) if name in self.functions else "all", percent(share))
            for name, share in lost.items()
        ]
        title = f"{counts['scored']:,} of {counts['rows']:,} rows scored by {self.manifest['model']['id']}"
        notes = [
            f"Lost: of {counts['solved']:,} rows answered rightly, those that are not where these layers see no image.",
            *([f"{counts['errors']:,} rows could not be scored: errors.parquet."] if counts["errors"] else []),
        ]
        return html_table(title, ("hidden for", "layers", "lost"), rows, notes)

    def plot(self) -> "Figure":
        """The share of right answers that is lost without the image, and without it at each function's layers.

        Raises:
            InputError: where no row was answered rightly.
        """
        from vfl.report.dots import Dot
        from vfl.report.picture import picture
        from vfl.report.words import SHARE

        dots = [Dot(name, SHARE, share) for name, share in self.lost().items()]
        title = f"Answers lost without the image: {self.folder.name}"
        figure = picture(title, dots=dots, axis="share of right answers, %")
        if figure is None:
            raise InputError(f"No row in {self.folder} was answered rightly, so there is nothing to draw.")
        return figure
