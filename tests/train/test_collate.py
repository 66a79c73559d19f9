"""Batches: labels on answers alone, and a blank picture where all ranks must see one."""

import pytest
import torch
import trained

import vfl
from vfl.models.conversation import encoder_of
from vfl.train.data_config import DataConfig
from vfl.train.rows.collate import Collator, PreferenceCollator
from vfl.train.rows.prepare import prepare


@pytest.fixture(scope="module")
def vlm(qwen):
    return vfl.load(qwen, device="cpu")


@pytest.fixture(scope="module")
def rows(vlm, data_of):
    """Rows of all kinds, as the trainer gets them."""
    config = DataConfig(train=(data_of("image", "text", "turns", "images"),))
    return list(prepare(config, encoder_of(vlm), method="sft", progress=False).rows)


def learned(vlm, batch, row):
    ids = batch["labels"][row]
    return vlm.tokenizer.decode(ids[ids != -100])


def test_labels_are_the_answers(vlm, rows):
    batch = Collator(encoder_of(vlm))(rows)
    for number, row in enumerate(rows):
        text = learned(vlm, batch, number)
        assert trained.ANSWERS[number] in text
        assert trained.QUESTION not in text
        assert (text.count(vlm.tokenizer.eos_token) or text.count("<|im_end|>")) == (
            2 if "dogs" in row["messages"] else 1
        )
    taught = batch["labels"] != -100
    assert not (taught & (batch["input_ids"] == vlm.parts.image_token_id)).any()
    assert not (taught & (batch["attention_mask"] == 0)).any()
    assert torch.equal(batch["labels"][taught], batch["input_ids"][taught])


def test_rows_mean_the_same_in_any_batch(vlm, rows):
    whole = Collator(encoder_of(vlm))(rows)
    for number, row in enumerate(rows):
        alone = Collator(encoder_of(vlm))([row])
        length = alone["input_ids"].shape[1]
        for name in ("input_ids", "labels", "attention_mask"):
            assert torch.equal(alone[name][0], whole[name][number, :length])


def test_a_batch_without_images_shows_a_blank_one_when_it_must(vlm, rows):
    text = rows[1:2]
    plain, shown = Collator(encoder_of(vlm))(text), Collator(encoder_of(vlm), show_always=True)(text)
    assert "pixel_values" not in plain
    assert "pixel_values" in shown
    assert (len(plain["input_ids"]), len(shown["input_ids"])) == (1, 2)
    assert (shown["labels"][1] == -100).all()
    assert learned(vlm, shown, 0) == learned(vlm, plain, 0)
    with torch.no_grad():
        assert vlm.model(**shown).loss == pytest.approx(float(vlm.model(**plain).loss), rel=1e-5)


def test_a_batch_with_an_image_is_left_alone(vlm, rows):
    plain, shown = Collator(encoder_of(vlm))(rows[:2]), Collator(encoder_of(vlm), show_always=True)(rows[:2])
    assert plain.keys() == shown.keys()
    assert all(torch.equal(plain[name], shown[name]) for name in plain)


def test_pairs_come_as_chosen_then_rejected(vlm, data_of):
    config = DataConfig(train=(data_of("pair", "pair"),))
    pairs = list(prepare(config, encoder_of(vlm), method="dpo", progress=False).rows)
    batch = PreferenceCollator(encoder_of(vlm))(pairs)
    said = [
        vlm.tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert len(said) == 4
    for text, answer in zip(said, (*trained.ANSWERS[:2], *trained.ANSWERS[1:3]), strict=True):
        assert answer in text
