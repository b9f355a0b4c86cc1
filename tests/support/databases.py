"""The PostgreSQL on which the tests run, too."""

import os

POSTGRESQL = os.environ.get("TEST_DATABASE_URL")


LEFT_OUT = "PostgreSQL is left out: TEST_DATABASE_URL is not set"
