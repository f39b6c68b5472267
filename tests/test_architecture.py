"""Which part may import which, checked on the source: the invariants that ARCHITECTURE.md states as absences."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import forebay
from forebay.drivers import ours

PACKAGE = Path(forebay.__file__).parent

# Down the list and sideways within a part, never up. `_sqlalchemy` stands beside them: see its own test.
LAYERS: dict[str, set[str]] = {
    "forebay.cli": {"session", "engine", "dialects", "pool"},
    "forebay.integrations": {"session", "engine", "dialects", "pool"},
    "forebay.session": {"engine", "dialects", "pool"},
    "forebay.engine": {"dialects", "pool"},
    "forebay.dialects": set(),
    "forebay.pool": set(),
    "forebay.errors": set(),
    "forebay.drivers": set(),
    "forebay.hints": set(),
}
LEAVES = {"forebay._watchdog", "forebay.errors", "forebay.drivers"}

# A driver's package -> the one file that may import it, or a folder of that name with an underscore in front. Psycopg
# itself imports psycopg_binary.
DRIVERS = {
    package: f"{driver.dialect.partition(':')[0].removeprefix('forebay.').replace('.', '/')}.py"
    for driver in ours()
    if driver.dialect is not None
    for package in (driver.package, *driver.also)
    if package != "psycopg_binary"
}
FRAMEWORKS = {
    "fastapi",
    "starlette",
    "litestar",
    "celery",
    "taskiq",
    "alembic",
    "pytest",
    "opentelemetry",
    "prometheus_client",
}

# What the pool's core may know: data structures and types. No clock, no randomness of its own, no loop, no logging.
PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "typing",
    "random",
}


@dataclass(frozen=True)
class Import:
    """One name imported in one file."""

    file: str
    importer: str
    module: str
    name: str | None
    for_types_only: bool

    @property
    def target(self) -> str:
        """The module imported, when ``from package import module`` does it."""
        if self.name is not None and _is_module(f"{self.module}.{self.name}"):
            return f"{self.module}.{self.name}"
        return self.module


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Finder(ast.NodeVisitor):
    def __init__(self, path: Path) -> None:
        self.file = path.relative_to(PACKAGE).as_posix()
        self.importer = _module_name(path)
        self.found: list[Import] = []
        self._types_only = False

    def visit_If(self, node: ast.If) -> None:
        before = self._types_only
        self._types_only = before or ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body:
            self.visit(child)
        self._types_only = before
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, f"{self.file}:{node.lineno}: imports are absolute here"
        for alias in node.names:
            self._add(node.module or "", alias.name)

    def visit_Call(self, node: ast.Call) -> None:
        # import_module("literal"), which the eye takes for an import too.
        if ast.unparse(node.func).endswith("import_module") and node.args and isinstance(node.args[0], ast.Constant):
            self._add(str(node.args[0].value), None)
        self.generic_visit(node)

    def _add(self, module: str, name: str | None) -> None:
        self.found.append(Import(self.file, self.importer, module, name, self._types_only))


def _imports() -> list[Import]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        finder = _Finder(path)
        finder.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += finder.found
    return found


IMPORTS = _imports()
OURS = [item for item in IMPORTS if item.module.split(".")[0] == "forebay"]


def _part(module: str) -> str:
    """Return the part of the architecture a module belongs to: the first two names, or ``forebay`` itself."""
    return ".".join(module.split(".")[:2])


def _is_free(item: Import) -> bool:
    """Tell whether anybody may import this: a leaf, the error index, or the package itself, whose names are lazy."""
    return (
        item.target in LEAVES
        or _part(item.target) == "forebay.hints"
        or (item.module == "forebay" and item.name is None)
    )


def _listed(items: Iterator[Import]) -> list[str]:
    return sorted({f"{item.file}: {item.module}{'.' + item.name if item.name else ''}" for item in items})


def test_the_files_were_found() -> None:
    """Goal: the other tests cannot pass by looking at nothing. Method: files and imports that exist."""
    files = {item.file for item in IMPORTS}
    assert {"engine/_create.py", "dialects/asyncpg.py", "session/_session.py", "pool/_core/core.py"} <= files
    assert len(OURS) > 50


@pytest.mark.parametrize("part", LAYERS)
def test_imports_point_down(part: str) -> None:
    """Goal: a part can be read without those above it. Method: every import of ours, imports for types included."""
    allowed = {part, "forebay._sqlalchemy"} | {f"forebay.{below}" for below in LAYERS[part]}
    if part in ("forebay.cli", "forebay.integrations"):
        allowed.add("forebay")  # they use the public names as a user does
    if part == "forebay.integrations":
        allowed.add("forebay.testing")  # the pytest plugin only: see below
    wrong = (
        item
        for item in OURS
        if _part(item.importer) == part and _part(item.target) not in allowed and not _is_free(item)
    )
    assert _listed(wrong) == []


def test_the_leaves_import_nothing_of_ours() -> None:
    """Goal: anybody may import errors and events without a cycle. Method: their imports."""
    assert _listed(item for item in OURS if item.importer in LEAVES and item.target not in LEAVES) == []


def test_the_seam_to_sqlalchemys_private_names_imports_only_below_the_engine() -> None:
    """Goal: `_sqlalchemy` may be used from every part (but the leaves), so it must not need the parts that use it.

    It does import `dialects` and `pool`: choosing our dialect for a URL, and being SQLAlchemy's pool over our shell, go
    through SQLAlchemy's private names. `dialects` imports it back, file by file, but never in a circle of files: see
    the next test. `install()` needs the public names and takes them from the package when called.
    """
    allowed = {"forebay._sqlalchemy", "forebay.dialects", "forebay.pool"}
    wrong = (
        item
        for item in OURS
        if _part(item.importer) == "forebay._sqlalchemy" and _part(item.target) not in allowed and not _is_free(item)
    )
    assert _listed(wrong) == []


def test_the_error_index_imports_the_standard_library_only() -> None:
    """Goal: anybody may use it, and `explain` works where the rest is broken. Method: its imports; the table of drivers
    imports nothing else either.
    """
    wrong = (
        item
        for item in IMPORTS
        if (item.file.startswith("hints/") or item.file == "drivers.py")
        and item.module.split(".")[0] not in sys.stdlib_module_names
        and _part(item.target) not in ("forebay.hints", "forebay.drivers")
    )
    assert _listed(wrong) == []


def test_no_module_is_imported_in_a_circle() -> None:
    """Goal: every file can be imported first. Method: imports at module level (those in functions and for types do not
    run then), searched for circles.
    """
    edges: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        finder = _Finder(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                finder.visit(node)
        edges[finder.importer] = {
            item.target for item in finder.found if item.module.split(".")[0] == "forebay" and not item.for_types_only
        } - {finder.importer}

    # A package's __init__ re-exports its files, which may import each other through it only if it does not import them.
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for target in sorted(edges.get(module, ())):
            walk(target, (*path, module))
        done.add(module)

    for module in edges:
        walk(module, ())


def _home(file: str) -> str:
    """Return the driver's file that ``file`` belongs to, for files in a driver's folder (``dialects/_asyncpg/``)."""
    parts = file.split("/")
    return f"dialects/{parts[1][1:]}.py" if parts[0] == "dialects" and len(parts) > 2 else file


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_imported_by_its_own_file_only(driver: str) -> None:
    """Goal: what a driver does is in one place. Method: every import of it outside the test tools and the command."""
    files = {
        _home(item.file)
        for item in IMPORTS
        if item.module.split(".")[0] == driver and not item.file.startswith(("testing/", "cli/", "integrations/"))
    }
    assert files == {DRIVERS[driver]}


def test_a_file_of_a_driver_imports_that_driver_only() -> None:
    """Goal: one driver per file. Method: the drivers' files."""
    for home in set(DRIVERS.values()):
        own = {driver for driver, owner in DRIVERS.items() if owner == home}
        found = {item.module.split(".")[0] for item in IMPORTS if _home(item.file) == home} & set(DRIVERS)
        assert found == own, home


