"""Pages in headless Chromium: where it is, how it is started quietly, and the marks of tests that need it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: the page was not rendered")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# Of a page: it would stop any script that a test puts in.
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def chromium(profile: Path, *arguments: str) -> str:
    """What one start of the browser writes, such as a page with `--dump-dom`; `profile` is a new folder for it."""
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
