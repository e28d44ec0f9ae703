"""Write schema/targets.schema.json, made from the classes of `shipmate.core.targets`.

Run it as `python -m tools.targets_schema` after changing those classes; a test says when that is due.
"""

from pathlib import Path

import msgspec

from shipmate.core.targets import TargetsFile

SCHEMA = Path(__file__).parents[1] / "schema" / "targets.schema.json"


def targets_schema() -> str:
    """Return the JSON Schema of the targets file, as people read it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Shipmate's targets file",
        **msgspec.json.schema(TargetsFile),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(targets_schema())
