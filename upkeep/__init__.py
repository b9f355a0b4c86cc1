"""What happens to rows besides replies.

    deletion ─ a session, first out of sight, then in steps; all that is stored of a person
    retention ─ sessions that nobody uses any more
    exports ─ sessions as lines of JSON, or as a document
    imports, forks ─► copies: a session that is written in steps, unseen until it is whole
    archives ─► values ─ the conversations in a file, one at a time
    foreign ─► chatgpt, claude ─► messages ─ what an import takes of one
    migrations ─ from one release's database to the next one's
    moving ─► endings ─► everything ─ from one database to another, by a file

What is due is swept once an hour, by a thread of the replies.
"""
