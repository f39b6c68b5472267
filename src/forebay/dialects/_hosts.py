"""Several hosts, tried one after the other: each has a time of its own, and who said nothing of late comes last.

The drivers have one time for all hosts (asyncpg) or two minutes for each (psycopg), and begin at the first host again
with each connect. So a first host that is gone without a word, its machine switched off or cut from the network, keeps
every connect from the host behind it: longer than the pool tries, or than a caller waits. Here it is passed over.
"""

from __future__ import annotations

import asyncio
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from forebay._watchdog import Limit

__all__ = ["HOST_S", "Host", "Hosts"]

#: How long each of several hosts has to answer where nobody said, in seconds: well within the pool's patience with a
#: first connect (10 s), and several times what one takes across the world, TLS included.
HOST_S: Final = 5.0
# How long a host that said nothing is tried last, in seconds. Then one connect finds out whether it is back.
_LAST_S: Final = 30.0
# A connect that is called off after less than this says nothing about the host, in seconds.
_SILENT_S: Final = 1.0

Host = tuple[str, Any]


class Hosts(ABC):
    """The hosts of one engine, for a driver.

    Nothing is remembered of a host that refuses or is not as ``target_session_attrs`` asks: it costs little to see.
    """

    #: What the driver, or the operating system, raises where no answer came in its time.
    timed_out: type[Exception] = TimeoutError

    def __init__(self) -> None:
        self._silent_until: dict[Host, float] = {}

    @abstractmethod
    def limits(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], float | None, float | None]:
        """Return the driver's options for one host, and the seconds for all together and for each; None: no limit."""

    @abstractmethod
    def passes_over(self, error: Exception) -> bool:
        """Tell whether the next host is to be tried after ``error``."""

    @abstractmethod
    def all_failed(self, failures: Sequence[tuple[str, Exception]]) -> Exception:
        """Return what to raise where no host would do, given what each of them said, in the order they were tried."""

    async def connect(self, connect: Callable[..., Awaitable[Any]], *positional: Any, **options: Any) -> Any:
        """Return what the driver's ``connect`` returns for the first host that answers as asked.

        Raises:
            Exception: What ``connect`` raises.

        Cancellation: safe, as that of ``connect``; the host that kept it waiting comes last in the next connect.
        """
        hosts = [] if any(positional) else _hosts_in(options)
        if len(hosts) < 2:
            return await connect(*positional, **options)
        loop = asyncio.get_running_loop()
        began = loop.time()
        if (options.get("load_balance_hosts") or os.environ.get("PGLOADBALANCEHOSTS")) == "random":
            random.shuffle(hosts)  # libpq's, which is given one host at a time here
        hosts.sort(key=lambda host: self._silent_until.get(host, began) > began)
        for_one, all_s, each_s = self.limits(options)
        attempts = _attempts(hosts, options)
        failures: list[tuple[str, Exception]] = []
        for number, (host, wanted) in enumerate(attempts):
            bound_s = each_s if all_s is None else (began + all_s - loop.time()) / (len(attempts) - number)
            arguments = {**for_one, "host": host[0], "port": host[1], **wanted}
            try:
                return await self._try(host, bound_s, connect(**arguments))
            except Exception as error:
                if not self.passes_over(error):
                    raise
                failures.append((f"{host[0]}:{host[1]}", error))
        raise self.all_failed(failures).with_traceback(None)

    async def _try(self, host: Host, bound_s: float | None, connecting: Awaitable[Any]) -> Any:
        loop = asyncio.get_running_loop()
        began = loop.time()
        limit = Limit(bound_s)
        try:
            async with limit:
                connection = await connecting
        except asyncio.CancelledError:
            # By the pool, for one: it begins a connect anew that takes much longer than others did.
            if loop.time() - began >= _SILENT_S:
                self._silent_until[host] = loop.time() + _LAST_S
            raise
        except (TimeoutError, self.timed_out):
            self._silent_until[host] = loop.time() + _LAST_S
            if not limit.expired():
                raise
            raise self.timed_out(f"no answer from {host[0]}:{host[1]} within {bound_s:.3g} s") from None
        self._silent_until.pop(host, None)
        return connection


def _hosts_in(options: Mapping[str, Any]) -> list[Host]:
    """Return the several hosts of a driver's options; none where the driver has to find out about them itself."""
    if any(options.get(name) for name in ("dsn", "conninfo", "service", "hostaddr")):
        return []
    hosts, ports = _listed(options.get("host")), _listed(options.get("port"))
    if len(ports) == 1:
        ports *= len(hosts)
    if len(hosts) != len(ports):
        return []
    return list(zip(hosts, ports, strict=True))


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return list(value.split(","))
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _attempts(hosts: Sequence[Host], options: Mapping[str, Any]) -> list[tuple[Host, dict[str, Any]]]:
    if (options.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS")) != "prefer-standby":
        return [(host, {}) for host in hosts]
    # A single host cannot be preferred: first whoever is a standby, then whoever answers.
    return [(host, {"target_session_attrs": role}) for role in ("standby", "any") for host in hosts]
