"""A person at the page, played by Chromium: photo, file, fresh page, the same picture."""

import contextlib

import numpy as np
import pytest

from conftest import make_photo, pixels
from tests.app.test_intake import encoded
from tests.app.test_panels import embedded

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
SLOW = 90_000  # ms: machines that also do something else


@pytest.fixture
def visit(browser, server):
    """Open the page as a new visitor; fails where it asks another address, or its script fails."""
    with contextlib.ExitStack() as opened:

        def visit(width=1280, height=900, **options):
            viewport = {"width": width, "height": height}
            context = browser.new_context(viewport=viewport, **options)
            opened.callback(context.close)
            page = context.new_page()
            page.asked, page.faults = [], []
            page.on("request", lambda request: page.asked.append(request.url))
            page.on("pageerror", lambda error: page.faults.append(str(error)))
            page.set_default_timeout(SLOW)
            page.goto(server.address)
            page.wait_for_selector(".perco-samples img")
            opened.callback(check, page)
            return page

        def check(page):
            local = (server.address, "data:", "blob:")
            assert [url for url in page.asked if not url.startswith(local)] == []
            assert page.faults == []

        yield visit


def upload(page, data, name="photo.png"):
    tab = page.get_by_role("tab", name="A .perco file" if name.endswith(".perco") else "A photo")
    tab.click()
    files = page.get_by_role("tabpanel").filter(visible=True).first.locator("input[type=file]")
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    file |= {"mimeType": "image/png"} if name.endswith(".png") else {}
    files.first.set_input_files(file)


def test_a_photo_a_file_and_the_picture_again(visit, tiny_codec, tmp_path):
    page, photo = visit(), make_photo(300, 200)
    upload(page, encoded(photo))
    page.wait_for_selector("#result .perco-slider")
    shown = embedded(page.inner_html("#result"))[0]
    with page.expect_download() as saving:
        page.get_by_text("save the file").click()
    assert saving.value.suggested_filename == "photo.perco"
    data = saving.value.path().read_bytes()
    caption = page.get_by_label("Caption").input_value()  # a captioner's, where there is one
    assert data == tiny_codec.compress(photo, caption)
    with page.expect_download() as saving:
        page.get_by_text("save the picture").click()
    assert saving.value.path().read_bytes().startswith(b"\x89PNG")
    page.wait_for_selector("text=AVIF at its smallest")

    fresh = visit()
    upload(fresh, data, "photo.perco")
    fresh.wait_for_selector("#result figure img")
    again = embedded(fresh.inner_html("#result"))[0]
    assert np.array_equal(pixels(again), pixels(shown)), "from the file alone, the same picture"
    assert f"{len(data)} bytes" in fresh.inner_text("body")


def test_knobs(visit):
    page = visit()
    page.locator(".perco-samples button").nth(1).click()
    page.wait_for_selector("#result .perco-slider")
    before = page.inner_text(".perco-rates b")
    assert page.get_by_label("Caption").input_value(), "a sample has its caption"
    place = page.locator("#details .perco-map img")
    said = "text=/row \\d+, column \\d+: code \\d+, 8 bits/"
    place.hover()
    with contextlib.suppress(playwright.TimeoutError):  # still being drawn, a page sees no mouse
        page.wait_for_selector(said, timeout=5000)
    page.mouse.move(0, 0)
    place.hover()
    page.wait_for_selector(said)
    knob = page.get_by_label("border between")
    knob.focus()
    page.keyboard.press("Home")
    assert page.locator(".perco-slider").get_attribute("style") == "--at: 0%;"
    page.get_by_role("slider", name="Rate").focus()
    page.keyboard.press("End")
    page.get_by_role("button", name="Compress and paint").click()
    page.wait_for_function(f"document.querySelector('.perco-rates b').innerText != '{before}'")
    assert page.inner_text(".perco-rates b").startswith("0.1250: ")

    page.get_by_role("tab", name="Several seeds").click()
    page.get_by_role("button", name="Paint them").click()
    page.wait_for_selector("#seeds figure")
    assert page.locator("#seeds img").count() == 4
    page.get_by_role("tab", name="Break the file").click()
    page.get_by_role("button", name="Flip them").click()
    page.wait_for_selector("#damage mark")
    assert "A decoder says" in page.inner_text("#damage")


def test_what_goes_wrong_is_a_sentence(visit):
    page = visit()
    upload(page, b"PC no file of ours", "broken.perco")
    said = page.get_by_test_id("toast-body").first
    said.wait_for()
    assert "perco" in said.inner_text()
    page.get_by_label("Close").or_(page.locator(".toast-close")).first.click()
    upload(page, b"no photo at all")
    page.wait_for_selector("text=no image that Pillow knows")
    upload(page, encoded(make_photo()))
    page.wait_for_selector("#result .perco-slider")


def test_webcam_and_clipboard(visit):
    may = ["camera", "clipboard-read", "clipboard-write"]
    page = visit(permissions=may)
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    page.wait_for_timeout(1000)  # the first frames are empty
    page.locator("button[aria-label='capture photo']").click()
    page.wait_for_selector("#result .perco-slider")
    page = visit(permissions=may)
    page.evaluate("""async () => {
        const canvas = Object.assign(document.createElement('canvas'), {width: 90, height: 60});
        canvas.getContext('2d').fillRect(9, 9, 40, 40);
        const png = await new Promise(done => canvas.toBlob(done, 'image/png'));
        await navigator.clipboard.write([new ClipboardItem({'image/png': png})]);
    }""")
    page.get_by_label("Paste from clipboard").click()
    page.wait_for_selector("text=90×60 pixels")
    page.wait_for_function("document.querySelector('.perco-slider img')?.naturalWidth == 90")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.wait_for_selector("#result .perco-slider", state="detached")
    assert page.get_by_test_id("toast-body").count() == 0


def test_a_phone(visit):
    page = visit(390, 844, device_scale_factor=2, is_mobile=True, has_touch=True)
    page.locator(".perco-samples button").first.click()
    page.wait_for_selector("#result .perco-slider")
    page.wait_for_selector("#details .perco-map")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390, "no scrolling sideways"
    assert page.locator(".perco-slider").bounding_box()["width"] > 300


def test_who_closes_the_page_leaves_the_server_free(visit, server):
    for _ in range(3):  # more than there are painters
        page = visit()
        page.get_by_text("How it is painted").click()
        page.get_by_label("Steps").first.fill("50")
        upload(page, encoded(make_photo(768, 512)))
        page.wait_for_selector("#status progress")
        page.close()
    page = visit()
    upload(page, encoded(make_photo()))
    page.wait_for_selector("#result .perco-slider")
    assert server.said() == ""
