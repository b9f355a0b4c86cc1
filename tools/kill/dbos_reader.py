"""The reader of both programs on DBOS: a client outside of the application, which DBOS lets read a
workflow's stream from the database.

    python dbos_reader.py DATABASE_URL
"""

import json
import sys

from dbos import DBOSClient

POLLING = 0.05  # seconds; the default of 1 would make SQLite look slow


def main(database):
    client = DBOSClient(system_database_url=database)
    text = ""
    for token in client.read_stream("reply", "tokens", polling_interval_sec=POLLING):
        text += token
        print(json.dumps(text), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
