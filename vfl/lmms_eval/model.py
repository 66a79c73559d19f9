"""The model `vfl` of lmms-eval: any model that vfl loads, with an adapter, under a plan.

lmms-eval --model vfl --model_args model=embedded,hide=5 --tasks TASK
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms

from vfl.errors import InputError
from vfl.launching.own_device import on_own_device
from vfl.lmms_eval.asking import Planned
from vfl.lmms_eval.config import read_arguments
from vfl.lmms_eval.layers import plan_of
from vfl.lmms_eval.requests import item_of, stops_of
from vfl.loading.config import load_from

logger = logging.getLogger(__name__)


class PlannedModel(lmms):
    """lmms-eval's interface; what it asks is made into items and answered by `vfl.lmms_eval.asking`.

    Raises:
        InputError: for unknown words, an adapter or a map that is not the model's, or layers that it does not have.
    """

    is_simple = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        config = read_arguments(arguments)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._held = ExitStack()
        vlm = load_from(on_own_device(config))
        plan = plan_of(config, vlm)
        if config.adapter is not None:
            from vfl.loading.adapter import adapter_on

            limits = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
            self._held.enter_context(adapter_on(vlm, config.adapter, **limits))
        self.config, self.plan = config, plan
        self.planned: Planned | None = Planned(vlm, plan, batch=config.batch_size)
        logger.info("%s: %s", vlm.model_id, plan.words)

    @property
    def device(self) -> Any:
        """Where lmms-eval puts what its processes exchange."""
        return self.accelerator.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The greedy answers, cut at each task's stop strings."""
        items, stops = [], []
        for number, request in enumerate(requests):
            context, generation, doc_to_visual, doc_id, task, split = request.args
            stop = stops_of(generation)
            bound = stop.max_new_tokens or self.config.max_new_tokens
            items.append(self._item(number, context, doc_to_visual, doc_id, task, split, bound))
            stops.append(stop)
        answers = self._asked().answers(items, progress=self.rank == 0)
        return [stop.cut(answer) for stop, answer in zip(stops, answers, strict=True)]

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """The mean *negative* log-likelihood per token, and whether the answer is the greedy one, of each.

        lmms-eval's tasks with choices take the smallest number for the model's choice, whatever the method is called.
        Each pair is handed over as a `GenerationResult`, whose content lmms-eval 0.7.3 takes as it is; of a bare pair
        its evaluator makes a text (`unwrap_generation_output`), and no task with choices can read that.
        """
        items, answers = [], []
        for number, request in enumerate(requests):
            if len(request.args) != 6:
                raise InputError(
                    "The metric acc_mutual_info asks about choices without a question, which no plan applies to. Take "
                    "acc."
                )
            context, continuation, doc_to_visual, doc_id, task, split = request.args
            if callable(continuation):
                continuation = continuation(self.task_dict[task][split][doc_id])
            # The template ends the question's turn; the delimiter is for models that go on with a text.
            answers.append(str(continuation).strip())
            items.append(self._item(number, context, doc_to_visual, doc_id, task, split, 1))
        scored = self._asked().scores(items, answers, progress=self.rank == 0)
        return [GenerationResult((-score.logprob, score.greedy)) for score in scored]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not there: a later round depends on the answers of an earlier one, which the task reads between them."""
        raise InputError("Tasks of several rounds can't be run with --model vfl. Take a task that asks once.")

    def clean(self) -> None:
        """Takes the adapter off and lets the model go."""
        self._held.close()
        self.planned = None
        super().clean()

    def _asked(self) -> Planned:
        assert self.planned is not None, "asked after clean()"
        return self.planned

    def _item(
        self, number: int, context: str, doc_to_visual: Any, doc_id: int, task: str, split: str, bound: int
    ) -> Any:
        from vfl.evaluate.items import under_system

        vlm = self._asked().vlm
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) if doc_to_visual else []
        item = item_of(vlm, f"{number} (document {doc_id})", task, context, visuals, bound)
        return under_system([item], self.config.system_prompt, vlm)[0]
