"""Two ranks train what one process does with the same global batches: DDP, ZeRO-2 and ZeRO-3, on the CPU with gloo."""

import json
import shutil
from pathlib import Path

import pytest
import ranked
import trained
import warm

pytestmark = pytest.mark.long

IMAGES = ("image", "image", "turns", "images") * 3
# Batches of both ranks with and without images, and of one rank only.
MIXED = ("image", "text", "text", "turns", "text", "image", "text", "text", "images", "image", "text", "text")
PAIRS = ("pair",) * 8
# Anchors, a third of the rows: some batches of a rank are theirs alone, and some have none.
OLD = ("text", "image", "turns", "text")
# The first gradient (norm 0.8) is taken as it is, the next ones (1.2, 1.4) are clipped.
WHOLE = {"per_device_train_batch_size": 4, "max_steps": 3, "max_grad_norm": 1.0, **trained.STEADY}
FREEZE = {"below": 0.6, "after": 0.34}  # layer 2 after the first of three steps, layer 3 goes on
SPLIT = {**WHOLE, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def asked(data_of):
    """What is evaluated beside the training, at the start and the end."""
    rows = data_of("image", "text", "image")
    return {"data": {"own": {"path": str(rows), "max_new_tokens": 2}}, "batch_size": 2}


@pytest.fixture(scope="module")
def mixture(data_of):
    """Two sets, of the second of which each row comes three times."""
    return {
        "train": [{"path": str(data_of(*IMAGES)), "weight": 2}, {"path": str(data_of("image", "text")), "weight": 1}]
    }


@pytest.fixture(scope="module")
def ranks(qwen, data_of, asked, mixture, tmp_path_factory):
    """Runs of two ranks: where they lie, each rank's exit codes, and what was said."""
    folder = tmp_path_factory.mktemp("ranks")
    images, mixed, pairs = data_of(*IMAGES), data_of(*MIXED), data_of(*PAIRS)
    broken = folder / "broken.jsonl"
    broken.write_text(images.read_text().replace("3-0.png", "missing.png"))
    runs = {
        "ddp-freeze": (images, {"freeze": FREEZE, "evaluation": asked, "data": mixture}),
        "zero3-freeze": (
            images,
            {"freeze": FREEZE, "evaluation": asked, "deepspeed": "zero3", "checkpointing": "on"},
        ),
        "zero3-tight": (images, {"evaluation": asked, "deepspeed": "zero3", "checkpointing": "on"}),
        "mixed-zero2": (mixed, {"deepspeed": "zero2"}),
        "anchors": (mixed, {"protect": _held(data_of)}),
        "anchors-zero3": (mixed, {"protect": _held(data_of), "deepspeed": "zero3", "checkpointing": "auto"}),
        "dpo-zero3": (pairs, {"method": "dpo", "deepspeed": "zero3"}),
        "dpo-mixed": (_pairs_without_image(folder, pairs), {"method": "dpo", "deepspeed": "zero3"}),
        "broken": (broken, {"data": {"images": str(images.parent)}}),
    }
    return _run(folder, qwen, runs)


@pytest.fixture(scope="module")
def further_ranks(qwen, data_of, tmp_path_factory):
    """Runs whose parts `ranks` has, each in a harder run: text among the images, anchors, freezing, or ZeRO-3."""
    images, mixed, pairs = data_of(*IMAGES), data_of(*MIXED), data_of(*PAIRS)
    runs = {
        "zero2": (images, {"deepspeed": "zero2"}),
        "mixed-zero3": (mixed, {"deepspeed": "zero3", "checkpointing": "auto"}),
        "zero3-checkpointing": (images, {"deepspeed": "zero3", "checkpointing": "on"}),
        "zero2-freeze": (images, {"freeze": FREEZE, "deepspeed": "zero2"}),
        "dpo": (pairs, {"method": "dpo", "deepspeed": "zero2"}),
    }
    return _run(tmp_path_factory.mktemp("further"), qwen, runs)


def _run(folder, model, runs):
    recipes = []
    for name, (data, changed) in runs.items():
        values = trained.settings(model, data, folder / name, trainer=SPLIT, **changed)
        recipes.append(str(trained.write_recipe(folder / f"{name}.yaml", values)))
    done = warm.ranks([str(Path(ranked.__file__)), *recipes], trained.environment())
    errors = "\n".join(rank.stderr for rank in done)
    assert [rank.returncode for rank in done] == [0, 0], "\n".join(rank.stderr[-3000:] for rank in done)
    codes = [json.loads((folder / f"ranks.{rank}.json").read_text()) for rank in range(2)]
    return folder, codes, errors


@pytest.fixture(scope="module")
def alone(qwen, data_of, run, tmp_path_factory):
    """The weights that one process trains, by data and method, or with anchors."""
    known = {}

    def weights(kinds, method="sft", freeze=None):
        key = (kinds, method, freeze is None)
        if key not in known:
            out = tmp_path_factory.mktemp("alone") / "run"
            changed = {"protect": _held(data_of)} if method == "anchors" else {"method": method}
            run(qwen, data_of(*kinds), out, trainer=WHOLE, freeze=freeze, **changed)
            known[key] = trained.weights(out)
        return known[key]

    return weights


def _held(data_of):
    return {"how": "kl", "beta": 5.0, "anchors": {"data": str(data_of(*OLD)), "share": 1 / 3}}


def _pairs_without_image(folder, pairs):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows[3]["images"] = []
    rows[3]["prompt"] = trained.turns(trained.QUESTION)
    path = pairs.parent / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("name", "kinds", "method"),
    [
        ("mixed-zero2", MIXED, "sft"),
        ("anchors", MIXED, "anchors"),
        ("anchors-zero3", MIXED, "anchors"),
        ("dpo-zero3", PAIRS, "dpo"),
    ],
)
def test_two_ranks_train_what_one_process_does(ranks, alone, name, kinds, method):
    check_equal(ranks, alone, name, kinds, method)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kinds", "method"),
    [
        ("zero2", IMAGES, "sft"),
        ("mixed-zero3", MIXED, "sft"),
        ("zero3-checkpointing", IMAGES, "sft"),
        ("zero2-freeze", IMAGES, "sft"),
        ("dpo", PAIRS, "dpo"),
    ],
)
def test_so_they_do_with_easier_parts(further_ranks, alone, name, kinds, method):
    check_equal(further_ranks, alone, name, kinds, method)


