"""The pytest plugin is loaded into every test run of an environment, used or not.

Goal: it is in nobody's way: other plugins may have an option or a fixture of the same name, and pay nothing for ours.
Method: test runs in processes of their own, with a plugin that has the same names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.marks import not_yet, ours_only

pytestmark = [pytest.mark.slow, ours_only]


def _run(folder: Path, *arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@not_yet("the option is called --db-url, as in other plugins, and pytest refuses to start")
def test_another_plugin_may_have_an_option_db_url(tmp_path: Path) -> None:
    plugin = "def pytest_addoption(parser):\n    parser.addoption('--db-url', default='theirs')\n"
    test = "def test_it(pytestconfig):\n    assert pytestconfig.getoption('--db-url') == 'theirs'\n"
    done = _run(tmp_path, "-p", "their_plugin", their_plugin=plugin, test_it=test)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@not_yet("our fixtures have common names, and go before those of a plugin that was loaded earlier")
def test_another_plugins_fixture_of_the_same_name_is_used(tmp_path: Path) -> None:
    plugin = "import pytest\n@pytest.fixture\ndef db_session():\n    return 'theirs'\n"
    test = "def test_it(db_session):\n    assert db_session == 'theirs'\n"
    done = _run(tmp_path, "-p", "their_plugin", their_plugin=plugin, test_it=test)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_plugin_that_nobody_uses_imports_no_engine(tmp_path: Path) -> None:
    test = (
        "import sys\ndef test_it():\n"
        "    heavy = ('sqlalchemy', 'forebay.engine', 'forebay.pool')\n"
        "    assert [name for name in sys.modules if name.startswith(heavy)] == []\n"
    )
    done = _run(tmp_path, "-p", "no:anyio", test_it=test)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
