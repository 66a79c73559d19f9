"""The server: what it shows, what it refuses, and under which policy. Needs the extra app."""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.probes.make import draw_one
from vfl.probes.style import MICRO_STYLE

pytest.importorskip("starlette", reason='starlette is not installed: pip install "vfl[app]"')
pytest.importorskip("python_multipart", reason='python-multipart is not installed: pip install "vfl[app]"')

from starlette.testclient import TestClient

from vfl.serve.app import LARGEST, app_of


@pytest.fixture
def client(root, loaded):
    app = app_of(root, lambda: loaded(None), "embedded", ["127.0.0.1"])
    return TestClient(app, base_url="http://127.0.0.1:8000")


def png(image):
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def test_the_first_page_lists_runs_and_writes_their_names_as_text(client):
    page = client.get("/")
    assert page.status_code == 200
    for place in ("a", "deep/b", "maps/one"):
        assert f'value="{place}"' in page.text
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_report_is_shown_in_a_sandbox(client):
    report = client.get("/file/a/report.html")
    assert "report of 0.001" in report.text
    assert report.headers["content-security-policy"].startswith("sandbox allow-downloads; default-src 'none'")
    assert report.headers["x-content-type-options"] == "nosniff"
    assert client.get("/file/a/settings.yaml").headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "address",
    [
        "/file/../outside/report.html",
        "/file/%2e%2e/outside/report.html",
        "/file/a/%2e%2e/%2e%2e/outside/report.html",
        "/file/..%2foutside/report.html",
        "/file//etc/passwd",
        "/file/linked/report.html",
        "/file/report.html",
        "/file/.secret/report.html",
        "/file/weights.bin",
        "/file/a",
        "/training?run=a&run=../outside",
        "/training?run=a&run=linked",
        "/maps?run=maps/one&run=../outside",
        "/maps?run=maps/one&run=a",
        "/maps?run=maps/one",
        "/samples?run=maps/one",
        "/samples?run=../outside",
        "/nowhere",
    ],
)
def test_what_is_not_for_showing_is_not_found(client, address):
    answer = client.get(address)
    assert answer.status_code == 404
    assert "report of 0.5" not in answer.text
    assert "root:" not in answer.text


def test_training_runs_and_maps_stand_side_by_side(client):
    training = client.get("/training", params={"run": ["a", "deep/b"]})
    assert "trainer.learning_rate" in training.text
    maps = client.get("/maps", params={"run": ["maps/one", "maps/two"]})
    assert "Function layers of 2 models" in maps.text


def test_samples_are_filtered_and_a_wrong_condition_is_said_above_all_rows(client, root):
    pq.write_table(pa.table({"answer": ["3", "4"]}), root / "maps" / "one" / "pairs.parquet")
    asked = {"run": "maps/one", "column": ["answer", ""], "way": ["=", "="], "value": ["3", ""]}
    assert "1 of 2 rows" in client.get("/samples", params=asked).text
    wrong = client.get("/samples", params=asked | {"column": ["anser", ""]})
    assert wrong.status_code == 400
    assert "did you mean answer?" in wrong.text
    assert "2 of 2 rows" in wrong.text


def test_two_pictures_and_a_question_give_the_answers_layer_by_layer(client):
    pair = draw_one("counting", 0, 0, MICRO_STYLE)
    files = {"target": ("a.png", png(pair.image)), "source": ("b.png", png(pair.source_image))}
    page = client.post("/swap", data={"question": pair.question, "window": "1"}, files=files)
    assert page.status_code == 200
    assert page.text.count("= source") == 1
    assert page.text.count("data:image/png;base64,") == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"question": " "}, "The question is empty"),
        ({"window": "two"}, "no number of layers"),
        ({"window": "11"}, "wider than the model"),
        ({"target": ("a.png", b"GIF89a, or not")}, "A picture is missing, or can"),
    ],
)
def test_a_question_that_can_not_be_asked_is_said_on_the_page(client, changed, said):
    pair = draw_one("counting", 0, 0, MICRO_STYLE)
    files = {"target": ("a.png", png(pair.image)), "source": ("b.png", png(pair.source_image))}
    fields = {"question": pair.question, "window": "1"}
    files |= {name: value for name, value in changed.items() if name in files}
    fields |= {name: value for name, value in changed.items() if name in fields}
    page = client.post("/swap", data=fields, files=files)
    assert page.status_code == 400
    assert said in page.text


def test_other_names_other_pages_and_large_forms_are_refused(client):
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400
    sent = client.post("/swap", data={"window": "1"}, headers={"origin": "http://elsewhere.example"})
    assert sent.status_code == 403
    assert client.post("/swap", headers={"content-length": str(LARGEST + 1)}, content=b"").status_code == 413
    assert client.post("/").status_code == 405
