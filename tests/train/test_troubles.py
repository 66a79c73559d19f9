"""What can go wrong around a right recipe is one paragraph, said once, without a traceback."""

import errno
import stat

import pytest
import torch
import trained

import vfl.train.run
from vfl.train.launch import main
from vfl.train.trainers import LayerSFTTrainer

KINDS = ("image", "text")


@pytest.fixture
def good(qwen, data_of, tmp_path):
    """A recipe that would train, and a place for its changes."""
    values = trained.settings(qwen, data_of(*KINDS), tmp_path / "run")
    return trained.write_recipe(tmp_path / "recipe.yaml", values)


def refused(recipe, *overrides, capsys):
    """The one paragraph that the command says."""
    assert main([str(recipe), *overrides]) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    return message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trainer.learning_rate=fast", "trainer.learning_rate is 'fast'; expected a number, 0 or more"),
        ("trainer.learning_rate=-1", "trainer.learning_rate is -1"),
        ("trainer.per_device_train_batch_size=0", "trainer.per_device_train_batch_size is 0"),
        ("trainer.gradient_accumulation_steps=0", "trainer.gradient_accumulation_steps is 0"),
        ("trainer.num_train_epochs=-3", "trainer.num_train_epochs is -3"),
        ("trainer.weight_decay=-0.1", "trainer.weight_decay is -0.1"),
        ("lora.lora_alpha=big", "lora.lora_alpha is 'big'"),
        ("trainer.optim=adamw_of_the_moon", "adamw_of_the_moon"),
        ("trainer.save_strategy=best", "trainer.save_strategy is best"),
        ("trainer.use_liger_kernel=true", "trainer.use_liger_kernel can't be used: its kernels replace"),
        ("trainer.fsdp=full_shard", "trainer.fsdp can't be set: set fsdp of the recipe"),
        ("trainer.metric_for_best_model=loss", "trainer.metric_for_best_model can't be set"),
    ],
)
def test_before_anything_is_read(good, tmp_path, capsys, override, named):
    assert named in refused(good, override, capsys=capsys)
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(
    ("trainer", "named"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "trainer.lr_scheduler_type cosine_with_min_lr"),
        ({"optim": "lomo"}, "trainer.optim lomo"),
        ({"report_to": ["comet_ml"]}, "comet"),
    ],
    ids=["scheduler without its arguments", "optimizer's package", "logger's package"],
)
def test_what_is_missing_for_a_setting(good, capsys, trainer, named):
    overrides = [f"trainer.{key}={value}".replace("'", "") for key, value in trainer.items()]
    assert named in refused(good, *overrides, capsys=capsys)


def test_out_is_a_file(good, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "is a file; name a folder" in refused(good, f"out={tmp_path / 'file'}", capsys=capsys)
    assert f"{tmp_path / 'file'}" in refused(good, f"out={tmp_path / 'file' / 'run'}", capsys=capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_out_may_not_be_written(good, capsys):
    """Not even by a superuser, for whom rights are no obstacle."""
    assert "can't be written" in refused(good, "out=/proc/run", capsys=capsys)


FULL = OSError(errno.ENOSPC, "No space left on device", "somewhere")


@pytest.mark.parametrize("place", ["write_settings", "save_adapter", "write_training_report", "write_card"])
def test_a_full_disk(good, tmp_path, capsys, monkeypatch, place):
    def fail(*arguments, **options):
        raise FULL

    monkeypatch.setattr(vfl.train.run, place, fail)
    assert f"The disk of {tmp_path / 'run'} is full" in refused(good, capsys=capsys)
    monkeypatch.undo()
    resume = ["--resume"] if (tmp_path / "run" / "settings.yaml").exists() else []
    assert main([str(good), *resume]) == 0, "there is room again"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_no_memory_in_the_step_that_is_tried(good, capsys, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(LayerSFTTrainer, "compute_loss", fail)
    message = refused(good, capsys=capsys)
    assert "not enough memory for a step of 2 rows" in message
    assert "per_device_train_batch_size" in message


def test_another_error_is_none_of_these(good, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(LayerSFTTrainer, "training_step", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main([str(good)])


def test_an_adapter_is_readable_by_those_that_the_umask_lets(good, tmp_path):
    assert main([str(good)]) == 0
    for folder in (tmp_path / "run" / "adapter", tmp_path / "run" / "checkpoints" / "checkpoint-2"):
        assert stat.S_IMODE((folder / "adapter_model.safetensors").stat().st_mode) & 0o044 == 0o044


@pytest.mark.slow
def test_two_processes_say_it_once(good):
    done = trained.launched(["-m", "vfl.train.launch", str(good), "trainer.learning_rate=fast"])
    assert done.returncode != 0
    assert done.stderr.count("trainer.learning_rate is 'fast'") == 1
