"""/docs from `make run`, in a real browser: Debian's Chromium, or the one that CHROMIUM names. Skipped without it.

`make screenshot` takes README's picture with the first of these tests.
"""

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
import yaml
from harness import ROOT
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

SPEC = yaml.safe_load((ROOT / "openapi.yaml").read_text())
OPERATIONS = [
    (path, method, operation["operationId"])
    for path, item in SPEC["paths"].items()
    for method, operation in item.items()
    if method not in ("summary", "parameters")
]
# One that any contract has, if it is not the reference's own.
GET = next(operation for _, method, operation in OPERATIONS if method == "get")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: `apt-get install chromium`, or CHROMIUM=…")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work in a container. The container is the sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, local_api: str) -> Iterator[Page]:
    """The reference. Afterwards, checks which hosts it called and that the browser logged no errors or warnings."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    complaints, hosts = [], set()

    def complain(message: ConsoleMessage) -> None:
        is_of_page = urlsplit(message.location["url"]).path.startswith("/docs")
        # An endpoint may refuse what is tried.
        if message.type in ("error", "warning") and (is_of_page or "Failed to load resource" not in message.text):
            complaints.append(message.text)

    page.on("console", complain)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(f"{local_api.rstrip('/')}/docs")
    page.locator(".opblock").first.wait_for()
    yield page
    page.close()
    assert complaints == []
    assert hosts - {""} == {urlsplit(local_api).netloc}


WANTED = "give its parameters and its body an `example` in openapi.yaml that succeeds"


def tried(page: Page, operation: str) -> Locator:
    """Runs an operation with the values that the reference suggests, and a small file where a person would choose one. Returns
    the answer. A required parameter without an `example` in openapi.yaml has no value, and then nothing is sent."""
    block = page.locator(f"#operations-default-{operation}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Execute").wait_for()
    for chosen in block.locator("input[type=file]").all():
        chosen.set_input_files({"name": "example.txt", "mimeType": "text/plain", "buffer": b"example"})
    block.get_by_role("button", name="Execute").click()
    answer, lacking = block.locator(".live-responses-table .response"), block.locator(".validation-errors, .invalid")
    answer.or_(lacking).first.wait_for()
    assert not lacking.count(), f"{operation} is not sent: {WANTED}: {lacking.all_inner_texts()}"
    return answer


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_shows_an_answer_in_light_and_dark(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    answer = tried(page, GET)
    assert answer.locator(".response-col_status").inner_text().strip() in ("200", "401")
    assert "x-request-id: " in answer.inner_text()
    color = page.evaluate("getComputedStyle(document.querySelector('.info .title')).color")
    assert (min(map(int, color.strip("rgb()").split(","))) > 128) == (scheme == "dark"), color
    picture = os.environ.get("SCREENSHOT")
    if picture and scheme == "light":
        # One screen of it, with the answer.
        page.locator(f"#operations-default-{GET}").get_by_role("button", name="Execute").evaluate("node => node.scrollIntoView()")
        page.screenshot(path=picture)


def test_every_operation_of_the_contract_can_be_tried(page: Page) -> None:
    assert page.locator(".opblock").count() == len(OPERATIONS)
    for path, method, operation in OPERATIONS:
        answer = tried(page, operation)
        status, *_ = answer.locator(".response-col_status").inner_text().split()
        documented = SPEC["paths"][path][method]["responses"]
        # The browser follows redirects, and has no token.
        allowed = {code for code in documented if code[0] == "2" or code in ("401", "403")}
        allowed |= {"200"} if any(code[0] == "3" for code in documented) else set()
        assert {status, f"{status[0]}XX"} & allowed, f"{method} {path} gets {status}: {WANTED}"
        # 401 is the gateway's.
        assert status == "401" or "x-request-id: " in answer.inner_text(), (path, method)
        # The page draws all that is open again and again.
        page.locator(f"#operations-default-{operation} .opblock-summary-control").click()


@pytest.mark.parametrize("example", [{"example": "Ada"}, {}])
def test_a_form_with_a_file_is_sent_if_all_else_has_an_example(page: Page, example: dict) -> None:
    form = {"multipart/form-data": {"schema": {"required": ["photo"], "properties": {"photo": {"type": "string", "format": "binary"}}}}}
    title = {"name": "title", "in": "query", "required": True, "schema": {"type": "string"}, **example}
    operation = {"operationId": "upload", "parameters": [title], "requestBody": {"required": True, "content": form}, "responses": {"200": {"description": "Kept."}}}
    contract = {"openapi": SPEC["openapi"], "info": SPEC["info"], "paths": {"/photos": {"post": operation}}}
    page.route("**/docs/openapi.json*", lambda route: route.fulfill(json=contract))
    page.route("**/photos?*", lambda route: route.fulfill(json=route.request.headers["content-type"].partition(";")[0]))
    page.reload()
    if example:
        assert "multipart/form-data" in tried(page, "upload").inner_text()
    else:
        with pytest.raises(AssertionError, match="upload is not sent: give its parameters"):
            tried(page, "upload")


def test_an_answer_that_is_an_image_is_shown(page: Page) -> None:
    page.route("**/*", lambda route: route.fulfill(body=page.screenshot(), content_type="image/png"))
    image = tried(page, GET).locator("img")
    image.wait_for()
    assert image.evaluate("async image => (await image.decode(), image.naturalWidth)") == 1280


def test_a_token_is_sent_with_what_is_tried(page: Page) -> None:
    page.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill("a-token")
    page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    with page.expect_request(lambda request: request.headers.get("authorization") == "Bearer a-token"):
        tried(page, GET)


def test_the_keyboard_works_like_the_mouse(page: Page) -> None:
    control = page.locator(f"#operations-default-{GET} .opblock-summary-control")
    for _ in range(60):
        page.keyboard.press("Tab")
        if control.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert page.locator(f"#operations-default-{GET}").get_by_role("button", name="Execute").is_visible()


def test_it_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    tried(page, GET)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1280, 400])
def test_the_columns_of_headers_do_not_touch(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    block = page.locator(f"#operations-default-{GET}")
    block.locator(".opblock-summary-control").click()
    block.locator("table.headers").first.wait_for()
    texts = """rows => rows.map(row => [...row.children].filter(cell => cell.innerText).map(cell => {
        const text = document.createRange();
        text.selectNodeContents(cell);
        return text.getBoundingClientRect().toJSON();
    }))"""
    rows = [row for row in block.locator("table.headers tr").evaluate_all(texts) if len(row) > 1]
    assert rows
    for left, right in (pair for row in rows for pair in pairwise(row)):
        assert right["left"] - left["right"] >= 12 or right["top"] >= left["bottom"], (left, right)
