"""What goes into the logs: what the functions say, and not each request of the libraries below them.

The Functions worker sends whatever the root logger gets from INFO on, which the log levels of `host.json` do not
change. httpx tells the whole address of a request there: one to which a registry redirects has a signature in it that
opens a blob to whoever reads it. azure-core tells every call of storage with its headers.
"""

import logging

CHATTY = ("azure.core", "azure.identity", "httpx")


def quiet_libraries() -> None:
    """Let the libraries log from WARNING on."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
