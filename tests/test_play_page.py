"""The playground's page in a browser: it learns, fits a phone, obeys the keyboard, names everything, stays at home."""

import shutil
import time
from urllib.parse import urlsplit

import pytest
from playing import SECONDS, playground

for needed in ("starlette", "uvicorn", "websockets", "playwright"):
    pytest.importorskip(needed, reason=f"the playground's page needs {needed}, which is not installed")

from playwright.sync_api import sync_playwright  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]

WIDE = """() => [...document.querySelectorAll("button, select, input, canvas, h2, p")].filter((one) => {
    const { width, left, right } = one.getBoundingClientRect();
    return width && !one.closest("#network, pre, .unseen") && (left < -0.5 || right > innerWidth + 0.5);
}).map((one) => one.outerHTML.slice(0, 80))"""

NAMELESS = """() => [...document.querySelectorAll("button, select, input, canvas, [role]")].filter((one) => {
    if (one.closest("[aria-hidden=true]") || one.matches("button canvas, [role=img] canvas")) return false;
    if (one.matches("[role=status], [role=alert]")) return false;
    const labels = [...(one.labels ?? [])].map((label) => label.textContent).join("");
    const text = one.matches("button") ? one.textContent : "";
    return !`${one.getAttribute("aria-label") ?? ""}${labels}${text}`.trim();
}).map((one) => one.outerHTML)"""
"""What sticks out of the page, but for what scrolls by itself; and what a screen reader has no name for."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the playground's page needs Chromium, which is not installed")


@pytest.fixture(scope="module")
def server():
    with playground() as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def page(server, browser, request):
    """A page that is open; at the end nothing may have been asked of another host, and nothing complained of."""
    width, height = getattr(request, "param", (1280, 800))
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(1000 * SECONDS)
    asked, wrong = [], []
    opened.on("request", lambda one: asked.append(one.url))
    opened.on("websocket", lambda one: asked.append(one.url))
    opened.on("console", lambda one: wrong.append(one.text) if one.type in {"error", "warning"} else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(server.address)
    drawn(opened, 1)
    yield opened
    opened.close()
    assert wrong == []
    assert len(asked) > 8
    assert {urlsplit(url).netloc for url in asked} == {server.host}


def until(page, expression):
    """Wait; the page's own policy lets no driver wait in it by text that is evaluated."""
    end = time.monotonic() + SECONDS
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never: {expression}"
        page.wait_for_timeout(30)


def drawn(page, count):
    until(page, f"Number(document.documentElement.dataset.frames) >= {count}")


def percent(page, name):
    return float(page.inner_text(f"#accuracy-{name}").removesuffix(" %"))


def test_it_learns_the_spirals(page):
    page.select_option("#speed", "0")
    page.click("#run")
    until(page, "parseFloat(document.getElementById('accuracy-test').textContent) >= 95")
    page.click("#run")
    until(page, "document.getElementById('run').textContent === 'Run'")
    epoch = page.inner_text("#epoch")
    assert f"epochs={epoch}," in page.inner_text("#code")
    assert page.inner_text("#status").startswith(f"Paused, epoch {epoch}, test accuracy ")
    blue, orange = page.evaluate("""() => {
        const canvas = document.getElementById("plane"), context = canvas.getContext("2d");
        const counts = [0, 0], data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        for (let k = 0; k < data.length; k += 4) counts[data[k] > data[k + 2] ? 1 : 0] += 1;
        return counts;
    }""")
    assert min(blue, orange) > 0.2 * (blue + orange)


def test_every_kind_of_data_is_drawn_and_learned(page):
    for data in ("gaussians", "circles", "xor", "mnist"):
        page.check(f"[name=data][value={data}]", force=True)
        until(page, "document.getElementById('epoch').textContent === '0'")
        page.click("#step")
        until(page, "document.getElementById('epoch').textContent === '1'")
        assert page.is_visible("#digits" if data == "mnist" else "#plane")
        assert percent(page, "train") >= 40
    assert page.locator("#digits > div").count() == 40
    assert page.locator(".unit").count() == 1 + 24 + 10
    page.click(".unit >> nth=3")
    assert page.is_visible("#plane")
    assert "hidden layer 1, unit 3" in page.inner_text("#outcome-note")


