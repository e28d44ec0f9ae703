"""What the simulator remembers from seed to seed: results of pure functions over the few versions that it publishes.

The functions are Shipmate's own and run once for each argument; a seed that comes after finds their results. Only
functions from immutable values to values that nobody changes are here.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

from shipmate.core import layer, refs
from shipmate.edge import ledger_store
from shipmate.stages import gate, graft, resolve

_PLACES = (
    (resolve, "parse_manifest"),
    (layer, "_parts"),
    (graft, "layer_plan"),
    (graft, "read_app_manifest"),
    (graft, "app_facts"),
    (graft, "read_app_image"),
    (graft, "release_manifest"),
    (gate, "gate_name"),
    (ledger_store, "decode"),
)
_remembered = lru_cache(maxsize=8192)
_REMEMBERED = {getattr(place, name): _remembered(getattr(place, name)) for place, name in _PLACES}
_keys = _remembered(refs.Pair.key.fget)  # type: ignore[attr-defined] # a property
_tags = _remembered(refs.Pair.tag.fget)  # type: ignore[attr-defined]
_layer_keys = _remembered(layer.LayerFiles.key.fget)  # type: ignore[attr-defined]


@contextmanager
def many_runs() -> Iterator[None]:
    """Make many runs faster within the block; a function that was replaced (by a mutant) is left alone."""
    was_on = gc.isenabled()
    with (
        mock.patch.multiple(refs.Pair, key=property(_keys), tag=property(_tags)),
        mock.patch.object(layer.LayerFiles, "key", property(_layer_keys)),
    ):
        found = [(place, name, getattr(place, name)) for place, name in _PLACES]
        for place, name, function in found:
            setattr(place, name, _REMEMBERED.get(function, function))
        gc.freeze()  # what is there stays: the collector need not look at it
        gc.disable()  # a run's objects go with it; `tidy` collects the rest
        try:
            yield
        finally:
            for place, name, function in found:
                setattr(place, name, function)
            gc.unfreeze()
            if was_on:
                gc.enable()


def tidy() -> None:
    """Free what earlier runs left in cycles; to be called every hundred runs."""
    gc.collect()
