"""What happens to rows besides replies.

sweeper ─ the thread that deletes ─► deletion, retention, storage
deletion ─ a session, first out of sight, then in steps; everything about a person
retention ─ sessions that nobody uses any more
storage ─ how many bytes each user has stored, and the limit of that
exports ─ sessions as lines of JSON, or as a document
imports, forks ─► copies: a session that is written in steps, unseen until it is whole
archives ─► values ─ the conversations in a file, one at a time
foreign ─► chatgpt, claude ─► messages ─ what an import takes of one
migrations ─ from one release's database to the next one's
moving ─► endings ─► everything ─ from one database to another, by a file
"""
