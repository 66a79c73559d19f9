"""The files of published tables: valid, their columns mapped on made rows, and both numbers shown at the end."""

import io
import json
import re
from inspect import signature
from pathlib import Path

import datasets
import pytest
import tiny
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from vfl.commands import measure
from vfl.data import Sample, read
from vfl.errors import InputError
from vfl.measure import hub
from vfl.measure.metrics_file import read_metrics
from vfl.measure.paper import config_of, run_paper
from vfl.measure.paper_file import ObjectSet, Published, QuestionSet, read_paper
from vfl.measure.published import PublishedFigure, compare
from vfl.measure.question_pairs import question
from vfl.metrics.measure import known_metrics
from vfl.probes.pair import read_suite

PAPERS = Path(__file__).parents[1] / "recipes" / "papers"
FILES = sorted(PAPERS.glob("*.yaml"))
LETTERS = "Answer with the option's letter from the given choices directly."
BRIEFLY = "Answer the question using a single word or phrase."


def png(seed=0, size=(96, 64)):
    buffer = io.BytesIO()
    tiny.picture(seed, size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


# Rows as the hub's sets hold them, and the questions with answers that they are to become.
ROWS = {
    "HuggingFaceM4/the_cauldron": (
        {
            "images": [png()],
            "texts": [
                {
                    "user": "Question: Where is it?\nChoices:\nA. Here.\nB. There.",
                    "assistant": "Answer: B",
                    "source": "v",
                },
                {"user": "Question: Who?\nChoices:\nA. A cat.\nB. A dog.", "assistant": "Answer: A", "source": "v"},
            ],
        },
        [
            ("Question: Where is it?\nChoices:\nA. Here.\nB. There.", "B"),
            ("Question: Who?\nChoices:\nA. A cat.\nB. A dog.", "A"),
        ],
    ),
    "lmms-lab/VQAv2": (
        {
            "question_type": "what is",
            "multiple_choice_answer": "net",
            "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}],
            "question": "Where is he looking?",
            "image": png(),
        },
        [(f"Where is he looking?\n{BRIEFLY}", "net")],
    ),
    "lmms-lab/POPE": (
        {"question_id": "1", "question": "Is there a cat?", "answer": "yes", "image": png(), "category": "random"},
        [(f"Is there a cat?\n{BRIEFLY}", "yes")],
    ),
    "lmms-lab/ScienceQA": (
        {"hint": "Look.", "question": "Which?", "choices": ["an ant", "a bee"], "answer": 1, "image": png()},
        [(f"Context: Look.\nWhich?\nA. an ant\nB. a bee\n{LETTERS}", "B")],
    ),
    "lmms-lab/textvqa": (
        {"question": "what is the BRAND?", "answers": ["nokia", "Nokia", "nokia"], "image": png(), "ocr_tokens": []},
        [(f"What is the brand?\n{BRIEFLY}", "nokia")],
    ),
    "echo840/OCRBench": (
        {"dataset": "IIIT5K", "question": "What is written?", "answer": ["CENTRE", "centre"], "image": png()},
        [("What is written?", "CENTRE")],
    ),
    "lmms-lab/ChartQA": (
        {"type": "human_test", "question": "How many bars?", "answer": "14", "image": png()},
        [(f"How many bars?\n{BRIEFLY}", "14")],
    ),
    "lmms-lab/MMBench": (
        {
            "index": 1,
            "hint": "nan",
            "question": "Which?",
            "A": "red",
            "B": "blue",
            "C": "green",
            "D": "nan",
            "answer": "C",
            "image": png(),
        },
        [(f"Which?\nA. red\nB. blue\nC. green\n{LETTERS}", "C")],
    ),
    "q-future/Q-Bench-HF": (
        {
            "id": 1,
            "question": "Is it sharp?",
            "option0": "Yes",
            "option1": "No",
            "option2": "N/A",
            "option3": "N/A",
            "correct_choice": "B",
            "image": png(),
        },
        [(f"Is it sharp?\nA. Yes\nB. No\n{LETTERS}", "B")],
    ),
}
COCO = datasets.Features(
    {
        "image_id": datasets.Value("int64"),
        "image": datasets.Image(),
        "objects": datasets.Sequence(
            {
                "category": datasets.ClassLabel(names=["person", "cat"]),
                "bbox": datasets.Sequence(datasets.Value("float32"), length=4),
            }
        ),
    }
)
COCO_ROW = {"image_id": 1, "image": png(), "objects": {"category": [1], "bbox": [[8.0, 4.0, 60.0, 50.0]]}}
QUESTIONS = [
    pytest.param(stated, name, id=f"{file.stem}-{name}")
    for file in FILES
    for name, stated in read_paper(file).sets.items()
    if isinstance(stated, QuestionSet)
]
OBJECTS = [
    pytest.param(stated, id=file.stem)
    for file in FILES
    for stated in read_paper(file).sets.values()
    if isinstance(stated, ObjectSet)
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_valid_and_says_that_it_was_not_run(file):
    paper = read_paper(file)
    assert paper.status == "not run here"
    assert paper.out == Path("runs/papers") / file.stem
    assert f"vfl measure --paper recipes/papers/{file.name}" in file.read_text()
    assert f"[{file.name}]({file.name})" in (PAPERS / "README.md").read_text()
    for name in paper.sets:
        config_of(paper, name)
    for row in paper.published:
        shares = all(0 <= value <= 1 for value in row.values)
        assert shares, row.what
        if known_metrics()[row.metric].needs != "prompts" and row.metric not in ("token_ablation", "lens"):
            stated = paper.sets[row.set]
            groups = [row.set] if isinstance(stated, QuestionSet) else stated.functions
            assert (row.scalar or row.curve).split("/")[0] in groups, row.what


# What the papers say of how they measured: field -> (their value, or None where they don't say it; a part of the note
# that tells where ours differs, or what they leave open). A field that is not in the file is its default.
OBJECTS_OF_ABLATION = {
    "sets.coco.smallest": (1000, "1,000 to 2,000 pixels"),
    "sets.coco.largest": (2000, "1,000 to 2,000 pixels"),
    "sets.coco.alone": (True, ""),
    "sets.coco.most_annotations": (3, ""),
    "sets.coco.box": ("mask", "mask"),
}
MASKING = {
    "options.mask.ks": ([0, 4, 8, 12, 16], ""),
    "options.late_entry.ks": ([0, 4, 8, 12, 16], ""),
    "options.mask.ways": (None, "leaves open"),
    "sets.visual7w.choices": (("A", "B", "C", "D"), ""),
    "sets.visual7w.split": (None, "not published"),
    "sets.visual7w.question": (None, "prompt are not published"),
    "sets.visual7w.each_most": (None, "One question an image"),
}
SKIPPING = {
    "options.proximal.tau": (0.05, ""),
    "options.late_entry.ks": ([0, 4, 8, 12], ""),
    "options.drop.ks": ([0, 4, 8, 12], ""),
    "sets.vqav2.hub": (None, "not named"),
    "sets.textvqa.hub": (None, "other task groups"),
    "judge": ("a language model", "judge"),
}
PROTOCOL = {
    "visual7w-llava-1.5-7b": MASKING,
    "visual7w-llava-1.5-13b": MASKING,
    "early-figures-llava-1.5-7b": {
        "options.similarity.ways": (None, "leaves open"),
        "options.injection.unrelated": ("an unrelated image", "noise"),
        "sets.visual7w.hub": (None, "data are not named"),
    },
    "token-ablation-llava-1.5-7b": OBJECTS_OF_ABLATION
    | {
        "options.token_ablation.gradient_steps": (50, ""),
        "options.token_ablation.gradient_shares": ([40 / 576, 100 / 576], "40 and 100 tokens"),
        "options.token_ablation.random_shares": ([60 / 576, 250 / 576], "60 and 250"),
        "options.token_ablation.prefix": ("It is a", ""),
        "options.token_ablation.noise_filter": (True, ""),
        "options.token_ablation.images": ("many images", "mean embedding"),
        "sets.coco.question": (None, "question of VQA is ours"),
    },
    "lens-llava-1.5-7b": {
        "sets.coco.smallest": (20000, ""),
        "sets.coco.largest": (30000, ""),
        "sets.coco.pairs": (170, ""),
        "sets.coco.box": ("mask", "mask"),
    },
    "knockout-llava-1.5-7b": OBJECTS_OF_ABLATION
    | {
        "options.knockout.windows": (
            {"early": [0, 9], "early_mid": [5, 14], "mid": [11, 20], "mid_late": [15, 24], "late": [21, 31]},
            "mix counting",
        ),
        "options.knockout.sliding": (10, ""),
        "options.knockout.prefix": ("It is a", ""),
        "options.knockout.noise_filter": (True, ""),
        "sets.coco.alone": (None, "is not printed"),
        "sets.coco.question": (None, "question is ours"),
    },
    "skip-it-llava-1.5-7b": SKIPPING,
    "skip-it-llava-1.5-13b": SKIPPING,
    "skip-it-llava-next-7b": SKIPPING,
    "dropping-qwen2.5-vl-7b": {
        "options.drop.ks": ([0, 4, 8, 12], ""),
        "sets.textvqa.match": ("soft accuracy", "soft accuracy"),
        "sets.chartqa.match": ("5 % of tolerance", "5 % of tolerance"),
        "sets.ocrbench.answer": ("several right answers", "several right answers"),
        "sets.pope.rows": (None, "1,000 rows"),
    },
    "swapping-qwen2.5-vl-7b": {"metrics": (("swap",), ""), "sets.probes.pairs": (None, "probes")},
    "head-masking-llava-1.5-7b": {
        "options.head_masking.ks": ([10, 20, 30, 50], ""),
        "options.head_masking.others": (True, ""),
        "options.head_masking.mode": ("paper", ""),
        "options.head_masking.query": ("token", ""),
        "sets.mmbench.rows": (None, "500 rows"),
    },
    "concentration-llava-1.5-7b": {
        "options.concentration.base": ("paper", ""),
        "options.concentration.query": ("token", ""),
        "options.concentration.renormalise": (False, ""),
        "sets.pope.rows": (None, "200"),
    },
}


def field_of(paper, path):
    """The value at a dotted path; of an option that the file leaves out, the metric's default."""
    first, *rest = path.split(".")
    if first == "options":
        metric, option = rest
        assert metric in paper.metrics
        default = signature(known_metrics()[metric].function).parameters[option].default
        return paper.options.get(metric, {}).get(option, default)
    value = getattr(paper, first, None)
    for key in rest:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_where_a_file_differs_from_its_papers_protocol_its_notes_say_so(file):
    paper = read_paper(file)
    for path, (theirs, note) in PROTOCOL[file.stem].items():
        if theirs is None or field_of(paper, path) != theirs:
            assert note, f"{path} is {field_of(paper, path)}, the paper's {theirs}, and no note says so"
            assert any(note in written for written in paper.notes), f"{path}: no note has {note!r}"


@pytest.mark.parametrize(("chosen", "name"), QUESTIONS)
def test_columns_become_questions(chosen, name, tmp_path):
    """Through the same reader as any data, to what is asked."""
    row, expected = ROWS[chosen.hub]
    assert set(chosen.columns) <= row.keys()
    (tmp_path / "images").mkdir()
    lines = list(hub.questions(chosen, [row], tmp_path))
    expected = expected[: chosen.each_most]
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    how = {"name": name, "column": None, "match": chosen.match, "choices": chosen.choices}
    samples = list(read(path, images=tmp_path, format="messages"))
    assert all(isinstance(sample, Sample) for sample in samples)
    asked = [question(sample, tmp_path, **how) for sample in samples]
    assert [(pair.question, pair.answer) for pair in asked] == expected
    assert all(pair.function == name and pair.size == (96, 64) for pair in asked)
    assert all(pair.correct(pair.answer) and not pair.correct("zebra") for pair in asked)


@pytest.mark.parametrize("chosen", OBJECTS)
def test_objects_become_a_suite(chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "rows_of", lambda chosen: (iter([COCO_ROW]), COCO))
    assert set(chosen.columns) <= COCO_ROW.keys()
    other = chosen.model_copy(update={"smallest": None, "largest": None})  # the made object has a size of its own
    (pair,) = read_suite(hub.write_objects(other, tmp_path / "all"))
    assert (pair.function, pair.label) == ("recognition", "cat")
    assert (pair.question, pair.answer) == (chosen.question, "cat") if chosen.question else pair.answer == "yes"
    assert pair.boxes["image"] == [[8.0, 4.0, 60.0, 50.0]]
    with pytest.raises(InputError, match="1 large" if chosen.largest < 52 * 46 else "1 tiny"):
        hub.write_objects(chosen, tmp_path / "own")


def test_so_many_entries_of_a_row(tmp_path):
    chosen = read_paper(PAPERS / "visual7w-llava-1.5-7b.yaml").sets["visual7w"]
    row, expected = ROWS[chosen.hub]
    (tmp_path / "images").mkdir()
    counts = [
        len(list(hub.questions(chosen.model_copy(update={"each_most": most}), [row], tmp_path))) for most in (None, 1)
    ]
    assert counts == [len(expected), 1] == [2, 1]


def test_rows_that_do_not_fit_are_left_out(tmp_path):
    chosen = read_paper(PAPERS / "dropping-qwen2.5-vl-7b.yaml").sets["sqa"]
    row, _ = ROWS[chosen.hub]
    (tmp_path / "images").mkdir()
    left_out = hub.Counter()
    bad = [row | {"image": None}, row | {"answer": None}, row | {"image": {"bytes": b"none", "path": None}}]
    assert len(list(hub.questions(chosen, [*bad, row], tmp_path, left_out))) == 1
    assert left_out.total() == 3


@pytest.fixture(scope="module")
def published_set(tmp_path_factory):
    """A data set in a folder, as the hub would give it."""
    folder = tmp_path_factory.mktemp("set")
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("string"), "image": datasets.Image()}
    )
    rows = [{"question": f"How many cats, {seed}?", "answer": str(seed), "image": png(seed)} for seed in range(6)]
    (folder / "data").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "data" / "test-00000.parquet")
    return folder


