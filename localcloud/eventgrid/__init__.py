"""Event Grid of the local cloud: a relay with topics, subscriptions, retries, dead letters and faults on demand."""

from localcloud.eventgrid.process import Relay, program, restart, start, stop

__all__ = ["Relay", "program", "restart", "start", "stop"]
