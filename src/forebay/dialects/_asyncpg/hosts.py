"""Several hosts, in asyncpg's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forebay.dialects._hosts import HOST_S, Hosts

__all__ = ["AsyncpgHosts"]


class AsyncpgHosts(Hosts):
    """Several hosts, in asyncpg's words.

    Args:
        asyncpg: The driver.
    """

    def __init__(self, asyncpg: Any) -> None:
        super().__init__()
        self._not_as_asked: type[Exception] = asyncpg.TargetServerAttributeNotMatched
        self._said_by_server: type[Exception] = asyncpg.PostgresError

    def limits(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], float | None, float | None]:
        """Return the options without asyncpg's ``timeout``, which is for all hosts together."""
        if "timeout" in options:
            return {**options, "timeout": None}, options["timeout"], None
        return {**options, "timeout": None}, None, HOST_S

    def passes_over(self, error: Exception) -> bool:
        """Go on where the network failed, the connection was cut, or the server is starting up or shutting down."""
        if isinstance(error, (OSError, self._not_as_asked)):
            return True
        sqlstate = getattr(error, "sqlstate", None) or ""
        return isinstance(error, self._said_by_server) and sqlstate.startswith(("08", "57P"))

    def all_failed(self, failures: Sequence[tuple[str, Exception]]) -> Exception:
        """Return the last failure, as asyncpg does, with all as notes; that a host is not as asked only if all are."""
        errors = [error for _, error in failures]
        chosen = next((one for one in reversed(errors) if not isinstance(one, self._not_as_asked)), errors[-1])
        for where, error in failures:
            chosen.add_note(f"Of several hosts {where}: {type(error).__name__}: {error}")
        return chosen
