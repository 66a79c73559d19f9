"""`vfl locate --screen` on the embedded model: the same layers from fewer swaps, also after a stop and by two ranks."""

import json

import pyarrow.parquet as pq
import pytest
import torch
import trained
import warm

import vfl
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.loading.beds import EMBEDDED
from vfl.locate import screen_stage, sweeping
from vfl.locate.records import KEY
from vfl.locate.recovery import read_truth
from vfl.locate.screening import estimates_of, read_scores
from vfl.probes.asking import Asker
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE

pytestmark = pytest.mark.long

FIRST, PAIRS = 8, 11  # the fewest that can be screened, and some more
SETTINGS = {"functions": ["counting"], "pairs": PAIRS, "seed": 1, "mode": "single", "progress": False, "part_pairs": 2}


@pytest.fixture(scope="module")
def vlm():
    return vfl.load()


@pytest.fixture(scope="module", autouse=True)
def fewer_pairs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen_stage, "SCREENED", FIRST)
        yield


@pytest.fixture(scope="module")
def screened(vlm, tmp_path_factory):
    out = tmp_path_factory.mktemp("screened")
    return out, vfl.locate(vlm, out=out, screen=True, **SETTINGS)


@pytest.mark.parametrize("function", ["counting", "grounding", "ocr"])
def test_the_planted_layer_comes_first_and_small_effects_come_out_right(vlm, function, tmp_path):
    planted = read_truth(EMBEDDED)[function][0]
    asker, found = Asker(vlm), []
    for pair in make(tmp_path, [function], pairs=4, seed=3, style=MICRO_STYLE):
        estimated = estimates_of(asker, pair)[0]
        target, source = asker.ask_all(pair, ["image", "source_image"])
        plans = [Plan.own(), *(Plan.swap([layer], source.image_cache) for layer in range(vlm.num_layers))]
        answers = [pair.answer, pair.source_answer]
        logprobs = sweep(vlm, target.encoded, plans, answers=answers, own=target.image_cache).answer_logprobs
        log_odds = (logprobs[:, 0] - logprobs[:, 1]).double()
        assert estimated.log_odds == pytest.approx(float(log_odds[0]), abs=1e-3)
        found.append((estimated.drops, log_odds[0] - log_odds[1:]))
    estimates, exact = (torch.stack(drops) for drops in zip(*found, strict=True))
    others = [layer for layer in range(vlm.num_layers) if layer != planted]
    size = estimates.abs().mean(0)
    assert float(size[planted]) > 9 * float(size[others].max())
    assert float(size[planted]) < float(exact.abs().mean(0)[planted]), "large effects saturate"
    small = exact[:, others].abs() < 0.3  # nats
    assert float(small.double().mean()) > 0.6
    pairs_of_drops = torch.stack([estimates[:, others][small], exact[:, others][small]])
    assert float(torch.corrcoef(pairs_of_drops)[0, 1]) > 0.9
    assert float((pairs_of_drops[0] - pairs_of_drops[1]).abs().mean()) < 0.03


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_map_names_what_the_full_sweep_names(screened, vlm, tmp_path):
    out, fmap = screened
    full = vfl.locate(vlm, out=tmp_path, **SETTINGS).functions["counting"]
    entry = fmap.functions["counting"]
    assert entry.layers == full.layers == read_truth(EMBEDDED)["counting"]
    assert entry.peak == full.peak
    assert len(entry.screen.skipped) >= 7
    for name in ("changed", "ci_low", "ci_high", "control", "logprob_effect"):
        theirs = getattr(full, name)
        expected = [None if k in entry.screen.skipped else value for k, value in enumerate(theirs)]
        assert getattr(entry, name) == pytest.approx(expected, abs=1e-4), name
    table, whole = (pq.read_table(folder / "pairs.parquet").to_pylist() for folder in (out, tmp_path))
    by_key = {tuple(row[name] for name in KEY): row["answer"] for row in whole}
    assert all(by_key[tuple(row[name] for name in KEY)] == row["answer"] for row in table)
    skipped = [row for row in table if row["first"] in entry.screen.skipped]
    assert len({row["pair_id"] for row in skipped}) == FIRST, "the others were not asked"
    assert "Screen: " in (out / "report.html").read_text()
    assert "screen" not in json.loads((tmp_path / "map.json").read_text())["settings"]
    assert not (tmp_path / "screen.json").exists()


