"""The two formulas and the budget, in numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.engine.sizing import PLANS, QUOTES, Budget, by_reserve, by_share, find_plan
from forebay.errors import InvalidOptionError


@pytest.mark.parametrize(
    ("connections", "processes", "replicas", "pool_size", "overflow", "worst"),
    [
        (200, 4, 1, 40, 5, 180),
        (200, 2, 2, 40, 5, 180),
        (100, 1, 1, 80, 10, 90),
        (100, 8, 3, 3, 0, 72),
        (97, 3, 1, 25, 3, 84),
    ],
)
def test_four_fifths_as_pools_and_a_tenth_as_overflow(
    connections: int, processes: int, replicas: int, pool_size: int, overflow: int, worst: int
) -> None:
    """Goal: the formula of the guides, rounded down. Method: their example, and others by hand."""
    sizing = by_share(connections, processes, replicas)
    assert (sizing.pool_size, sizing.max_overflow, sizing.worst_case) == (pool_size, overflow, worst)
    assert sizing.fits
    assert sizing.left == connections - worst


def test_what_is_not_reserved_shared_out() -> None:
    """Goal: the second formula. Method: an example by hand."""
    sizing = by_reserve(100, 13, 4, 2)
    assert (sizing.pool_size, sizing.max_overflow, sizing.worst_case, sizing.left) == (10, 0, 80, 20)


@given(st.integers(1, 10_000), st.integers(1, 200), st.integers(1, 50))
def test_the_formulas_never_ask_for_more_than_there_is(connections: int, processes: int, replicas: int) -> None:
    """Goal: rounding is on the safe side. Method: any numbers; only with fewer connections than processes it cannot
    fit, and says so.
    """
    share = by_share(connections, processes, replicas)
    assert share.fits or connections * 80 // 100 < processes * replicas
    assert share.pool_size >= 1
    reserve = by_reserve(connections, connections // 10, processes, replicas)
    assert reserve.fits or connections - connections // 10 < processes * replicas


def test_more_processes_than_connections_does_not_fit() -> None:
    """Goal: one connection each is the least, and that it is too much is said. Method: 20 processes, 10 connections."""
    assert not by_share(10, 20).fits
    assert by_share(10, 20).left == -10


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "4"])
def test_numbers_out_of_bounds_are_refused(bad: Any) -> None:
    """Goal: no nonsense from nonsense. Method: each parameter."""
    for name in ("max_connections", "processes", "replicas"):
        with pytest.raises(InvalidOptionError, match=f"{name}="):
            by_share(**{"max_connections": 10, "processes": 1, name: bad})
    with pytest.raises(InvalidOptionError, match="reserved=11: must be 0 to max_connections=10"):
        by_reserve(10, 11, 1)


@pytest.mark.parametrize(
    ("others", "pool_size", "overflow", "state", "left"),
    [
        (0, 5, 2, "ok", 41),
        (0, 9, 0, "ok", 25),
        (10, 5, 3, "ok", 23),
        (10, 8, 0, "ok", 23),
        (14, 8, 0, "warning", 19),
        (0, 8, 4, "warning", 1),
        (2, 8, 4, "over", -1),
        (0, 5, None, "over", None),
    ],
)
def test_a_budget_warns_at_four_fifths_and_is_over_beyond_all(
    others: int, pool_size: int, overflow: int | None, state: str, left: int | None
) -> None:
    """Goal: the lines people use. Method: budgets at both sides of each, of 97 that applications may have."""
    budget = Budget(100, 3, others, 4, 2, pool_size, overflow)
    assert (budget.state(), budget.left) == (state, left)


def test_the_sentence_has_all_numbers() -> None:
    """Goal: a warning that can be checked by hand. Method: three sentences."""
    assert Budget(100, 3, 7, 4, 3, 10, 5).sentence() == (
        "4 processes x 3 replicas x (10 + 5) = 180 connections, and 7 in use by others, are set against the 97 that "
        "applications may have (100 less 3 reserved): 193%"
    )
    assert Budget(100, 0, 0, 1, 1, 5, 10).sentence() == (
        "1 process x 1 replica x (5 + 10) = 15 connections are set against the 100 that applications may have "
        "(100 less 0 reserved): 15%"
    )
    assert Budget(100, 3, 0, 2, 1, 0, None).sentence() == (
        "2 processes x 1 replica x no limit = unlimited connections are set against the 97 that applications may have "
        "(100 less 3 reserved)"
    )


def test_recommendations_that_ask_for_more_than_there_is_are_flagged() -> None:
    """Goal: nobody copies 20 x (8 + 4) into 170. Method: multiply out what is quoted."""
    found = {quote.where.split(" (")[0]: (quote.worst_case, quote.overcommits) for quote in QUOTES}
    assert found == {
        "RDS db.t4g.medium": (240, True),
        "RDS db.r6g.xlarge": (1400, True),
        "Aurora Serverless v2": (None, False),
        "Cloud SQL n2-standard-4": (1200, True),
        "Supabase free": (None, False),
    }


def test_plans_are_found_by_name() -> None:
    """Goal: the table can be asked. Method: a name in other letters, one that is none, no name twice."""
    plan = find_plan("Neon:1CU")
    assert plan is not None
    assert (plan.max_connections, plan.reserved) == (419, 7)
    assert find_plan("neon:2cu") is None
    assert len({plan.name for plan in PLANS}) == len(PLANS)
