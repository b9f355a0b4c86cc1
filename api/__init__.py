"""From a request to its answer.

    hooks ─ for every request: its id, its origin, its body within limits
    users ─ authentication, by a token or by a trusted proxy's header
    contract ─ decorators that say what an operation takes and gives, and load and dump it
    receive ─ a reply as the client wants it: whole, as a stream of `events`, or deferred
    archive ─ exports, imports and forks
    import_schema ─ the schema of an import
    hints ─ what keeps models away, and what to do
    usage, metrics ─ sums of the ledger, for the user and for Prometheus
    static_files ─ the files of the page, compressed once
    answers ─ the schemas of the other answers
    errors ─ one shape for all errors

`app.py` has the routes; `schemas.py`, one floor below, has the schemas of bodies, sessions and
turns.
"""
