"""The Functions host of the local cloud: runs a Python Function App (v2 model) in Microsoft's own worker runtime.

`python -m localcloud.functions_host --app DIR --port N --instances N` is the program; `program` describes it to whoever
starts a local cloud. What it knows: HTTP routes with keys, the Event Grid webhook, storage queues with their poison
queue, timers, queue outputs. Anything else stops it at start, with the name of the function and of the binding.
"""

from localcloud.functions_host.program import keys_file, program

__all__ = ["keys_file", "program"]
