"""What outlives sessions, or serves them: usage, idempotency keys, what is searched.

    queries.sql ─► given(name, rows): statements for many rows, of any table
    ledger ─ what was used, and how often it was asked
    idempotency ─ under which key a reply was asked for
    search ─ the text that is searched
    shown ─ what is shown of turns

`models.py` stands above, and is not known here.
"""

import pathlib

from database import Statements

statements = Statements(pathlib.Path(__file__).with_name("queries.sql"))
given = statements.given
