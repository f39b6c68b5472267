"""Faults of a PostgreSQL server, and what callers of an engine saw of each; on stock SQLAlchemy and on Forebay.

``python -m bench.faults`` prints the table; ``tests/pool/faults`` asserts ours.
"""

from bench.pool_faults.traffic import Seen, Traffic

__all__ = ["Seen", "Traffic"]
