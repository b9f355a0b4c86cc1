"""What there is in the end, as each user sees it: written in the history, after its rest."""

import re
import time

from askers import recorded
from faults import CHECKER
from invariants import REST, list_titles, turns_at_rest
from users import USERS

NEXT = re.compile(r'<([^>]*)>; rel="next"')
USAGE = "/usage?from=2000-01-01&to=2999-12-31"  # of all days, whatever the clock says


def read_all(ending):
    """Each user's sessions with their turns, those that were deleted, the usage and the export."""
    url, notes = ending.service.urls[0], ending.notes
    clients = [recorded(url, subject, notes) for subject in (*USERS, CHECKER)]
    deadline = time.monotonic() + REST
    for client in clients:
        for session in list_titles(client):
            turns_at_rest(client, session, deadline)
    notes.history.rest()
    for client in clients:
        read_all_of(client, ending.deleted)


def read_all_of(client, deleted):
    for session in [*list_titles(client), *deleted]:  # another user's is a 404, too
        client.get(f"/sessions/{session}")
    client.get(USAGE)
    page = "/export"
    while page:
        found = NEXT.search(client.get(page).headers.get("Link", ""))
        page = found and found[1]
