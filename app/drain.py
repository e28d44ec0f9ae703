"""`python -m app.drain`: the pod's preStop hook. Returns when the endpoints had time to forget this pod.

The app lets itself be drained from inside its pod only: a hook of kind httpGet comes from the node, as users do.
"""

import os
import sys
import urllib.error
import urllib.request

from app.settings import Settings

TIMEOUT_SECONDS = 90.0


def main(port: int) -> int:
    """Drain the app that listens on this port; return 0, or 1 if it could not be asked."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a pod may be told of a proxy for the rest
    try:
        direct.open(f"http://127.0.0.1:{port}/drain", timeout=TIMEOUT_SECONDS).close()
    except (urllib.error.URLError, OSError) as error:
        sys.stderr.write(f"not drained: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(os.environ.get("PORT") or Settings().port)))
