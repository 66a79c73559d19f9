"""Training goes on from an adapter: its weights, its modules, and for preferences itself as the reference."""

import pytest
import torch
import trained

from vfl.errors import InputError
from vfl.train.assemble import assemble
from vfl.train.recipe import Recipe

STILL = {"learning_rate": 0.0, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def adapter(qwen, data_of, run, tmp_path_factory):
    """The folder of an adapter in layers 2 and 3."""
    out = tmp_path_factory.mktemp("first") / "run"
    run(qwen, data_of("image", "text"), out)
    return out / "adapter"


def settings(qwen, rows, out, adapter, **changed):
    return trained.settings(qwen, rows, out, adapter=str(adapter), **{"lora": {}, **changed})


def test_steps_of_no_length_leave_the_adapter_as_it_was(adapter, qwen, data_of, run, tmp_path):
    out = tmp_path / "run"
    run(qwen, data_of("image", "text"), out, adapter=str(adapter), lora={}, trainer=STILL)
    assert trained.same(trained.weights(out), trained.weights(adapter.parent))


def test_preferences_are_measured_from_the_adapter(adapter, qwen, data_of, tmp_path):
    """Before the first step policy and reference are the same model, so the loss is log 2."""
    values = settings(qwen, data_of("pair", "pair"), tmp_path / "run", adapter, method="dpo")
    parts = assemble(Recipe.model_validate(values), progress=False)
    batch = parts.trainer.data_collator([parts.prepared.rows[0], parts.prepared.rows[1]])
    with torch.no_grad():
        loss = parts.trainer.compute_loss(parts.trainer.model, parts.trainer._prepare_inputs(batch))
    assert float(loss) == pytest.approx(0.6931472, abs=1e-6)
    names = {name for name, weight in parts.peft_model.named_parameters() if weight.requires_grad}
    assert names
    assert all(".default." in name for name in names)


def test_preferences_after_answers_are_saved_and_resumable(adapter, qwen, data_of, run, tmp_path):
    out = tmp_path / "run"
    run(qwen, data_of("pair", "pair"), out, adapter=str(adapter), lora={}, method="dpo")
    assert trained.weights(out).keys() == trained.weights(adapter.parent).keys()
    assert trained.difference(trained.weights(out), trained.weights(adapter.parent)) > 0
    (out / "report.html").unlink()
    run(qwen, data_of("pair", "pair"), out, adapter=str(adapter), lora={}, method="dpo", how={"resume": True})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"layers": [1, 2]}, "in layers 2–3.*chooses 1–2"),
        ({"adapter": "nowhere"}, "holds no adapter"),
    ],
)
def test_what_does_not_fit_is_refused(adapter, qwen, data_of, run, tmp_path, changed, named):
    with pytest.raises(InputError, match=named):
        run(qwen, data_of("image"), tmp_path / "run", **({"adapter": str(adapter), "lora": {}} | changed))


def test_its_rank_is_its_own(adapter, qwen, data_of, run, tmp_path):
    with pytest.raises(InputError, match="leave lora out"):
        run(qwen, data_of("image"), tmp_path / "run", adapter=str(adapter))


def test_an_adapter_given_as_the_model_names_both_ways(adapter, data_of, run, tmp_path):
    with pytest.raises(InputError, match=r"adapter: .*model: .*vfl merge"):
        run(adapter, data_of("image"), tmp_path / "run")
