"""`vfl evaluate`: ask a model probes and data sets, and write evaluation.json.

vfl evaluate Qwen/Qwen2.5-VL-3B-Instruct --adapter runs/sft/adapter --data cvbench.jsonl --column task --out runs/eval
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.evaluate.answers import Answered, Evaluator
from vfl.evaluate.batches import grouped
from vfl.evaluate.config import EvaluateConfig
from vfl.evaluate.items import EvalItem, items_of_probes, under_system
from vfl.evaluate.result import EVALUATION, AdapterId, Evaluation, read_evaluation
from vfl.evaluate.sources import items_of_set, suite_of
from vfl.evaluate.summary import check_ids, cut_shares, summarise
from vfl.functionmap import other_pixels
from vfl.io.run_folder import RunFolder
from vfl.launching.own_device import on_own_device
from vfl.launching.ranks import ALONE, Ranks
from vfl.loading.beds import EMBEDDED_ID, probe_style
from vfl.loading.config import configured, identify, load_from
from vfl.loading.load import resolve
from vfl.models.identity import weights_sha256
from vfl.models.vlm import VLM
from vfl.probes.asking import cut_warning

logger = logging.getLogger(__name__)


def evaluate(
    model: str | Path | VLM = EMBEDDED_ID,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Evaluation:
    """Accuracy of a model on probes and data sets, per function or column.

    Args:
        model: folder, hub id, a loaded VLM, or "embedded".
        out: folder for evaluation.json and the answers.
        overwrite: replace another evaluation in `out`.
        progress: show a progress bar.
        settings: fields of `EvaluateConfig`, such as adapter, probes, pairs, data, baseline.

    Raises:
        InputError: for settings, probes, data or models that can't be used.
    """
    config, loaded = configured(EvaluateConfig, model, {"out": out, **settings})
    return run(config, loaded, overwrite=overwrite, progress=progress)


def folder_of(config: EvaluateConfig) -> RunFolder:
    """The folder of an evaluation."""
    return RunFolder(config.out, EVALUATION, holds="an evaluation")


def run(
    config: EvaluateConfig,
    vlm: VLM | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Ask everything that the configuration names and write the results.

    Several processes that a launcher started all call this with their `ranks`: each answers its share, in the batches
    of one process, and the first writes.

    Args:
        config: what to ask, and where results go.
        vlm: the model, if it is loaded already; the configuration's adapter is on it meanwhile.
        overwrite: replace another evaluation.
        progress: show a progress bar.
        ranks: the processes of this run.

    Raises:
        InputError: for an adapter, probes, data or a baseline that can't be used, or a folder that is taken.
    """
    folder = folder_of(config)
    with ExitStack() as held:

        def claim() -> tuple[Evaluation, list[Answered]] | None:
            held.enter_context(folder.held(overwrite=overwrite, can_resume=False))
            return read_evaluation(config.baseline) if config.baseline else None  # before the slow part

        baseline = ranks.first(claim)
        with ranks.together():
            vlm = vlm or load_from(config if ranks.size == 1 else on_own_device(config))
            adapter = held.enter_context(_adapted(config, vlm))
        evaluation, answered = _evaluated(config, vlm, adapter, baseline, progress, ranks)

        def write() -> Evaluation:
            folder.save(evaluation.settings)
            return evaluation.save(config.out, answered)

        return ranks.first(write)


@contextmanager
def _adapted(config: EvaluateConfig, vlm: VLM) -> Iterator[AdapterId | None]:
    """The configuration's adapter on the model; which one it is."""
    if config.adapter is None:
        yield None
        return
    try:
        from vfl.loading.adapter import adapter_on
    except ImportError as error:
        raise InputError(f'Adapters need {error.name}, which is not installed: pip install "vfl[train]"') from error
    with adapter_on(vlm, config.adapter, min_pixels=config.min_pixels, max_pixels=config.max_pixels):
        yield AdapterId(path=str(config.adapter), sha256=weights_sha256(config.adapter))


def _evaluated(
    config: EvaluateConfig,
    vlm: VLM,
    adapter: AdapterId | None,
    baseline: tuple[Evaluation, list[Answered]] | None,
    progress: bool,
    ranks: Ranks,
) -> tuple[Evaluation, list[Answered]]:
    items, notes = _items_of_all(config, vlm, ranks)
    if baseline:
        check_ids((answered.id for answered in baseline[1]), (item.id for item in items))  # before the slow part
    mine = [item for batch in grouped(items, config.batch_size)[ranks.rank :: ranks.size] for item in batch]

    def ask() -> list[Answered]:
        return Evaluator(vlm, mine, batch=config.batch_size, keep_bytes=0).answer(progress=progress) if mine else []

    by_id = {one.id: one for part in ranks.each(ask) for one in part}
    answered = [by_id[item.id] for item in items]
    cut = cut_shares(answered)
    evaluation = Evaluation(
        model=identify(vlm),
        adapter=adapter,
        settings=config.model_dump(mode="json", exclude={"out"}, exclude_none=True),
        groups=summarise(answered),
        cut=cut,
        notes=[*vlm.notes, *notes, *([cut_warning(cut)] if cut else [])],
    )
    if baseline:
        evaluation = evaluation.against(answered, str(config.baseline), baseline[1])
        if note := other_pixels([str(config.baseline), "this run"], [baseline[0].model, evaluation.model]):
            evaluation.notes.append(note)
    return evaluation, answered


def _items_of_all(config: EvaluateConfig, vlm: VLM, ranks: Ranks) -> tuple[list[EvalItem], list[str]]:
    """The items, in every process; the first makes the probes that the others read."""
    for first in (True, False):
        with ranks.together():
            if (ranks.rank == 0) is first:
                found = items_of(config, vlm)
    return found


def items_of(config: EvaluateConfig, vlm: VLM) -> tuple[list[EvalItem], list[str]]:
    """The items of a configuration, and notes on rows that were left out."""
    items: list[EvalItem] = []
    notes = []
    probes = config.probes
    if probes is None and not config.data:
        probes = probe_style(resolve(config.model)[0])
    if probes is not None:
        pairs = suite_of(
            probes,
            config.out / "probes",
            functions=config.functions,
            pairs=config.pairs,
            seed=config.seed,
            size=config.size,
        )
        items += items_of_probes(vlm, pairs, config.which, max_new_tokens=config.max_new_tokens)
    for name, data in config.data.items():
        if data.max_new_tokens is None:
            data = data.model_copy(update={"max_new_tokens": config.max_new_tokens})
        items_of_data, left_out = items_of_set(name, data)
        items += items_of_data
        if left_out:
            notes.append(f"{len(left_out)} rows of {name} were left out, such as: {left_out[0]}")
    return under_system(items, config.system_prompt, vlm), notes
