"""The steps from the database of one release to that of the next.

A step that was released does not change: a newer release appends one. In a new database, the first
step creates everything, and the others find nothing to do. Until a release is published, its step
may grow: a database that was made by an earlier state of it is refused."""

from database import APPLICATION_ID, SchemaVersion, db
from database.sqlite import SQLite
from models import Piece, Session, Thought, Turn, TurnFile
from tables.files import FilePart, StoredFile
from tables.idempotency import IdempotencyKey
from tables.ledger import RateLimitHit, Usage

TABLES = [
    SchemaVersion,
    Session,
    Turn,
    Piece,
    Thought,
    StoredFile,
    FilePart,
    TurnFile,
    IdempotencyKey,
    RateLimitHit,
    Usage,
]


def _add_fences_and_usage() -> None:
    """From 1.0.0. Processes of 1.0.0 may run next to the new ones: the turns that they insert get
    ids in the right order."""
    # All at once: those processes read `turn` and `session` together, and locks taken one by one
    # would end in a deadlock.
    db.lock_tables(["release", "session", "turn"])
    db.create_tables([Usage])
    _add_columns()
    db.create_tables([Session])  # its indexes
    if isinstance(db.obj, SQLite):
        db.execute_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    else:
        # Like new_turn_id in replies/claim.py, but finer: 1.0.0 inserts a message and its reply
        # within a millisecond.
        by_time = "(extract(epoch FROM clock_timestamp()) * 524288000 + random() * 500)::bigint"
        db.execute_sql(f"ALTER TABLE turn ALTER COLUMN id SET DEFAULT ({by_time})")


def _add_columns() -> None:
    """Add the missing columns of all tables that exist; a later step creates the others."""
    for model in TABLES:
        there = {column.name for column in db.get_columns(model._meta.table_name)}
        for field in model._meta.sorted_fields if there else ():
            if field.column_name not in there:
                context = db.get_sql_context()
                context.literal(f'ALTER TABLE "{model._meta.table_name}" ADD COLUMN ').sql(
                    field.ddl(context)
                )
                db.execute_sql(*context.query())


def _add_sizes_thinking_and_files() -> None:
    """From 2.0.0, whose processes may run next to the new ones."""
    db.lock_tables(["release", "session", "turn", "asked"])
    db.create_tables([Thought, StoredFile, FilePart, TurnFile])
    _add_columns()
    db.create_tables([Session])  # its indexes
    db.execute_sql("DROP INDEX IF EXISTS session_list")  # of sessions that cannot be pinned


MIGRATIONS = [
    lambda: db.create_tables(TABLES),
    _add_fences_and_usage,
    _add_sizes_thinking_and_files,
]
