"""`forebay lazy`: what it prints and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import environment

MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

print("noise at import")

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list["Line"]] = relationship({argument})

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    order: Mapped[Order] = relationship(lazy="raise", viewonly=True)
"""


def lazy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forebay.cli", "lazy", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env=environment(120),
        check=False,
    )


def write(folder: Path, argument: str) -> None:
    (folder / "shop_lazy").mkdir(exist_ok=True)
    (folder / "shop_lazy" / "__init__.py").touch()
    (folder / "shop_lazy" / "models.py").write_text(MODELS.format(argument=argument))


@pytest.mark.long
def test_every_lazy_relationship_is_listed_and_the_exit_code_is_1(tmp_path: Path) -> None:
    """Goal: a list to work off, and a check for CI. Method: a package with one; as text and as JSON."""
    write(tmp_path, "")
    done = lazy(tmp_path, "shop_lazy.models")
    assert (done.returncode, done.stdout) == (
        1,
        "shop_lazy.models.Order.lines -> Line (many)\n1 of 2 relationships with lazy='select'\n",
    ), done.stderr
    found = json.loads(lazy(tmp_path, "shop_lazy.models", "--json").stdout)
    assert found == {
        "ok": False,
        "relationships": 2,
        "lazy": [
            {
                "relationship": "Order.lines",
                "module": "shop_lazy.models",
                "target": "Line",
                "many": True,
                "awaitable": False,
            }
        ],
    }


def test_none_is_exit_code_0(tmp_path: Path) -> None:
    """Goal: done is done. Method: the same package with lazy='raise'."""
    write(tmp_path, "lazy='raise'")
    done = lazy(tmp_path, "shop_lazy.models")
    assert (done.returncode, done.stdout) == (0, "0 of 2 relationships with lazy='select'\n"), done.stderr


@pytest.mark.long
def test_wrong_usage_is_exit_code_2_and_a_broken_module_1(tmp_path: Path) -> None:
    """Goal: an empty list never means that nothing was looked at. Method: no module, no models, one that raises."""
    write(tmp_path, "")
    (tmp_path / "broken.py").write_text("raise RuntimeError('s3cret')")
    for module, code, text in (
        ("nobody_here", 2, "no such module"),
        ("shop_lazy.models:Base", 2, "no such module"),
        ("json", 2, "no declarative base and no model"),
        ("broken", 1, "importing the module raised RuntimeError"),
    ):
        done = lazy(tmp_path, module)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert "s3cret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
