"""Probe pairs for watching the training: a target and a source scene that differ in one thing, and one question."""

from dataclasses import dataclass, replace

import numpy as np

from vfl.probes import micro_limits as style
from vfl.testbeds.micro.questions import ABSENT, Question, counting, grounding, ocr, recognition
from vfl.testbeds.micro.scenes import Scene, random_scene


@dataclass(frozen=True)
class ScenePair:
    """`asked` and `source_asked` are the same question with the two scenes' answers."""

    target: Scene
    source: Scene
    asked: Question
    source_asked: Question


def make_pair(rng: np.random.Generator, function: str) -> ScenePair:
    """As the probe generator: blank canvas, another count, another place, another word."""
    if function == "recognition":
        target = random_scene(rng, objects=1)
        name, cell = target.objects[0]
        return ScenePair(target, replace(target, objects=()), recognition(name, cell), recognition(name, ABSENT))
    if function == "counting":
        fewer, more = sorted(rng.choice(style.COUNTS, size=2, replace=False).tolist())
        big = random_scene(rng, solids=more)
        assert big.kind is not None
        small = replace(big, solids=big.solids[:fewer])
        scenes = (big, small) if rng.random() < 0.5 else (small, big)
        first, second = (counting(big.kind, len(scene.solids)) for scene in scenes)
        return ScenePair(*scenes, first, second)
    if function == "grounding":
        target = random_scene(rng, objects=int(rng.integers(1, style.MAX_OBJECTS + 1)))
        name, cell = target.objects[0]
        taken = {other for _, other in target.objects}
        place = int(rng.choice([other for other in range(style.GRID**2) if other not in taken]))
        source = replace(target, objects=((name, place), *target.objects[1:]))
        return ScenePair(target, source, grounding(name, cell), grounding(name, place))
    assert function == "ocr", function
    target = random_scene(rng, word=True)
    assert target.word is not None
    text = str(rng.choice(style.WORDS))
    while (other := str(rng.choice(style.WORDS))) == text:
        pass
    word = replace(target.word, text=text)
    return ScenePair(replace(target, word=word), replace(target, word=replace(word, text=other)), ocr(text), ocr(other))
