"""What callers see while a PostgreSQL server breaks, stock SQLAlchemy beside Forebay: ``python -m bench.faults``.

Each fault strikes a private server on the loopback interface twice, once under callers of each. The table shows the
errors the callers saw, how long after the end of the fault the first call succeeded, and the sessions left over at the
server. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import platform
import sys

import sqlalchemy

from bench.pool_faults.faults import FAULTS, Ground
from bench.pool_rows import BOTH
from forebay.testing.servers.postgres import PostgresServer

_BOUND_S = 20.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--driver", choices=["asyncpg", "psycopg"], default="asyncpg")
    parser.add_argument("--only", metavar="TEXT", default="", help="only faults with this in their name")
    arguments = parser.parse_args()
    # What breaks is told in the table; the log would drown it.
    logging.disable(logging.CRITICAL)
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, {arguments.driver}, CPython {platform.python_version()},"
        " a private PostgreSQL on the loopback interface"
    )
    with PostgresServer() as server, PostgresServer() as other:
        prepare(server)
        prepare(other)
        for name, fault in FAULTS.items():
            if arguments.only not in name:
                continue
            print(f"\n{name}: {(fault.__doc__ or '').strip()}")
            for side in BOTH:
                ground = Ground(side, server, other, arguments.driver)
                try:
                    cell = str(asyncio.run(asyncio.wait_for(fault(ground), _BOUND_S)))
                except Exception as error:
                    cell = f"failed: {type(error).__name__}: {error}"
                print(f"  {side.name:<11} {cell}", flush=True)


def prepare(server: PostgresServer) -> None:
    """Create what the faults write to."""
    server.query("create table if not exists forebay_faults (n integer)")
    server.query("grant all on forebay_faults to app")


if __name__ == "__main__":
    sys.exit(main())
