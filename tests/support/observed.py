"""Each step of a reply's row in a database. Triggers write it down, and which fences its statement
named, if the process records that (`naming`). Steps have the form of those of tools/model, so that
the two can be compared.
"""

from typing import NamedTuple

from model.states import LAPSED
from model.steps import lease_of, step_of
from naming import BEFORE, ON_POSTGRESQL, ON_SQLITE
from raw_tables import tables_of
from servers import Server

COLUMNS = "turn, what, status, fence, lease, restarts, cancelled, shown, used, start, text"
SET_TO_LAPSE = 1  # the lease that a test sets, to avoid waiting: that is no step, only time
USED = " + ".join(
    f"coalesce({{0}}.{name}_tokens, 0)" for name in ("input", "output", "cached", "estimated")
)
ROW = (
    "{0}.id, '{1}', {0}.status, {0}.fence, {0}.lease_until, {0}.restarts, {0}.cancelled, "
    f"{{0}}.shown, {USED}, 0, {{0}}.content"
)
PIECE = "{0}.turn_id, '{1}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, {0}.start, {0}.text"
SEEN = {  # trigger → the event, when it counts, and what it writes down
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


class ObservedServer(Server):
    """Its processes record which fences their statements name."""

    before = BEFORE


def observe(url):
    """From now on, steps of replies are written down in this database, which must have its tables."""
    with tables_of(url) as tables:
        number = "INTEGER PRIMARY KEY" if tables.is_sqlite else "bigserial PRIMARY KEY"
        tables.rows(f"CREATE TABLE observed (number {number}, {TYPES}, fences text)")
        if tables.is_sqlite:
            tables.rows("CREATE TABLE naming AS SELECT NULL AS fences")
        fences = ON_SQLITE if tables.is_sqlite else ON_POSTGRESQL
        for name, (event, condition, values) in SEEN.items():
            write = f"INSERT INTO observed ({COLUMNS}, fences) VALUES ({values}, {fences})"
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
    """With tools/model's names of columns."""

    status: str
    fence: int
    lease: str | int
    restarts: int
    is_cancelled: bool
    is_shown: bool
    use: int
    text: str


def row_of(status, fence, lease, restarts, cancelled, shown, used, text):
    """The row as the trigger wrote it down."""
    lease = LAPSED if lease == SET_TO_LAPSE else lease_of(lease)
    return Row(status, fence or 0, lease, restarts, bool(cancelled), bool(shown), used, text)


def observed(url):
    """Each step, in the order of its reply: (its turn, the step)."""
    rows, pieces = {}, {}
    with tables_of(url) as tables:
        seen = tables.rows(f"SELECT {COLUMNS}, fences FROM observed ORDER BY number")
    for turn, what, *columns, start, text, fences in seen:
        before = rows.get(turn)
        if what == "cut":  # perhaps with its row: the next entry of the row shows that
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
        step = step_of(before, row, set(map(int, (fences or "").split())))
        if not step.is_nothing:
            yield turn, step
        rows[turn] = row


def _joined(pieces):
    return "".join(pieces[start] for start in sorted(pieces))
