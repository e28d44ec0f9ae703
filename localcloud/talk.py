"""How the local cloud's commands speak: a glyph and a word on standard error. Standard output is for data."""

import sys

WORDS = {"doing": "►", "done": "✔", "warning": "⚠", "failed": "✗", "idle": "○"}
"""Each glyph with the word that says the same to those who cannot see it."""


def say(glyph: str, text: str) -> None:
    """Print one line of talk; `glyph` is a key of `WORDS`."""
    print(f"{WORDS[glyph]} {text}", file=sys.stderr, flush=True)
