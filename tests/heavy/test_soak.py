"""Three seconds of the soak without faults. tools/soak describes it, and runs it for longer."""

import random

from soaking import soak


def test_random_requests_keep_the_invariants(engine, new_database, tmp_path, capsys):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown if it fails
    print(soak(tmp_path, engine, 3, seed, faults={}, url=new_database()))
