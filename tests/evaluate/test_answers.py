"""Batched answers equal those of the sweep, and asking leaves a model as it was."""

import random
import warnings

import numpy as np
import pytest
import tiny
import torch

import vfl
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.evaluate import answers as module
from vfl.evaluate.answers import Evaluator, answer, ids_of
from vfl.evaluate.batches import Batches, encode_batch, grouped
from vfl.evaluate.items import EvalItem, items_of_probes
from vfl.evaluate.summary import cut_shares
from vfl.probes.asking import MAX_NEW_TOKENS, question_of, read_answer
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE

QUESTIONS = (
    "How many cats?",
    "What text can you read in the image? Answer with the text only, and with nothing else at all.",
    "Where is the cat in this image?",
)
FAMILIES = ["qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "internvl", "smolvlm", "gemma3", "paligemma"]


def question(name, text, *images, bound=12, expected="3"):
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    messages = ({"role": "user", "content": content},)
    opened = tuple((lambda image=image: image) for image in images)
    return EvalItem(name, "questions", messages, opened, expected, "number", bound)


def image_questions(count=5, bound=12):
    return [question(f"q{i}", QUESTIONS[i % 3], tiny.picture(seed=i), bound=bound) for i in range(count)]


def swept(vlm, item, plan=None):
    encoded = vlm.encode(item.messages, [opened() for opened in item.images])
    return sweep(vlm, encoded, [plan or Plan.own()], max_new_tokens=item.max_new_tokens)


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl", dtype="float64")


@pytest.mark.parametrize("family", [*FAMILIES, "paligemma_plain"])
def test_answers_in_batches_equal_those_of_the_sweep(loaded, family):
    model = loaded(family, dtype="float64")
    notes = list(model.notes)
    items = image_questions(bound=6)
    items[3] = question("q3", QUESTIONS[0], tiny.picture(seed=3, size=(96, 64)), bound=6)  # its tokens may be more
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation")  # PaliGemma's processor
        answered = answer(model, items, 3)
    assert [answered_item.id for answered_item in answered] == [item.id for item in items]
    assert [answered_item.text for answered_item in answered] == [swept(model, item).texts[0] for item in items]
    assert len({answered_item.text for answered_item in answered}) > 1
    assert model.notes == notes, "nothing had to be asked one by one"
    hidden = range(model.num_layers - 2)
    blind = ids_of(model, encode_batch(model, items), hidden)
    assert blind == [swept(model, item, Plan.hide(hidden)).token_ids[0] for item in items]
    assert ids_of(model, encode_batch(model, items)) != blind, "and the hooks are gone"


def test_text_only_rows_and_several_images_in_one_evaluation(vlm):
    pictures = [tiny.picture(seed=seed) for seed in range(2)]
    items = [
        question("none", "how many legs has a cat"),
        question("one", QUESTIONS[0], pictures[0]),
        question("two", QUESTIONS[0], *pictures),
        question("none again", "how"),
    ]
    text_of = {answered.id: answered.text for answered in answer(vlm, items, 4)}
    assert text_of["one"] == swept(vlm, items[1]).texts[0]
    assert text_of["two"] == swept(vlm, items[2]).texts[0]
    for item in (items[0], items[3]):
        inputs = vlm.processor.apply_chat_template(
            list(item.messages), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        ids = vlm.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert text_of[item.id] == vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_family_that_needs_an_image_says_so(loaded):
    model = loaded("paligemma")
    with pytest.raises(InputError, match=r"'none' has no image, and PaliGemma takes only rows with one"):
        answer(model, [question("none", "how many")])


def test_penalties_and_sampling_of_the_checkpoint_are_not_applied(vlm):
    items = image_questions(3)
    expected = answer(vlm, items)
    before = vlm.model.generation_config
    loud = type(before)(**before.to_dict())
    loud.update(do_sample=True, temperature=5.0, top_p=0.5, repetition_penalty=50.0, no_repeat_ngram_size=1)
    vlm.model.generation_config = loud
    try:
        assert answer(vlm, items) == expected
        assert vlm.model.generation_config is loud
    finally:
        vlm.model.generation_config = before


def test_probes_are_judged_as_in_locating(tmp_path):
    embedded = vfl.load()
    pairs = make(tmp_path / "suite", ("counting", "grounding", "ocr"), pairs=4, seed=8, style=MICRO_STYLE)
    answered = answer(embedded, items_of_probes(embedded, pairs), 5)
    for response, pair in zip(answered, pairs, strict=True):
        encoded = embedded.ask(question_of(embedded, pair), pair.path("image"))
        text = sweep(embedded, encoded, [Plan.own()], max_new_tokens=MAX_NEW_TOKENS[pair.match]).texts[0]
        assert response.text == read_answer(embedded, pair, text, encoded)
        assert response.correct == pair.correct(response.text)
    assert sum(response.correct for response in answered) >= 10
    assert {response.text[0] for response in answered if response.group == "grounding"} == {"["}, "boxes come in pixels"
    assert cut_shares(answered) == {}
    short = answer(embedded, items_of_probes(embedded, pairs, max_new_tokens=1), 5)
    assert all(response.cut for response in short if response.group != "counting")
    assert {"grounding": 1.0, "ocr": 1.0}.items() <= cut_shares(short).items()


def test_batches_hold_like_items_and_everything_once():
    items = [question(str(i), QUESTIONS[i % 3], *[tiny.picture()] * (i % 2), bound=4 << (i % 2)) for i in range(11)]
    groups = grouped(items, 3)
    assert sorted(item.id for group in groups for item in group) == sorted(item.id for item in items)
    for group in groups:
        assert len(group) <= 3
        assert len({(len(item.images), item.max_new_tokens) for item in group}) == 1


def test_images_are_opened_once_as_far_as_memory_is_given(vlm):
    opened = []

    def counted(number):
        def open_image():
            opened.append(number)
            return tiny.picture(seed=number)

        return open_image

    items = [
        EvalItem(str(i), "g", ({"role": "user", "content": [{"type": "image"}]},), (counted(i),), "1", "number", 2)
        for i in range(4)
    ]
    evaluator = Evaluator(vlm, items, batch=2)
    first = evaluator.answer()
    assert evaluator.answer() == first
    assert sorted(opened) == [0, 1, 2, 3]
    opened.clear()
    (kept, _) = list(Batches(vlm, items, 2, pad=True, keep_bytes=0))
    batches = Batches(vlm, items, 2, pad=True, keep_bytes=kept.num_bytes)
    opened.clear()
    assert [batch.keys for _ in range(2) for batch in batches] == 2 * [batch.keys for batch in batches]
    assert opened.count(0) + opened.count(1) == 2, "the batch that fits is kept"
    assert opened.count(2) + opened.count(3) == 2 * 3


def test_running_out_of_memory_halves_a_batch_and_says_so(vlm, monkeypatch, caplog):
    items = image_questions()
    expected = answer(vlm, items)
    real = module.ids_of

    def limited(vlm, batch):
        if len(batch.items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")
        return real(vlm, batch)

    monkeypatch.setattr(module, "ids_of", limited)
    assert answer(vlm, items) == expected
    assert "out of memory with 5 questions in a batch; going on with 2" in caplog.text


def test_a_model_that_can_not_be_padded_is_asked_one_by_one(vlm, caplog):
    """As a model would that counts positions from the first token, padding or not."""
    items = image_questions(4)
    expected = answer(vlm, items)
    decoder = vlm.parts.decoder
    sizes = []

    def spoil(module, args, kwargs):
        sizes.append(len(kwargs["inputs_embeds"]))
        mask = kwargs["attention_mask"]
        if isinstance(mask, torch.Tensor) and not bool(mask.bool().all()):
            kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * 1.01
        return args, kwargs

    handle = decoder.register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        evaluator = Evaluator(vlm, items)
        sizes.clear()
        assert evaluator.answer() == expected
    finally:
        handle.remove()
        notes = list(vlm.notes)
        vlm.notes.clear()
    assert set(sizes) == {1}
    assert "one by one" in caplog.text
    assert any("other logits" in note for note in notes)


def test_nothing_to_ask_and_repeated_ids_are_refused(vlm):
    with pytest.raises(InputError, match="nothing to evaluate"):
        answer(vlm, [])
    with pytest.raises(InputError, match="'q0' repeats"):
        answer(vlm, image_questions(1) * 2)


def test_an_unreadable_image_is_named(vlm):
    def broken():
        raise InputError("image cat.png cannot be read")

    item = EvalItem("7", "g", ({"role": "user", "content": [{"type": "image"}]},), (broken,), "1", "number", 2)
    with pytest.raises(InputError, match=r"Item '7': image cat\.png cannot be read"):
        answer(vlm, [item])


def state_of(vlm):
    """Everything on the model that asking could change."""
    plain = {
        (name, key): value
        for name, part in vlm.model.named_modules()
        for key, value in vars(part).items()
        if not isinstance(value, dict)
    }
    drawn = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    return plain, vlm.model.config.to_dict(), vlm.model.generation_config, drawn


def same_state(first, second):
    assert first[0].keys() == second[0].keys()
    changed = [key for key in first[0] if first[0][key] is not second[0][key]]
    assert changed == []
    assert first[1:] == second[1:]


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")  # its successor is newer than 5.17
@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_model_in_training_is_left_as_it_was(loaded, family, fails, monkeypatch):
    model = loaded(family)
    items = image_questions()
    expected = answer(model, items)
    model.model.gradient_checkpointing_enable()
    model.model.config.use_cache = False
    model.model.train()
    model.layers[1].eval()  # as a frozen part may be
    torch.manual_seed(5)
    before = state_of(model)
    evaluator = Evaluator(model, items)
    if fails:
        real = model.model.generate

        def failing(**kwargs):
            torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
            real(**kwargs)
            raise RuntimeError("a kernel failed")

        monkeypatch.setattr(model.model, "generate", failing)
        before[0][("", "generate")] = failing
        with pytest.raises(RuntimeError, match="a kernel failed"):
            evaluator.answer()
    else:
        assert evaluator.answer() == expected
    same_state(before, state_of(model))


def test_random_states_and_modes_come_back(vlm):
    vlm.model.train()
    try:
        before = state_of(vlm)
        with untouched(vlm):
            assert not any(part.training for part in vlm.model.modules())
            torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
        same_state(before, state_of(vlm))
    finally:
        vlm.model.eval()