@pytest.mark.parametrize("asked", [FIRST - 3, PAIRS - 1], ids=["while it screens", "behind it"])
def test_an_interrupted_run_resumes_to_the_same_bytes(screened, vlm, tmp_path, monkeypatch, asked):
    out, real, done = tmp_path / "out", sweeping.sweep_group, []

    def interrupted(asker, group, blocks, **options):
        if len(done) == asked:
            raise KeyboardInterrupt
        done.append(group)
        return real(asker, group, blocks, **options)

    monkeypatch.setattr(sweeping, "sweep_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vfl.locate(vlm, out=out, screen=True, **SETTINGS)
    assert (out / "screen.json").exists() == (asked > FIRST)
    monkeypatch.setattr(sweeping, "sweep_group", real)
    with pytest.raises(vfl.InputError, match="screen: True then, None now"):
        vfl.locate(vlm, out=out, resume=True, **SETTINGS)
    vfl.locate(vlm, out=out, screen=True, resume=True, **SETTINGS)
    assert files_of(out) == files_of(screened[0])


def test_pairs_of_a_group_are_screened_together(vlm, tmp_path):
    settings = SETTINGS | {"pairs": 54, "group": 3}  # nine groups of all ordered pairs
    entry = vfl.locate(vlm, out=tmp_path, screen=True, **settings).functions["counting"]
    scores = read_scores(tmp_path)["counting"]
    assert (scores.samples, scores.asked) == (FIRST, 48)
    assert entry.layers == read_truth(EMBEDDED)["counting"]
    assert entry.groups == 9
    assert entry.screen.skipped == [k for k, rate in enumerate(entry.changed) if rate is None] != []


RANK = """
import sys

import torch

from vfl.launching.ranks import leave
from vfl.locate import screen_stage
from vfl.locate.launch import main

torch.set_num_threads(int(sys.argv[1]))
screen_stage.SCREENED = int(sys.argv[2])
code = main(sys.argv[3:])
leave()
sys.exit(code)
"""


def test_two_ranks_screen_as_one_process_does(screened, tmp_path):
    out = tmp_path / "out"
    settings = [f"{name}={value}" for name, value in SETTINGS.items() if name not in ("progress", "functions")]
    arguments = ["embedded", f"out={out}", "--screen", "--functions", "counting", *settings]
    threads = str(torch.get_num_threads())
    done = warm.ranks(["-c", RANK, threads, str(FIRST), *arguments], trained.environment())
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr + done[1].stderr
    assert done[0].stdout.count("Screen: counting: ") == 1
    theirs, ours = files_of(out), files_of(screened[0])
    assert theirs.keys() == ours.keys()
    # The settings name the model, which the other run was given loaded.
    named = {"map.json", "report.html", "settings.yaml"}
    assert {name for name in ours if theirs[name] != ours[name]} <= named
    assert vfl.FunctionMap.load(out).functions == screened[1].functions


@pytest.mark.slow
def test_where_several_layers_can_each_serve_everything_is_swept(vlm, tmp_path):
    """Recognition is planted in layers 0 to 3, of which each can do it alone."""
    settings = SETTINGS | {"functions": ["recognition", "grounding", "ocr"], "mode": "auto"}
    fmaps = {screen: vfl.locate(vlm, out=tmp_path / str(screen), screen=screen, **settings) for screen in (False, True)}
    recognition = fmaps[True].functions["recognition"].screen
    assert recognition.skipped == []
    assert recognition.fallback.startswith("no layer alone is estimated to take more than")
    assert fmaps[True].order() == fmaps[False].order()
    truth = read_truth(EMBEDDED)
    for name, entry in fmaps[True].functions.items():
        assert entry.layers == fmaps[False].functions[name].layers
        assert set(entry.screen.skipped).isdisjoint(truth[name])
    assert all(fmaps[True].functions[name].screen.skipped for name in ("grounding", "ocr"))
