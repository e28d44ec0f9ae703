"""Write schema/openapi.json, made from `functions.openapi`.

Run it as `python -m tools.openapi_document` after changing a route, a body or an answer; a test says when that is due.
"""

from pathlib import Path

import msgspec

from functions.openapi import document

DOCUMENT = Path(__file__).parents[1] / "schema" / "openapi.json"


def openapi_document() -> str:
    """Return the document as people read it."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(openapi_document())