def test_a_framework_is_imported_by_one_file_each() -> None:
    """Goal: the core knows no framework. Method: every import of one outside the test tools and the command."""
    owners: dict[str, set[str]] = {}
    for item in IMPORTS:
        top = item.module.split(".")[0]
        if top in FRAMEWORKS and not item.file.startswith(("testing/", "cli/")):
            owners.setdefault(top, set()).add(item.file)
    for framework, files in owners.items():
        assert len(files) == 1, (framework, files)
        assert next(iter(files)).startswith("integrations/"), (framework, files)


def test_nobody_imports_the_command_or_the_test_tools() -> None:
    """Goal: neither is needed at run time. Method: imports of them from elsewhere."""
    wrong = (
        item
        for item in OURS
        if (_part(item.target) == "forebay.cli" and _part(item.importer) != "forebay.cli")
        or (
            _part(item.target) == "forebay.testing"
            and _part(item.importer) != "forebay.testing"
            # The pytest plugin is a test tool too.
            and not item.importer.startswith("forebay.integrations.pytest")
        )
    )
    assert _listed(wrong) == []


def test_private_names_of_sqlalchemy_are_imported_in_one_folder_only() -> None:
    """Goal: the debt is seen at once. Method: imports of underscore names and modules of SQLAlchemy's elsewhere."""
    wrong = (
        item
        for item in IMPORTS
        if item.module.split(".")[0] == "sqlalchemy"
        and not item.file.startswith("_sqlalchemy/")
        and any(part.startswith("_") for part in f"{item.module}.{item.name or ''}".split("."))
    )
    assert _listed(wrong) == []


