"""Images behind an address: fetched over http(s) only, with a limit on time and size, and only if that was allowed."""

import time
import urllib.error
import urllib.request
from http.client import HTTPException

from vfl.errors import InputError

SECONDS = 30.0
MAX_BYTES = 64 * 2**20


def is_remote(name: str) -> bool:
    """Whether a name is an address rather than a file: it has a scheme such as https://, s3://, hf://."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.isalnum() and scheme.lower() != "file"


def check_address(url: str, *, allowed: bool) -> None:
    """Raise InputError unless the address may be fetched and its scheme is one that `fetch` knows."""
    if not allowed:
        raise InputError(f"image {url!r} is on the network; download it, or allow it with allow_remote")
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"image {url!r} has an address that cannot be fetched; expected http:// or https://")


def fetch(url: str, *, seconds: float = SECONDS, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes behind an address.

    Raises:
        InputError: no answer, an error status, more than `max_bytes`, or not done after `seconds`.
    """
    deadline = time.monotonic() + seconds
    pieces: list[bytes] = []
    size = 0
    try:
        with _opener().open(url, timeout=seconds) as answer:
            while piece := answer.read1(2**16):  # what has come, so that a trickle meets the deadline
                pieces.append(piece)
                size += len(piece)
                if size > max_bytes:
                    raise InputError(f"image {url!r} has more than {max_bytes} bytes; download and shrink it")
                if time.monotonic() > deadline:
                    raise InputError(f"image {url!r} was not there after {seconds:g} seconds; download it first")
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise InputError(f"image {url!r} cannot be fetched ({error}); download it first") from error
    return b"".join(pieces)


def _opener() -> urllib.request.OpenerDirector:
    """Without the handlers for file:// and ftp://, so that no redirection leads there."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
