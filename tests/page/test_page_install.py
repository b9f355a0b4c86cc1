"""The page as an application: what a phone or a desktop needs to install it."""

import json

import pytest

from browser import Page
from household import household
from origins import PREFIX
from product import ROOT

MANIFEST = json.loads((ROOT / "static" / "manifest.webmanifest").read_text("utf-8"))
SIZES = {
    icon["src"].partition("/")[2]: int(icon["sizes"].partition("x")[0])
    for icon in MANIFEST["icons"]
}
SIZES["apple-touch-icon.png"] = 180
DRAWN_OF = {name: "icon.svg" if name.startswith("icon") else "maskable.svg" for name in SIZES}


def manifest(page):
    """Chromium's reading of the manifest of this page. It must find no errors."""
    found = page.driver.execute_cdp_cmd("Page.getAppManifest", {})
    assert found["errors"] == []
    return found["manifest"]


def hindrances(page):
    """Chromium's reasons not to install this page. It loads an icon to find them."""
    found = page.driver.execute_cdp_cmd("Page.getInstallabilityErrors", {})
    return [each["errorId"] for each in found["installabilityErrors"]]


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_chromium_would_install_the_page(browser, server_with, prefix):
    server = server_with(SCRIPT_NAME=prefix)
    page = Page(browser, server)
    assert hindrances(page) == []
    found = manifest(page)
    assert (found["name"], found["display"]) == ("Parley", "kStandalone")
    assert (found["startUrl"], found["scope"]) == (f"{server.url}/", f"{server.url}/")
    for icon in found["icons"]:
        assert icon["url"].startswith(f"{server.url}/static/icons/")


def test_the_tab_icon_is_loaded(browser, server_with):
    server = server_with(REPLY_WAIT="10")  # one that no other test has
    Page(browser, server)
    server.wait_for_output("path=/static/icons/icon.svg status=200")


def test_the_manifest_is_found_behind_a_proxy_with_cookies(browser, tmp_path):
    """A browser requests a manifest without cookies unless told otherwise."""
    with household(tmp_path) as home:
        home.come_in(browser, "alice")
        page = Page(browser, home.server, home.house + "/")
        assert manifest(page)["name"] == "Parley"
        # Over plain HTTP and by a name, nothing can be installed.
        assert hindrances(page) == ["not-from-secure-origin"]
        browser.delete_all_cookies()


# Icons and colours

PIXELS = """
    const [paths, width, done] = arguments;
    const draw = async (path) => {
        const image = new Image();
        image.src = path;
        await image.decode();
        const canvas = Object.assign(document.createElement("canvas"), { width, height: width });
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0, width, width);
        return [image.naturalWidth, image.naturalHeight, context.getImageData(0, 0, width, width).data];
    };
"""
COMPARE = (
    PIXELS
    + """
    Promise.all(paths.map(draw)).then(([[, , drawn], [wide, high, stored]]) => {
        const others = drawn.filter((value, at) => Math.abs(value - stored[at]) > 16).length;
        done([wide, high, others / drawn.length]);
    });
"""
)
# How far from the middle, in widths, a pixel can be that differs from the corner; and the least
# alpha.
FARTHEST = (
    PIXELS
    + """
    draw(paths[0]).then(([, , data]) => {
        let farthest = 0, alpha = 255;
        for (let at = 0; at < data.length; at += 4) {
            const x = at / 4 % width - width / 2, y = Math.floor(at / 4 / width) - width / 2;
            alpha = Math.min(alpha, data[at + 3]);
            const differs = [0, 1, 2].some((band) => Math.abs(data[at + band] - data[band]) > 16);
            if (differs) farthest = Math.max(farthest, Math.hypot(x, y) / width);
        }
        done([farthest, alpha]);
    });
"""
)


@pytest.fixture
def page(browser, server_with):
    return Page(browser, server_with())


@pytest.mark.parametrize("name", SIZES)
def test_a_png_looks_like_its_svg(page, name):
    """`tools/icons.py` makes them."""
    paths = [f"static/icons/{each}" for each in (DRAWN_OF[name], name)]
    wide, high, others = page.driver.execute_async_script(COMPARE, paths, SIZES[name])
    assert (wide, high) == (SIZES[name], SIZES[name])
    assert others < 0.001
    assert (ROOT / paths[1]).stat().st_size < 16_000


@pytest.mark.parametrize("name", ["maskable-512.png", "apple-touch-icon.png"])
def test_a_system_may_cut_an_icon_to_its_own_shape(page, name):
    """All that is drawn is in the safe zone, a circle of four fifths of the width (Web
    Application Manifest, W3C), and nothing is transparent."""
    paths, width = [f"static/icons/{name}"], SIZES[name]
    farthest, alpha = page.driver.execute_async_script(FARTHEST, paths, width)
    assert 0.2 < farthest <= 0.4
    assert alpha == 255


def test_a_phone_finds_an_icon(page):
    path = page.run("document.querySelector('link[rel=apple-touch-icon]').getAttribute('href')")
    assert path == "static/icons/apple-touch-icon.png"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_systems_bars_have_the_colour_of_the_page(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        told = page.run(
            """[...document.querySelectorAll("meta[name=theme-color]")]
                .filter((meta) => matchMedia(meta.media).matches).map((meta) => meta.content)"""
        )
        ground = page.run("getComputedStyle(document.body).backgroundColor")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    bands = [int(band) for band in ground.removeprefix("rgb(").removesuffix(")").split(",")]
    assert told == ["#{:02x}{:02x}{:02x}".format(*bands)]
    if scheme == "light":
        assert told == [MANIFEST["background_color"]] == [MANIFEST["theme_color"]]
