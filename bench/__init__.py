"""Measurements that print a table: stock SQLAlchemy beside Forebay in one run. Start them as ``python -m bench.…``."""
