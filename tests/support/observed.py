"""Each step that a row of a reply takes in a database, whoever takes it: triggers write it down. It
is told as tools/model tells its own, so that the two can be compared."""

from typing import NamedTuple

from model.steps import lease_of, step_of
from raw_tables import tables_of

COLUMNS = "turn, what, status, fence, lease, restarts, cancelled, shown, used, start, text"
USED = " + ".join(
    f"coalesce({{0}}.{name}_tokens, 0)" for name in ("input", "output", "cached", "estimated")
)
ROW = (
    "{0}.id, '{1}', {0}.status, {0}.fence, {0}.lease_until, {0}.restarts, {0}.cancelled, "
    f"{{0}}.shown, {USED}, 0, {{0}}.content"
)
PIECE = "{0}.turn_id, '{1}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, {0}.start, {0}.text"
SEEN = {  # trigger → the event, when it counts, and what is written down
    "row_made": ("INSERT ON turn", "NEW.kind = 'assistant'", ROW.format("NEW", "row")),
    "row_changed": ("UPDATE ON turn", "NEW.kind = 'assistant'", ROW.format("NEW", "row")),
    "row_gone": ("DELETE ON turn", "OLD.kind = 'assistant'", ROW.format("OLD", "gone")),
    "text_added": ("INSERT ON piece", "TRUE", PIECE.format("NEW", "piece")),
    "text_changed": ("UPDATE ON piece", "TRUE", PIECE.format("NEW", "piece")),
    "text_gone": ("DELETE ON piece", "TRUE", PIECE.format("OLD", "cut")),
}
TYPES = (
    "turn bigint, what text, status text, fence bigint, lease bigint, restarts int, "
    "cancelled boolean, shown boolean, used bigint, start int, text text"
)


def observe(url):
    """From now on, steps of replies are written down in this database, whose tables are there."""
    with tables_of(url) as tables:
        number = "INTEGER PRIMARY KEY" if tables.is_sqlite else "bigserial PRIMARY KEY"
        tables.rows(f"CREATE TABLE observed (number {number}, {TYPES})")
        for name, (event, condition, values) in SEEN.items():
            write = f"INSERT INTO observed ({COLUMNS}) VALUES ({values})"
            if tables.is_sqlite:
                body = f"BEGIN {write}; END"
            else:
                tables.rows(
                    f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
                    f"$$ BEGIN {write}; RETURN NULL; END $$"
                )
                body = f"EXECUTE FUNCTION {name}()"
            each = f"FOR EACH ROW WHEN ({condition})"
            tables.rows(f"CREATE TRIGGER {name} AFTER {event} {each} {body}")


class Row(NamedTuple):
    """As tools/model names its columns."""

    status: str
    fence: int
    lease: str | int
    restarts: int
    is_cancelled: bool
    is_shown: bool
    use: int
    text: str


def row_of(status, fence, lease, restarts, cancelled, shown, used, text):
    """The row of what was written down."""
    return Row(
        status, fence or 0, lease_of(lease), restarts, bool(cancelled), bool(shown), used, text
    )


def observed(url):
    """Each step, in the order of its reply: (its turn, the step)."""
    rows, pieces = {}, {}
    with tables_of(url) as tables:
        seen = tables.rows(f"SELECT {COLUMNS} FROM observed ORDER BY number")
    for turn, what, *columns, start, text in seen:
        before = rows.get(turn)
        if what == "cut":  # with its row, perhaps: what comes next of the row tells
            pieces.get(turn, {}).pop(start, None)
            continue
        if what == "piece":
            pieces.setdefault(turn, {})[start] = text
            row = before._replace(text=_joined(pieces[turn]))
        elif what == "row":
            row = row_of(*columns, text)
            if row.status != "in_progress":
                pieces.pop(turn, None)
            elif turn in pieces:
                row = row._replace(text=_joined(pieces[turn]))
        else:
            row = None
        step = step_of(before, row)
        if not step.is_nothing:
            yield turn, step
        rows[turn] = row


def _joined(pieces):
    return "".join(pieces[start] for start in sorted(pieces))
