"""Accuracy per function, forgetting and metrics while a model trains, in any Transformers trainer.

    vlm = vfl.load(model)
    items = items_of_probes(vlm, pairs)
    evaluation = EvaluationCallback(vlm, items, out, every=100, metrics=["swap"], metric_pairs=few)
    trainer = SFTTrainer(vlm.model, ..., callbacks=[evaluation])

Writes metrics.jsonl (metrics_log.py), the answers of each evaluation (answers/step-*.jsonl) and, at the end,
evaluation.json with the paired differences from step 0. A run with it trains the same weights, bit for bit, as one
without.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.evaluate.answers import Answered, Evaluator
from vfl.evaluate.items import EvalItem, check_items
from vfl.evaluate.result import Evaluation, read_answers, write_answers
from vfl.evaluate.summary import compare, cut_shares, summarise
from vfl.loading.config import identify
from vfl.metrics.measure import check_names, measure_named
from vfl.models.discover import discover
from vfl.models.vlm import VLM
from vfl.probes.asking import cut_warning
from vfl.probes.pair import Pair
from vfl.train.callback.metrics_log import MetricsLog
from vfl.train.callback.tracking import log_accuracies, log_metrics, numbers_of
from vfl.train.fsdp import is_spread, whole
from vfl.train.report.log import read_log
from vfl.train.whole_weights import fits_whole

logger = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
_ALONE = "the weights are put together for it, and each process answers its share"
_TOGETHER = "the weights don't fit together on one device, so all processes answer everything, step by step"


class EvaluationCallback(TrainerCallback):
    """Evaluates a model at step 0, every so many steps, whenever the trainer evaluates, and at the end.

    With several processes each answers its share of the items, under FSDP2 and ZeRO-3 on weights that are put together
    for it. Where these don't fit, all must take part in every forward, and each answers all items. Metrics are dealt to
    the processes in the same way, each to one. The first process writes.

    Args:
        vlm: the model that is trained, from `vfl.load` or `vfl.wrap`, before or after PEFT has put an adapter on it.
        items: what is asked (`vfl.evaluate.items`).
        out: folder for metrics.jsonl, answers/ and evaluation.json.
        every: steps between evaluations; None for only at the start, with the trainer's own and at the end.
        at_start: evaluate at step 0; without it there is no forgetting.
        metrics: names of `vfl.metrics`, measured together with the items.
        metric_pairs: the few pairs that metrics are measured on.
        batch: questions in a batch.
        settings: what evaluation.json says of the run.

    Attributes:
        accuracies: the last accuracy of each group.
        send: takes what was measured to the trainer's loggers (`tracking.sender`); None outside of `vfl train`, where
            a callback does not know its trainer: wandb alone is told then.
        alone: whether a process can run the model without the others, and so answers its share; known from `cost` on.
        whole: puts the weights together where ZeRO-3 spreads them (`whole_under_zero3`); None outside of `vfl train`.

    Raises:
        InputError: for no items, repeated ids, unknown metrics, or metrics without pairs.
    """

    def __init__(
        self,
        vlm: VLM,
        items: Sequence[EvalItem],
        out: Path,
        *,
        every: int | None = None,
        at_start: bool = True,
        metrics: Sequence[str] = (),
        metric_pairs: Sequence[Pair] = (),
        batch: int = 16,
        settings: dict[str, Any] | None = None,
    ) -> None:
        check_items(items)
        check_names(metrics)
        if metrics and not metric_pairs:
            raise InputError(
                f"Metrics are to be measured ({', '.join(metrics)}), but no probe pairs were given for it."
            )
        if every is not None and every < 1:
            raise InputError(f"every is {every}; expected a number of steps of at least 1, or None.")
        self.vlm, self.items, self.out = vlm, list(items), out
        self.every, self.at_start, self.batch = every, at_start, batch
        self.metrics, self.metric_pairs = tuple(metrics), list(metric_pairs)
        self.settings = settings or {}
        self.accuracies: dict[str, float] = {}
        self.send: Callable[[dict[str, float]], None] | None = None
        self.whole: Callable[[], AbstractContextManager[None]] | None = None
        self._sending = False
        self.metrics_log = MetricsLog(out / METRICS)
        self._evaluator: Evaluator | None = None
        self.alone = True
        self._first: list[Answered] | None = None
        self._last: list[Answered] = []
        self._measured_at: int | None = None

    def cost(self, steps: int) -> tuple[float, int]:
        """Seconds of one evaluation, from one batch of its questions, and how many a run of so many steps takes.

        Metrics, and evaluations that the trainer's own arguments ask for, are left out.
        """
        self.alone = self._can_be_alone()
        with self._at_hand():
            sample = Evaluator(self.vlm, self.items[: self.batch], batch=self.batch, keep_bytes=0)
            start = time.perf_counter()
            sample.answer()
            took = time.perf_counter() - start
        seconds = took * len(self.items) / len(sample.items)
        at = {steps} | ({0} if self.at_start else set())
        if self.every is not None:
            at |= set(range(self.every, steps + 1, self.every))
        return seconds, len(at)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Take up an interrupted run's lines, or measure step 0."""
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        if base is not self.vlm.model:
            raise InputError(
                f"The evaluation callback was given a {type(self.vlm.model).__name__} that is not the model being "
                f"trained ({type(base).__name__}). Give it the VLM of the trainer's own model (`vfl.wrap(model, "
                "processor)`)."
            )
        # An adapter may have replaced the head since the parts were found.
        self.vlm.parts = replace(discover(self.vlm.model), softcap=self.vlm.parts.softcap)
        self.alone = self._can_be_alone()
        share = self.items[args.process_index :: args.world_size] if self.alone else self.items
        with self._at_hand():  # it tries how the model pads
            self._evaluator = Evaluator(self.vlm, share, batch=self.batch) if share else None
        self._first, self._last, self._measured_at = None, [], None
        if state.is_world_process_zero:
            self.metrics_log.start(state.global_step)
            self._drop_answers(state.global_step)
        if state.global_step > 0:
            self._resume(state)
        elif self.at_start:
            self._measure(args, state)

    def measure_again(self) -> None:
        """The model was changed without a step: what was measured at this one holds no more."""
        self._measured_at = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure every so many steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measure(args, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure when the trainer evaluates, unless this step has been measured."""
        if self._measured_at != state.global_step:
            self._measure(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the trainer's own numbers beside ours."""
        if state.is_world_process_zero and logs and not self._sending:
            self.metrics_log.append(state.global_step, state.epoch, "train", dict(logs))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the final model (the best one, if that was loaded back) and write evaluation.json."""
        if self._measured_at != state.global_step or args.load_best_model_at_end:
            self._measure(args, state)
        if state.is_world_process_zero:
            self._conclude(state.global_step)

    def _can_be_alone(self) -> bool:
        """Whether a process can run the model without the others; all of them ask."""
        if is_spread(self.vlm.layers) or self.whole is not None:
            alone = fits_whole(self.vlm.model.parameters(), self.vlm.device)
            logger.info("evaluation: %s", _ALONE if alone else _TOGETHER)
            return alone
        return not is_deepspeed_zero3_enabled()

    def _at_hand(self) -> AbstractContextManager[None]:
        """The weights as this process needs them to answer."""
        if not self.alone:
            return nullcontext()
        return whole(self.vlm.layers) if self.whole is None else self.whole()

    def _measure(self, args: TrainingArguments, state: TrainerState) -> None:
        step, shown = state.global_step, state.is_world_process_zero and not args.disable_tqdm
        with self._at_hand(), untouched(self.vlm):
            mine = self._evaluator.answer(progress=shown) if self._evaluator else []
            names = self.metrics[args.process_index :: args.world_size] if self.alone else self.metrics
            results = measure_named(self.vlm, names, self.metric_pairs) if names else {}
        everyones = gather_object(mine) if self.alone else mine
        measured = gather_object(list(results.items())) if self.alone else list(results.items())
        by_id = {answered.id: answered for answered in everyones}
        self._keep(step, [by_id[item.id] for item in self.items])
        if state.is_world_process_zero:
            by_name = dict(measured)
            self._write(args, state, {name: by_name[name] for name in self.metrics})

    def _keep(self, step: int, answered: list[Answered]) -> None:
        self._last, self._measured_at = answered, step
        self._first = answered if step == 0 else self._first
        self.accuracies = {group: accuracy.accuracy for group, accuracy in summarise(answered).items()}

    def _resume(self, state: TrainerState) -> None:
        """Take up what the interrupted run measured at step 0 and at this step."""
        first, last = self._answers_at(0), self._answers_at(state.global_step)
        there = [state.is_world_process_zero and last.exists()]
        broadcast_object_list(there)  # the files may be seen by the first process alone
        self._measured_at = state.global_step if there[0] else None
        if not state.is_world_process_zero:
            return
        if there[0]:
            self._keep(state.global_step, read_answers(last))
        if first.exists():
            self._first = read_answers(first)
        elif self.at_start:
            logger.warning("%s is missing: forgetting is not computed", first)

    def _write(self, args: TrainingArguments, state: TrainerState, results: dict[str, dict[str, Any]]) -> None:
        step, epoch = state.global_step, state.epoch
        groups = {group: asdict(accuracy) for group, accuracy in summarise(self._last).items()}
        for group, change in (compare(self._first, self._last) if self._first else {}).items():
            groups[group] |= {
                "forgetting": 0.0 - change.difference,
                "forgetting_low": 0.0 - change.high,
                "forgetting_high": 0.0 - change.low,
            }
        self.metrics_log.append(step, epoch, "evaluation", {"groups": groups})
        for name, result in results.items():
            self.metrics_log.append(step, epoch, "metric", {"name": name, "result": result})
        write_answers(self._answers_at(step), self._last)  # last: with the file, the lines are there too
        if self.send is not None:
            self._sending = True
            self.send(numbers_of(groups, results))
            self._sending = False
        if "wandb" in args.report_to:
            if self.send is None:
                log_accuracies(groups, step)
            log_metrics(results, read_log(self.metrics_log.path).curves, step)

    def _conclude(self, step: int) -> None:
        cut = cut_shares(self._last)
        evaluation = Evaluation(
            model=identify(self.vlm),
            step=step,
            settings=self.settings,
            groups=summarise(self._last),
            cut=cut,
            answers=str(self._answers_at(step).relative_to(self.out)),
            notes=[*self.vlm.notes, *([cut_warning(cut)] if cut else [])],
        )
        if self._first is not None:
            evaluation = evaluation.against(self._last, "step 0", self._first)
        evaluation.save(self.out, self._last)

    def _answers_at(self, step: int) -> Path:
        return self.out / "answers" / f"step-{step:06d}.jsonl"

    def _drop_answers(self, step: int) -> None:
        for path in (self.out / "answers").glob("step-*.jsonl"):
            number = int(path.stem.removeprefix("step-"))
            if number > step or step == 0:
                path.unlink()
