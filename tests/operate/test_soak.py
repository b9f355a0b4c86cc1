"""Six seconds of the soak; tools/soak says what it is, and runs it for longer."""

import random

from soak import soak


def test_all_that_can_be_done_at_random_keeps_the_invariants(start, new_database, provider, capsys):
    server = start(
        DATABASE_URL=new_database(), OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1"
    )
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown where it fails
    print(soak(server, provider, 6, seed))
