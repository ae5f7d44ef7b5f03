"""Point the relative links of a Markdown page to a tag of the repository: the page of a package index has no files beside it.

    python tools/absolute_links.py README.md https://github.com/OWNER/REPOSITORY v0.2.0

The file is changed in place; the release does it before it builds, and nothing is committed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)(\[(?:[^\[\]]|\[[^\]]*\])*\])\((?![a-z]+:|#|//)([^)\s]+)\)")


def absolute(text: str, repository: str, ref: str) -> str:
    """Return the page with links to files as pages of the repository, and pictures as the files themselves.

    Args:
        text: Markdown.
        repository: Address of the repository, without a slash at its end.
        ref: Tag, branch or commit.
    """

    def address(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"  # `blob` leads on to `tree` for a folder
        return f"{link[1]}{link[2]}({repository}/{kind}/{ref}/{link[3]})"

    return LINK.sub(address, text)


def main() -> None:
    """Change the file that the command line names."""
    page, repository, ref = sys.argv[1:]
    path = ROOT / page
    path.write_text(absolute(path.read_text(encoding="utf-8"), repository.rstrip("/"), ref), encoding="utf-8")


if __name__ == "__main__":
    main()
