"""The table of faults: `python -m tests.faults` reads what pytest reports, and its page names every kind."""

from __future__ import annotations

from pathlib import Path

from tests.faults.__main__ import KINDS, collect, outcomes, table, verdict

ROOT = Path(__file__).parents[1]

REPORT = """<testsuites><testsuite>
<testcase classname="tests.faults.calm.test_a" name="test_one[asyncpg]"/>
<testcase classname="tests.faults.calm.test_a" name="test_one[psycopg]"><skipped type="pytest.xfail"/></testcase>
<testcase classname="tests.faults.calm.test_a" name="test_two"><failure/></testcase>
<testcase classname="tests.faults.calm.test_a" name="test_two"/>
<testcase classname="tests.faults.noise.test_b" name="test_three"><skipped type="pytest.skip"/></testcase>
<testcase classname="" name="tests.faults.noise.test_c"><error/></testcase>
</testsuite></testsuites>"""


def test_a_report_becomes_a_table(tmp_path: Path) -> None:
    """Goal: the table says what happened. Method: a report with every way in which a test can end."""
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    one, two, three = collect({"ours": outcomes(report), "stock": {}})
    assert (one.name, one.drivers, verdict(one, "ours")) == ("test_one", ["asyncpg", "psycopg"], "passes 1, not yet 1")
    assert (verdict(two, "ours"), verdict(three, "ours"), verdict(two, "stock")) == ("fails", "skipped", "not run")
    assert "| calm | test_a | test_one | asyncpg, psycopg | passes 1, not yet 1 |" in table([one], ["ours"])
    assert table([one, two, three], ["ours"]).endswith("| all | 3 | 4 | 2 |")


def test_every_kind_of_fault_is_on_its_page() -> None:
    """Goal: a reader of the table finds what a kind is. Method: the folders, the runner and the page compared."""
    folders = {path.parent.name for path in (ROOT / "tests" / "faults").glob("*/test_*.py")}
    page = (ROOT / "docs" / "explanation" / "faults.md").read_text(encoding="utf-8")
    assert folders - set(KINDS) == set()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []
