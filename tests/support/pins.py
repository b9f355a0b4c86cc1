"""The files of requirements: short lists, and files made from them that pin everything that is
installed.
"""

import tomllib
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from product import ROOT

# In the order in which they are made: each knows those before it.
PINNED_BY = {
    "pyproject.toml": "requirements.txt",
    "tests/requirements.in": "tests/requirements.txt",
    "tools/firefox.in": "tools/firefox.txt",
    "tools/kill/requirements.in": "tools/kill/requirements.txt",
    "examples/gradio/requirements.in": "examples/gradio/requirements.txt",
    "examples/streamlit/requirements.in": "examples/streamlit/requirements.txt",
}


class Pin(NamedTuple):
    requirement: Requirement
    hashes: frozenset[str]

    @property
    def version(self) -> str:
        """The version after `==`; of any other line, everything it says about versions."""
        return str(self.requirement.specifier).removeprefix("==")

    @property
    def applies(self) -> bool:
        """Whether it is installed on this Python and system."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read_pins(path: str) -> dict[str, Pin]:
    """The line for each library in a file of requirements, by its normalized name."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".toml"):
        text = "\n".join(tomllib.loads(text)["project"]["dependencies"])
    lines = text.replace("\\\n", "").splitlines()
    pins = {}
    for line in lines:
        if line.strip() and not line.strip().startswith("#"):
            words, *hashes = line.split("--hash=")
            requirement = Requirement(words.strip())
            pins[canonicalize_name(requirement.name)] = Pin(
                requirement, frozenset(word.strip() for word in hashes)
            )
    return pins
