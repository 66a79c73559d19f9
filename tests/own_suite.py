"""A probe folder whose answers are a model's own, so that random tiny models have pairs to keep."""

import json
from pathlib import Path

import tiny

from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.models.vlm import VLM
from vfl.probes import match
from vfl.probes.asking import MAX_NEW_TOKENS

QUESTION = "What text can you read in the image? Answer with the text only."


def write_own_suite(
    vlm: VLM, folder: Path, num_pairs: int, *, control: bool = True, max_new_tokens: int = MAX_NEW_TOKENS["text"]
) -> Path:
    """Pairs of made pictures on which the model gives two different readable answers."""
    (folder / "images").mkdir(parents=True)
    answers: dict[str, str] = {}
    lines = []
    for seed in range(400):
        image = tiny.picture(seed=seed)
        name = f"images/{seed}.png"
        (answer,) = sweep(vlm, vlm.ask(QUESTION, image), [Plan.own()], max_new_tokens=max_new_tokens).texts
        if match.read("text", answer) is None:
            continue
        image.save(folder / name)
        partner = next((other for other, theirs in answers.items() if not match.same("text", theirs, answer)), None)
        if partner is None:
            answers[name] = answer
            continue
        line = {"id": f"pair-{len(lines)}", "function": "naming", "question": QUESTION, "match": "text"}
        line |= {"image": name, "source_image": partner, "answer": answer, "source_answer": answers.pop(partner)}
        if control:
            line["control_image"] = name
        lines.append(line)
        if len(lines) == num_pairs:
            (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            return folder
    raise AssertionError(f"only {len(lines)} pairs with two readable answers were found")
