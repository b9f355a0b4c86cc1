"""Three seconds of the soak without faults; tools/soak says what it is, and runs it for longer."""

import random

from soaking import soak


def test_all_that_can_be_done_at_random_keeps_the_invariants(
    engine, new_database, tmp_path, capsys
):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown where it fails
    print(soak(tmp_path, engine, 3, seed, faults={}, url=new_database()))
