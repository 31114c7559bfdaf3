"""The heatmap in a browser: what it shows, and that mouse and keyboard do something."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from tests.pictures.captures import INFO, R, W, X, access, answered, unpacker
from xenintro.export import Options
from xenintro.export.heatmap import export
from xenintro.policy.language.expression import compile_filter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.pictures.browser import Browser
    from xenintro.answered import Answered

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def unpacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("unpacking"), unpacker(4_000))


def written(folder: Path, events: Iterable[Answered]) -> Path:
    output = io.BytesIO()
    export(INFO, events, output, Options())
    page = folder / "page.html"
    page.write_bytes(output.getvalue())
    return page


#: Where the first cell of the grid is in the window, and its title.
WHERE = """
const cell = heat.cells.find((one) => one.count === Math.max(...heat.cells.map((other) => other.count)));
const box = heat.canvas.getBoundingClientRect();
return [box.left + heat.x(cell.column + 0.5), box.top + heat.y(cell.row + 0.5), heat.title(cell), cell.total];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_mouse(window: Browser, unpacking: Path, theme: str, width: int) -> None:
    window.open(unpacking, width=width, theme=theme)
    assert window.run("return document.documentElement.scrollWidth") == width  # nothing hangs out
    assert window.text(".tip") == ""
    window.run("heat.canvas.scrollIntoView({block: 'center'})")
    x, y, title, total = window.run(WHERE)
    window.mouse("mouseMoved", x, y)
    window.wait_for(f"document.querySelector('.tip b')?.textContent === {title!r}")
    assert f"{total} events: " in window.text(".tip")
    window.click(x, y)
    assert window.text(".events h3").startswith(title)
    assert window.run("return document.querySelectorAll('.events tbody tr').length") == min(total, 5)
    before = window.run("return heat.view")
    window.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    window.wait_for(f"heat.view.width < {before['width']}")
    assert window.run("return heat.view.height") < before["height"]
    window.run("document.querySelector('[data-act=all]').click()")
    assert window.run("return heat.view") == before
    window.run("document.querySelector('[data-act=close]').click()")
    assert window.run("return document.querySelector('.events').hidden")
    assert window.console() == []


def test_keyboard(window: Browser, unpacking: Path) -> None:
    window.open(unpacking)
    window.run("document.querySelector('[name=marked]').focus()")
    window.key("Tab", code="Tab", windowsVirtualKeyCode=9)
    assert window.run("return document.activeElement.dataset.act") == "in"
    window.run("heat.canvas.focus()")
    window.key("ArrowRight")
    first = window.text(".tip")
    assert first.startswith("gfn 0x")
    window.key("ArrowRight")
    window.key("ArrowDown")
    assert window.text(".tip") != first
    whole = window.run("return heat.view.width")
    window.key("+")
    assert window.run("return heat.view.width") == whole / 2
    window.key("ArrowLeft", modifiers=8)
    window.key("Enter", windowsVirtualKeyCode=13)
    assert window.text(".events h3").startswith("gfn 0x")
    window.key("Escape")
    assert window.run("return document.querySelector('.events').hidden")
    window.key("0")
    assert window.run("return heat.view.width") == whole
    assert window.console() == []


def test_the_theme_can_be_chosen(window: Browser, unpacking: Path) -> None:
    window.open(unpacking, theme="dark")
    ground = "return getComputedStyle(document.body).backgroundColor"
    dark, paper = window.run(ground), window.run("return heat.paper")
    assert window.text("#theme") == "Light theme"
    window.run("document.querySelector('#theme').click()")
    assert window.run(ground) != dark
    assert window.run("return heat.paper") != paper  # the canvas went with it
    assert window.text("#theme") == "Dark theme"


def test_kinds_and_pages_can_be_left_out(window: Browser, tmp_path: Path) -> None:
    events = [access(0, 0x10, R), access(1_000_000, 0x11, W), access(2_000_000, 0x11, X)]
    window.open(written(tmp_path, events))
    shown = "return heat.cells.map((cell) => heat.title(cell)).sort()"
    assert window.run(shown) == ["gfn 0x10", "gfn 0x11", "gfn 0x11"]
    assert "1 page was written, then executed" in window.text(".heat")
    window.run("document.querySelector('[name=kind]').click()")
    assert window.run(shown) == ["gfn 0x11", "gfn 0x11"]
    window.run(
        "document.querySelector('[name=kind]').click(); document.querySelector('[name=marked]').click()"
    )
    assert window.run(shown) == ["gfn 0x11", "gfn 0x11"]
    assert window.run("return heat.rows.length") == 1
    window.run("document.querySelector('[name=rows][value=code]').click()")
    assert window.run(shown) == ["code 0xfffff80000001000–0xfffff80000001fff"] * 3
    assert window.console() == []


def test_one_event(window: Browser, tmp_path: Path) -> None:
    window.open(written(tmp_path, [access(0, 2**40, W, 0x4C8)]))
    window.run("heat.canvas.focus()")
    window.key("ArrowRight")
    window.key("Enter", windowsVirtualKeyCode=13)
    said = window.text(".tip").splitlines()
    assert said == ["gfn 0x10000000000", "0 – 1\u202fµs", "1 event: 1 write"]
    assert "-w-  gfn 0x10000000000+4c8" in window.run("return document.querySelector('.events').textContent")
    assert window.console() == []


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "This capture has no event with a page or an instruction."),
        ([answered("cpuid", 0)], "No page access in this capture"),
    ],
)
def test_where_there_is_no_page_it_says_what_to_do(
    window: Browser, tmp_path: Path, events: list[Answered], said: str
) -> None:
    window.open(written(tmp_path, events))
    assert said in window.text("main")
    assert "-e mem:rwx@" in window.text("main")
    assert window.run("return !!document.querySelector('canvas')") == bool(events)
    assert window.console() == []


def test_printed(window: Browser, unpacking: Path) -> None:
    window.open(unpacking, theme="dark")
    window.command("Emulation.setEmulatedMedia", media="print")
    window.wait_for("heat.paper === 'rgb(255 255 255)'")
    assert window.run("return getComputedStyle(document.querySelector('.buttons')).display") == "none"
    assert window.printed().startswith(b"%PDF")


def test_the_page_asks_for_nothing(unpacking: Path) -> None:
    page = unpacking.read_text()
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize("rows", ["gfn", "code"])
def test_the_condition_of_a_cell_finds_its_events(window: Browser, unpacking: Path, rows: str) -> None:
    window.open(unpacking)
    window.run(f"document.querySelector('[name=rows][value={rows}]').click()")
    # The cells of one row, and the condition that is given for it.
    total, condition = window.run(
        "const row = heat.cells.at(-1).row, cells = heat.cells.filter((cell) => cell.row === row);"
        "return [cells.reduce((sum, cell) => sum + cell.total, 0), heat.expression(cells[0])]"
    )
    holds = compile_filter(condition)
    assert sum(holds(one, None) for one in unpacker(4_000)) == total
