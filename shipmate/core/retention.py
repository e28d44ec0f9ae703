"""Which release images must stay in the registry, whatever its clean-up thinks of them.

Pure: `shipmate.pipeline` asks after a release went live, where the registry can be told (`shipmate.ports.ImageLocks`).
"""

import msgspec

from shipmate.core.refs import Digest
from shipmate.core.state import State

KEPT_RELEASES = 5
"""How many of those that were live before can be gone back to for certain."""


class Retention(msgspec.Struct, frozen=True):
    """Images of one release repository: those to keep, and those of earlier releases that may go."""

    keep: frozenset[Digest]
    let_go: frozenset[Digest]


def retention(state: State) -> Retention:
    """Return what to keep: the live release's image and those of the last that were live before it.

    Several releases may share an image (a rollback brings one back), which counts once. Nobody goes back to what is
    quarantined. What never was live is neither kept nor let go: it was never locked.
    """
    was_live = [state.release(number) for number in reversed(state.verified)]
    wanted = [each for each in was_live if each.number == state.live or not state.is_quarantined(each.pair)]
    ranked = dict.fromkeys(each.image for each in wanted if each.image is not None)  # newest first, each once
    keep = frozenset(list(ranked)[: KEPT_RELEASES + 1])
    old = {release.image for release in state.releases if release.was_live and release.image is not None}
    return Retention(keep, frozenset(old) - keep)
