"""What is known before the first step: right numbers, one page that a terminal of 80 columns holds, and a file."""

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import DeepSpeedPlugin
from preflights import HOSTILE, preflight
from rich.console import Console
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from vfl.errors import InputError
from vfl.io.sizes import size_text
from vfl.io.versions import versions
from vfl.train.preflight.facts import TRAINING, Preflight, backward_cost, estimate_time
from vfl.train.preflight.lengths import bars, length_histogram
from vfl.train.preflight.processes import GATHER, LaunchFacts, launch_facts, steps_per_epoch
from vfl.train.preflight.tables import duration_text, print_preflight


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, **more)


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.inner(x).square().mean()}


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (13, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "num_train_epochs": 2}),
        (13, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "dataloader_drop_last": True}),
        (12, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_train_epochs": 0.5}),
        (5, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "num_train_epochs": 1}),
        (12, {"per_device_train_batch_size": 4, "max_steps": 7}),
    ],
)
def test_the_steps_are_those_that_trainer_makes(tmp_path: Path, rows: int, options: dict[str, Any]) -> None:
    args = arguments(tmp_path, save_strategy="no", logging_strategy="no", **options)
    facts = launch_facts(args, rows)
    trainer = Trainer(Linear(), args, train_dataset=[{"x": torch.ones(1)} for _ in range(rows)])  # type: ignore[arg-type]
    trainer.train()
    assert facts.total_steps == trainer.state.global_step
    assert facts.global_batch == args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert facts.backend is None
    assert (facts.world_size, facts.rank, facts.local_world_size) == (1, 0, 1)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("rows", [1, 16, 17, 31, 100])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_steps_over_several_processes_follow_accelerate(rows: int, world: int, drop_last: bool) -> None:
    shard = BatchSamplerShard(BatchSampler(SequentialSampler(range(rows)), 4, drop_last), world, 0)
    expected = max(math.ceil(len(shard) / 2), 1)
    assert steps_per_epoch(rows, 4, world, accumulation=2, drop_last=drop_last) == expected


