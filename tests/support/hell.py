"""The provider from hell: an answer in each row, and what is right for it.

A row is read from left to right: what the provider sends, and the result. `test_strange_answers.py`
runs all rows of a table side by side; a row's model names it, so that the provider knows which
answer is due.
"""

from hell_bodies import BODIES
from hell_ends import ENDS
from hell_errors import ERRORS, SHAPED
from hell_frames import FRAMES
from hell_lines import LINES, SPLITS
from hell_reasons import REASONS
from hell_right import SLACK, USAGE_WAIT
from hell_secrets import SECRETS
from hell_statuses import STATUSES

SIDE_BY_SIDE = {"ends that are waited for": 128, "drips": 128}  # rows at a time, else 24
# These are about HTTP, and are read before the protocol matters.
IN_TURN = {"statuses", "bodies", "splits", "lines"}
TABLES = {
    "statuses": STATUSES,
    "frames": FRAMES,
    "bodies": BODIES,
    "splits": SPLITS,
    "lines": LINES,
    "ends": {name: row for name, row in ENDS.items() if row[1].seconds[1] != USAGE_WAIT + SLACK},
    "ends that are waited for": {
        name: row for name, row in ENDS.items() if row[1].seconds[1] == USAGE_WAIT + SLACK
    },
    "reasons": REASONS,
    "errors": ERRORS,
    "shapes": SHAPED,
    "secrets": SECRETS,
}
