"""`make drill`: the promises of docs/semantics.md on the real parts, under a burst of events and under faults.

`drill.run` is the story. It publishes as people and pipelines do, breaks parts of a local cloud of its own, and judges
afterwards from what is on record: `drill.monitors` decides, purely, over ledgers, the cluster's patches and users.
"""