@pytest.fixture
def paper_file(published_set, tiny_folder, tmp_path):
    content = {
        "title": "A table",
        "source": "A paper",
        "status": "run in this test",
        "model": str(tiny_folder("llava")),
        "out": str(tmp_path / "out"),
        "metrics": ["drop", "cosine"],
        "options": {"drop": {"ks": [0, 2]}},
        "pairs": 2,
        "sets": {
            "cats": {
                "kind": "questions",
                "hub": str(published_set),
                "split": "test",
                "columns": ["question", "answer", "image"],
                "image": "image",
                "rows": 3,
                "every": 2,
                "question": "{{ question }} Answer with a number.",
                "answer": "{{ answer }}",
            }
        },
        "published": [
            {
                "what": "a row",
                "set": "cats",
                "metric": "drop",
                "curve": "cats/accuracy",
                "at": [0, 2],
                "values": [0.5, 0.1],
            },
            {"what": "a number", "set": "cats", "metric": "cosine", "scalar": "vision", "value": 0.25},
        ],
    }
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_both_numbers_stand_side_by_side(paper_file, tmp_path):
    """From the hub's rows to the table, and again without measuring."""
    paper, beside = run_paper(paper_file)
    metrics = read_metrics(paper.out / "cats")
    assert metrics.data.functions == {"cats": 2}
    curve = metrics.metrics["drop"]["curves"]["cats/accuracy"]
    assert [row.ours for row in beside] == [*curve["value"], metrics.metrics["cosine"]["scalars"]["vision"]["value"]]
    assert [row.published for row in beside] == [0.5, 0.1, 0.25]
    saved = json.loads((paper.out / "published.json").read_text())
    assert [number["ours"] for number in saved["numbers"]] == [row.ours for row in beside]
    texts = [
        json.loads(line)["messages"][0]["content"][1]["text"] for line in (paper.out / "data/cats/cats.jsonl").open()
    ]
    assert texts == ["How many cats, 0? Answer with a number.", "How many cats, 2? Answer with a number."]
    again = run_paper(paper_file, resume=True)[1]
    assert again == beside


