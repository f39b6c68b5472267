"""What the pool must show, one function per row, each runnable on stock SQLAlchemy and on Forebay.

``python -m bench.must_show`` prints all of them as a table; ``tests/pool/seam/test_must_show.py`` asserts ours. A row
returns a frozen result whose ``str()`` is its cell in the table.
"""

from bench.pool_rows.sides import BOTH, OURS, STOCK, Side

__all__ = ["BOTH", "OURS", "STOCK", "Side"]
