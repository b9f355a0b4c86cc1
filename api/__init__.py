"""How a request is taken and answered.

    hooks ─ its id and origin, its body, within its limits
    users ─ who asks: by a token, or by the word of a trusted proxy
    receive ─ a reply as the client wants it: whole, as a stream of `events`, or deferred
    import_schema ─ what an import may be
    archive ─ what is taken along: exports, imports, forks
    usage, metrics ─ what the ledger tells
    static_files ─ the files of the page, compressed once
    errors ─ whatever goes wrong, in one shape

`app.py` has the routes; `schemas.py`, which stands below, says what comes in and goes out.
"""
