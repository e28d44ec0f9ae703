"""A real Kubernetes with one node on one Linux machine: the local cloud's stand-in for AKS.

`cluster.up()` starts it, `cluster.down()` takes everything it made off the machine again. It needs root.
"""
