"""What a folder holds that can be shown to others, which of its files those are, and the card beside them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from vfl.errors import InputError
from vfl.functionmap import MAP, FunctionMap
from vfl.hub.tables import map_table, subset_table
from vfl.loading.adapter import CONFIG, WEIGHTS

README = "README.md"
MANIFEST = "manifest.json"
OWN_ROWS = ("vfl subset", "vfl negatives")
# What of a manifest names places on this machine, or people's folders.
_PLACES = ("data", "images", "reading", "settings", "scores")


@dataclass(frozen=True)
class Contents:
    """What goes up.

    Attributes:
        what: in words, such as "adapter".
        kind: of the repository, model or dataset.
        files: by their name there; a text stands for itself.
    """

    what: str
    kind: str
    files: Mapping[str, Path | str]


def contents_of(folder: Path) -> Contents:
    """The contents of a folder that a command wrote.

    Raises:
        InputError: the folder is not there, or holds nothing of that kind.
    """
    for look in (_run, _adapter, _map, _rows, _model):
        if (found := look(folder)) is not None:
            return found
    raise InputError(
        f"{folder} holds nothing to push: expected the folder of a training run, an adapter, a merged model, a map "
        "(vfl locate), a subset (vfl select filter) or negatives (vfl negatives)."
    )


def _adapter(folder: Path) -> Contents | None:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return None
    return Contents("adapter", "model", _files(folder, ("*.json", "*.safetensors", README)))


def _run(folder: Path) -> Contents | None:
    """A training run's adapter at the top, as PEFT looks for it, with what the run measured beside it."""
    adapter = _adapter(folder / "adapter")
    if adapter is None:
        return None
    beside = {name: folder / name for name in ("report.html", "evaluation.json") if (folder / name).is_file()}
    return Contents("adapter", "model", {**adapter.files, **beside})


def _map(folder: Path) -> Contents | None:
    path = MAP.path_of(folder)
    if path.name != MAP.file or not path.is_file():
        return None
    fmap = FunctionMap.load(path)
    beside = {name: path.with_name(name) for name in ("report.html",) if path.with_name(name).is_file()}
    return Contents("function map", "dataset", {MAP.file: path, **beside, README: _map_card(fmap)})


def _rows(folder: Path) -> Contents | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("kind") not in OWN_ROWS:
        return None
    files = {name: folder / name for name in manifest["files"]}
    files |= _files(folder, ("ids.txt", "*.parquet", "dataset_info.json", "data/**/*"))
    shown = {key: value for key, value in manifest.items() if key not in _PLACES}
    what = manifest["kind"].removeprefix("vfl ")
    written = json.dumps(shown | {"images": None}, indent=2, ensure_ascii=False) + "\n"
    return Contents(what, "dataset", {**files, MANIFEST: written, README: _rows_card(manifest, what)})


def _model(folder: Path) -> Contents | None:
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        return None
    files = _files(folder, ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", README))
    if README not in files:
        data = ModelCardData(library_name="transformers", pipeline_tag="image-text-to-text", tags=["vfl"])
        body = f"# {folder.name}\n\nA model that `vfl merge` wrote: an adapter merged into the weights of its base.\n"
        files |= {README: ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}").content}
    return Contents("model", "model", files)


def _files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path | str]:
    """Files by their path in the folder; none that lies elsewhere, by a link."""
    home = folder.resolve()
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return {path.relative_to(folder).as_posix(): path for path in found if path.resolve().is_relative_to(home)}


def _map_card(fmap: FunctionMap) -> str:
    data = DatasetCardData(pretty_name=f"Function map of {fmap.model.id}", tags=["vfl", "function-map"], viewer=False)
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
    lies = "The images lie beside the rows." if manifest.get("images") is None else (
        "**The images are not here**: rows name them as they lay, and are read with `--images FOLDER` (`data.images`)."
    )  # fmt: skip
    body = f"""# A {what} of {manifest["rows"]:,} rows

Written by `vfl {"select filter" if what == "subset" else what}`. {lies}

{subset_table(manifest)}

In a recipe of `vfl train`: `data: {{train: hf://datasets/ORG/NAME}}`.
"""
    return _card(DatasetCard, data, body)


def _card(card: Callable[..., Any], data: Any, body: str) -> str:
    content: str = card(f"---\n{data.to_yaml()}\n---\n\n{body}").content
    return content


def _named(model: str) -> str:
    """A hub id, or the last part of a path."""
    return model if not Path(model).is_absolute() else Path(model).name
