"""Recognition and grounding pairs from photographs with COCO-style annotations.

    recognition  target: a photograph with the object; source: a blank canvas of equal size; control: the mirrored
                 photograph, which shows the same object elsewhere
    grounding    target: a photograph with exactly one object of the class; source: the mirrored photograph, kept where
                 the two boxes hardly overlap; control: the photograph in other colours

What can't be used is left out and counted by reason.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image, ImageEnhance, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vfl.errors import InputError
from vfl.io.files import inside, open_rgb
from vfl.models.boxes import pixel_text
from vfl.probes.functions import grounding, recognition
from vfl.probes.make import check_functions
from vfl.probes.match import Box, iou
from vfl.probes.pair import DrawnPair

SMALLEST = 0.02  # of the image's area: smaller objects are left out as tiny, unless pixels say what is
OVERLAP = 0.1  # intersection over union of a box and its mirror image, at most
FUNCTIONS = ("recognition", "grounding")


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)  # files hold more than is read


class CocoImage(_Read):
    id: int
    file_name: str = Field(min_length=1)
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class CocoAnnotation(_Read):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, width, height
    iscrowd: int = 0


class CocoCategory(_Read):
    id: int
    name: str = Field(min_length=1)


class CocoFile(_Read):
    """The parts of an annotation file that are read."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


@dataclass(frozen=True)
class ObjectFilter:
    """Which annotated objects are taken.

    Attributes:
        smallest, largest: area of the box in pixels, both included; without `smallest`, a share of the image.
        alone: only objects that are the only one of their class in the image.
        most_annotations: most annotated objects in the image.
    """

    smallest: float | None = None
    largest: float | None = None
    alone: bool = False
    most_annotations: int | None = None

    def reason_against(self, box: Box | None, image: CocoImage, alone: bool, annotations: int) -> str | None:
        """Why an object is left out, or None."""
        area = 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])
        least = SMALLEST * image.width * image.height if self.smallest is None else self.smallest
        if box is None or area < least:
            return "tiny"
        if self.largest is not None and area > self.largest:
            return "large"
        if self.alone and not alone:
            return "several of the class in the image"
        if self.most_annotations is not None and annotations > self.most_annotations:
            return "many objects in the image"
        return None


ALL_OBJECTS = ObjectFilter()


@dataclass(frozen=True)
class Candidate:
    """One annotated object that can be asked about; `alone`: the only one of its class in the image."""

    image: CocoImage
    annotation: CocoAnnotation
    label: str
    box: Box
    alone: bool


def coco_pairs(
    annotations: str | Path,
    images: str | Path,
    functions: Sequence[str] = FUNCTIONS,
    pairs: int = 100,
    seed: int = 0,
    objects: ObjectFilter = ALL_OBJECTS,
) -> tuple[Iterator[DrawnPair], dict[str, Counter[str]]]:
    """Up to `pairs` pairs of each function, in an order drawn from the seed in which the classes take turns.

    Args:
        annotations: a COCO annotation file.
        images: folder of its images.
        functions: of FUNCTIONS.
        pairs: most of each function.
        seed: of the order.
        objects: which of them are taken.

    Returns:
        The pairs, each drawn when its turn comes, and for each function how many annotations were left out, by reason.

    Raises:
        InputError: a file that is no COCO annotation file, or a function for which nothing is left; and, when its turn
            comes, an image whose name leaves the folder, that is corrupt, or not of the annotated size.
    """
    check_functions(functions, FUNCTIONS, "COCO annotations")
    if pairs < 1:
        raise InputError(f"pairs is {pairs}; expected at least 1 for each function")
    root = Path(images)
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the folder that holds the images of {annotations}")
    candidates, left_out = read_candidates(Path(annotations), objects)
    chosen: list[tuple[str, Candidate]] = []
    reasons: dict[str, Counter[str]] = {}
    for function in functions:
        reasons[function] = left_out.copy()
        candidates_chosen = choose(function, candidates, root, pairs, Random(f"{seed}/{function}"), reasons[function])
        if not candidates_chosen:
            listed = ", ".join(f"{count} {reason}" for reason, count in reasons[function].items()) or "there were none"
            raise InputError(f"no {function} pair can be made from {annotations}; annotations left out: {listed}")
        chosen += [(function, candidate) for candidate in candidates_chosen]
    return (_draw(function, candidate, root.resolve(), seed) for function, candidate in chosen), reasons


