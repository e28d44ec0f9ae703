"""A small Azure on one machine: storage, registry, Event Grid, Functions host and Kubernetes."""
