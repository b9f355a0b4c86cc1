"""The documents and the example have the settings that the code has."""

import re

from product import ROOT
from settings import SETTINGS


def shown(default):
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def rows_of(document):
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| `?(.*?)`? \| (.*) \|$",
        (ROOT / document).read_text("utf-8"),
        re.MULTILINE,
    )
    return {name: (default, meaning) for name, default, meaning in rows if name in SETTINGS}


def test_the_documents_and_the_example_have_every_setting_with_its_default():
    expected = {
        name: (shown(setting.default), setting.meaning) for name, setting in SETTINGS.items()
    }
    assert rows_of("docs/settings.md") == expected
    assert len(rows_of("README.md")) == 8 and rows_of("README.md").items() <= expected.items()
    example = re.findall(
        r"^# (.+)\n#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    sentences = {name: (default, sentence) for sentence, name, default in example}
    assert list(sentences) == list(SETTINGS)
    for name, (default, meaning) in expected.items():
        assert sentences[name][0] == default
        first = (
            meaning[0] if meaning[0] == "`" else meaning[0].upper()
        )  # a value is written in one way only
        assert sentences[name][1] == (first + meaning[1:]).replace("`", "") + "."


def test_no_setting_is_read_elsewhere():
    for path in ROOT.glob("*.py"):
        named = set(re.findall(r"(?:environ|getenv|envvar)\W+([A-Z_]{4,})", path.read_text()))
        assert named <= {
            "WEB_CONCURRENCY",
            "FLASK_APP",
            "PARLEY_HOME",
            "PARLEY_URL",
            "PARLEY_TOKEN",
            "PATH_INFO",
            "SCRIPT_NAME",
        }, path  # WSGI itself defines two
