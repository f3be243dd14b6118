"""The page in Debian's chromium, with a fake camera: one browser, two servers in threads, labels of hostile HTML."""

import json
import shutil
import threading
import time

import pytest
from page_names import HOSTILE
from served import photo

from effnet.data.datasets import read_dataset
from effnet.runtimes.predictor import Predictor

KEY = b"a key of the tests"
WIDTHS = ((1200, 800), (390, 844))
# Nothing here is measured, and the machine may be busy.
_MOST_MS = 300_000

# A page that a label has got into would call hacked().
_WATCH = "window.hacked = () => { window.hackedBy = true; };"
_AS_FILE = """(name) => fetch("/review/images/0?size=176").then((response) => response.blob()).then((blob) => {
  const data = new DataTransfer();
  data.items.add(new File([blob], "a", { type: blob.type }));
  const event = name === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#drop").dispatchEvent(event);
})"""


_COLOURED = """() => {
  const canvas = document.querySelector("#heat");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < pixels.length; at += 4) {
    if (pixels[at + 3] > 40 && Math.abs(pixels[at] - pixels[at + 2]) > 80) return true;
  }
  return false;
}"""
# While images are scored, there may be none for a moment.
_ANOTHER = "(before) => [...document.querySelectorAll('.choices button')].some((each) => each.dataset.image !== before)"
_ALL_SHOWN = "(some) => [...document.querySelectorAll(some)].every((each) => each.naturalWidth > 0)"
_GROUND = "([some, place]) => getComputedStyle(document.querySelectorAll(some)[place]).backgroundColor"
# A finger needs about 40 pixels.
_SMALL_BUTTONS = """() => [...document.querySelectorAll("main button, main .button")]
  .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 40).length"""


@pytest.fixture(scope="module")
def browser():
    """Chromium with a fake camera."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or pytest.skip("no chromium is installed: apt-get install chromium")
    flags = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--disable-gpu")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=flags, timeout=_MOST_MS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def serve_thread(page_bundle, page_images, tmp_path_factory):
    """Return what serves the page in a thread, and returns its address and the path of its corrections."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from effnet.serving.http.app import make_app
    from effnet.serving.http.state import State
    from effnet.serving.logs import Log
    from effnet.serving.page.page import Page
    from effnet.serving.settings import Settings
    from effnet.serving.versions.version import read_sources

    begun = []

    def start(**options):
        folder = tmp_path_factory.mktemp("served")
        settings = Settings(
            workers=2, max_batch=1, deadline_ms=_MOST_MS, review=str(page_images),
            corrections=str(folder / "corrections.jsonl"), **options,
        )  # fmt: skip
        state = State(read_sources([f"m={page_bundle}"]), settings, log=Log(open(folder / "log", "w")))  # noqa: SIM115
        assert not [each.error for each in state.models.load() if each.error]
        page = Page(state)
        app = make_app(state, more=page.routes, keyless=page.keyless)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        begun.append((server, thread, page, state))
        until = time.monotonic() + 300
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}", folder / "corrections.jsonl"

    yield start
    for server, thread, page, state in begun:
        server.should_exit = True
        thread.join()
        page.close()
        state.close()
        state.log._stream.close()