def check_equal(ranks, alone, name, kinds, method):
    freeze = FREEZE if name.endswith("freeze") else None
    check_weights(ranks, name, alone(kinds, method, freeze))


def check_weights(ranks, name, expected):
    folder, codes, _ = ranks
    assert [code[name] for code in codes] == [0, 0]
    weights = trained.weights(folder / name)
    assert all(weight.numel() and weight.norm() > 0 for weight in weights.values())
    assert trained.difference(expected, weights) < trained.ROUNDING
    check_stage(folder / name, {"dpo": 2}.get(name, next((n for n in (2, 3) if f"zero{n}" in name), None)))


def check_stage(out, stage):
    zero = json.loads((out / "preflight.json").read_text())["launch"]["zero"]
    assert (zero and zero["stage"]) == stage
    parts = list((out / "checkpoints" / "checkpoint-3").glob("global_step*/*optim_states.pt"))
    assert len(parts) == (2 if stage else 0), "DeepSpeed itself kept the optimizer's state"


@pytest.mark.parametrize("name", ["ddp-freeze", "zero3-freeze", "zero3-tight"])
def test_what_two_ranks_answer_is_what_the_model_answers(ranks, qwen, data_of, asked, mixture, run, name, tmp_path):
    """They train the same, too, with layers that freeze on the way, and of two sets; each rank answers its share."""
    assert ranks[2].count("evaluation: the weights are put together") == 1, "of zero3-freeze"
    assert ranks[2].count("evaluation: the weights don't fit together") == 1, "of zero3-tight"
    more = {"data": mixture} if name == "ddp-freeze" else {}
    freeze = FREEZE if name.endswith("freeze") else None
    run(qwen, data_of(*IMAGES), tmp_path / "run", trainer=WHOLE, evaluation=asked, freeze=freeze, **more)
    check_weights(ranks, name, trained.weights(tmp_path / "run"))
    for step in ("step-000000.jsonl", "step-000003.jsonl"):
        assert (ranks[0] / name / "answers" / step).read_text() == (tmp_path / "run" / "answers" / step).read_text()


def test_zero3_refuses_preference_rows_without_images(ranks):
    folder, codes, errors = ranks
    assert [code["dpo-mixed"] for code in codes] == [2, 2]
    assert "1 rows have no image" in errors
    assert not (folder / "dpo-mixed" / "checkpoints").exists()


def test_an_error_in_the_data_ends_all_ranks(ranks):
    folder, codes, errors = ranks
    assert [code["broken"] for code in codes] == [2, 2]
    saying = [line for line in errors.splitlines() if "missing.png" in line]
    assert len(saying) == 1, f"the first rank alone says it: {saying}"
    assert not (folder / "broken" / "settings.yaml").exists()


def test_torchrun_ends_with_the_ranks(qwen, data_of, tmp_path):
    broken = data_of(*IMAGES).with_name("gone.jsonl")
    broken.write_text(data_of(*IMAGES).read_text().replace("3-0.png", "missing.png"))
    recipe = trained.write_recipe(tmp_path / "r.yaml", trained.settings(qwen, broken, tmp_path / "run", trainer=SPLIT))
    done = trained.launched(["--module", "vfl.train.launch", str(recipe)])
    assert done.returncode != 0
    assert "exitcode  : 2" in done.stderr
    assert done.stderr.count("Error: 1 of 12 rows") == 1
    assert "on_bad_row" in done.stderr


@pytest.mark.slow
def test_two_ranks_go_on_where_they_were_stopped(qwen, data_of, tmp_path):
    """The optimizer's state lies in pieces: every rank writes and reads its own."""
    trainer = SPLIT | {"save_steps": 1}
    lora = {"r": 4, "lora_alpha": 4, "lora_dropout": 0.2}
    recipes = []
    for name, zero in (("ddp", None), ("fsdp", None), ("zero2", "zero2"), ("zero3", "zero3")):
        how = {"fsdp": True} if name == "fsdp" else {"deepspeed": zero}
        values = trained.settings(
            qwen, data_of(*MIXED), tmp_path / name, **how, trainer=trainer, lora=lora, checkpointing="on"
        )
        recipes.append(trained.write_recipe(tmp_path / f"{name}.yaml", values))
    script = [str(Path(ranked.__file__)), *map(str, recipes)]
    assert [rank.returncode for rank in warm.ranks(script, trained.environment())] == [0, 0]
    whole = {recipe.stem: trained.weights(tmp_path / recipe.stem) for recipe in recipes}
    for name in whole:
        shutil.rmtree(tmp_path / name / "checkpoints" / "checkpoint-3")
        shutil.rmtree(tmp_path / name / "adapter")
        (tmp_path / name / "report.html").unlink()
    done = warm.ranks([*script, "--resume"], trained.environment())
    assert json.loads((tmp_path / "ranks.0.json").read_text()) == dict.fromkeys(whole, 0), done[0].stderr[-5000:]
    for name, weights in whole.items():
        assert trained.difference(weights, trained.weights(tmp_path / name)) < 1e-6, name