def test_the_core_of_the_pool_imports_pure_modules_only() -> None:
    """Goal: its rules can be run without a loop, a clock or a database. Method: a list of what it may import."""
    core = [item for item in IMPORTS if item.file.startswith("pool/_core/")]
    assert core
    assert set(sys.stdlib_module_names) | {"__future__"} >= PURE
    wrong = (
        item
        for item in core
        if item.module.split(".")[0] not in PURE
        and not item.target.startswith("forebay.pool._core")
        # The budget is shared by the threads of a process, and holds the only lock.
        and not (item.file == "pool/_core/budget.py" and item.module == "threading")
    )
    assert _listed(wrong) == []


def test_the_core_of_the_pool_rolls_no_dice_of_its_own() -> None:
    """Goal: a run can be repeated from its seed. Method: of `random` the core may name the class it is given, only."""
    for path in (PACKAGE / "pool" / "_core").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert {name for name in used if name.startswith("random.")} <= {"random.Random"}, path.name
        assert "random.Random" not in called, path.name
    assert not [
        item for item in IMPORTS if item.file.startswith("pool/_core/") and item.module == "random" and item.name
    ]


# What is looked for by name on an object of SQLAlchemy's, a driver's or the user's, and whose name it is.
LOOKED_FOR = {
    ("_sqlalchemy/adapting.py", "create"): "SQLAlchemy 2.1's adapters",
    ("_sqlalchemy/connecting.py", "orig"): "SQLAlchemy's wrappers of errors",
    ("_sqlalchemy/greenlets.py", "await_"): "SQLAlchemy 2.1",
    ("_sqlalchemy/hinting.py", "__notes__"): "Python's exceptions",
    ("_sqlalchemy/hinting.py", "orig"): "SQLAlchemy's wrappers of errors",
    ("_sqlalchemy/missing_greenlet.py", "_AttributeImpl"): "SQLAlchemy 2.1",
    ("_sqlalchemy/pool_errors.py", "Error"): "a DBAPI module's",
    (
        "_sqlalchemy/pool_errors.py",
        "loaded_dbapi",
    ): "SQLAlchemy's dialects; what stands for none has none",
    ("_sqlalchemy/pool_errors.py", "sqlstate"): "drivers' errors",
    ("_sqlalchemy/pool_loops.py", "register_at_fork"): "the operating system",
    ("_sqlalchemy/pooled_dialect.py", "dbapi"): "SQLAlchemy's dialects; one made without a driver has none",
    ("_sqlalchemy/pooled_dialect.py", "sqlstate"): "drivers' errors",
    ("_sqlalchemy/task_echo.py", "binds"): "SQLAlchemy 2.1's sessions",
    ("_sqlalchemy/time_limits.py", "_adapt_connection"): "SQLAlchemy's cursors; the user's own has none",
    ("_sqlalchemy/time_limits.py", "server_side"): "SQLAlchemy's cursors; the user's own has none",
    ("dialects/_adapter.py", "terminate"): "SQLAlchemy's adapters, in the one function that asks what is none of ours",
    ("pool/shell.py", "CLOCK_BOOTTIME"): "the operating system",
}


