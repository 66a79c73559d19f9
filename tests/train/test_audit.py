"""The audit lets answers through, all of them, and nothing else, whatever the family's template and tokenizer."""

from typing import Any

import pytest
import tiny
import torch

from vfl.errors import InputError
from vfl.models.conversation import encoder_of
from vfl.train.preflight.audit import LossAudit, audit_loss, visible

FAMILIES = ("qwen2_5_vl", "llava", "gemma3", "idefics3")
ANSWERS = [["There are 3 cubes.", "2 balls, and a  dog.\nYes!"], ["no"]]


def conversations() -> list[list[dict[str, Any]]]:
    def user(*content: dict[str, Any]) -> dict[str, Any]:
        return {"role": "user", "content": list(content)}

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words}

    def assistant(words: str) -> dict[str, Any]:
        return {"role": "assistant", "content": [text(words)]}

    image = {"type": "image", "image": tiny.picture(1)}
    first, second = ANSWERS[0]
    return [
        [user(image, text("How many cubes?")), assistant(first), user(text("What else?")), assistant(second)],
        [user(text("Is there a cat in the image?")), assistant("no")],
    ]


@pytest.fixture(scope="module", params=FAMILIES)
def encoded(request: pytest.FixtureRequest, loaded) -> tuple[Any, Any]:
    vlm = loaded(request.param)
    return vlm, encoder_of(vlm).encode(conversations())


@pytest.fixture(scope="module")
def qwen(loaded) -> tuple[Any, Any]:
    vlm = loaded("qwen2_5_vl")
    return vlm, encoder_of(vlm).encode(conversations())


def audit(vlm: Any, batch: Any, mask: torch.Tensor | None = None, expected: Any = ANSWERS) -> LossAudit:
    return audit_loss(
        vlm.tokenizer,
        batch.inputs["input_ids"],
        batch.answers if mask is None else mask,
        image_token_ids={vlm.parts.image_token_id},
        end_ids=vlm.end_ids(),
        expected=expected,
        attention_mask=batch.inputs["attention_mask"],
        where=["train.json row 0", "train.json row 1"],
    )


def test_it_shows_what_is_learned_and_what_stands_before_it(encoded: tuple[Any, Any]) -> None:
    vlm, batch = encoded
    first, second = audit(vlm, batch).rows
    squeezed = [["".join(text.split()) for text in row] for row in (first.answers, *ANSWERS[:1])]
    assert squeezed[0] == squeezed[1]
    assert second.answers == ("no",)
    assert "cubes?" in first.prompt_tail
    assert "balls" not in first.prompt_tail
    assert "image tokens]" in first.prompt_tail


def test_its_counts_are_those_of_the_batch(encoded: tuple[Any, Any]) -> None:
    vlm, batch = encoded
    audited = audit(vlm, batch)
    ids, present = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    assert [row.tokens for row in audited.rows] == present.sum(1).tolist()
    assert audited.loss_tokens == int(batch.answers.sum())
    assert audited.image_tokens == int((ids == vlm.parts.image_token_id).sum()) > 0
    assert audited.rows[1].image_tokens == 0
    assert audited.unclosed == 0


def test_answers_without_an_end_are_counted(qwen: tuple[Any, Any]) -> None:
    vlm, batch = qwen
    ends = torch.isin(batch.inputs["input_ids"], torch.tensor(sorted(vlm.end_ids())))
    assert audit(vlm, batch, batch.answers & ~ends).unclosed == 3


def test_an_image_token_in_the_loss_is_an_error(encoded: tuple[Any, Any]) -> None:
    vlm, batch = encoded
    everything = batch.inputs["attention_mask"].bool()  # the loss of TRL's `messages` rows
    with pytest.raises(InputError, match=r"train\.json row 0: \d+ of \d+ tokens in the loss are image placeholders"):
        audit(vlm, batch, everything)


def test_any_one_prompt_token_with_a_word_in_it_is_an_error(qwen: tuple[Any, Any]) -> None:
    vlm, batch = qwen
    ids = batch.inputs["input_ids"][1]
    prompt = [n for n in range(int(batch.inputs["attention_mask"][1].sum())) if not batch.answers[1, n]]
    tried = 0
    for n in prompt:
        if int(ids[n]) in vlm.end_ids() or not vlm.tokenizer.decode([int(ids[n])]).strip():
            continue
        mask = batch.answers.clone()
        mask[1, n] = True
        with pytest.raises(InputError, match=r"train\.json row 1: the loss is on other tokens"):
            audit(vlm, batch, mask)
        tried += 1
    assert tried > 10


def test_an_answer_that_is_not_whole_is_an_error(qwen: tuple[Any, Any]) -> None:
    vlm, batch = qwen
    for row in range(2):
        mask = batch.answers.clone()
        mask[row, batch.answers[row].nonzero()[0]] = False
        # The second row is one word and its end token.
        with pytest.raises(InputError, match=rf"row {row}: the loss is on other tokens than the answers"):
            audit(vlm, batch, mask)


def test_a_row_without_loss_is_an_error(qwen: tuple[Any, Any]) -> None:
    vlm, batch = qwen
    mask = batch.answers.clone()
    mask[1] = False
    with pytest.raises(InputError, match=r"train\.json row 1: no token is in the loss.*“no”"):
        audit(vlm, batch, mask)


def test_padding_in_the_loss_is_an_error_though_it_decodes_to_nothing(qwen: tuple[Any, Any]) -> None:
    vlm, batch = qwen
    assert not batch.inputs["attention_mask"][1, -1]
    mask = batch.answers.clone()
    mask[1, -1] = True
    with pytest.raises(InputError, match=r"1 of \d tokens in the loss are padding"):
        audit(vlm, batch, mask)


def test_another_answer_is_an_error_that_shows_both(qwen: tuple[Any, Any]) -> None:
    vlm, batch = qwen
    with pytest.raises(InputError, match="Expected “yes”, decoded from the loss “no”"):
        audit(vlm, batch, expected=[ANSWERS[0], ["yes"]])


def test_it_can_be_saved(qwen: tuple[Any, Any]) -> None:
    audited = audit(*qwen)
    assert LossAudit.model_validate_json(audited.model_dump_json()) == audited


def test_shown_text_cannot_drive_a_terminal() -> None:
    assert visible("a\nb\tc\x1b[31m\x07é") == "a⏎b\\tc\\x1b[31m\\x07é"
