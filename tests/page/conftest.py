"""axe, for the page."""

import pytest

# For everyone


@pytest.fixture
def check(browser, npm):
    """A function that asserts that axe finds nothing, where the page has come to."""
    axe = (npm / "axe-core" / "axe.min.js").read_text()

    def check(place):
        found = browser.execute_async_script(
            axe
            + """;
            const say = arguments[0];
            axe.run().then(({ violations }) => say(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])));
        """
        )
        assert found == [], f"{place}, {found}"

    return check
