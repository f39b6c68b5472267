"""Which statements do nothing but read: their transaction may be left without waiting for the ROLLBACK.

What matters is not whether a statement writes; a ROLLBACK undoes that. It is what others can see of a ROLLBACK that is
still on its way: a row or advisory lock that outlives the block by half a round trip, and fails a ``NOWAIT`` elsewhere.
A function may take such locks, so only functions known not to are let through. What this cannot see is a
function behind a view, an operator or a policy.
"""

from __future__ import annotations

import functools
import re

__all__ = ["only_reads"]

#: Literals and quoted names, in the order in which they begin: a quote in a name begins no literal.
_QUOTED = re.compile(r"'(?:[^']|'')*'" r'|"(?:[^"]|"")*"')
_BEGINS = re.compile(r"\s*SELECT\b", re.IGNORECASE)
#: FOR UPDATE / SHARE / NO KEY UPDATE / KEY SHARE; SELECT INTO; a data-modifying WITH inside; a second statement; a
#: comment or a dollar quote, in which anything may hide.
_SUSPECT = re.compile(
    r"\bFOR\s+(?:UPDATE|SHARE|NO|KEY)\b|\b(?:INTO|INSERT|UPDATE|DELETE|MERGE)\b|;|--|/\*|\$\D", re.IGNORECASE
)
_CALLS = re.compile(r'("|[\w.]+)\s*\(')

#: Words of SQL in front of a parenthesis.
_WORDS = """
    all and any array as between by case cast distinct else except exists filter from group having in intersect
    interval is join lateral like limit not nulls offset on or order over partition rollup row select similar
    some sets cube then to union using values when where with ilike window end
"""
#: Types that take a length.
_TYPES = """
    bit bpchar char character decimal numeric time timestamp timestamptz varbit varchar varying float
"""
#: Functions of PostgreSQL's own that take no locks and wait for nobody.
_FUNCTIONS = """
    abs age array_agg array_length array_position array_remove array_to_string avg bit_and bit_or bool_and
    bool_or btrim cardinality ceil ceiling char_length character_length coalesce concat concat_ws count
    cume_dist current_database current_date current_schema current_setting current_time current_timestamp date
    date_part date_trunc dense_rank div every exp extract first_value floor format generate_series greatest
    initcap json_agg json_array_elements json_build_array json_build_object json_object_agg jsonb_agg
    jsonb_array_elements jsonb_build_array jsonb_build_object jsonb_each jsonb_extract_path
    jsonb_extract_path_text jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_query lag last_value
    lead least left length localtime localtimestamp log lower lpad ltrim make_date make_interval make_timestamp
    max md5 min mod mode now ntile nullif octet_length overlay percent_rank percentile_cont percentile_disc
    pg_backend_pid pg_is_in_recovery pg_sleep plainto_tsquery position power quote_ident quote_literal random
    rank regexp_match regexp_matches regexp_replace repeat replace reverse right round row_number row_to_json
    rpad rtrim sign similarity split_part sqrt starts_with stddev string_agg string_to_array strpos substr
    substring sum to_char to_date to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector translate trim
    trunc ts_rank ts_rank_cd unnest upper variance version websearch_to_tsquery
"""
HARMLESS = frozenset(f"{_WORDS} {_TYPES} {_FUNCTIONS}".split())


@functools.lru_cache(maxsize=4096)
def only_reads(sql: str) -> bool:
    """Tell whether ``sql`` is a plain SELECT: no locking clause, nothing that writes, only functions known to be
    harmless.

    Decides by the text, and for waiting when in doubt.
    """
    if not _BEGINS.match(sql) or "\\" in sql:
        return False
    text = _QUOTED.sub(lambda quoted: quoted[0][0] * 2, sql)
    if _SUSPECT.search(text) or text.count("'") % 2 or text.count('"') % 2:
        return False
    for name in _CALLS.findall(text):
        plain = name.lower().removeprefix("pg_catalog.")
        if plain not in HARMLESS:
            return False
    return True
