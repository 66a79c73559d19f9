"""A run that was interrupted ends with the weights of one that was not; tests/faults kills it at any moment."""

import json
import shutil

import pytest
import trained

from vfl.errors import InputError
from vfl.train.checkpoints import WRITING
from vfl.train.resumed_settings import as_before, goes_on

pytestmark = pytest.mark.long

KINDS, SETTINGS = trained.SHORT_KINDS, trained.SHORT


@pytest.fixture(scope="module")
def settings(data_of):
    own = {"path": str(data_of("image", "text", "image")), "max_new_tokens": 4}
    return SETTINGS | {"evaluation": {"data": {"own": own}, "every": 3}}


@pytest.fixture(scope="module")
def whole(qwen, data_of, run, settings, tmp_path_factory):
    """The folder of a run that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(qwen, data_of(*KINDS), out, **settings)
    return out


@pytest.fixture
def interrupted(whole, tmp_path):
    """The whole run as it was after its fourth step, killed while it wrote the sixth."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "adapter")
    for name in ("report.html", "evaluation.json"):
        (out / name).unlink()
    writing = out / "checkpoints" / WRITING
    writing.mkdir()
    (out / "checkpoints" / "checkpoint-6").rename(writing / "checkpoint-6")
    (writing / "checkpoint-6" / "trainer_state.json").unlink()
    (out / ".adapter.77.tmp").mkdir()
    (out / ".preflight.json.77.tmp").write_text("half")
    return out


def test_leftovers_are_cleaned_and_another_folder_is_no_matter(whole, interrupted, qwen, data_of, run, settings):
    moved = interrupted.with_name("moved")
    interrupted.rename(moved)
    run(qwen, data_of(*KINDS), moved, how={"resume": True}, **settings)
    trained.check_equal(moved, whole)


def test_killed_behind_the_adapter_it_still_ends(whole, qwen, data_of, run, settings, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "report.html").unlink()
    (out / "adapter" / "README.md").unlink()
    run(qwen, data_of(*KINDS), out, how={"resume": True}, **settings)
    trained.check_equal(out, whole)
    with pytest.raises(InputError, match="finished run"):
        run(qwen, data_of(*KINDS), out, how={"resume": True}, **settings)


def test_killed_behind_its_last_step_it_takes_no_other(qwen, data_of, run, tmp_path):
    """A step that is not the last of its epoch."""
    settings = SETTINGS | {"trainer": SETTINGS["trainer"] | {"max_steps": 2, "save_steps": 1}}
    out = tmp_path / "run"
    run(qwen, data_of(*KINDS), out, **settings)
    whole, lines = trained.weights(out), trained.metric_lines(out)
    (out / "report.html").unlink()
    run(qwen, data_of(*KINDS), out, how={"resume": True}, **settings)
    assert trained.same(trained.weights(out), whole)
    assert trained.metric_lines(out) == lines


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 7}, "seed: 0 then, 7 now"),
        ({"lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.2}}, "lora.lora_alpha: 4 then, 8 now"),
        ({"layers": [1, 2]}, "layers"),
        ({"deepspeed": "zero2"}, "deepspeed: None then, 'zero2' now"),
    ],
)
def test_other_settings_are_refused_by_name(interrupted, qwen, data_of, run, settings, changed, named):
    with pytest.raises(InputError, match=named) as refused:
        run(qwen, data_of(*KINDS), interrupted, how={"resume": True}, **settings | changed)
    assert "learning_rate" not in str(refused.value), "what is the same is not named"


def test_another_number_of_processes_is_refused(interrupted, qwen, data_of, run, settings):
    path = interrupted / "preflight.json"
    flight = json.loads(path.read_text())
    flight["launch"] |= {"world_size": 4, "global_batch": 16}
    path.write_text(json.dumps(flight))
    with pytest.raises(InputError, match="16 rows a step with 4 processes"):
        run(qwen, data_of(*KINDS), interrupted, how={"resume": True}, **settings)


def test_a_folder_with_a_run_is_not_overwritten_unasked(interrupted, whole, qwen, data_of, run, settings, tmp_path):
    with pytest.raises(InputError, match="--resume"):
        run(qwen, data_of(*KINDS), interrupted, **settings)
    with pytest.raises(InputError, match="finished run"):
        run(qwen, data_of(*KINDS), whole, **settings)
    with pytest.raises(InputError, match="no run to resume"):
        run(qwen, data_of(*KINDS), tmp_path / "none", how={"resume": True}, **settings)


def test_what_changes_nothing_may_change(interrupted, whole, qwen, data_of, run, settings):
    trainer = settings["trainer"] | {"save_steps": 1, "save_total_limit": 1, "dataloader_num_workers": 1}
    changed = settings | {"trainer": trainer | {"logging_steps": 2}, "data": {"workers": 1}}
    run(qwen, data_of(*KINDS), interrupted, how={"resume": True}, **changed)
    assert trained.same(trained.weights(interrupted), trained.weights(whole))


@pytest.mark.parametrize(
    ("trainer", "longer"),
    [
        ({"lr_scheduler_type": "constant", "warmup_steps": 0}, True),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, True),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1}, False),
        ({"warmup_steps": 0}, False),
    ],
)
def test_a_run_goes_on_for_longer_where_no_step_so_far_would_differ(trainer, longer):
    before, now = ({"trainer": trainer | {"num_train_epochs": epochs}} for epochs in (1, 2))
    assert goes_on(before, now) is longer
    assert not goes_on(now, before), "shorter"
    assert (as_before(before, now) == before) is longer


def test_a_longer_run_is_one_that_was_as_long_from_the_start(qwen, data_of, run, tmp_path):
    constant = {"lr_scheduler_type": "constant", "save_steps": 2}
    rows = data_of("image", "text", "image", "text")
    run(qwen, rows, tmp_path / "once", trainer=constant | {"max_steps": 4})
    run(qwen, rows, tmp_path / "twice", trainer=constant)
    run(qwen, rows, tmp_path / "twice", trainer=constant | {"max_steps": 4}, how={"resume": True})
    assert trained.same(trained.weights(tmp_path / "twice"), trained.weights(tmp_path / "once"))
