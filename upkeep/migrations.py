"""The steps from one release's database to the next one's. What has been released is not changed: a
newer release appends. A new database gets all that there is in the first step, and the second finds
nothing to do. Until this release is there, its step grows: a database that an earlier state of it
made is refused."""

from database import APPLICATION_ID, SchemaVersion, db
from database.sqlite import SQLite
from models import Piece, Session, Thought, Turn
from tables.idempotency import IdempotencyKey
from tables.ledger import RateLimitHit, Usage

TABLES = [SchemaVersion, Session, Turn, Piece, Thought, IdempotencyKey, RateLimitHit, Usage]


def _add_fences_and_usage() -> None:
    """From 1.0.0. Its processes may go on beside the new ones: what they insert has its place in
    the order."""
    # At once: they read `turn` with `session`, and a migration that had one of these only would
    # wait for whoever has the other, who waits for it.
    db.lock_tables(["release", "session", "turn"])
    db.create_tables([Usage])
    _add_columns()
    db.create_tables([Session])  # its indexes
    if isinstance(db.obj, SQLite):
        db.execute_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    else:
        # As new_turn_id in replies/claim.py, but finer: 1.0.0 makes a message and its reply within
        # a millisecond.
        by_time = "(extract(epoch FROM clock_timestamp()) * 524288000 + random() * 500)::bigint"
        db.execute_sql(f"ALTER TABLE turn ALTER COLUMN id SET DEFAULT ({by_time})")


def _add_columns() -> None:
    """Those that are missing of all tables."""
    for model in TABLES:
        there = {column.name for column in db.get_columns(model._meta.table_name)}
        for field in model._meta.sorted_fields if there else ():  # else a later step makes it
            if field.column_name not in there:
                context = db.get_sql_context()
                context.literal(f'ALTER TABLE "{model._meta.table_name}" ADD COLUMN ').sql(
                    field.ddl(context)
                )
                db.execute_sql(*context.query())


def _add_sizes_and_thinking() -> None:
    """From 2.0.0, whose processes may go on beside the new ones."""
    db.lock_tables(["release", "session", "turn", "asked"])
    db.create_tables([Thought])
    _add_columns()
    db.create_tables([Session])  # its indexes


MIGRATIONS = [lambda: db.create_tables(TABLES), _add_fences_and_usage, _add_sizes_and_thinking]