@pytest.fixture
def visit(browser):
    """Return what opens a page, and fails at the end if a script failed, was refused, or came out of a label."""
    contexts, troubles = [], []

    def open_(address, *, width=1200, height=800, dark=False):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        context.set_default_timeout(_MOST_MS)
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    hacked = [page.evaluate("window.hackedBy === true") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    # What a browser says of every answer that is an error, such as 401 before the key is given.
    assert not [text for text in troubles if "Failed to load resource" not in text]
    assert not any(hacked)


@pytest.fixture(scope="module")
def served(serve_thread):
    return serve_thread()


def wait_until(page, script, argument=None):
    """Wait until a script returns true. `wait_for_function` evaluates text in the page, which its policy forbids."""
    until = time.monotonic() + _MOST_MS / 1000
    while not page.evaluate(script, argument):
        assert time.monotonic() < until, page.inner_text("body")
        page.wait_for_timeout(50)


def answer(page, count):
    """Wait for the answer of a number, and return the rows of its bars."""
    wait_until(page, "count => Number(document.querySelector('#result').dataset.done) >= count", count)
    return page.locator(".bars li .name").all_inner_texts()


def test_an_image_is_tried_by_file_paste_drop_and_camera(visit, served, page_bundle, tmp_path):
    page = visit(served[0])
    (file := tmp_path / "a.png").write_bytes(photo(mode="L", size=(140, 120)))
    page.set_input_files("#file", file)
    wanted = Predictor(page_bundle).predict([file], top=3)[0]
    assert answer(page, 1) == list(wanted.labels)
    assert page.locator(".answer").inner_text() == wanted.label
    assert page.locator(".times dd").count() == 4
    assert page.locator("#heat").is_hidden()
    page.check("#heaton")
    assert page.locator("#heatof option").count() == 2
    # Where the map speaks for or against the answer, the canvas is coloured.
    assert page.evaluate(_COLOURED)
    for count, name in enumerate(("paste", "drop"), 2):
        page.evaluate(_AS_FILE, name)
        assert len(answer(page, count)) == 3
    page.click("#camera")
    assert len(answer(page, 5)) == 3  # two frames
    page.click("#camera")
    assert page.get_attribute("#camera", "aria-pressed") == "false"
    (bad := tmp_path / "b.png").write_bytes(photo()[:60])
    page.set_input_files("#file", bad)
    page.wait_for_selector("#result [role=alert]")
    assert "an image must be whole and readable" in page.inner_text("#result")


def test_a_review_by_keys_is_what_a_data_set_reads(visit, served, page_images):
    address, corrections = served
    page = visit(f"{address}/review?order=name")
    page.wait_for_selector("button[data-key='2']")

    def press(key):
        before = page.get_attribute(".choices button", "data-image")
        page.keyboard.press(key)
        wait_until(page, _ANOTHER, before)
        return before

    lines = lambda: [json.loads(line) for line in corrections.read_text().splitlines()]  # noqa: E731
    first = page.inner_text("figcaption")
    press("3")
    press("x")
    undone = press("x")
    page.keyboard.press("u")
    page.wait_for_selector(f"button[data-image='{undone}']")
    press(" ")
    press("ArrowRight")
    assert [line.get("new") for line in lines()][:3] == [HOSTILE[2], None, None]
    assert lines()[0]["path"] == first
    assert lines()[3]["undo"]
    assert lines()[4]["new"] == lines()[4]["old"]
    dataset = read_dataset(page_images, corrections=corrections)
    assert any("3 corrections of" in note and "1 images left out" in note for note in dataset.notes)
    assert sum(len(split) for split in (dataset.train, dataset.val, dataset.test)) == 23


def test_a_cell_and_a_point_open_their_images(visit, served):
    page = visit(f"{served[0]}/map")
    page.wait_for_selector("#map a")
    page.focus("#map a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel img")
    wait_until(page, _ALL_SHOWN, "#panel img")
    assert page.locator("#panel .thumbs img").count() == 6
    page.goto(f"{served[0]}/confusions?of=review")
    page.click(".matrix td a >> nth=0")
    page.wait_for_selector("#cell .thumbs img")
    wait_until(page, _ALL_SHOWN, "#cell img")
    assert page.inner_text(".matrix td a >> nth=0") == str(page.locator("#cell .thumbs img").count())
    page.goto(f"{served[0]}/confusions?of=test&true=0&predicted=2")
    # 5 right, 1 and 2 wrong of 8; below the last, none.
    grounds = [page.evaluate(_GROUND, [".matrix tbody td", place]) for place in (0, 1, 2, 6)]
    assert len(set(grounds)) == 4
    assert f"{HOSTILE[0]}/00.png" in page.inner_text("#cell")


def test_a_page_with_a_key_asks_once(visit, serve_thread):
    address, _ = serve_thread(keys=(KEY,))
    page = visit(f"{address}/map")
    page.wait_for_selector("#key:not([hidden])")
    page.fill("#secret", "another key of no server")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong:not([hidden])")
    page.fill("#secret", KEY.decode())
    page.keyboard.press("Enter")
    page.wait_for_selector("#map a")
    page.click("nav a >> text=Review")
    page.wait_for_selector(".stage img")
    wait_until(page, _ALL_SHOWN, ".stage img")
    page.click("nav a >> text=Try")
    page.wait_for_selector("#file", state="attached")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": photo(mode="L")})
    assert len(answer(page, 1)) == 3


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_every_view_fits_the_screen_in_both_colours(width, height, visit, served):
    grounds = set()
    for dark in (False, True):
        page = visit(served[0], width=width, height=height, dark=dark)
        for path in ("/", "/review", "/confusions?of=test&true=0&predicted=2", "/map"):
            page.goto(f"{served[0]}{path}")
            page.wait_for_selector("html[data-ready]")
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width, path
            assert page.evaluate(_SMALL_BUTTONS) == 0
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
