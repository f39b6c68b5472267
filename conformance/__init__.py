"""SQLAlchemy's own tests, run on stock SQLAlchemy and on Forebay, compared test by test.

``python -m conformance`` (``make conformance``) is the entry. Nothing of SQLAlchemy's sources is kept here: they come
from its source distribution, fetched by pip when the runner needs them. How and why is told in
``docs/explanation/conformance.md``.

* ``profiles``: which test files, drivers and versions.
* ``sources``: a virtual environment and an unpacked source distribution for each version.
* ``databases``: private servers, set up as SQLAlchemy's tests want them.
* ``plugin``, ``usage`` and ``limits``: run inside SQLAlchemy's pytest; record each outcome, put Forebay in and count
  its use, end a test that hangs.
* ``documented``: tests that differ on purpose, by id.
* ``running``: one pytest process for each side.
* ``results``, ``compare``, ``report``: what happened, what differs, how it is shown.
"""
