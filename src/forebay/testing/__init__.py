"""The test ground: real servers to break, a network to bend, a driver that stops at every await, a clock that jumps.

| Module | What it gives |
|---|---|
| `servers.postgres`, `servers.mariadb`, `servers.pgbouncer` | a private server to kill, pause, restart, fail over |
| `availability` | `require("mariadb")`: skip by name, or fail where the machine must have it |
| `proxy` | a TCP proxy: round trips counted, latency, stalls, cuts, silence |
| `gates` | named await points a test opens, fails, slows, hangs; sweeps over them |
| `fake_driver`, `fake_dialect` | an async driver made of gates, alone and under SQLAlchemy |
| `clock` | an event loop on virtual time |

Importing this package imports none of them: take what you need from its module.
"""
