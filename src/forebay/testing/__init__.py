"""What users of the pytest plugin and readers of the pool's rules run: a private PostgreSQL, and the simulator.

| Module | What it gives |
|---|---|
| `servers.postgres` | a private server to kill, pause, restart, fail over |
| `simulate` | random and repeated lives of the pool's core, in virtual time |

Importing this package imports none of them: take what you need from its module. What only our own tests use is in
`tests/support/`.
"""
