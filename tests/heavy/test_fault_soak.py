"""The first five minutes of the soak with faults, on both engines beside each other; tests/fault_soak.py says what it is."""

import random

from fault_soak import ENGINES, soak_on


def test_faults_at_random_under_all_that_can_be_done_keep_the_invariants(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown where it fails
    soak_on(tmp_path, ENGINES, 285, seed)  # five faults on each; with its start and its checks, it takes five minutes
