"""`python -m app`."""

import sys

from app.server import serve
from app.settings import SettingsError

if __name__ == "__main__":
    try:
        serve()
    except SettingsError as error:
        sys.exit(str(error))
