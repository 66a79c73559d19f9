"""Rows of data become rows of the score table: what each column says, whatever batch a row was in."""

import math
import threading

import pyarrow as pa
import pytest
import score_rows
import torch
from PIL import Image
from tiny.pictures import picture

from vfl.data import read
from vfl.data.token_weights import answer_hash
from vfl.engine.teacher_forcing import teacher_forced
from vfl.errors import InputError
from vfl.models.conversation import ConversationEncoder, encoder_of
from vfl.select.score.feeding import Entry
from vfl.select.score.scorer import Scorer, mean_of_rows, source_of
from vfl.select.shards.score_table import schema

LAYERS = {"early": [0], "late": [2, 3]}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="module")
def qwen(loaded):
    return loaded("qwen2_5_vl", dtype="float64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images, each of its own size."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(5):
        picture(seed, (64 + 16 * seed, 48)).save(folder / f"{seed}.png")
    return folder


def rows():
    """One image and one answer, several images, several answers, none."""
    turns = score_rows.turns
    return [
        {"id": "simple", "image": "0.png", "task": "count", "conversations": turns("<image>\nHow many cups?", "three")},
        {"id": "wide", "image": "1.png", "conversations": turns("<image>\nWhich colour is the cup?", "blue and red")},
        {
            "id": "two",
            "image": ["2.png", "3.png"],
            "conversations": turns("<image> and <image> differ in what?", "the colour"),
        },
        {
            "id": "turns",
            "image": "4.png",
            "conversations": turns("<image>\nHow many?", "two") + turns("Colour?", "red") + turns("Sure?", "no"),
        },
        {"id": "text", "conversations": turns("What is two and two?", "four")},
        {"id": "words", "conversations": turns("What is one and one? " * 3, "two, of course")},
    ]


def samples(folder, given):
    return list(enumerate(read(score_rows.write(folder, given))))


def score(vlm, numbered, **settings):
    with Scorer(vlm, LAYERS, **settings) as scorer:
        return scorer.score(numbered)


def test_a_table_of_all_columns_in_the_order_of_the_data(vlm, folder):
    part = score(vlm, samples(folder, rows()), batch=2)
    assert part.table.schema == schema(LAYERS)
    found = {row["uid"]: row for row in part.table.to_pylist()}
    assert list(found) == [row["id"] for row in rows()]
    assert [row["position"] for row in found.values()] == list(range(6))
    assert [row["kind"] for row in found.values()] == ["vision"] * 4 + ["text"] * 2
    assert [row["images"] for row in found.values()] == [1, 1, 2, 1, 0, 0]
    assert [row["turns"] for row in found.values()] == [1, 1, 1, 3, 1, 1]
    assert [row["source"] for row in found.values()] == ["count", *["data.json"] * 5]
    assert part.errors.num_rows == 0
    for row in found.values():
        vision = row["kind"] == "vision"
        assert (row["image_tokens"] > 0) == vision
        assert (row["image_hash"] != "") == vision
        scored = [name for name in row if name.startswith(("no_image", "drop_", "exact_", "logprob_", "prob_", "js_"))]
        assert len(scored) == 5 * 3 + 1
        assert all((row[name] is not None) == vision for name in scored)
        assert row["perplexity"] == pytest.approx(math.exp(row["loss"]), rel=1e-5)
        assert row["answer_prob"] == pytest.approx(math.exp(-row["loss"]), rel=1e-5)
        assert row["full_passes"] == 0


def test_batches_are_encoded_at_once_and_the_scores_are_the_same_bits(qwen, folder, monkeypatch):
    numbered = samples(folder, rows())
    alone = score(qwen, numbered, batch=1, encoders=1).table
    encode, left, both = ConversationEncoder.encode, [0, 1], threading.Barrier(2)

    def waiting(*arguments):
        if left:
            left.pop()
            both.wait(60)  # until another thread is here too
        return encode(*arguments)

    with Scorer(qwen, LAYERS, batch=1, encoders=2) as scorer:
        monkeypatch.setattr(ConversationEncoder, "encode", waiting)
        together = scorer.score(numbered)
    assert together.errors.num_rows == 0
    assert together.table.equals(alone)


def test_own_scores_are_those_of_a_plain_forward_pass(vlm, folder):
    numbered = samples(folder, rows())
    found = score(vlm, numbered, batch=3).table.to_pylist()
    for row, (_, sample) in zip(found, numbered, strict=True):
        images = iter([image.open() for image in sample.images])
        messages = [
            {
                "role": turn["role"],
                "content": [p | {"image": next(images)} if p["type"] == "image" else p for p in turn["content"]],
            }
            for turn in sample.messages
        ]
        batch = encoder_of(vlm).encode([messages])
        with torch.no_grad():
            logits = vlm.model(**batch.inputs).logits[0]
        places = batch.answers[0].nonzero()[:, 0]
        tokens = batch.inputs["input_ids"][0, places]
        predicted = logits[places - 1].softmax(-1)
        chosen = predicted[torch.arange(len(places)), tokens]
        one_hot = torch.nn.functional.one_hot(tokens, predicted.shape[-1])
        assert row["answer_tokens"] == len(places)
        assert row["token_hash"] == answer_hash(tokens.tolist())
        if row["kind"] == "vision":  # all turns in order, so that their mean is the row's drop
            assert len(row["no_image_token_drops"]) == len(places)
            mean = sum(row["no_image_token_drops"]) / len(places)
            assert mean == pytest.approx(row["no_image_logprob_drop"], rel=2e-3, abs=2e-3)
        assert row["text_tokens"] + row["image_tokens"] == batch.answers.shape[1]
        assert row["loss"] == pytest.approx(-chosen.log().mean().item(), rel=1e-5)
        assert row["el2n"] == pytest.approx((predicted - one_hot).norm(dim=1).mean().item(), rel=1e-5)
        hits = predicted.argmax(-1) == tokens
        assert row["accuracy"] == pytest.approx(hits.double().mean().item())
        assert row["exact"] == bool(hits.all())


def test_drops_are_before_minus_after_whatever_the_batch(vlm, folder):
    numbered = samples(folder, rows())
    alone = score(vlm, numbered, batch=1).table.to_pylist()
    together = score(vlm, numbered, batch=8).table.to_pylist()
    score_rows.assert_alike(alone, together)
    for ablation, layers in {"no_image": list(range(vlm.num_layers)), **LAYERS}.items():
        messages = [
            {"role": "user", "content": [{"type": "image", "image": numbered[0][1].images[0].open()},
                                         {"type": "text", "text": "How many cups?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "three"}]},
        ]  # fmt: skip
        scores = teacher_forced(vlm, encoder_of(vlm).encode([messages]), {ablation: layers})
        own, ablated = scores.logprobs.mean(1).tolist()
        hits = scores.top1.double().mean(1).tolist()
        names = {"no_image": ("no_image_logprob_drop", "no_image_prob_drop")}.get(
            ablation, (f"logprob_drop_{ablation}", f"prob_drop_{ablation}")
        )
        assert alone[0][names[0]] == pytest.approx(own - ablated, rel=1e-5)
        assert alone[0][names[1]] == pytest.approx(math.exp(own) - math.exp(ablated), rel=1e-5)
        if ablation == "no_image":  # in float16
            drops = (scores.logprobs[0] - scores.logprobs[1]).tolist()
            assert alone[0]["no_image_token_drops"] == pytest.approx(drops, rel=1e-3, abs=1e-6)
        js = "no_image_js" if ablation == "no_image" else f"js_{ablation}"
        assert alone[0][js] == pytest.approx(float(scores.divergence[1].mean()), rel=1e-4, abs=1e-7)
        if ablation == "no_image":
            assert alone[0]["no_image_accuracy"] == pytest.approx(hits[1])
        else:
            assert alone[0][f"drop_{ablation}"] == pytest.approx(hits[0] - hits[1])


def test_a_blank_or_mean_image_changes_the_functions_and_not_the_gap(qwen, folder):
    numbered = samples(folder, rows()[:2])
    hidden = score(qwen, numbered).table.to_pylist()
    mean = mean_of_rows(qwen, (sample for _, sample in numbered), 2)
    for ablation, mean_embedding in (("blank", None), ("mean", mean)):
        found = score(qwen, numbered, ablation=ablation, mean=mean_embedding).table.to_pylist()
        for one, other in zip(hidden, found, strict=True):
            assert other["no_image_logprob_drop"] == pytest.approx(one["no_image_logprob_drop"], abs=1e-6)
            assert other["logprob_drop_late"] != pytest.approx(one["logprob_drop_late"], abs=1e-6)
            assert other["full_passes"] == 2  # the plain pass again, and the other image's


def test_a_prompt_s_own_answers_are_not_scored(qwen, folder):
    asked = [("user", "How many?"), ("assistant", "two"), ("user", "And here?")]
    prompt = [{"role": role, "content": content} for role, content in asked]
    completion = [{"role": "assistant", "content": "three"}]
    numbered = samples(folder, [{"id": "a", "images": ["0.png"], "prompt": prompt, "completion": completion}])
    (row,) = score(qwen, numbered).table.to_pylist()
    assert row["turns"] == 1


def test_rows_come_longest_first_and_text_by_itself(qwen, folder):
    given = rows()
    given[1]["conversations"] = score_rows.turns("<image>\n" + "cups " * 100, "three")
    numbered = samples(folder, given)
    with Scorer(qwen, LAYERS, batch=3) as scorer:
        feeder = scorer.feeder
        entries = [Entry(*one) for one in numbered]

        def batches(size, most_tokens):
            ready = [batch for _, batch in feeder.batches(iter([(0, entries)]), size, [most_tokens])]
            assert ready.pop() is None
            return [[row.entry.sample.uid for row in batch.rows] for batch in ready]

        found = batches(3, math.inf)
        small = batches(3, 1.0)
    assert sorted(name for batch in found for name in batch) == sorted(row["id"] for row in given)
    assert set(found[-1]) == {"text", "words"}
    assert found[0] == ["wide"]  # as many tokens as three rows of middle length
    assert [len(batch) for batch in small] == [1] * 6  # where memory ran out, batches are smaller


def test_a_part_does_not_depend_on_those_around_it(qwen, folder):
    numbered = samples(folder, rows())
    parts = [numbered[:3], [], numbered[3:5], numbered[5:]]
    alone = [score(qwen, part).table for part in parts]
    with Scorer(qwen, LAYERS) as scorer:
        together = dict(scorer.score_parts(iter(enumerate(parts))))
    assert list(together) == [0, 1, 2, 3]
    assert [part.table for part in together.values()] == alone


def test_what_was_read_is_scored_before_the_reading_fails(qwen, folder):
    numbered = samples(folder, rows())

    def parts():
        yield 0, numbered[:3]
        raise InputError("the data ends")

    with Scorer(qwen, LAYERS) as scorer:
        scored = scorer.score_parts(parts())
        assert next(scored)[0] == 0
        with pytest.raises(InputError, match="the data ends"):
            next(scored)


def bad_rows(folder, limit_words):
    """One bad row for each reason, and a good one first and last."""
    good, turns = rows()[0], score_rows.turns
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:-40])
    picture(0, (400, 300)).save(folder / "huge.png")

    def with_image(name, image, question="<image>\nHow many cups?", answer="three"):
        return {"id": name, "image": image, "conversations": turns(question, answer)}

    return [
        good | {"id": "first"},
        with_image("missing", "nowhere.png"),
        with_image("cut", "cut.png"),
        with_image("huge", "huge.png"),
        with_image("leaves", "../0.png"),
        with_image("remote", "https://example.org/0.png"),
        with_image("empty", "0.png", answer=" "),
        {"id": "role", "image": "0.png", "conversations": [{"from": "narrator", "value": "<image>"}]},
        with_image("long", "0.png", question="<image>\n" + "cups " * limit_words),
        with_image("placeholder", "0.png", question="<image>\nWhat is <|image_pad|>?"),
        with_image("control", "0.png", question="<image>\nWhat is <|im_end|>?"),
        good | {"id": "last"},
    ]


def test_bad_rows_are_set_aside_with_reasons_and_the_others_scored(qwen, folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # Pillow refuses twice that
    numbered = samples(folder, bad_rows(folder, 200))
    counted = []
    with Scorer(qwen, LAYERS, limit=100) as scorer:
        part = scorer.score(numbered, counted.append)
    assert part.table["uid"].to_pylist() == ["first", "last"]
    reasons = dict(zip(part.errors["uid"].to_pylist(), part.errors["reason"].to_pylist(), strict=True))
    assert part.errors["position"].to_pylist() == list(range(1, 11))
    for uid, told in {
        "missing": "does not exist", "cut": "cannot be decoded", "huge": "too large", "leaves": "outside",
        "remote": "on the network", "empty": "empty", "role": "narrator", "long": "the limit is 100",
        "placeholder": "image_pad",
        "control": "im_end",
    }.items():  # fmt: skip
        assert told in reasons[uid], (uid, reasons[uid])
    assert sum(counted) == len(numbered)
    alone = score(qwen, numbered[:1]).table.to_pylist()
    score_rows.assert_alike(part.table.to_pylist()[:1], [row | {"uid": "first"} for row in alone])


def test_strict_stops_at_a_bad_row_and_names_it(qwen, folder):
    numbered = samples(folder, bad_rows(folder, 200))
    for bad in (numbered[1], numbered[2], numbered[8]):
        with pytest.raises(InputError, match=rf"row {bad[0] + 1} .*{bad[1].uid}"):
            score(qwen, [numbered[0], bad], limit=100, strict=True)


def test_a_row_that_the_processor_refuses_does_not_take_its_batch_along(qwen, folder):
    """Qwen's processor refuses images 200 times as long as they are wide."""
    Image.new("RGB", (4000, 8)).save(folder / "line.png")
    given = rows()[:2]
    given.insert(1, given[0] | {"id": "line", "image": "line.png"})
    part = score(qwen, samples(folder, given))
    assert part.table["uid"].to_pylist() == ["simple", "wide"]
    assert part.errors["uid"].to_pylist() == ["line"]
    assert "processor refuses" in part.errors["reason"].to_pylist()[0]


def test_sources_are_columns_or_files(folder):
    (_, sample) = samples(folder, rows())[0]
    assert source_of(sample) == "count"
    assert source_of(sample, "dataset") is None
    lines = folder / "more.jsonl"
    lines.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    (sample,) = read(lines)
    assert source_of(sample) == "more.jsonl"


def test_nothing_to_score_gives_an_empty_table(qwen):
    part = score(qwen, [])
    assert part.table.num_rows == 0
    assert part.table.schema == schema(LAYERS)
    assert isinstance(part.errors, pa.Table)
