"""The stages that reach outside, one module each: resolve (the reading part of plan), build, gate, rollout, verify.

Each has one function that the pipeline calls with what was decided, and that returns the entry to record. They raise
Rejected when a half or a candidate cannot be released, and Retryable, Ambiguous, Conflict, NotFound or NotAllowed when
they could not tell. Every effect is named by the pair, so that a repeat finds it done.
"""
