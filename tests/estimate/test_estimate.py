"""The cost model: operations are as counted, weights as loaded, and settings move it the right way."""

import pages  # noqa: F401 - makes pages_from_code importable
import pytest
import tiny
import torch
from pages_from_code import estimates
from torch.utils.flop_counter import FlopCounterMode

import vfl
from vfl.engine.operations import head_operations, pass_operations, tower_operations
from vfl.errors import InputError
from vfl.estimate.cards import CARDS
from vfl.estimate.config import EstimateConfig
from vfl.estimate.measuring import FORWARDS
from vfl.estimate.run import cost_of, estimate, read_shape
from vfl.estimate.tokens import weight_bytes
from vfl.io.config import validated
from vfl.metrics.measure import known_metrics
from vfl.models.shape import picture_of

SEVEN = {"model": estimates.NAME, "picture": (1024, 768)}


def seven(**settings):
    return validated(EstimateConfig, SEVEN | settings, source="settings")


def cost(work, card="a100", **settings):
    return cost_of(seven(**settings), estimates.shape(), work, CARDS[card])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava", "gemma3"])
def test_operations_of_a_pass_are_those_that_are_counted(family, tiny_folder):
    """And the config alone gives the sizes that the loaded model has."""
    folder = tiny_folder(family)
    vlm = vfl.load(folder)
    encoded = vlm.ask("how many cats are there", tiny.picture(seed=1, size=(64, 48)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vlm.model(**encoded.inputs)
    config = EstimateConfig(model=str(folder), dtype="float32")
    shape = read_shape(config)
    picture = picture_of(shape, None if shape.tower.tile is None else encoded.num_vision_tokens, (64, 48))
    assert picture.tokens == encoded.num_vision_tokens
    length = encoded.length
    expected = tower_operations(shape, picture) + pass_operations(shape, length, length)
    expected += head_operations(shape, length)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert weight_bytes(config, shape) == sum(p.numel() * p.element_size() for p in vlm.model.parameters())


def test_the_seven_billion_are_what_they_are_called():
    shape = estimates.shape()
    assert shape.parameters == 8_292_166_656  # as its safetensors index says, two bytes each
    assert shape.quantized == 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944), "of the decoder layers"
    saved = weight_bytes(seven(), shape) - weight_bytes(seven(quantize="4bit"), shape)
    assert saved == pytest.approx(1.484 * shape.quantized, rel=1e-3)


def test_what_is_done_more_costs_more():
    least, most = cost("locate").operations()
    assert least < most
    assert cost("train", train_layers="14-27").operations() < cost("train").operations()
    assert cost("train", checkpointing=True).operations() > cost("train").operations()
    assert cost("train", checkpointing=True).bytes < cost("train").bytes
    assert cost("train", batch_size=1).bytes < cost("train").bytes
    never, seldom = (cost("train", backward={"tokens": "after_image", "whole_every": n}) for n in (0, 3))
    assert never.operations() < seldom.operations() < cost("train").operations()
    assert never.bytes < seldom.bytes == cost("train").bytes
    assert cost("score", picture="448x448").operations() < cost("score").operations()
    assert cost("train", max_pixels=200_704).bytes < cost("train").bytes
    assert cost("measure", metrics="var").operations() < cost("measure").operations()
    spread = cost("train", gpus=8, spread=True)
    assert spread.bytes < cost("train", gpus=8).bytes


@pytest.mark.parametrize("work", ["locate", "score", "train"])
def test_eight_cards_take_less_time(work):
    card = CARDS["a100"]
    assert cost(work, gpus=8).seconds(card)[1] < 0.3 * cost(work).seconds(card)[1]


def test_low_is_below_high_and_a_faster_card_is_faster():
    for each in estimate(seven(), estimates.shape()):
        low, high = each.seconds
        assert 0 < low < high
        assert each.cost.seconds(CARDS["a100"])[0] > low


def test_what_is_named_as_a_remedy_fits():
    (each,) = estimate(seven(work="train", gpu="l40s"), estimates.shape())
    assert not each.fits
    assert any("checkpointing" in remedy for remedy in each.remedies)
    changed = {"checkpointing": True, "batch_size": 1}
    assert cost("train", "l40s", **changed).fits(CARDS["l40s"])
    (fitting,) = estimate(seven(work="train", gpu="l40s", **changed), estimates.shape())
    assert fitting.fits
    assert not fitting.remedies


def test_what_training_refuses_is_neither_estimated_nor_named():
    short = {"tokens": "after_image", "whole_every": 0}
    with pytest.raises(InputError, match="leave checkpointing out"):
        cost("train", backward=short, checkpointing=True)
    with pytest.raises(InputError, match="not for ZeRO-3"):
        cost("train", backward="after_image", spread=True, gpus=8)
    (each,) = estimate(seven(work="train", gpu="l4", gpus=8, backward=short), estimates.shape())
    assert not each.fits
    assert not any("checkpointing" in remedy or "zero3" in remedy for remedy in each.remedies)


@pytest.mark.parametrize(
    ("changed", "checkpointed", "plain"),
    [({"train_layers": "14-27"}, 0.69, 0.77), ({"backward": "after_image"}, 0.62, 0.74)],
)
def test_the_shares_of_a_step_that_the_page_names(changed, checkpointed, plain):
    for share, checkpointing in ((checkpointed, True), (plain, False)):
        whole, part = (cost("train", checkpointing=checkpointing, **more).operations()[0] for more in ({}, changed))
        assert part / whole == pytest.approx(share, abs=0.005)


def test_every_metric_has_its_passes():
    assert FORWARDS.keys() == known_metrics().keys()


def test_the_page_has_each_work_on_each_card():
    table = estimates.table()
    assert all(table.count(f"| {work} |") == len(estimates.PLACES) for work in ("locate", "score", "train", "measure"))
    assert "nothing here was measured on a GPU" in table


def test_layers_that_there_are_not():
    with pytest.raises(InputError, match=r"train_layers names 28–40; the model has 28 decoder layers: 0 to 27"):
        cost("train", train_layers="3,28-40")
