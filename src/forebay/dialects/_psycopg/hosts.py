"""Several hosts, in psycopg's words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.dialects._hosts import HOST_S, Hosts

__all__ = ["PsycopgHosts"]


class PsycopgHosts(Hosts):
    """Several hosts, in psycopg's words.

    Args:
        psycopg: The driver.
    """

    def __init__(self, psycopg: Any) -> None:
        super().__init__()
        self._error: type[Exception] = psycopg.Error
        self.timed_out = psycopg.errors.ConnectionTimeout

    def limits(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], float | None, float | None]:
        """Return the options as they are: ``connect_timeout`` is for each host."""
        given = "connect_timeout" in options or "PGCONNECT_TIMEOUT" in os.environ
        return dict(options), None, None if given else HOST_S

    def passes_over(self, error: Exception) -> bool:
        """Go on whatever the reason, as psycopg does."""
        return isinstance(error, self._error)

    def all_failed(self, failures: Sequence[tuple[str, Exception]]) -> Exception:
        """Return the last failure, and in its text all of them, as psycopg does."""
        last: Any = failures[-1][1]
        lines = [str(last), "Multiple connection attempts failed. All failures were:"]
        lines += [f"- {where}: {error}" for where, error in failures]
        summed_up: Exception = type(last)("\n".join(lines), pgconn=last.pgconn)
        return summed_up
