"""Data sets of the hub, rewritten in a folder as what is measured on: messages with images, or a probe suite.

Rows are streamed, so that only what is taken is fetched. Rows that do not fit are left out and counted by reason.
"""

import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.io.json_files import write_json
from vfl.measure.paper_file import HubSet, ObjectSet, QuestionSet
from vfl.measure.rendering import ITEM, render
from vfl.probes.coco import coco_pairs
from vfl.probes.pair import PROBES_FILE, DrawnPair, write_suite

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
IMAGES = "images"
ANNOTATIONS = "annotations.json"
NOTHING = "nothing"
TAKEN = "taken.json"  # what a folder's data were made from


def write_questions(chosen: QuestionSet, folder: Path, name: str, most: int | None = None) -> Path:
    """Write NAME.jsonl of messages and the images it names, unless these are there; at most `most` questions.

    Raises:
        InputError: when the set can't be fetched, lacks a column, or no row of it fits.
    """
    path = folder / f"{name}.jsonl"
    if path.exists() and _taken(folder, chosen, most):
        return path
    (folder / TAKEN).unlink(missing_ok=True)
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    left_out: Counter[str] = Counter()
    asked = islice(questions(chosen, rows_of(chosen)[0], folder, left_out), most)
    with replacing(path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            for row in asked:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not temporary.stat().st_size:
            raise InputError(f"No row of {chosen.hub} can be asked: {_listed(left_out)}.")
    if left_out:
        logger.warning("%s: rows left out: %s", chosen.hub, _listed(left_out))
    _note_taken(folder, chosen, most)
    return path


def questions(
    chosen: QuestionSet, rows: Iterable[Row], folder: Path, left_out: Counter[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a set as rows of messages (`vfl.data`), their images written below the folder.

    Rows that do not fit are left out; `left_out` counts them by reason.
    """
    left_out = Counter() if left_out is None else left_out
    for number, row in enumerate(rows):
        try:
            image = _write_image(row[chosen.image], folder, number)
            items = [{}] if chosen.each is None else [{ITEM: item} for item in row[chosen.each][: chosen.each_most]]
            texts = [
                (render(chosen.question, {**row, **item}, "question"), render(chosen.answer, {**row, **item}, "answer"))
                for item in items
            ]
        except InputError as error:
            left_out[str(error)] += 1
            continue
        for part, (question, answer) in enumerate(texts):
            if not question or not answer:
                left_out["an empty question or answer"] += 1
                continue
            content = [{"type": "image"}, {"type": "text", "text": question}]
            messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            yield {"id": f"{number:06d}-{part}", "messages": messages, "images": [image]}


def write_objects(chosen: ObjectSet, folder: Path, most: int | None = None) -> Path:
    """Write a probe suite of photographs with boxes, unless this one is there.

    Raises:
        InputError: when the set can't be fetched, lacks a column, or no pair can be made of it.
    """
    if (folder / PROBES_FILE).exists() and _taken(folder, chosen, most):
        return folder
    for stale in (TAKEN, PROBES_FILE):
        (folder / stale).unlink(missing_ok=True)
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    rows, features = rows_of(chosen)
    annotations = coco_annotations(chosen, rows, class_names(chosen, features), folder)
    with replacing(folder / ANNOTATIONS) as temporary:
        temporary.write_text(json.dumps(annotations), encoding="utf-8")
    pairs = chosen.pairs if most is None else min(most, chosen.pairs)
    drawn, left_out = coco_pairs(folder / ANNOTATIONS, folder, chosen.functions, pairs, chosen.seed, chosen.filter)
    write_suite(folder, drawn if chosen.question is None else (_named(pair, chosen.question) for pair in drawn))
    for function, reasons in left_out.items():
        if reasons:
            logger.info("%s, %s: objects left out: %s", chosen.hub, function, _listed(reasons))
    _note_taken(folder, chosen, most)
    return folder


def _taken(folder: Path, chosen: HubSet, most: int | None) -> bool:
    """Whether a folder's data are of this set, as many as are asked for."""
    if not (folder / TAKEN).exists():
        return False
    before = json.loads((folder / TAKEN).read_text(encoding="utf-8"))
    enough = before["most"] is None or (most is not None and most <= before["most"])
    return bool(enough and before["set"] == chosen.model_dump(mode="json"))


def _note_taken(folder: Path, chosen: HubSet, most: int | None) -> None:
    write_json(folder / TAKEN, {"set": chosen.model_dump(mode="json"), "most": most})


def _named(pair: DrawnPair, question: str) -> DrawnPair:
    """The pair asked for the object's name; on the canvas without it nothing is right."""
    assert pair.label is not None
    return replace(pair, question=question, answer=pair.label, source_answer=NOTHING, match="text")


def coco_annotations(
    chosen: ObjectSet, rows: Iterable[Row], names: list[str], folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """Rows of a set as a COCO annotation file holds them, their images written below the folder."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        file = _write_image(row[chosen.image], folder, number)
        with Image.open(folder / file) as opened:
            width, height = opened.size
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        objects = row[chosen.objects]
        for box, category in zip(objects[chosen.box], objects[chosen.category], strict=True):
            x0, y0, x1, y1 = box
            place = {"id": len(annotations), "image_id": number, "category_id": category}
            annotations.append({**place, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    categories = [{"id": place, "name": name} for place, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def class_names(chosen: ObjectSet, features: Mapping[str, Any]) -> list[str]:
    """Names of the classes, in the order of their numbers.

    Raises:
        InputError: when the set does not say them.
    """
    label = features[chosen.objects]
    label = label.feature if not isinstance(label, Mapping) else label
    label = label[chosen.category] if isinstance(label, Mapping) and chosen.category in label else None
    names: list[str] | None = getattr(getattr(label, "feature", label), "names", None)
    if not names:
        raise InputError(f"{chosen.hub} does not name its classes in {chosen.objects}.{chosen.category}.")
    return names


def rows_of(chosen: HubSet) -> tuple[Iterator[Row], Mapping[str, Any]]:
    """The rows that are taken, streamed, images as stored; and the set's features.

    Raises:
        InputError: when the set can't be fetched or lacks a column; names the ones that it has.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError('Data sets of the hub need the package datasets: pip install "vfl[train]"') from error
    try:
        loaded = datasets.load_dataset(
            chosen.hub, chosen.config, split=chosen.split, revision=chosen.revision, streaming=True
        ).decode(False)
    except (OSError, ValueError) as error:  # no network, no such set, configuration or split
        raise InputError(
            f"The data set {chosen.hub} ({chosen.config or 'default'}, {chosen.split}) can't be fetched: {error} "
            "Check the network, and on the hub whether it asks for a login (`hf auth login`)."
        ) from error
    features = loaded.features or dict.fromkeys(next(iter(loaded), {}))
    if missing := [column for column in chosen.columns if column not in features]:
        raise InputError(
            f"{chosen.hub} has no column {', '.join(missing)}; it has {', '.join(features)}. It has changed since the "
            "file was written: give an older revision."
        )
    last = None if chosen.rows is None else chosen.rows * chosen.every
    return islice(loaded.select_columns(list(chosen.columns)), 0, last, chosen.every), features


def _write_image(value: Any, folder: Path, number: int) -> str:
    """An image as it is stored, written below the folder; its name there."""
    if isinstance(value, list):
        if len(value) != 1:
            raise InputError(f"the row has {len(value)} images, expected one")
        value = value[0]
    if not value or not value.get("bytes"):
        raise InputError("the row has no image")
    try:
        with Image.open(io.BytesIO(value["bytes"])) as image:
            suffix = (image.format or "img").lower()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"the row's image can't be read ({type(error).__name__})") from error
    name = f"{IMAGES}/{number:06d}.{suffix}"
    (folder / name).write_bytes(value["bytes"])
    return name


def _listed(reasons: Counter[str]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "there are none"
