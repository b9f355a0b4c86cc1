"""The icons of the page as PNG, for systems that take no SVG: `python tools/icons.py` has Chromium
draw them from the SVGs in `static/icons/`. It needs `chromium` and `chromedriver`.
"""

import base64
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from selenium import webdriver

from browser import CHROMEDRIVER, CHROMIUM, FLAGS

FOLDER = ROOT / "static" / "icons"
# A file → its source, and its width.
ICONS = {
    "icon-192.png": ("icon.svg", 192),
    "icon-512.png": ("icon.svg", 512),
    "maskable-512.png": ("maskable.svg", 512),
    "apple-touch-icon.png": (
        "maskable.svg",
        180,
    ),  # iOS takes no other format, and rounds the corners itself
}
DRAW = """
    const [svg, width, done] = arguments;
    const image = new Image(width, width);
    image.onload = () => {
        const canvas = Object.assign(document.createElement("canvas"), { width, height: width });
        canvas.getContext("2d").drawImage(image, 0, 0, width, width);
        done(canvas.toDataURL("image/png"));
    };
    image.src = "data:image/svg+xml;base64," + svg;
"""


def drawn(driver: webdriver.Chrome, source: str, width: int) -> bytes:
    """The PNG of this SVG."""
    svg = base64.b64encode((FOLDER / source).read_bytes()).decode()
    return base64.b64decode(driver.execute_async_script(DRAW, svg, width).partition(",")[2])


def main() -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    with webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER)) as driver:
        for name, (source, width) in ICONS.items():
            (FOLDER / name).write_bytes(drawn(driver, source, width))


if __name__ == "__main__":
    main()
