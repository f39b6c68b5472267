"""``python -m forebay.hints docs/errors``: write the pages of the error index into a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from forebay.hints import INDEX
from forebay.hints._pages import index_page, page


def write(folder: Path) -> None:
    """Write a page for every error and one that lists them into ``folder``, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text(index_page(INDEX), encoding="utf-8")
    for hint in INDEX:
        (folder / f"{hint.code}.md").write_text(page(hint), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m forebay.hints FOLDER")
    write(Path(sys.argv[1]))
