"""JSON from strangers, parsed only where what it becomes is not many times its size.

An empty list is two bytes of JSON and twenty times that in memory: 16 MiB of them would end the pod. Called with the
body of a request, and with the JSON that the first generation's clients put into a text.
"""

import json
from typing import Any

from app.problems import Problem, ProblemError


def parse(text: bytes | str, *, most: int, of: str) -> Any:
    """Return what JSON says. Raises ProblemError if it has more than `most` of some characters, ValueError."""
    found = sum(text.count(each.encode()) if isinstance(text, bytes) else text.count(each) for each in of)
    if found > most:
        detail = (
            f"The JSON has {found:,} of the characters `{of}`, at most {most:,} are taken. Send fewer, larger parts."
        )
        raise ProblemError(Problem(413, "too-large", detail))
    return json.loads(text)
