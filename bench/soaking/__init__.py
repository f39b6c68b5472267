"""The parts of ``bench/soak.py``: who calls, what is done to them, who watches, and the record."""
