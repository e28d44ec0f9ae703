"""Measurements that anyone can repeat: `make bench-quick`. Each figure stands beside its baseline from the same run."""
