"""What was published, told apart: by its name and content, and by its age.

Pure; the fold remembers by it what was examined and which model is the newest, and the pipeline's sweep asks by it
whether what it finds is news.
"""

import re
from datetime import datetime

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import ModelHalf

type Age = tuple[datetime, tuple[int | str, ...], str]

LEFT = ""
"""In place of the ETag in what was examined: a model moved on from there, and may be there still."""
_NUMBERS = re.compile(r"([0-9]+)")


def examined(event: ModelPublished | ImagePushed) -> tuple[str, str]:
    """Return a name for what was published, and what tells one content under that name from another."""
    if isinstance(event, ModelPublished):
        return f"{event.container}/{event.path}", event.etag or ""
    return f"{event.repository}:{event.tag}", event.digest


def examined_as(half: ModelHalf) -> tuple[str, str]:
    """Return the same of a model that was read."""
    return f"{half.container}/{half.path}", half.etag or ""


def age(instant: datetime, path: str) -> Age:
    """Return what orders models by their upload.

    Storage tells whole seconds. Within one the path decides, with numbers in it by their value: 1.10 is after 1.9. It
    is the same whoever told of them, which the instant of an event is not: the sweep has none.
    """
    parts = _NUMBERS.split(path)
    return instant, tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), path
