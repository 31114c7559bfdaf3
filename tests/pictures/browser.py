"""A browser without a window, driven by its own driver (Debian's chromium and chromium-driver)."""

from __future__ import annotations

import base64
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

webdriver = pytest.importorskip("selenium.webdriver")

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Browser:
    """One window."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, page: Path, *, width: int = 1200, height: int = 900, theme: str = "light") -> None:
        """Open a file, with what it has to load done; what it said to the console before is forgotten."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.command("Emulation.setEmulatedMedia", media="", features=features)
        self.console()
        self._driver.get(page.as_uri())
        ready = "!document.querySelector('.heat') || 'ready' in document.querySelector('.heat').dataset"
        self.wait_for(ready)

    def wait_for(self, condition: str) -> None:
        """Wait until an expression of the page is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self._driver, 30, 0.05).until(lambda _: self.run(f"return {condition}"))

    def run(self, script: str) -> Any:
        """The result of a script in the page."""
        return self._driver.execute_script(script)

    def text(self, selector: str) -> str:
        """What is to be read in an element."""
        return self.run(f"return document.querySelector({selector!r}).innerText")

    def console(self) -> list[str]:
        """What was said to the console since the last look."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._driver.execute_cdp_cmd(name, parameters)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press, release or turn the mouse's wheel."""
        self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Click where the window shows something."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def key(self, key: str, **more: Any) -> None:
        """Press a key."""
        text = key if len(key) == 1 else ""
        self.command("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **more)
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key, **more)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.command("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A window with an empty profile; skips where no browser is installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromium-driver (tools/test-packages.sh)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(window)
    finally:
        window.quit()
