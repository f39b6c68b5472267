"""The pytest plugin: a database, an engine, a session whose work is rolled back, and a check for leaks.

Found by pytest through the entry point ``pytest11``; importing this package imports nothing.
"""