def test_data_in_place_are_taken_where_they_are_those_that_are_asked_for(paper_file, tmp_path, monkeypatch):
    """A trial of few rows must not stand for the whole set, nor one template's questions for another's."""
    fetched = []
    rows_of = hub.rows_of
    monkeypatch.setattr(hub, "rows_of", lambda chosen: fetched.append(chosen.hub) or rows_of(chosen))
    stated = read_paper(paper_file).sets["cats"]

    def lines(chosen, most):
        return hub.write_questions(chosen, tmp_path / "data", "cats", most).read_text().count("\n")

    assert (lines(stated, 1), len(fetched)) == (1, 1)
    assert (lines(stated, None), len(fetched)) == (3, 2)
    assert (lines(stated, 2), len(fetched)) == (3, 2), "the first of those in place are measured"
    other = stated.model_copy(update={"question": "{{ question }}"})
    assert (lines(other, 2), len(fetched)) == (2, 3)


def test_another_choice_of_objects_is_drawn_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "rows_of", lambda chosen: (iter([COCO_ROW]), COCO))
    chosen = read_paper(PAPERS / "token-ablation-llava-1.5-7b.yaml").sets["coco"]
    chosen = chosen.model_copy(update={"smallest": None, "largest": None})
    (first,) = read_suite(hub.write_objects(chosen, tmp_path))
    (second,) = read_suite(hub.write_objects(chosen.model_copy(update={"question": "What?"}), tmp_path))
    assert (first.question, second.question) == (chosen.question, "What?")


