"""What a folder holds that can be shown to others, which of its files those are, and the card beside them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from vfl.data.formats import WRITTEN
from vfl.errors import InputError
from vfl.functionmap import MAP, FunctionMap
from vfl.hub.tables import map_table, subset_table
from vfl.loading.adapter import CONFIG, WEIGHTS
from vfl.select.shards.score_folder import MANIFEST

README = "README.md"
# What of a manifest names places on this machine, or people's folders.
_PLACES = ("data", "images", "reading", "settings", "scores")
_PARTS_OF_ROWS, _PARTS_OF_MODEL = ("data/*", "*.parquet"), ("*.safetensors", "*.safetensors.index.json")
_REPORTS = ("report.html", "evaluation.json")
OURS = "<!-- by vfl push, which writes this page again -->"


@dataclass(frozen=True)
class Contents:
    """What goes up.

    Attributes:
        what: in words, such as "adapter".
        kind: of the repository, model or dataset.
        files: by their name there; a text stands for itself.
        replaces: patterns of files there that are removed when this has none of their name: parts of an earlier one.
    """

    what: str
    kind: str
    files: Mapping[str, Path | str]
    replaces: tuple[str, ...] = ()


def contents_of(folder: Path, *, report: bool = False) -> Contents:
    """The contents of a folder that a command wrote.

    Args:
        report: with the report and the evaluation, which say what settings and paths a run had.

    Raises:
        InputError: the folder is not there, or holds nothing of that kind.
    """
    for look in (_run, _adapter, _map, _rows, _model):
        if (found := look(folder)) is not None:
            home = folder if folder.is_dir() else folder.parent
            beside = [home / name for name in _REPORTS if report and (home / name).is_file()]
            return replace(found, files={**found.files, **{path.name: path for path in beside}})
    raise InputError(
        f"{folder} holds nothing to push: expected the folder of a training run, an adapter, a merged model, a map "
        "(vfl locate), a subset (vfl select filter) or negatives (vfl negatives)."
    )


def _adapter(folder: Path) -> Contents | None:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return None
    return Contents("adapter", "model", _files(folder, ("*.json", "*.safetensors", README)))


def _run(folder: Path) -> Contents | None:
    """A training run's adapter, at the top, where PEFT looks for it."""
    return _adapter(folder / "adapter")


def _map(folder: Path) -> Contents | None:
    path = MAP.path_of(folder)
    if path.name != MAP.file or not path.is_file():
        return None
    fmap = FunctionMap.load(path)
    return Contents("function map", "dataset", {MAP.file: path, README: _map_card(fmap)})


def _rows(folder: Path) -> Contents | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("kind") not in WRITTEN:
        return None
    files = _files(folder, ("ids.txt", "*.parquet", "dataset_info.json", "data/**/*"))
    if missing := [name for name in manifest["files"] if name not in files]:
        raise InputError(
            f"{folder / MANIFEST} names {missing[0]!r} among its files, and there is none of that name inside {folder}."
        )
    shown = {key: value for key, value in manifest.items() if key not in _PLACES}
    what = manifest["kind"].removeprefix("vfl ")
    shown |= {"images": None, "without_images": _without_images(manifest)}
    written = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    return Contents(what, "dataset", {**files, MANIFEST: written, README: _rows_card(manifest, what)}, _PARTS_OF_ROWS)


def _model(folder: Path) -> Contents | None:
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        return None
    files = _files(folder, ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", README))
    if README not in files:
        data = ModelCardData(library_name="transformers", pipeline_tag="image-text-to-text", tags=["vfl"])
        body = f"# {folder.name}\n\nA model that `vfl merge` wrote: an adapter merged into the weights of its base.\n"
        files |= {README: _card(ModelCard, data, body)}
    return Contents("model", "model", files, _PARTS_OF_MODEL)


def _without_images(manifest: Mapping[str, Any]) -> bool:
    """Whether the rows name images that lie elsewhere."""
    return bool(manifest.get("without_images", manifest.get("images") is not None))


def _files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path | str]:
    """Files by their path in the folder; none that lies elsewhere, by a link."""
    home = folder.resolve()
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return {path.relative_to(folder).as_posix(): path for path in found if path.resolve().is_relative_to(home)}


def _map_card(fmap: FunctionMap) -> str:
    data = DatasetCardData(
        pretty_name=f"Function map of {_named(fmap.model.id)}", tags=["vfl", "function-map"], viewer=False
    )
    body = f"""# Function map of {_named(fmap.model.id)}

Where the text reads the image in {fmap.model.num_layers} decoder layers, found by `vfl locate`: the vision tokens' keys
and values of one layer are swapped for another image's, on pairs of images with one difference (arXiv 2509.24791).

{map_table(fmap)}

```python
import vfl

fmap = vfl.FunctionMap.from_hub("ORG/NAME")  # this repository
print(fmap.layers_of(["{next(iter(fmap.functions), "counting")}"]))
```

Or in a recipe of `vfl train`: `layers: {{map: hf://datasets/ORG/NAME, functions: ...}}`. It fits the model it was made
of, and no other.
"""
    return _card(DatasetCard, data, body)


def _rows_card(manifest: Mapping[str, Any], what: str) -> str:
    files = [name for name in manifest["files"] if name.endswith((".jsonl", ".json", ".parquet"))]
    extra: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": files}]} if files else {}
    data = DatasetCardData(
        pretty_name=f"A {what} of {manifest['rows']:,} rows",
        task_categories=["image-text-to-text"],
        tags=["vfl", what],
        **extra,
    )
    lies = (
        "**The images are not here**: rows name them as they lay, and are read with `--images FOLDER` (`data.images`)."
        if _without_images(manifest)
        else "The images lie beside the rows, or in them."
    )
    body = f"""# A {what} of {manifest["rows"]:,} rows

Written by `vfl {"select filter" if what == "subset" else what}`. {lies}

{subset_table(manifest)}

In a recipe of `vfl train`: `data: {{train: hf://datasets/ORG/NAME}}`.
"""
    return _card(DatasetCard, data, body)


def _card(card: Callable[..., Any], data: Any, body: str) -> str:
    content: str = card(f"---\n{data.to_yaml()}\n---\n\n{OURS}\n\n{body}").content
    return content


def _named(model: str) -> str:
    """A hub id, or the last part of a path."""
    return model if not Path(model).is_absolute() else Path(model).name