def test_the_keyboard_alone_is_enough(page):
    def reach(selector):
        for _ in range(80):
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"Tab does not reach {selector}")

    reach("#step")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('epoch').textContent === '1'")
    reach("[name=data]")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('[name=data][value=own]').checked")
    reach(".unit")
    page.keyboard.press("Enter")
    assert page.get_attribute(".unit >> nth=0", "aria-pressed") == "true"
    reach("#plane")
    for key in ("ArrowUp", "Space", "2", "Shift+ArrowDown", "Enter", "ArrowLeft", "Enter", "Delete"):
        page.keyboard.press(key)
    until(page, "/drawn = [^]*0.05, 0[^]*-0.15, 1/.test(document.getElementById('code').textContent)")
    until(page, "!document.getElementById('code').textContent.includes('(-0.05')")
    drawn_points = page.inner_text("#code").split("[")[1].split("]")[0].split()
    assert " ".join(drawn_points) == "(0.0, 0.05, 0), (0.0, -0.15, 1),"


def test_points_are_drawn_with_the_mouse_and_rubbed_out(page):
    page.check("[name=data][value=own]", force=True)
    until(page, "document.getElementById('plane').classList.contains('drawn')")
    page.locator("#plane").scroll_into_view_if_needed()
    box = page.locator("#plane").bounding_box()

    def stroke(height):
        page.mouse.move(box["x"] + 40, box["y"] + height)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + height, steps=12)
        page.mouse.up()

    count = "(document.getElementById('code').textContent.match(/^    \\(.*, [01]\\),$/gm) || []).length"
    stroke(60)
    page.check("[name=brush][value='1']")
    stroke(200)
    until(page, f"{count} >= 16")
    assert {line[-3] for line in page.inner_text("#code").splitlines() if line.startswith("    (")} == {"0", "1"}
    page.click("#run")
    until(page, "document.getElementById('accuracy-train').textContent === '100.0 %'")
    page.click("#run")
    page.check("[name=brush][value='-1']")
    stroke(60)
    until(page, f"{count} <= 14 && {count} >= 8")
    page.click("#clear")
    until(page, f"{count} === 0")
    page.click("#step")
    until(page, "document.getElementById('message').textContent.includes('draw at least 2 points')")


@pytest.mark.parametrize("page", [(390, 844)], indirect=True, ids=["390 pixels wide"])
@pytest.mark.parametrize("data", ["spirals", "own", "mnist"])
def test_it_fits_a_phone(page, data):
    page.check(f"[name=data][value={data}]", force=True)
    for _ in range(2):
        page.click("#add-layer")
    page.click("#step")
    until(page, "document.getElementById('code').textContent.split('Linear').length > 4")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.evaluate(WIDE)
    assert wide == []


def test_everything_has_a_name(page):
    assert page.evaluate(NAMELESS) == []
    page.check("[name=data][value=mnist]", force=True)
    page.wait_for_selector("#digits div")
    assert page.evaluate(NAMELESS) == []
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("h1").count() == 1


def test_a_rate_and_a_layer_are_changed_on_the_way(page):
    page.click("#step")
    until(page, "document.getElementById('epoch').textContent === '1'")
    page.select_option("[name=rate]", "0.1")
    page.click("#step")
    until(page, "document.getElementById('code').textContent.includes('model.adjust(lr=0.1)')")
    until(page, "document.getElementById('epoch').textContent === '2'")
    page.fill("#layers input >> nth=0", "3")
    page.keyboard.press("Tab")
    until(page, "document.getElementById('code').textContent.includes('xn.Linear(2, 3)')")
    assert page.inner_text("#epoch") == "0"
    page.check("[name=lines][value=gradients]")
    page.hover(".unit >> nth=2")
    assert page.inner_text("#unit").startswith("hidden layer 1, unit 1: gradients of its weights ")


def test_dark_and_light(page):
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(244, 245, 243)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(18, 23, 26)"
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert page.evaluate(background) == "rgb(244, 245, 243)"


def test_the_code_is_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    until(page, "document.getElementById('copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#code")


def test_a_page_whose_server_has_gone_says_so(browser):
    with playground() as started:
        page = browser.new_page()
        page.goto(started.address)
        drawn(page, 1)
        assert started.interrupt()[0] == 0
    until(page, "document.getElementById('message').textContent.includes('start xpnet play again')")
    assert page.is_disabled("#run")
    page.close()
