"""The audit of a soak's history: it compares what clients sent and saw with docs/streams.md and
docs/api.md, and knows nothing else.

    python tools/audit FILE…

It prints what was checked, and each problem with the promise that is broken, or the place of
docs/api.md. The exit status is 1 if there is any.

A history is lines of JSON, in the order in which it happened. `at` is seconds since it began.

    {"history": 1, "began": "2026-11-30T10:00:00.000+00:00", "settings": {"engine": "sqlite", …}}
    {"at": 0.1, "op": 7, "user": subject, "sent": {"method", "path", "headers", "body"}}
    {"at": 0.2, "op": 7, "got": {"status", "headers", "body"}}      a stream's head has no body
    {"at": 0.2, "op": 7, "comment": ": …"}
    {"at": 0.3, "op": 7, "frame": "event: …\\ndata: …\\nid: …"}       as it was read
    {"at": 0.4, "op": 7, "ended": true}                             the body of a stream ended
    {"at": 0.4, "op": 7, "lost": "ConnectionResetError(…)"}         the connection broke
    {"at": 0.4, "op": 7, "left": true}                              the client hung up
    {"at": 0.1, "call": 3, "asked": {"model", "messages"}}          what the model was asked
    {"at": 0.4, "call": 3, "said": {"text", "whole", "usage", "begun"}, "hung_up": true}   and said
    {"at": 60.0, "fault": "worker-killed"}, {"at": 63.0, "over": "worker-killed"}
    {"at": 99.0, "rest": true}                                      after this, nothing is in progress

What a model is asked and says is as in OpenAI's protocol; `begun` says whether any event came. After
`rest`, each user's sessions, turns, usage and export are read: that is what there is in the end. A
client that lost an answer does not know what came of its request, and the audit does not expect it to.
"""

import pathlib
import sys
import time

from auditing import audit
from book import MANY


def tell(path):
    """Print what is wrong with this history; returns whether anything is."""
    began = time.monotonic()
    with open(path, encoding="utf-8") as lines:
        book = audit(lines)
    counts = [f"{count} {name}" for name, count in book.counts.items() if count]
    figures = [*counts, f"{len(book.users)} users", f"{len(book.faults)} faults"]
    figures.append(f"{book.at / 3600:.2f} hours, in {time.monotonic() - began:.1f} s")
    print(f"{pathlib.Path(path).name}: {', '.join(figures)}")
    for problem in book.problems[:MANY]:
        print(problem)
    if len(book.problems) > MANY:
        print(f"{len(book.problems)} problems in all")
    return bool(book.problems)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(max([tell(path) for path in sys.argv[1:]]))


if __name__ == "__main__":
    main()
