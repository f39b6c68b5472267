"""The test ground: more servers to break, a network to bend, a driver that stops at every await, a clock that jumps.

| Module | What it gives |
|---|---|
| `mariadb`, `pgbouncer` | private servers, as `forebay.testing.servers.postgres` is one |
| `availability` | `require("mariadb")`: skip by name, or fail where the machine must have it |
| `proxy` | a TCP proxy: round trips counted, latency, stalls, cuts, silence |
| `gates` | named await points a test opens, fails, slows, hangs; sweeps over them |
| `fake_driver`, `fake_dialect` | an async driver made of gates, alone and under SQLAlchemy |
| `clock` | an event loop on virtual time |

Importing this package imports none of them: take what you need from its module. None of it is in the wheel.
"""
