"""Can objects be read after the commit?"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import async_sessionmaker

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, skipped, warning


def _look(subject: Subject) -> Finding:
    makers: dict[int, tuple[str, async_sessionmaker]] = {}  # type: ignore[type-arg]  # of whatever session
    for names in subject.namespaces:
        for name, value in names.items():
            if isinstance(value, async_sessionmaker):
                makers.setdefault(id(value), (name, value))
    if not makers:
        return skipped("no session maker was found in the application's modules")
    wrong = sorted(name for name, maker in makers.values() if maker.kw.get("expire_on_commit", True))
    if wrong:
        return warning(f"{', '.join(wrong)}: without expire_on_commit=False")
    return ok(f"expire_on_commit=False in {', '.join(sorted(name for name, _ in makers.values()))}")


EXPIRE_ON_COMMIT = Check(
    "expire-on-commit",
    "Session makers are made with expire_on_commit=False.",
    "Otherwise a commit makes objects forget their values, and reading one afterwards needs I/O that plain attribute "
    "access cannot do: MissingGreenlet, or DetachedInstanceError.",
    "async_sessionmaker(engine, expire_on_commit=False).",
    _look,
    Needs.APP,
    example="""\
from forebay import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop")
Session = async_sessionmaker(engine, expire_on_commit=False)
""",
)