def test_reports_of_a_table_link_each_other(paper_file, tmp_path):
    content = yaml.safe_load(paper_file.read_text())
    content |= {"metrics": ["cosine"], "options": {}, "published": []}
    content["sets"]["dogs"] = content["sets"]["cats"]
    paper_file.write_text(yaml.safe_dump(content))
    paper, _ = run_paper(paper_file)
    for name, other in (("cats", "dogs"), ("dogs", "cats")):
        (link,) = re.findall(r'href="(\.\./[^"]+)"', (paper.out / name / "report.html").read_text())
        assert (paper.out / name / link).resolve() == paper.out / other / "report.html"
        assert (paper.out / name / link).is_file()


def test_the_command_shows_both_numbers(paper_file):
    app = typer.Typer()
    app.command()(measure.command)
    shown = CliRunner().invoke(app, ["--paper", str(paper_file), "--pairs", "1"])
    assert shown.exit_code == 0, shown.output
    assert "A table" in shown.output
    assert "0.25" in shown.output
    assert "Source: A paper" in shown.output
    assert (Path(yaml.safe_load(paper_file.read_text())["out"]) / "published.json").exists()


def test_a_set_that_changed_says_which_columns_it_has(paper_file):
    content = yaml.safe_load(paper_file.read_text())
    content["sets"]["cats"]["columns"].append("hint")
    paper_file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="has no column hint; it has question, answer, image"):
        run_paper(paper_file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"question": "{{ hint }}"}, "reads hint, which is not among columns"),
        ({"question": "{{ question"}, "no Jinja template"),
        ({"answer": "{{ answer | nonsense }}"}, "no Jinja template"),
        ({"image": "picture"}, "not among columns"),
        ({"each": "texts"}, "not among columns"),
        ({"rows": 0}, "rows"),
        ({"each_most": 1}, "each_most was given without each"),
    ],
)
def test_mistakes_in_a_set_are_named(paper_file, change, problem):
    content = yaml.safe_load(paper_file.read_text())
    content["sets"]["cats"] |= change
    paper_file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=problem):
        read_paper(paper_file)


