"""Errors of event loops, threads and greenlets."""

from __future__ import annotations

from forebay.hints._entry import Hint

LOOPS = (
    Hint(
        "missing-greenlet",
        (
            "greenlet_spawn has not been called; can't call await_only() here.",
            "MissingGreenlet",
            "GreenletSpawnError",
            "MissingGreenletError",
        ),
        (
            r"greenlet_spawn has not been called.*",
            r"\bMissingGreenlet(?:Error)?\b",
            r"\bGreenletSpawnError\b",
            r"\bxd2s\b",
        ),
        "Something that needs the database was reached by plain attribute access or a plain call: usually a "
        "relationship that was not loaded, or an attribute that a commit has expired.",
        (
            "Load it with the query, .options(selectinload(Order.lines)); or await order.awaitable_attrs.lines; or "
            "create the session maker with expire_on_commit=False. In an AsyncSession of Forebay's the message names "
            "the attribute.",
            "A synchronous function that uses the connection goes through run_sync.",
        ),
        """\
from forebay import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite://")
Session = async_sessionmaker(engine, expire_on_commit=False)
""",
    ),
    Hint(
        "event-loop-closed",
        ("RuntimeError: Event loop is closed",),
        (r"Event loop is closed",),
        "A connection outlived the event loop it was opened on: asyncio.run was called again, or a test had a loop of "
        "its own, or the program ended without dispose().",
        (
            "One Forebay engine serves any number of loops, one after the other: use its create_async_engine, or call "
            "forebay.install() before the modules that import SQLAlchemy's.",
            "End with await engine.dispose() inside the loop.",
        ),
        stock="SQLAlchemy's engine must be disposed of before its loop ends, or use NullPool.",
    ),
    Hint(
        "different-loop",
        (
            "got Future <Future pending> attached to a different loop",
            "Task got Future attached to a different loop",
        ),
        (r"attached to a different (?:event )?loop", r"is bound to a different event loop"),
        "A connection (or a lock, or a queue) made on one event loop was used on another: a module-level engine with "
        "asyncio.run per Celery task, a loop per test, or threads with a loop each.",
        (
            "Make the engine with Forebay's create_async_engine: each loop has its own connections within one limit.",
            "A session or connection itself stays on the loop that opened it: open it where you use it.",
        ),
        stock="SQLAlchemy's engine needs one engine per loop, or NullPool.",
    ),
    Hint(
        "loop-already-running",
        (
            "RuntimeError: This event loop is already running",
            "asyncio.run() cannot be called from a running event loop",
        ),
        (r"This event loop is already running", r"cannot be called from a running event loop"),
        "run_until_complete or asyncio.run was called where a loop runs already: in a notebook, in an async framework, "
        "or in an event listener.",
        (
            "Inside async code just await; in a notebook write await at the top level of the cell.",
            "Synchronous code called from async code goes through run_sync, or to a thread with a sync engine: "
            "forebay.create_sync_engine(url).",
        ),
    ),
    Hint(
        "task-destroyed",
        ("Task was destroyed but it is pending!",),
        (r"Task was destroyed but it is pending",),
        "An event loop ended while a task was still waiting, often a task nobody keeps a reference to, or one that was "
        "closing a connection.",
        (
            "Await the tasks you start (asyncio.TaskGroup), and end the engine inside the loop: async with engine:, or "
            "await engine.dispose().",
        ),
    ),
    Hint(
        "greenlet-thread",
        ("greenlet.error: cannot switch to a different thread",),
        (r"cannot switch to a different thread", r"greenlet\.error.*thread.*"),
        "Something that belongs to a greenlet of one thread was used in another: a session or connection handed to a "
        "thread pool, or an engine shared with a gevent or eventlet worker.",
        (
            "Open the session in the thread that uses it; each thread has a loop of its own, and one Forebay engine "
            "serves them all.",
            "Do not mix asyncio with gevent or eventlet workers: run Celery with prefork.",
        ),
    ),
)
