"""Exports, imports and copies of sessions.

exports ─ sessions as lines of JSON, or one as a Markdown document
imports, forks ─► staged_session: write a session in steps, invisible until it is complete
move ─ copy everything from one database into another
"""
