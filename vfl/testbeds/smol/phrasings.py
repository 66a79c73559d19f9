"""The questions of a scene, in several wordings: those of the probes, and others that teach the same at fewer tokens.

One wording of each function is held out: it is never trained on.
"""

from collections.abc import Mapping

import numpy as np

from vfl.models.boxes import UNIT
from vfl.probes import micro_limits as style
from vfl.probes.solids import KINDS, PLURALS
from vfl.testbeds.micro.questions import ABSENT, Question, counting, ocr, recognition
from vfl.testbeds.micro.scenes import Scene, cell_box

SIZE = (style.SIZE, style.SIZE)
# {} is the object or the kind, with its article where the first has one.
WORDINGS = {
    "recognition": ("Is there {a}?", "Do you see {a} here?", "Does the picture show {a}?"),
    "counting": ("How many {}?", "Count the {}.", "What is the number of {} here?"),
    "grounding": ("Box of the {}?", "Where is the {}?", "Locate the {}."),
    "ocr": ("What does it say?", "Read the text.", "Which letters are there?"),
}
ONCE = dict.fromkeys(WORDINGS, 1)
HELD_OUT = {
    "recognition": "Can you find {a} in this picture?",
    "counting": "Tell me how many {} you can see.",
    "grounding": "Give the box around the {}.",
    "ocr": "What is written in the picture?",
}


def article(label: str) -> str:
    return f"{'an' if label.startswith(tuple('aeiou')) else 'a'} {label}"


def box_text(cell: int) -> str:
    return UNIT.format_box(cell_box(cell), SIZE, SIZE)


def ask(function: str, wording: str | None, label: str, answer: str, cell: int | None = None) -> Question:
    """One question; `wording` None is the probes'."""
    if wording is not None:
        text = wording.format(label, a=article(label))
    elif function == "recognition":
        text = recognition(label, 0).text
    elif function == "counting":
        text = counting(label, 1).text
    elif function == "grounding":
        text = UNIT.box_prompt(f"Where is the {label}?", label)
    else:
        text = ocr("").text
    if wording is not None and function == "counting":
        text = wording.format(PLURALS[label])
    named = label if cell is not None else None
    return Question(function, text, answer, named, cell)


def questions(
    scene: Scene, rng: np.random.Generator, probe_phrasing: float, asked_of: Mapping[str, int] = ONCE
) -> list[Question]:
    """What is asked of a scene, shuffled.

    Args:
        probe_phrasing: share of questions worded as the probes word them.
        asked_of: how many questions of each function, where the scene has them: of recognition, objects that are there
            (and one that is not, where there are objects or nothing at all); of grounding, objects; of counting and
            OCR, wordings of the one question, for drawing another picture costs twice the tokens.
    """

    def wordings(function: str, count: int) -> list[str | None]:
        drawn: list[str | None] = rng.permutation(WORDINGS[function])[:count].tolist()
        if rng.random() < count * probe_phrasing:
            drawn[0] = None
        return drawn

    def some(objects: tuple[tuple[str, int], ...], count: int) -> list[tuple[str, int]]:
        return [objects[index] for index in rng.permutation(len(objects))[:count]]

    present = dict(scene.objects)
    absent = [name for name in style.OBJECTS if name not in present]
    name = str(rng.choice(absent))
    asked: list[Question] = []
    if scene.objects or not (scene.kind or scene.word):
        asked += [ask("recognition", wording, name, "no", ABSENT) for wording in wordings("recognition", 1)]
    for name, cell in some(scene.objects, asked_of["recognition"]):
        asked += [ask("recognition", wording, name, "yes", cell) for wording in wordings("recognition", 1)]
    for name, cell in some(scene.objects, asked_of["grounding"]):
        asked += [ask("grounding", wording, name, box_text(cell), cell) for wording in wordings("grounding", 1)]
    if scene.kind:
        count = str(len(scene.solids))
        asked += [ask("counting", wording, scene.kind, count) for wording in wordings("counting", asked_of["counting"])]
    if scene.word:
        asked += [ask("ocr", wording, "", scene.word.text) for wording in wordings("ocr", asked_of["ocr"])]
    return [asked[index] for index in rng.permutation(len(asked))]


def held_out(question: Question) -> Question:
    """The same question in the wording that training never shows."""
    label = question.label or next((kind for kind in KINDS if PLURALS[kind] in question.text), "")
    return ask(question.function, HELD_OUT[question.function], label, question.answer, question.cell)
