"""Everything Forebay touches of SQLAlchemy under a private name, one file per subsystem.

A reader who wants to know how deep the debt goes reads this folder and no other: outside of it the package uses
SQLAlchemy's public names only. ``tests/test_architecture.py`` checks that.
"""