def test_what_the_file_decides_can_not_be_given_beside_it(paper_file):
    with pytest.raises(InputError, match="metrics was given with a paper's file"):
        read_paper(paper_file, {"metrics": "var", "device": "cpu"})
    assert read_paper(paper_file, {"pairs": 5, "device": None}).pairs == 5


def test_numbers_that_are_missing_say_why():
    rows = [
        Published(what="drop", set="s", metric="m", curve="c", at=[1], values=[0.3]),
        Published(what="none", set="s", metric="m", scalar="other", value=1),
        Published(what="unmeasured", set="s", metric="n", scalar="other", value=1),
    ]
    curve = {"axis": "k", "at": [0, 1], "value": [0.9, 0.6], "low": [0.8, 0.5], "high": [1.0, 0.7], "n": 4}
    figures = compare(rows, {"s": {"m": {"scalars": {}, "curves": {"c": curve}}}})
    assert figures[0] == PublishedFigure("drop", "s", "m", "c", 1, "equal", 0.3, 0.6, 0.5, 0.7, 4)
    assert [figure.reason for figure in figures[1:]] == ["no such number", "not measured"]


def test_images_keep_their_bytes(tmp_path):
    (tmp_path / "images").mkdir()
    chosen = read_paper(PAPERS / "dropping-qwen2.5-vl-7b.yaml").sets["pope"]
    row, _ = ROWS[chosen.hub]
    (line,) = hub.questions(chosen, [row], tmp_path)
    assert (tmp_path / line["images"][0]).read_bytes() == row["image"]["bytes"]
    assert Image.open(tmp_path / line["images"][0]).size == (96, 64)
