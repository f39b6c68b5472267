"""Measurements that print a table: stock SQLAlchemy beside Forebay in the same run. Run them as ``python -m bench.…``."""
