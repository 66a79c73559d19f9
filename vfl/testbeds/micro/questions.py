"""The questions the embedded model knows, word for word those of the generated probes, and their answers in a scene."""

from dataclasses import dataclass

from vfl.models.boxes import PIXEL, pixel_text
from vfl.probes import micro_limits as style
from vfl.probes.solids import KINDS, PLURALS
from vfl.testbeds.micro.scenes import Scene, cell_box

ABSENT = style.GRID**2  # the "cell" of an object that is not there
FUNCTIONS = ("recognition", "counting", "grounding", "ocr")


@dataclass(frozen=True)
class Question:
    """`label` is the object that is asked for, `cell` where it is: ABSENT if nowhere."""

    function: str
    text: str
    answer: str
    label: str | None = None
    cell: int | None = None


def recognition(label: str, cell: int) -> Question:
    article = "an" if label[0] in "aeiou" else "a"
    text = f"Is there {article} {label} in the image? Answer yes or no."
    return Question("recognition", text, "no" if cell == ABSENT else "yes", label, cell)


def counting(kind: str, count: int) -> Question:
    text = f"How many {PLURALS[kind]} are there in the image? Answer with a number."
    return Question("counting", text, str(count))


def grounding(label: str, cell: int) -> Question:
    text = PIXEL.box_prompt(f"Where is the {label}?", label)
    return Question("grounding", text, pixel_text(cell_box(cell)), label, cell)


def ocr(word: str) -> Question:
    return Question("ocr", "What text can you read in the image? Answer with the text only.", word)


def questions(scene: Scene) -> dict[str, list[Question]]:
    """Every question that this scene answers, by function."""
    present = dict(scene.objects)
    return {
        "recognition": [recognition(name, present.get(name, ABSENT)) for name in style.OBJECTS],
        "counting": [counting(scene.kind, len(scene.solids))] if scene.kind else [],
        "grounding": [grounding(name, cell) for name, cell in scene.objects],
        "ocr": [ocr(scene.word.text)] if scene.word else [],
    }


def all_questions() -> list[str]:
    """Every question's text once: what the tokenizer is learnt from."""
    return [
        *(recognition(name, ABSENT).text for name in style.OBJECTS),
        *(counting(kind, 1).text for kind in KINDS),
        *(grounding(name, 0).text for name in style.OBJECTS),
        ocr("").text,
        *["yes", "no"] * 9,  # often enough to become single tokens
    ]