def read_candidates(path: Path, objects: ObjectFilter = ALL_OBJECTS) -> tuple[list[Candidate], Counter[str]]:
    """The objects of an annotation file that are no crowds and pass the filter, in the order of their ids."""
    try:
        coco = CocoFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); give a COCO annotation file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is no COCO annotation file: {where}: {first['msg']}") from error
    except ValueError as error:  # of JSON and of UTF-8
        raise InputError(f"{path} is no COCO annotation file: {error}") from error
    by_id = {image.id: image for image in coco.images}
    names = {category.id: category.name for category in coco.categories}
    instances = Counter((annotation.image_id, annotation.category_id) for annotation in coco.annotations)
    in_image = Counter(annotation.image_id for annotation in coco.annotations)
    left_out: Counter[str] = Counter()
    candidates: list[Candidate] = []
    for annotation in sorted(coco.annotations, key=lambda annotation: annotation.id):
        if annotation.image_id not in by_id or annotation.category_id not in names:
            raise InputError(
                f"{path}: annotation {annotation.id} names image {annotation.image_id} and category"
                f" {annotation.category_id}, one of which the file does not list"
            )
        image = by_id[annotation.image_id]
        box = _clipped(annotation, image)
        alone = instances[annotation.image_id, annotation.category_id] == 1
        against = objects.reason_against(box, image, alone, in_image[annotation.image_id])
        if annotation.iscrowd or against:
            left_out["crowd" if annotation.iscrowd else str(against)] += 1
        else:
            assert box is not None
            candidates.append(Candidate(image, annotation, names[annotation.category_id], box, alone))
    return candidates, left_out


def _clipped(annotation: CocoAnnotation, image: CocoImage) -> Box | None:
    """The annotated box inside the image, to a tenth of a pixel."""
    x, y, width, height = annotation.bbox
    x0, y0 = max(0.0, round(x, 1)), max(0.0, round(y, 1))
    x1, y1 = min(float(image.width), round(x + width, 1)), min(float(image.height), round(y + height, 1))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _mirrored(box: Box, width: int) -> Box:
    return (round(width - box[2], 1), box[1], round(width - box[0], 1), box[3])


def choose(
    function: str, candidates: list[Candidate], root: Path, pairs: int, rng: Random, left_out: Counter[str]
) -> list[Candidate]:
    """Up to `pairs` candidates; what is not taken is added to `left_out` by reason."""
    turns: Counter[str] = Counter()
    order: list[tuple[int, Candidate]] = []
    for candidate in rng.sample(candidates, len(candidates)):
        order.append((turns[candidate.label], candidate))
        turns[candidate.label] += 1
    used: set[tuple[int, str]] = set()
    taken: list[Candidate] = []
    for _, candidate in sorted(order, key=lambda item: item[0]):
        reason = _unusable(function, candidate, root, used)
        if reason:
            left_out[reason] += 1
        elif len(taken) == pairs:
            left_out["beyond the number asked for"] += 1
        else:
            used.add((candidate.image.id, candidate.label))
            taken.append(candidate)
    return taken


def _unusable(function: str, candidate: Candidate, root: Path, used: set[tuple[int, str]]) -> str | None:
    """Why a candidate makes no pair, or None."""
    image = candidate.image
    if (image.id, candidate.label) in used:
        return "same class in an image already used"
    if function == "grounding" and not candidate.alone:
        return "several of the class in the image"
    if function == "grounding" and iou(candidate.box, _mirrored(candidate.box, image.width)) > OVERLAP:
        return "overlaps its mirror image"
    if not (root / image.file_name).is_file():
        return "image file missing"
    return None


def _draw(function: str, candidate: Candidate, root: Path, seed: int) -> DrawnPair:
    name = f"{function}-coco-{candidate.annotation.id}"
    photograph = _photograph(candidate, root)
    if function == "recognition":
        return replace(_recognition(candidate, photograph), id=name)
    return replace(_grounding(candidate, photograph, Random(f"{seed}/{name}")), id=name)


def _photograph(candidate: Candidate, root: Path) -> Image.Image:
    image = candidate.image
    photograph = open_rgb(inside(root, image.file_name, f"file_name of image {image.id}"))
    if photograph.size != (image.width, image.height):
        raise InputError(
            f"{root / image.file_name} has {photograph.width}x{photograph.height} pixels, its annotation says"
            f" {image.width}x{image.height}; boxes would be wrong, so use the images the annotations were made for"
        )
    return photograph


def _recognition(candidate: Candidate, photograph: Image.Image) -> DrawnPair:
    return DrawnPair(
        function="recognition",
        question=recognition.question(candidate.label),
        answer="yes",
        source_answer="no",
        match="yesno",
        image=photograph,
        source_image=Image.new("RGB", photograph.size, "white"),
        control_image=ImageOps.mirror(photograph),
        boxes={"image": [candidate.box], "control_image": [_mirrored(candidate.box, photograph.width)]},
        label=candidate.label,
    )


def _grounding(candidate: Candidate, photograph: Image.Image, rng: Random) -> DrawnPair:
    there = _mirrored(candidate.box, photograph.width)
    control = ImageEnhance.Color(photograph).enhance(rng.uniform(0.3, 0.7))
    control = ImageEnhance.Brightness(control).enhance(rng.choice([0.75, 1.25]))
    return DrawnPair(
        function="grounding",
        question=grounding.question(candidate.label),
        answer=pixel_text(candidate.box),
        source_answer=pixel_text(there),
        match="box",
        image=photograph,
        source_image=ImageOps.mirror(photograph),
        control_image=control,
        boxes={"image": [candidate.box], "source_image": [there], "control_image": [candidate.box]},
        label=candidate.label,
    )
