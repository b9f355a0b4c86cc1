"""Upkeep of the database: what runs in the background, and what a release changes in it.

sweeper ─ the thread that deletes ─► deletion, retention, storage
deletion ─ delete a session, first out of sight, then in steps; delete all data of a person
retention ─ delete sessions that nobody has used for a long time
storage ─ how many bytes each user has stored, and the limit on them
migrations ─ from the database of one release to that of the next
"""
