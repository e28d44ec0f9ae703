"""The page for people, as a browser gets it without its script, and what the script relies on."""

import html.parser
import re
from pathlib import Path

import pytest

from tests.app.apps import RunningApp
from tests.app.pictures import bomb

pytestmark = pytest.mark.app


class Elements(html.parser.HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_form_works_by_a_plain_post(app: RunningApp, lite0: Path) -> None:
    elements = Elements(app.client.get("/try").text)
    (form,) = elements.attributes("form")
    assert (form["method"], form["action"], form["enctype"]) == ("post", "/try", "multipart/form-data")
    (file,) = elements.attributes("input")
    assert file["name"] == "photo"

    page = app.client.post("/try", files={"photo": ("a.jpg", (lite0 / "golden/flower.jpg").read_bytes())})
    assert page.status_code == 200
    assert "<h2>daisy</h2>" in page.text
    assert re.search(r'<td class="percent">32\.\d %</td>', page.text)
    widths = [bar["width"] for bar in Elements(page.text).attributes("rect") if bar["class"] == "fill"]
    assert len(widths) == 3
    (photo,) = Elements(page.text).attributes("img")
    assert str(photo["src"]).startswith("data:image/jpeg;base64,")


def test_the_script_finds_what_it_looks_for(app: RunningApp) -> None:
    """A photo that is dropped on `.drop` goes into `#photo`, is asked with the form, and its answer into `#answer`."""
    page = app.client.get("/try").text
    script = app.client.get("/static/try.js").text
    sought = set(re.findall(r'querySelector\("([^"]+)"\)', script)) | {"#answer", "footer"}
    assert sought == {"form", ".drop", "#photo", "button", "#answer", "footer"}
    for selector in sought:
        name = {"#": "id", ".": "class"}.get(selector[0])
        found = [
            tag for tag, has in Elements(page).found if (has.get(name) == selector[1:] if name else tag == selector)
        ]
        assert len(found) == 1, selector


def test_it_says_which_model_and_code_answered(app: RunningApp) -> None:
    page = app.client.get("/try").text
    assert "efficientnet-lite 1.0" in page
    assert app.client.get("/").headers["x-model-digest"] in page
    assert "2.3.0" in page
    assert "r-1" in page


def test_the_policy_forbids_inline_script_and_style(app: RunningApp) -> None:
    reply = app.client.get("/try")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    elements = Elements(reply.text)
    assert not elements.attributes("style")
    assert not any("style" in attributes or "onclick" in attributes for _, attributes in elements.found)
    for source in [script["src"] for script in elements.attributes("script")]:
        assert app.client.get(str(source)).headers["content-type"].startswith("text/javascript")
    for style in [link["href"] for link in elements.attributes("link")]:
        assert "prefers-color-scheme: dark" in app.client.get(str(style)).text


def test_refusals_are_shown_on_the_page(app: RunningApp) -> None:
    for data, status, words in [
        (b"text", 422, "An image cannot be read.</strong> This is no picture in a format that is taken."),
        (bomb(), 413, "at most 25,000,000 pixels are taken."),
        (b"", 422, "An image cannot be read."),
        (b" " * (17 << 20), 413, "The photo has more than 16 MiB. Choose a smaller one."),
    ]:
        page = app.client.post("/try", files={"photo": ("a.png", data)})
        assert page.status_code == status
        assert words in page.text
    page = app.client.post("/try", content=b"x", headers={"Content-Type": "text/plain"})
    assert page.status_code == 415
    assert "Send the form of this page, with a photo in it." in page.text


def test_a_label_cannot_smuggle_markup(tmp_path: Path) -> None:
    from tests.app.apps import running, tiny_folder
    from tests.app.pictures import png

    labels = b"<script>alert(1)</script>\n" * 4
    with running(tiny_folder(tmp_path, files={"labels.txt": labels})) as app:
        app.wait()
        page = app.client.post("/try", files={"photo": ("a.png", png(8, 8))}).text
        assert "&lt;script&gt;" in page
        assert "<script>alert" not in page
