"""Two ranks with FSDP2 train what one process does, on rows with and without images, and hold half of the weights."""

import json
from pathlib import Path

import pytest
import ranked
import spread_ranks
import trained
import warm

from vfl.errors import InputError
from vfl.train.fsdp import check_fsdp
from vfl.train.recipe import read_recipe

pytestmark = pytest.mark.long

# Batches of both ranks with and without images, and of one rank only.
MIXED = ("image", "text", "text", "turns", "text", "image", "text", "text", "images", "image", "text", "text")
PAIRS = ("pair",) * 8
WHOLE = {"per_device_train_batch_size": 4, "max_steps": 3, "max_grad_norm": 1.0, **trained.STEADY}
SPLIT = {**WHOLE, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def asked(data_of):
    """What is evaluated at the start and the end: five questions, three of which are one rank's, and three metrics."""
    rows = data_of("image", "text", "image")
    probes = {"probes": "micro", "functions": ["counting"], "pairs": 1, "metrics": ["cosine", "drop", "swap"]}
    return {"data": {"own": {"path": str(rows), "max_new_tokens": 2}}, "batch_size": 2, **probes}


@pytest.fixture(scope="module")
def ranks(qwen, data_of, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    mixed, pairs = data_of(*MIXED), data_of(*PAIRS)
    runs = {
        "sft": (mixed, {"checkpointing": "on", "evaluation": asked}),
        "sft-tight": (mixed, {"checkpointing": "on", "evaluation": asked}),
        "dpo": (pairs, {"method": "dpo", "checkpointing": "auto"}),
        "best": (mixed, {"checkpointing": "on", "evaluation": judged(data_of)}),
    }
    recipes = []
    for name, (data, changed) in runs.items():
        values = trained.settings(qwen, data, folder / name, trainer=SPLIT, fsdp=True, **changed)
        recipes.append(str(trained.write_recipe(folder / f"{name}.yaml", values)))
    done = warm.ranks([str(Path(ranked.__file__)), *recipes], trained.environment())
    assert [rank.returncode for rank in done] == [0, 0], "\n".join(rank.stderr[-6000:] for rank in done)
    codes = [json.loads((folder / f"ranks.{rank}.json").read_text()) for rank in range(2)]
    return folder, codes, "\n".join(rank.stderr for rank in done)


def judged(data_of):
    """The loss of held-out rows after every step, which decides; three rows for two ranks."""
    return {"heldout": str(data_of("image", "text", "turns")), "best": "loss", "every": 1}


def test_the_best_step_by_held_out_loss_is_that_of_one_process(ranks, qwen, data_of, run, tmp_path):
    folder, codes, errors = ranks
    assert [code["best"] for code in codes] == [0, 0], errors[-6000:]
    run(qwen, data_of(*MIXED), tmp_path / "run", trainer=WHOLE, evaluation=judged(data_of))
    assert trained.difference(trained.weights(tmp_path / "run"), trained.weights(folder / "best")) < trained.ROUNDING
    outs = (tmp_path / "run", folder / "best")
    one, other = (json.loads((out / "best" / "history.json").read_text()) for out in outs)
    assert [step for step, _ in one] == [step for step, _ in other] == [1, 2, 3]
    assert [value for _, value in other] == pytest.approx([value for _, value in one], rel=1e-4)


def measured(out):
    """The metrics of each evaluation, as they are logged."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["name"], row["result"]) for row in rows if row["kind"] == "metric"]


@pytest.mark.parametrize(("name", "kinds"), [("sft", MIXED), ("sft-tight", MIXED), ("dpo", PAIRS)])
def test_two_ranks_train_and_answer_what_one_process_does(ranks, qwen, data_of, asked, run, name, kinds, tmp_path):
    folder, codes, errors = ranks
    assert [code[name] for code in codes] == [0, 0], errors[-6000:]
    evaluation = asked if name != "dpo" else {}
    run(qwen, data_of(*kinds), tmp_path / "run", trainer=WHOLE, method=name[:3], evaluation=evaluation)
    assert trained.difference(trained.weights(tmp_path / "run"), trained.weights(folder / name)) < trained.ROUNDING
    if evaluation:
        assert len(measured(folder / name)) == 2 * 3
        assert measured(folder / name)[:3] == measured(tmp_path / "run")[:3], "before training, number for number"
    launch = json.loads((folder / name / "preflight.json").read_text())["launch"]
    assert [launch["fsdp"], launch["zero"], launch["world_size"]] == [True, None, 2]
    for path in sorted((tmp_path / "run" / "answers").glob("step-*.jsonl")):
        assert path.read_text() == (folder / name / "answers" / path.name).read_text()


def test_where_the_weights_do_not_fit_all_ranks_answer_together(ranks):
    assert ranks[2].count("evaluation: the weights are put together") == 2, "of one run: before it and for its cost"
    assert ranks[2].count("evaluation: the weights don't fit together on one device") == 2


SPREAD = ("qwen2_5_vl", "qwen3_vl_moe", "llava", "gemma3", "gemma4", "internvl", "smolvlm")


def test_a_family_in_pieces_says_what_it_said_whole(tiny_folder):
    """To rounding in float64: in pieces, put together for one rank alone, and in pieces again."""
    folders = [tiny_folder(name) for name in SPREAD]
    done = warm.ranks([str(Path(spread_ranks.__file__)), *map(str, folders)], trained.environment())
    assert [rank.returncode for rank in done] == [0, 0], "\n".join(rank.stderr[-6000:] for rank in done)
    for rank in range(2):
        found = json.loads((folders[0].parent / f"spread.{rank}.json").read_text())
        assert len(found) == len(SPREAD)
        for name, numbers in found.items():
            assert 0.4 < numbers["held"] < 0.6, name
            assert numbers["held after"] == numbers["held"], name
            assert numbers["known"], name
            assert numbers["says"], name
            for how in ("apart", "together", "again"):
                assert numbers[how] < 1e-9, (name, how)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "fsdp spreads the weights over several processes, and this is one"),
        ({"deepspeed": "zero2"}, "fsdp and deepspeed: zero2 both spread the weights"),
    ],
)
def test_one_process_has_nothing_to_spread(qwen, data_of, run, changed, said, tmp_path):
    rows = data_of("image", "text")
    with pytest.raises(InputError, match=said):
        run(qwen, rows, tmp_path / "run", **{"fsdp": True, **changed})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method": "grpo"}, "method: grpo"),
        ({"quantize": "4bit"}, "quantize"),
        ({"packing": True, "data": {"train": "rows.json", "max_length": 64}}, "packing"),
        ({"backward": "after_image"}, "backward: after_image"),
        ({"adapter": "run/adapter"}, "adapter"),
    ],
)
def test_what_does_not_go_with_it_is_named(changed, named):
    values = {"model": "m", "out": "run", "layers": [1], "data": {"train": "rows.json"}, "fsdp": True, **changed}
    with pytest.raises(InputError, match=f"fsdp can't be had here: {named} "):
        check_fsdp(read_recipe(values), world_size=2)


def test_accelerates_own_is_refused(qwen, data_of, run, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="accelerate was told to use its FSDP"):
        run(qwen, data_of("image", "text"), tmp_path / "run")
