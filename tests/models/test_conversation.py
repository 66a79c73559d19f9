"""Teacher-forced conversations hold what the model sees at inference, and mark nothing but answers."""

import pytest
import torch
from tiny.pictures import picture

import vfl
from vfl.errors import InputError
from vfl.models.conversation import encoder_of

FAMILIES = [
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "llava_onevision", "internvl", "idefics3", "smolvlm",
    "gemma3", "paligemma",
]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


def user(text, image=None):
    entries = [{"type": "image", "image": image}] if image is not None else []
    return {"role": "user", "content": [*entries, {"type": "text", "text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def test_the_prompt_is_the_one_of_inference_and_the_rest_the_answer(vlm):
    prompt = [user("How many cups?", picture(0))]
    batch = encoder_of(vlm).encode([[*prompt, assistant("three")]])
    asked = vlm.encode(prompt)
    ids, answers = batch.inputs["input_ids"][0], batch.answers[0]
    assert torch.equal(ids[: asked.length], asked.input_ids[0])
    assert not answers[: asked.length].any()
    answer = ids[answers].tolist()
    assert vlm.tokenizer.decode(answer[:-1]).strip() == "three" or "three" in vlm.tokenizer.decode(answer)
    assert answer[-1] in vlm.end_ids()
    assert answers[asked.length]
    for name, value in asked.inputs.items():
        if isinstance(value, torch.Tensor) and value.shape != asked.input_ids.shape:
            assert torch.equal(value, batch.inputs[name]), name


def test_the_answer_has_the_log_probability_that_the_sweep_gives(vlm):
    """The same conditional, through a whole forward pass and through the engine."""
    prompt = [user("How many cups?", picture(0))]
    batch = encoder_of(vlm).encode([[*prompt, assistant("three")]])
    with torch.no_grad():
        logits = vlm.model(**batch.inputs).logits[0]
    places = batch.answers[0].nonzero().flatten()[: len(vlm.answer_ids("three"))]
    assert batch.inputs["input_ids"][0, places].tolist() == vlm.answer_ids("three")
    logprobs = logits[places - 1].log_softmax(-1)[torch.arange(len(places)), batch.inputs["input_ids"][0, places]]
    swept = vfl.sweep(vlm, vlm.encode(prompt), [vfl.Plan.own()], answers=["three"])
    assert logprobs.mean().item() == pytest.approx(swept.answer_logprobs[0, 0].item(), abs=1e-6)


def test_rows_of_a_batch_are_what_they_are_alone(vlm):
    """Padding and the neighbours' images change nothing."""
    rows = [
        [user("How many cups are on the table?", picture(0)), assistant("three")],
        [user("Colour?", picture(1)), assistant("it is blue and red")],
        [user("What is two and two?"), assistant("four")],
    ]
    if vlm.family.prefix_lm:
        rows = rows[:2]  # PaliGemma's processor takes no prompt without an image
    encoder = encoder_of(vlm)
    together = encoder.encode(rows)
    with torch.no_grad():
        logits = vlm.model(**together.inputs).logits
        for row, messages in enumerate(rows):
            alone = encoder.encode([messages])
            length = int(alone.lengths[0])
            assert int(together.lengths[row]) == length
            assert torch.equal(together.answers[row, :length], alone.answers[0])
            assert not together.answers[row, length:].any()
            expected = vlm.model(**alone.inputs).logits[0]
            answers = alone.answers[0]
            torch.testing.assert_close(logits[row, :length][answers], expected[answers], atol=1e-5, rtol=1e-5)


def test_every_answer_of_a_conversation_is_marked(vlm):
    turns = [
        user("How many cups?", picture(0)), assistant("three"), user("Which colour?"), assistant("blue"),
        user("And here?", picture(1)), assistant("red"), user("Sure?"),
    ]  # fmt: skip
    if vlm.family.prefix_lm:
        with pytest.raises(InputError, match="one answer a row"):
            encoder_of(vlm).encode([turns])
        return
    batch = encoder_of(vlm).encode([turns])
    ids, answers = batch.inputs["input_ids"][0], batch.answers[0]
    edges = torch.diff(answers.int(), prepend=torch.zeros(1, dtype=torch.int)) == 1
    assert int(edges.sum()) == 3
    text = vlm.tokenizer.decode(ids[answers].tolist(), skip_special_tokens=True)
    for word in ("three", "blue", "red"):
        assert word in text
    for word in ("cups", "colour", "here", "Sure", "user", "User", "USER"):
        assert word not in text
    assert not (ids[answers] == vlm.parts.image_token_id).any()
    with torch.no_grad():
        assert torch.isfinite(vlm.model(**batch.inputs).logits).all()


def test_answers_of_the_prompt_are_given(vlm):
    if vlm.family.prefix_lm:
        return
    turns = [user("How many cups?", picture(0)), assistant("three"), user("Which colour?"), assistant("blue")]
    encoder = encoder_of(vlm)
    prompted, learned = encoder.encode([turns], [2]), encoder.encode([turns])
    text = vlm.tokenizer.decode(prompted.inputs["input_ids"][0][prompted.answers[0]].tolist())
    assert "blue" in text
    assert "three" not in text
    assert int(prompted.answers.sum()) < int(learned.answers.sum())


def test_a_conversation_needs_an_answer(vlm):
    with pytest.raises(InputError, match="answer"):
        encoder_of(vlm).encode([[user("How many cups?", picture(0))]])
    with pytest.raises(InputError, match="empty"):
        encoder_of(vlm).encode([[user("How many cups?", picture(0)), assistant(" ")]])