def test_two_ranks_under_deepspeed_say_so(tmp_path: Path) -> None:
    config = {
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "none"}},
    }
    code = f"""
from pathlib import Path
from transformers import TrainingArguments
from vfl.train.preflight.processes import launch_facts
args = TrainingArguments(output_dir={str(tmp_path)!r}, use_cpu=True, report_to=[], deepspeed={config!r},
    per_device_train_batch_size=2, gradient_accumulation_steps=4)
facts = launch_facts(args, 10)
Path({str(tmp_path)!r}, f"rank{{facts.rank}}.json").write_text(facts.model_dump_json())
"""
    (tmp_path / "rank.py").write_text(code)
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = warm.ranks([str(tmp_path / "rank.py")], environment)
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr[-3000:] + done[1].stderr[-3000:]
    facts = [LaunchFacts.model_validate_json((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for rank, of_rank in enumerate(facts):
        assert (of_rank.rank, of_rank.local_rank, of_rank.world_size, of_rank.local_world_size) == (rank, rank, 2, 2)
        assert of_rank.backend == "gloo"
        assert of_rank.zero is not None
        assert (of_rank.zero.stage, of_rank.zero.offload_parameters, of_rank.zero.offload_optimizer) == (3, "cpu", None)
        assert (of_rank.global_batch, of_rank.steps_per_epoch, of_rank.total_steps) == (16, 1, 3)
        warnings = "\n".join(of_rank.warnings)
        assert len(of_rank.warnings) == 2
        assert GATHER in warnings
        assert "A step takes 16 rows but the data has 10" in warnings


def test_a_sound_set_up_has_no_warnings(tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    # As if DeepSpeed had been asked for: in this process, it would leave its settings behind for other tests.
    args.deepspeed_plugin = DeepSpeedPlugin(hf_ds_config={"zero_optimization": {"stage": 3, GATHER: True}})
    facts = launch_facts(args, 100)
    assert facts.warnings == ()
    assert facts.zero is not None
    assert facts.zero.gathers_weights
    assert facts.devices[0].total_bytes >= facts.devices[0].free_bytes > 0


def test_less_data_than_a_step_takes_is_said(tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    (warning,) = launch_facts(args, 3).warnings
    assert "A step takes 8 rows but the data has 3" in warning


@pytest.mark.parametrize("seed", range(6))
def test_every_row_is_in_one_bin_on_its_side_of_the_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text, image = (rng.integers(0, 10 ** (seed % 3 + 1) + 2, 200) for _ in range(2))
    total = text + image
    limit = int(np.quantile(total, 0.8))
    histogram = length_histogram(text.tolist(), image.tolist(), limit)
    assert sum(interval.rows for interval in histogram.bins) == histogram.rows == 200
    assert histogram.over == int((total > limit).sum())
    assert sum(interval.rows for interval in histogram.bins if interval.first > limit) == histogram.over
    for interval, after in zip(histogram.bins[:-1], histogram.bins[1:], strict=True):
        assert interval.last + 1 == after.first
    for interval in histogram.bins:
        inside = (interval.first <= total) & (total <= interval.last)
        assert interval.rows == inside.sum()
        if total[inside].sum():
            assert interval.image_share == pytest.approx(image[inside].sum() / total[inside].sum(), abs=1e-4)
    assert (histogram.total.least, histogram.total.most) == (total.min(), total.max())
    assert histogram.longest[0][1] == total.max()


@pytest.mark.parametrize("lengths", [[1], [0, 0], [7, 7, 7], [1, 100_000]])
def test_unusual_lengths_have_a_histogram_too(lengths: list[int]) -> None:
    histogram = length_histogram(lengths, [0] * len(lengths))
    assert sum(interval.rows for interval in histogram.bins) == len(lengths)
    assert histogram.over == 0
    assert all(bar.plain for label, bar, rows in bars(histogram) if rows != "0")


def test_bars_are_as_long_as_their_rows_and_fit() -> None:
    histogram = length_histogram([5] * 10 + [150] * 40 + [400] * 1, [0] * 51, limit=300)
    drawn = bars(histogram, width=20)
    assert max(len(bar) for _, bar, _ in drawn) == 20
    assert {str(span.style) for _, bar, _ in drawn[-1:] for span in bar.spans} == {"red"}


@pytest.mark.parametrize(
    ("layers", "towers", "words"),
    [
        ([10, 11, 20], ["language"], "layers 0-9 run without autograd; the backward pass ends at layer 10"),
        ([1], ["language"], "layer 0 runs without autograd; the backward pass ends at layer 1"),
        ([0, 5], ["language"], "layer 0 is trained: the backward pass goes through every layer"),
        ([10], ["language", "vision"], "training also the vision: the backward pass goes through every decoder layer"),
    ],
)
def test_the_lowest_layer_decides_the_cost(layers: list[int], towers: list[str], words: str) -> None:
    assert backward_cost(layers, towers) == words


def test_sizes_and_times_in_words() -> None:
    assert [size_text(n) for n in (0, 1023, 1536, 5 * 2**20, 3 * 2**40)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]
    assert [duration_text(s) for s in (0.25, 59.6, 4000, 119)] == ["0.25 s", "60 s", "1 h 7 min", "119 s"]


def test_the_time_is_steps_and_evaluations_and_called_an_estimate() -> None:
    time = estimate_time(2.0, 100, evaluation_seconds=30, evaluations=3)
    assert time.total_seconds == 290
    assert "estimate" in printed(preflight(), 80)


def test_the_versions_name_what_an_adapter_depends_on() -> None:
    assert {"vfl", "torch", "transformers", "peft", "trl"} <= versions(*TRAINING).keys()


def printed(flight: Preflight, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_preflight(flight, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_terminal_and_says_everything(width: int) -> None:
    flight = preflight()
    text = printed(flight, width)
    assert max(map(len, text.splitlines())) <= width
    flowing = " ".join(text.split())
    for fact in (
        "layers 0-9 run without autograd; the backward pass ends at layer 10",
        "69,206,016",
        "132.0 MiB",
        "0.83 % of the model",
        "In the loss: 32 of 2,448 tokens",
        "none of the 2,304 image tokens",
        "limit 1,200",
        "16 rows a step = 2 a process x 8 accumulated x 1 process",
        "7 unreadable",
        "12 with several turns",
        "31.0 GiB of 80.0 GiB at the peak",
    ):
        assert fact in flowing
    assert flight.warnings
    assert all(warning[:30] in flowing for warning in flight.warnings)
    assert "…" not in text.split("In the loss")[0], "a column was cut"


def test_text_from_data_cannot_drive_the_terminal() -> None:
    text = printed(preflight(), 80)
    assert "\x1b" not in text
    assert "[bold]" in text, "markup in an answer was interpreted"


def test_parts_that_were_not_measured_are_left_out() -> None:
    flight = preflight().model_copy(update={"audit": None, "lengths": None, "memory": None, "time": None})
    text = printed(flight, 80)
    assert "In the loss" not in text
    assert "estimate" not in text


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    flight = preflight()
    flight.save(tmp_path / "run" / "preflight.json")
    assert os.listdir(tmp_path / "run") == ["preflight.json"]
    assert Preflight.load(tmp_path / "run" / "preflight.json") == flight
    content = json.loads((tmp_path / "run" / "preflight.json").read_text())
    assert content["data"]["files"] == {f"train.json {HOSTILE}": "cd" * 32}


def test_another_file_is_no_preflight(tmp_path: Path) -> None:
    (tmp_path / "preflight.json").write_text('{"model": 3}')
    with pytest.raises(InputError, match=r"not a preflight\.json of this version"):
        Preflight.load(tmp_path / "preflight.json")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Preflight.load(tmp_path / "missing.json")


def test_an_answer_without_an_end_is_a_warning() -> None:
    flight = preflight()
    assert flight.audit is not None
    rows = tuple(row.model_copy(update={"unclosed": 1}) for row in flight.audit.rows)
    changed = flight.model_copy(update={"audit": flight.audit.model_copy(update={"rows": rows})})
    assert "4 answers have no end token in the loss" in changed.warnings[-1]
