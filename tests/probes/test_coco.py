"""Pairs from COCO-style annotations, on photographs stood in for by drawn scenes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from vfl.errors import InputError
from vfl.probes.coco import OVERLAP, ObjectFilter, coco_pairs
from vfl.probes.match import iou, read
from vfl.probes.objects import object_sprite
from vfl.probes.pair import DrawnPair, write_suite

SIZE = (161, 120)  # odd, and wider than high
CATEGORIES = ["cat", "traffic light", "apple"]


def annotation(number: int, image: int, category: int, box: tuple[float, ...], **more: Any) -> dict[str, Any]:
    values = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, "segmentation": []}
    return values | more


ANNOTATIONS = [
    annotation(1, 1, 1, (8, 30, 48, 48)),  # fits both functions
    annotation(2, 1, 2, (100, 60, 48.5, 48)),  # fits both functions
    annotation(3, 2, 1, (56, 30, 48, 48)),  # in the middle: overlaps its mirror image
    annotation(4, 2, 3, (0, 0, 40, 40), iscrowd=1),
    annotation(5, 2, 3, (4, 60, 48, 48)),  # not alone: there is a crowd of its class
    annotation(6, 3, 3, (4, 4, 12, 12)),  # tiny
    annotation(7, 3, 3, (4, 60, 48, 48)),
    annotation(8, 3, 3, (100, 60, 48, 48)),  # two of its class
    annotation(9, 4, 2, (8, 8, 60, 60)),  # no file
    annotation(10, 1, 3, (-4, 100, 40, 40)),  # leaves the image: clipped
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for image in (1, 2, 3):
        photograph = Image.new("RGB", SIZE, (90, 120 + 20 * image, 140))
        for item in ANNOTATIONS:
            if item["image_id"] == image:
                x, y, width, height = (round(value) for value in item["bbox"])
                sprite = object_sprite("cat").resize((width, height))
                photograph.paste(sprite, (x, y), sprite)
        photograph.save(tmp_path / "images" / f"{image}.png")
    write(tmp_path)
    return tmp_path


def write(folder: Path, **changes: Any) -> Path:
    data = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1], "license": 3}
            for number in (1, 2, 3, 4)
        ],
        "annotations": ANNOTATIONS,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(data | changes))
    return path


def made(folder: Path, *functions: str, **settings: Any) -> dict[str, DrawnPair]:
    drawn, _ = coco_pairs(folder / "annotations.json", folder / "images", functions, **settings)
    return {pair.id: pair for pair in drawn}


def test_recognition_sets_a_photograph_against_a_blank_canvas(folder: Path) -> None:
    pairs = made(folder, "recognition")
    assert set(pairs) == {f"recognition-coco-{number}" for number in (1, 2, 3, 5, 10)} | {
        next(name for name in pairs if name.endswith(("-7", "-8")))  # one of two apples in the same photograph
    }
    for pair in pairs.values():
        assert pair.image.size == pair.source_image.size == SIZE
        assert pair.source_image.getextrema() == ((255, 255),) * 3
        assert pair.control_image is not None
        assert ImageOps.mirror(pair.control_image).tobytes() == pair.image.tobytes()
    assert pairs["recognition-coco-2"].question == "Is there a traffic light in the image? Answer yes or no."
    assert pairs["recognition-coco-10"].question.startswith("Is there an apple")


def test_grounding_takes_what_stands_alone_and_moves_when_mirrored(folder: Path) -> None:
    pairs = made(folder, "grounding")
    assert set(pairs) == {f"grounding-coco-{number}" for number in (1, 2, 10)}
    for pair in pairs.values():
        (here,), (there,) = pair.boxes["image"], pair.boxes["source_image"]
        assert iou(here, there) <= OVERLAP
        assert (read("box", pair.answer), read("box", pair.source_answer)) == (here, there)
        assert pair.control_image is not None
        assert pair.control_image.size == SIZE
        assert pair.boxes["control_image"] == [here]
        # mirrored pixels and mirrored boxes go together
        mirrored = np.asarray(ImageOps.mirror(pair.source_image))
        assert (mirrored == np.asarray(pair.image)).all()
        assert there == pytest.approx((SIZE[0] - here[2], here[1], SIZE[0] - here[0], here[3]))
    assert pairs["grounding-coco-10"].boxes["image"] == [(0, 100, 36, 120)]


def test_what_is_left_out_is_counted_by_reason(folder: Path) -> None:
    _, reasons = coco_pairs(folder / "annotations.json", folder / "images")
    assert reasons["grounding"] == {
        "crowd": 1,
        "tiny": 1,
        "several of the class in the image": 3,
        "overlaps its mirror image": 1,
        "image file missing": 1,
    }
    assert reasons["recognition"] == {
        "crowd": 1,
        "tiny": 1,
        "same class in an image already used": 1,
        "image file missing": 1,
    }
    _, reasons = coco_pairs(folder / "annotations.json", folder / "images", ["recognition"], pairs=2)
    assert reasons["recognition"]["beyond the number asked for"] >= 4
    assert sum(reasons["recognition"].values()) == len(ANNOTATIONS) - 2


def test_objects_of_a_size_alone_in_images_of_few(folder: Path) -> None:
    """By pixels, where these are given, whatever share of the image they are."""
    objects = ObjectFilter(smallest=1000, largest=2320, alone=True, most_annotations=3)
    drawn, left_out = coco_pairs(folder / "annotations.json", folder / "images", ["recognition"], objects=objects)
    assert {pair.id for pair in drawn} == {"recognition-coco-1", "recognition-coco-3"}
    few = ObjectFilter(smallest=100, most_annotations=2)
    with pytest.raises(InputError, match="many objects in the image"):
        coco_pairs(folder / "annotations.json", folder / "images", ["recognition"], objects=few)
    reasons = {"large": 2, "tiny": 2, "several of the class in the image": 3, "crowd": 1}
    assert left_out["recognition"] == reasons


def test_the_classes_take_turns(folder: Path) -> None:
    labels = [pair.label for pair in made(folder, "recognition", pairs=3).values()]
    assert set(labels) == set(CATEGORIES)


def test_pairs_are_written_and_the_seed_decides(folder: Path) -> None:
    for name in ("a", "b"):
        drawn, _ = coco_pairs(folder / "annotations.json", folder / "images", seed=3, pairs=2)
        write_suite(folder / name, drawn)
    first = sorted((folder / "a").rglob("*.*"))
    assert len(first) == 4 * 3 + 1
    assert all(path.read_bytes() == (folder / "b" / path.relative_to(folder / "a")).read_bytes() for path in first)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": None}, "images"),
        ({"annotations": [{"id": 1}]}, "annotations.0.image_id"),
        ({"annotations": [annotation(1, 1, 1, (1, 2, 3))]}, "annotations.0.bbox"),
        ({"annotations": [annotation(1, 9, 1, (1, 2, 3, 4))]}, "annotation 1 names image 9"),
        ({"annotations": [annotation(1, 1, 9, (1, 2, 3, 4))]}, "category 9"),
        ({"annotations": []}, "there were none"),
        ({"annotations": ANNOTATIONS[5:6]}, "left out: 1 tiny"),
    ],
)
def test_bad_annotations_are_refused(folder: Path, changes: dict[str, Any], expected: str) -> None:
    write(folder, **changes)
    with pytest.raises(InputError, match=r"annotations\.json") as caught:
        made(folder, "recognition")
    assert expected in str(caught.value)


def test_files_that_are_no_annotations_are_refused(folder: Path) -> None:
    for content in (b"", b"{", b"[]", b"\xff"):
        (folder / "annotations.json").write_bytes(content)
        with pytest.raises(InputError, match="no COCO annotation file"):
            made(folder, "recognition")
    (folder / "annotations.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        made(folder, "recognition")
    with pytest.raises(InputError, match="is no folder"):
        coco_pairs(folder / "annotations.json", folder / "none")
    with pytest.raises(InputError, match="does not draw 'ocr'"):
        made(folder, "ocr")


def test_image_names_stay_in_their_folder(folder: Path) -> None:
    Image.new("RGB", SIZE).save(folder / "outside.png")
    for name in ("../outside.png", str(folder / "outside.png"), "link.png"):
        (folder / "images" / "link.png").unlink(missing_ok=True)
        (folder / "images" / "link.png").symlink_to(folder / "outside.png")
        images = [{"id": 1, "file_name": name, "width": SIZE[0], "height": SIZE[1]}]
        write(folder, images=images, annotations=ANNOTATIONS[:1])
        with pytest.raises(InputError, match="leaves the folder"):
            made(folder, "recognition")


def test_images_that_are_not_what_was_annotated_are_refused(folder: Path) -> None:
    write(folder, annotations=ANNOTATIONS[:1])
    Image.new("RGB", (40, 30)).save(folder / "images" / "1.png")
    with pytest.raises(InputError, match="40x30 pixels, its annotation says 161x120"):
        made(folder, "recognition")
    (folder / "images" / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        made(folder, "grounding")
