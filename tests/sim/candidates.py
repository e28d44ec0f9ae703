"""The newest pair told slowly: the pairs of which `shipmate.core.pairs` may take one for the newest.

It shares no rule with it; what the ledger says, the slow model of the fold answers (`tests.sim.model`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shipmate.core.refs import Digest, Pair
from tests.sim.model import Entries, apps, halves, is_barred, live, models, plan_of, quarantine, release_of, verified


def candidates(entries: Entries, *, only_app: Digest | None = None, only_model: Digest | None = None) -> list[Pair]:
    """Return the pairs of which one is the newest that may ship: all fit, none is barred.

    That is the newest app with the newest model; where those two do not fit or must not ship together, each of them
    with the newest partner it has, not older than the live one. A half that a hold keeps where it is, is given.
    """
    barred, since = quarantine(entries), {kind: instant for kind, _, instant in lost(entries)}

    def free(halves: Sequence[Any], only: Digest | None, lost_at: datetime | None) -> list[Any]:
        return [
            half
            for half in halves
            if half.digest not in barred
            and only in (None, half.digest)
            and (lost_at is None or half.published_at >= lost_at)
        ]

    known_apps = free(apps(entries), only_app, since.get("app"))
    known_models = free(models(entries), only_model, since.get("model"))
    if not known_apps or not known_models:
        return []
    app, model = known_apps[-1], known_models[-1]
    serving = live(entries)
    pair = plan_of(entries, serving).pair if serving is not None else None
    if app.contract == model.contract:
        newest = Pair(app.digest, model.digest)
        if newest.key not in barred or pair is None:
            return [] if newest.key in barred else [newest]
        had_their_turn = {
            half
            for number in verified(entries)
            for half in (plan_of(entries, number).pair.app, plan_of(entries, number).pair.model)
        } - {pair.app, pair.model}
        partners = [
            each
            for half, each in (
                (app.digest, Pair(app.digest, pair.model)),
                (model.digest, Pair(pair.app, model.digest)),
            )
            if half not in had_their_turn
        ]
    else:
        older_models = _from(known_models, models(entries), pair.model if pair else None)
        older_apps = _from(known_apps, apps(entries), pair.app if pair else None)
        with_app = [Pair(app.digest, each.digest) for each in older_models if each.contract == app.contract]
        with_model = [Pair(each.digest, model.digest) for each in older_apps if each.contract == model.contract]
        allowed = [[pair for pair in pairs if not is_barred(pair, barred)] for pairs in (with_app, with_model)]
        partners = [pair for pairs in allowed for pair in pairs[-1:]]
    contracts = {half.digest: half.contract for half in halves(entries)}
    return [
        each
        for each in partners
        if not is_barred(each, barred) and contracts.get(each.app) == contracts.get(each.model) is not None
    ]


def lost(entries: Entries) -> list[tuple[str, Digest, datetime]]:
    """Return the kind, digest and publication of each live half that was withdrawn: none older goes in its place."""
    serving = live(entries)
    if serving is None:
        return []
    pair = plan_of(entries, serving).pair
    known, barred = {half.digest for half in halves(entries)}, quarantine(entries)
    if {pair.app, pair.model} <= known | barred:
        return []
    release = release_of(entries, serving)
    live_halves = (("app", release.pair.app, release.halves_at[0]), ("model", release.pair.model, release.halves_at[1]))
    return [(kind, half, at) for kind, half, at in live_halves if at is not None and half not in known | barred]


def _from(known: list[Any], ordered: Sequence[Any], digest: Digest | None) -> list[Any]:
    """Return the known halves that are not older than the one with this digest."""
    order = [half.digest for half in ordered]
    first = order.index(digest) if digest in order else 0
    return [half for half in known if order.index(half.digest) >= first]
