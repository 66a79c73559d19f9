"""The questions the embedded model knows, word for word those of the generated probes, and their answers in a scene."""

from dataclasses import dataclass

from vfl.micro import style
from vfl.micro.scenes import Scene
from vfl.models.boxes import PIXEL, pixel_text
from vfl.probes.solids import KINDS, PLURALS

FUNCTIONS = ("recognition", "counting", "grounding", "ocr")


@dataclass(frozen=True)
class Question:
    function: str
    text: str
    answer: str


def recognition(label: str, present: bool) -> Question:
    article = "an" if label[0] in "aeiou" else "a"
    text = f"Is there {article} {label} in the image? Answer yes or no."
    return Question("recognition", text, "yes" if present else "no")


def counting(kind: str, count: int) -> Question:
    text = f"How many {PLURALS[kind]} are there in the image? Answer with a number."
    return Question("counting", text, str(count))


def grounding(label: str, box: tuple[int, int, int, int]) -> Question:
    return Question("grounding", PIXEL.box_prompt(f"Where is the {label}?", label), pixel_text(box))


def ocr(word: str) -> Question:
    return Question("ocr", "What text can you read in the image? Answer with the text only.", word)


def questions(scene: Scene) -> dict[str, list[Question]]:
    """Every question that this scene answers, by function; recognition's with "yes" come first."""
    present = [name for name, _ in scene.objects]
    absent = [name for name in style.OBJECTS if name not in present]
    return {
        "recognition": [recognition(name, True) for name in present] + [recognition(name, False) for name in absent],
        "counting": [counting(scene.kind, len(scene.solids))] if scene.kind else [],
        "grounding": [grounding(name, scene.box(cell)) for name, cell in scene.objects],
        "ocr": [ocr(scene.word.text)] if scene.word else [],
    }


def all_questions() -> list[str]:
    """Every question's text once: what the tokenizer is learnt from."""
    box = (0, 0, style.CELL, style.CELL)
    return [
        *(recognition(name, True).text for name in style.OBJECTS),
        *(counting(kind, 1).text for kind in KINDS),
        *(grounding(name, box).text for name in style.OBJECTS),
        ocr("").text,
        *["yes", "no"] * 9,  # often enough to become single tokens
    ]