@functools.cache
def _looked_for() -> frozenset[tuple[str, str]]:
    """Return file and name of each attribute that ``getattr`` or ``hasattr`` looks for by its name in quotes."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
                and isinstance(node.args[1], ast.Constant)
            ):
                found.add((path.relative_to(PACKAGE).as_posix(), str(node.args[1].value)))
    return frozenset(found)


def _contract() -> set[str]:
    """Return every name of the contract for drivers, on the source."""
    tree = ast.parse((PACKAGE / "dialects" / "_adapter.py").read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(member.name)
                elif isinstance(member, ast.AnnAssign):
                    names.add(ast.unparse(member.target))
    return {name for name in names if not name.startswith("_")}


def test_no_adapter_is_probed_for_what_it_can_do() -> None:
    """Goal: a misspelt name is an error, and loses no safety in silence. Method: the names of the contract for drivers,
    on the source of everything.
    """
    contract = _contract()
    assert {"proven", "peer_closed", "come_clean", "begin_is_ping", "switches"} <= contract
    assert {one for one in _looked_for() if one[1] in contract} - set(LOOKED_FOR) == set()


def test_what_pool_and_seam_look_for_by_name_is_somebody_elses() -> None:
    """Goal: the same where the rules of the pool meet SQLAlchemy. Method: every such look there is listed, and used."""
    here = {one for one in _looked_for() if one[0].split("/")[0] in ("_sqlalchemy", "pool")}
    assert here == {one for one in LOOKED_FOR if one[0].split("/")[0] in ("_sqlalchemy", "pool")}
    assert set(LOOKED_FOR) <= _looked_for()


def test_the_package_needs_nothing_of_its_tests() -> None:
    """Goal: what is installed runs without the repository. Method: imports of `tests`, `bench` and `conformance`."""
    assert not [item for item in IMPORTS if item.module.split(".")[0] in ("tests", "bench", "conformance")]


def test_every_time_limit_is_a_watchdog() -> None:
    """Goal: no time limit judges the event loop. Method: asyncio's own are called in one file, and in the commands."""
    named = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"asyncio\.(timeout|timeout_at|wait_for)\(", path.read_text(encoding="utf-8"))
    ]
    assert {name for name in named if name.split("/")[0] not in ("cli", "testing")} == {"_watchdog.py"}


def test_only_the_core_writes_what_a_slot_is() -> None:
    """One judge: shell, seam and adapters tell the core what they saw. The payload of a slot alone is the shell's."""
    written = []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts
        if part[:2] == ("pool", "_core") or part[0] == "testing":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if not isinstance(target, ast.Attribute) or target.attr == "payload":
                    continue
                if ast.unparse(target.value).rpartition(".")[2] == "slot":
                    written.append(f"{path.relative_to(PACKAGE)}:{target.lineno}: {ast.unparse(target)}")
    assert written == []
