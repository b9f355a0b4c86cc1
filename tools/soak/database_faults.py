"""PostgreSQL's faults in a soak, besides those of tests/support/trouble.py."""

import contextlib
import time

import psycopg

from meanwhile import all_the_while

CUTS = 1, 4  # seconds from one cut of all connections to the next
UNPROMOTED = 0.5, 4  # seconds during which no server takes writes

# One transaction in so many is refused at its end, as if another had committed first.
REFUSED = 8
REFUSE = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF txid_current() % {REFUSED} = 0 THEN
        RAISE EXCEPTION 'refused by chance' USING ERRCODE =
            CASE txid_current() % {2 * REFUSED} WHEN 0 THEN '40P01' ELSE '40001' END;
    END IF;
    RETURN NULL;
END $$
"""
REFUSING = """
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON {}
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
"""
REFUSED_TABLES = "session", "turn", "piece", "usage"
REFUSALS = {  # what PostgreSQL's log says of a refusal
    "refused by chance": "refused at the end of a transaction",
    "could not serialize access": "refused for another's sake (40001)",
    "deadlock detected": "refused for a deadlock (40P01)",
}
# Rows of replies in progress and of their sessions, in an order that no other transaction uses.
REWRITE = (
    "UPDATE turn SET fence = fence WHERE id IN"
    " (SELECT id FROM turn WHERE status = 'in_progress' ORDER BY id DESC)",
    "UPDATE session SET title = title WHERE id IN"
    " (SELECT id FROM session ORDER BY updated_at DESC LIMIT 5)",
)


@contextlib.contextmanager
def promoted(service, chance):
    """The primary is killed, its standby takes its place, and gets a standby itself."""
    service.pair.kill()
    time.sleep(chance.uniform(*UNPROMOTED))
    service.pair.promote()
    service.notes.figures["standbys promoted"] += 1
    try:
        yield
    finally:
        service.pair.renew()


def cut_all(cluster):
    """End all connections, those of standbys, too; returns how many there were."""
    ended = cluster.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND backend_type IN ('client backend', 'walsender')"
    )
    return len(ended)


@contextlib.contextmanager
def connections_cut(service, chance):
    """All at once, several times."""
    figures = service.notes.figures

    def cut(over):
        figures["connections cut"] += cut_all(service.cluster)
        over.wait(chance.uniform(*CUTS))

    with all_the_while(cut):
        yield


@contextlib.contextmanager
def refusing(service, chance):
    """Transactions are serializable by default, and refused: at their end by chance, and when
    another transaction changes the same rows, which happens all the time. PostgreSQL's log has
    each."""
    cluster, notes = service.cluster, service.notes
    log = cluster.folder / "log"
    size, own = log.stat().st_size, []
    with serializable(cluster), refused_by_chance(cluster):
        with all_the_while(lambda over: rewrite(cluster, own, over)):
            yield
    with log.open("rb") as file:
        file.seek(size)
        said = file.read().decode(errors="replace")
    for sentence, what in REFUSALS.items():
        notes.figures[what] += said.count(f"ERROR:  {sentence}")
    notes.figures["of these, of the one who rewrites"] += len(own)


@contextlib.contextmanager
def serializable(cluster):
    """By default; open connections have to be replaced."""
    cluster.ask("ALTER DATABASE parley SET default_transaction_isolation = serializable")
    try:
        cut_all(cluster)
        yield
    finally:
        cluster.ask("ALTER DATABASE parley RESET default_transaction_isolation")
        cut_all(cluster)


@contextlib.contextmanager
def refused_by_chance(cluster):
    cluster.ask(REFUSE, "parley")
    try:
        for table in REFUSED_TABLES:
            cluster.ask(REFUSING.format(table), "parley")
        yield
    finally:
        drop_refusals(cluster)


def drop_refusals(cluster):
    """The triggers are dropped with their function. That locks the tables in an order of its own,
    so PostgreSQL may end it because of a deadlock."""
    while True:
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            cluster.ask("DROP FUNCTION refuse() CASCADE", "parley")
            return


def rewrite(cluster, own, over):
    """Set rows to their own values, in one transaction, or be refused."""
    try:
        # psycopg's own context would leave the connection open if the commit is refused.
        with contextlib.closing(psycopg.connect(cluster.url())) as connection:
            for statement in REWRITE:
                connection.execute(statement)
                over.wait(0.05)
            connection.commit()
    except psycopg.OperationalError as problem:
        own.append(problem.sqlstate)
    over.wait(0.1)
