"""Pages of the repository that lie outside docs/, taken into the site with their links turned."""

import posixpath
import re
from pathlib import Path

from pages_from_code.sources import ROOT

# File of the repository -> page of the site.
TAKEN = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "SECURITY.md": "security.md",
    "train/README.md": "repository/train.md",
    "select/README.md": "repository/select.md",
} | {
    str(path.relative_to(ROOT)): f"repository/{path.parent.name}.md"
    for folder in ("recipes", "experiments")
    for path in sorted((ROOT / folder).glob("*/README.md"))
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def page(file: str) -> str:
    """A file with links to pages of the site turned, and links to what the site lacks as plain text."""
    text = (ROOT / file).read_text(encoding="utf-8")
    here = posixpath.dirname(TAKEN[file])

    def turned(link: re.Match[str]) -> str:
        sign, words, target = link.groups()
        if target.startswith(("#", "http://", "https://")):
            return link[0]
        path, hash_sign, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        inside = TAKEN.get(path) or TAKEN.get(f"{path}/README.md")
        if inside is None and path.startswith("docs/"):
            inside = path.removeprefix("docs/")
        if inside is None:
            return words
        return f"{sign}[{words}]({posixpath.relpath(inside, here or '.')}{hash_sign}{anchor})"

    return _LINK.sub(turned, text)


def relative_links(file: Path) -> list[str]:
    """Links of a Markdown file that are no addresses."""
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [link[3] for link in _LINK.finditer(text)]
    return [target for target in targets if not target.startswith(("http://", "https://", "mailto:"))]
