"""The server of `vfl serve`: Starlette's routes, forms and checks, over pages that Jinja makes.

What the folder holds is data: settings are read as plain YAML, logs as JSON, and its own pages go to the browser with
a policy under which no script of theirs runs; what stands in a page may be saved. Pages of ours need no script.
"""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from threading import Lock

from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from vfl.errors import InputError
from vfl.io.files import as_rgb
from vfl.locate.report.compare import compare_maps
from vfl.locate.report.page import render_comparison
from vfl.models.vlm import VLM
from vfl.serve.folder import MOST, file_in, file_of, runs
from vfl.serve.pages import error_page, index_page, samples_page, swap_page, training_page
from vfl.serve.samples import Condition, filter_samples
from vfl.serve.swapping import Swapped, swap_layers
from vfl.serve.training import compare_training

LARGEST = 20 * 2**20
"""Bytes of a form with its two pictures."""
PLAIN = "text/plain; charset=utf-8"
SERVED = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    **dict.fromkeys((".json", ".jsonl", ".yaml", ".md", ".txt", ".csv"), PLAIN),
}
"""Files that are shown, by their ending, and as what; weights, tables and pictures of data are not."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
OURS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'"
THEIRS = "sandbox allow-downloads; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}


def app_of(root: Path, load: Callable[[], VLM], model: str, hosts: list[str]) -> Starlette:
    """The application.

    Args:
        root: the folder of runs; nothing outside is read.
        load: loads the model, at the first question.
        model: its name, for the pages.
        hosts: names that a browser may call this server by. Without them a page elsewhere whose name leads here could
            read the answers.
    """
    asker = _Asker(load)

    def index(request: Request) -> Response:
        return _html(index_page(str(root), runs(root), MOST))

    def file(request: Request) -> Response:
        path = file_in(root, request.path_params["place"])
        kind = SERVED.get(path.suffix)
        if kind is None or not path.is_file():
            raise InputError(f"{path.name} is no file that is shown here: {', '.join(SERVED)}.")
        return FileResponse(path, media_type=kind, headers={**SAFE, "Content-Security-Policy": THEIRS})

    def training(request: Request) -> Response:
        return _html(training_page(compare_training(root, request.query_params.getlist("run"))))

    def maps(request: Request) -> Response:
        places = list(dict.fromkeys(request.query_params.getlist("run")))
        found = [(place, file_of(root, place, "map.json")) for place in places]
        if missing := [place for place, path in found if path is None]:
            raise InputError(f"{missing[0]} has no map.json.")
        return _html(render_comparison(compare_maps([path for _, path in found if path is not None])))

    def samples(request: Request) -> Response:
        query = request.query_params
        run = query.get("run", "")
        asked = zip(query.getlist("column"), query.getlist("way"), query.getlist("value"), strict=False)
        conditions = [Condition(*written) for written in asked if written[0].strip()]
        try:
            return _html(samples_page(run, conditions, filter_samples(root, run, conditions)))
        except InputError as error:
            if not conditions:
                raise
            return _html(samples_page(run, conditions, filter_samples(root, run, []), str(error)), 400)

    async def swap(request: Request) -> Response:
        if request.method == "GET":
            return _html(swap_page(model, {"question": "", "window": "1"}))
        _check_origin(request)
        async with request.form(max_files=2, max_fields=4) as form:
            asked = {name: str(form.get(name) or "") for name in ("question", "window")}
            uploads = [form.get(name) for name in ("target", "source")]
            contents = [b"" if isinstance(one, str) or one is None else await one.read() for one in uploads]
        try:
            pictures = [_picture(content) for content in contents]
            rows = await run_in_threadpool(asker.ask, *pictures, asked)
        except InputError as error:
            return _html(swap_page(model, asked, error=str(error)), 400)
        return _html(swap_page(model, asked, rows, [_address(picture) for picture in pictures]))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/file/{place:path}", file),
            Route("/training", training),
            Route("/maps", maps),
            Route("/samples", samples),
            Route("/swap", swap, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={InputError: _said(404), HTTPException: _http},
    )


class _Asker:
    """The model, loaded at the first question; one question at a time."""

    def __init__(self, load: Callable[[], VLM]) -> None:
        self._load, self._lock = load, Lock()
        self._vlm: VLM | None = None

    def ask(self, target: Image.Image, source: Image.Image, asked: dict[str, str]) -> list[Swapped]:
        question, window = asked["question"].strip(), asked["window"]
        if not question:
            raise InputError("The question is empty.")
        if not window.isdecimal() or int(window) < 1:
            raise InputError(f"{window!r} is no number of layers; expected 1 or more.")
        with self._lock:
            if self._vlm is None:
                self._vlm = self._load()
            return swap_layers(self._vlm, target, source, question, window=int(window), probabilities=True)


def _check_origin(request: Request) -> None:
    """A form on a page elsewhere may send its fields here, and would make this machine compute."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > LARGEST:
        raise HTTPException(413, f"Both pictures together may have {LARGEST // 2**20} MiB.")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "This form was sent from another page.")


def _picture(content: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return as_rgb(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"A picture is missing, or can't be read. Give two of {', '.join(FORMATS)}.") from None


def _address(picture: Image.Image) -> str:
    """The picture, made small, as a data address."""
    small = picture.copy()
    small.thumbnail((384, 384))
    written = BytesIO()
    small.save(written, "PNG")
    return f"data:image/png;base64,{b64encode(written.getvalue()).decode()}"


def _html(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status, headers={**SAFE, "Content-Security-Policy": OURS})


def _said(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        return _html(error_page(str(error)), status)

    return handler


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _html(error_page(error.detail), error.status_code)
