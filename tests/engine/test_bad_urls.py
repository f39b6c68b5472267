"""A URL that cannot be read, or surely not as it was meant, is refused at construction with the place in the string."""

from __future__ import annotations

import pytest
from sqlalchemy import URL, exc, make_url

from forebay import create_async_engine
from forebay.errors import ConfigurationError, InvalidURLError

# What SQLAlchemy says, which users search for; the explanation follows.
PARSE = "Could not parse SQLAlchemy URL from given URL string: "


def refusal(url: object, **options: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        create_async_engine(url, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is empty."),
        ("  \n", "it is empty."),
        ("localhost/db", "there is no '://' in its 12 characters."),
        ("postgresql+asyncpg:host/db", "there is no '://' in its 26 characters."),
        (" postgresql+asyncpg://host/db", "it begins with a quote or a blank; remove them."),
        ('"postgresql+asyncpg://host/db"', "it begins with a quote or a blank; remove them."),
        ("jdbc:postgresql://host/db", "it begins with 'jdbc:', which is Java's; remove that."),
        ("postgresql-asyncpg://host/db", "character 11 cannot stand in the name of a driver"),
        ("postgresql+asyncpg://u:p@host:54x2/db", "the port (character 31 to 34) is not a number. In a user name"),
        ("postgresql+asyncpg://user:secret/db", "the port (character 27 to 32) is not a number; there is no @ in it"),
        ("mysql+asyncmy://u:p@a:1,b:2/db", "the port (character 23 to 27) is not a number. PostgreSQL's drivers take"),
        ("postgresql+asyncpg://u:p@[::1/db", "the port (character 28 to 29) is not a number: the [ of an IPv6"),
    ],
)
def test_an_unreadable_url_says_where_and_why(url: str, reason: str) -> None:
    """Goal: the reader finds the mistake. Method: one URL per kind of mistake, the message's exact beginning."""
    error = refusal(url)
    assert str(error).startswith(PARSE + reason)
    assert isinstance(error, InvalidURLError)
    # SQLAlchemy raises the first for a URL, the second for a port.
    assert isinstance(error, exc.ArgumentError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("pa@ss", "the @ at character 29 comes after the one that ends the password."),
        ("pa@ss/word", "the @ at character 34 comes after the one that ends the password."),
        ("pa@ss:word", "the port (character 30 to 38) is not a number, and an @ comes after the one"),
        ("pa@ss?a&word=x", "the @ at character 38 comes after the one that ends the password."),
    ],
)
def test_an_at_sign_in_a_password_is_explained(password: str, reason: str) -> None:
    """Goal: SQLAlchemy ends the password at the first @ and takes its rest for the host, the port, the database or the
    query; say so instead of failing to resolve a host. Method: one password for each place its rest may go.
    """
    error = refusal(f"postgresql+asyncpg://u:{password}@host/db")
    assert str(error).startswith(PARSE + reason)
    assert "write @ as %40" in str(error)
    assert "URL.create()" in str(error)


@pytest.mark.parametrize("password", ["pa#ss", "pa/ss", "pa:ss", "pa[ss", "pa?ss", "pa%40ss", "p%2Fa%3As", "p%ss"])
def test_other_marks_in_a_password_are_read_as_sqlalchemy_reads_them(password: str) -> None:
    """Goal: nothing that works with SQLAlchemy is refused. Method: passwords its parser takes, and its result."""
    url = f"postgresql+asyncpg://u:{password}@host:5432/db"
    assert create_async_engine(url).url == make_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:p@@abstract/db",  # libpq's abstract socket
        "sqlite+aiosqlite:////srv/a@b:c/d@e.db",
        "postgresql+psycopg://u:p@host/db?passfile=/home/me@work/pass",
        "postgresql+asyncpg://u:p@[::1]:5432/db",
        "postgresql+asyncpg://u:p@host/a@b",
    ],
)
def test_an_at_sign_that_means_something_is_let_through(url: str) -> None:
    """Goal: the check for a misread password refuses nothing valid. Method: an @ in each place it may stand."""
    assert create_async_engine(url).url == make_url(url)


@pytest.mark.parametrize(
    ("url", "beginning"),
    [
        (None, "Expected string or URL object, got None: is an environment variable not set?"),
        (b"postgresql+asyncpg://host/db", "Expected string or URL object, got an object of type bytes."),
    ],
)
def test_something_that_is_no_url_is_named_by_its_type(url: object, beginning: str) -> None:
    """Goal: an unset variable is recognised at once. Method: None and bytes."""
    assert str(refusal(url)).startswith(beginning)


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_out_of_bounds_is_refused(port: int) -> None:
    """Goal: found at construction, not at the first connect. Method: ports beyond both bounds."""
    url = URL.create("postgresql+asyncpg", host="host", port=port)
    assert str(refusal(url)) == f"port {port} in the URL: must be 1 to 65535"


def test_a_url_that_a_creator_replaces_is_not_looked_into() -> None:
    """Goal: with a creator the URL only chooses the dialect. Method: one that would be refused without."""

    async def creator() -> object:
        raise AssertionError("nothing is opened at construction")

    assert create_async_engine("postgresql+asyncpg://u:p@x@host:99999/db?foo=1", async_creator=creator)


def test_all_that_is_wrong_with_the_options_is_named_beside_an_unreadable_url() -> None:
    """Goal: one round of corrections is enough. Method: a bad URL and two bad numbers."""
    error = refusal("", pool_size=-1, pool_timeout=-2)
    assert str(error).startswith(f"3 things about this engine cannot work:\n- {PARSE}it is empty.")
    assert [problem.split(":")[0] for problem in error.problems[1:]] == ["pool_size=-1", "pool_timeout=-2"]
