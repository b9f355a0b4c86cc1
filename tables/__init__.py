"""Tables besides sessions and turns, named SQL for all tables, and descriptions of columns.

    queries.sql ─► given(name, rows): statements for many rows, of any table
    ledger ─ usage by owner, day and model, and rate limits
    idempotency ─ idempotency keys, and the replies that were made under them
    search ─ how text is normalized for search
    files ─ the files that users have uploaded
    columns ─ describes a column: who sees it, and where it is copied

`models.py` is above, and nothing here imports it.
"""

import pathlib

from database import Statements

statements = Statements(pathlib.Path(__file__).with_name("queries.sql"))
given = statements.given
