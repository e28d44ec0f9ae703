"""The decision: what comes next in every situation a target can be in, and the words for why nothing does."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from shipmate.core import pairs, plan, precedence
from shipmate.core.ledger import Errored, IllegalStep, Phase, Skipped
from shipmate.core.pairs import blamed, follows, guilty
from shipmate.core.plan import decide, last_good
from shipmate.core.refs import Pair
from shipmate.core.state import HALVES_KEPT, RELEASES_KEPT
from shipmate.core.targets import AppSource, DeploymentRef, ModelSource, ReleaseRepository, Target
from tests.fakes.histories import NOON, Story, digest, model_half, pair, published, pushed

TARGET = Target(
    name="vision",
    app=AppSource("vision-app"),
    model=ModelSource("models", "net"),
    release=ReleaseRepository("vision"),
    deployment=DeploymentRef("vision", "vision"),
    public_url="http://door.test",
    quiet_seconds=2,
    quiet_cap_seconds=10,
)

NAMES = {digest(name): name for name in ("A1", "A2", "A3", "M1", "M2", "M3")}


def words(step: plan.Step, story: Story) -> str:
    """Return a step as the table below spells it."""
    match step:
        case plan.Idle(reason, _):
            return f"idle: {reason}"
        case plan.Wait(until, reason):
            return f"wait {(until - story.now).total_seconds():g} s: {reason}"
        case plan.Resolve(publication):
            return f"resolve {publication.event.event_id}"
        case plan.Plan(wanted, trigger, author, _, request, to, undoes, image, blames):
            text = f"plan {NAMES[wanted.app]}+{NAMES[wanted.model]}: {trigger} by {author}"
            text += f", asked by {request}" if request else ""
            text += f", back to r-{to}" if to else ""
            text += f", undoes r-{undoes}" if undoes else ""
            text += f", blames r-{blames}" if blames else ""
            assert (image is not None) == (to is not None)
            return text
        case pairs.WaitForPartner(app, model, _):
            return f"record that {NAMES[app]} and {NAMES[model]} do not fit"
        case plan.Supersede(release, message, barred):
            return (
                f"supersede {release.name}: {message}{', and bar ' if barred else ''}{'+'.join(map(NAMES.get, barred))}"
            )
        case plan.Claim(release, stage):
            return f"claim the {stage} of {release.name}"
        case _:
            return f"{type(step).__name__} {step.release.name}"


def after(story: Story, worker: str = "worker-1") -> str:
    """Return what comes next after a story, in words."""
    return words(decide(story.state, TARGET, story.now, worker, stalled_seconds=60), story)


SITUATIONS: dict[str, tuple[Callable[[Story], Story], str]] = {
    # what came in
    "an empty ledger": (lambda s: s, "idle: NoApp"),
    "only an app": (lambda s: s.app("A1"), "idle: NoModel"),
    "only a model": (lambda s: s.model("M1"), "idle: NoApp"),
    "a push is to be read": (lambda s: s.receive(pushed("e1", "A1")), "resolve e1"),
    "the older of two is read first": (
        lambda s: s.receive(pushed("e1", "A1")).receive(published("e2", "M1")),
        "resolve e1",
    ),
    "reading failed and is tried later": (
        lambda s: s.receive(pushed("e1", "A1")).err_reading("e1", 5),
        "wait 4 s: vision-app:main cannot be read yet: the registry is away",
    ),
    "reading failed and is due again": (
        lambda s: s.receive(pushed("e1", "A1")).err_reading("e1", 5).wait(4),
        "resolve e1",
    ),
    "one retry holds nothing else up": (
        lambda s: s.receive(pushed("e1", "A1")).receive(published("e2", "M1")).err_reading("e1"),
        "resolve e2",
    ),
    "up to date but for a retry": (
        lambda s: s.ship_first().receive(pushed("e1", "A2")).err_reading("e1", 5),
        "wait 4 s: vision-app:main cannot be read yet: the registry is away",
    ),
    "held but for a retry": (
        lambda s: (
            s.ship_first().app("A2").hold().plan("A2", "M1").build().gate().park().receive(pushed("e9", "A3"))
        ).err_reading("e9"),
        "wait 4 s: vision-app:main cannot be read yet: the registry is away",
    ),
    "an ignored event is not news": (lambda s: s.ship_first().ignore("e9"), "idle: UpToDate"),
    # the quiet window
    "the first pair, in its quiet window": (lambda s: s.app("A1").model("M1"), "wait 1 s: quiet window"),
    "the first pair": (lambda s: s.app("A1").model("M1").wait(1), "plan A1+M1: model by shipmate"),
    "a steady stream of pushes, before the cap": (
        lambda s: s.ship_first().app("A2").wait(7.5).app("A3"),
        "wait 0.5 s: quiet window",  # first change + 10 s, though the last was a second ago
    ),
    "a steady stream of pushes, at the cap": (
        lambda s: s.ship_first().app("A2").wait(7.5).app("A3").wait(0.5),
        "plan A3+M1: app by shipmate",
    ),
    "a model and a code publish together make one release": (
        lambda s: s.ship_first().app("A2").model("M2").wait(2),
        "plan A2+M2: model by shipmate",
    ),
    "a late older model leaves the quiet window alone": (
        lambda s: s.ship_first().wait(60).model("M0", uploaded_at=NOON - timedelta(days=1)).wait(60).app("A2"),
        "wait 1 s: quiet window",
    ),
    # newest pair
    "a new app": (lambda s: s.ship_first().app("A2").wait(2), "plan A2+M1: app by shipmate"),
    "a new model": (lambda s: s.ship_first().model("M2").wait(2), "plan A1+M2: model by shipmate"),
    "an older model that came late": (
        lambda s: s.ship_first().model("M2", uploaded_at=NOON - timedelta(days=1)).wait(2),
        "idle: UpToDate",
    ),
    "live and up to date": (lambda s: s.ship_first(), "idle: UpToDate"),
    "an older pair released by hand stays": (
        lambda s: (
            s.ship_first()
            .app("A2")
            .ship("A2", "M1")
            .request("k", pair("A1", "M1"))
            .ship("A1", "M1", "request", request="k")
        ),
        "idle: AlreadyReleased",
    ),
    "and stays when a model comes that does not fit": (
        lambda s: (
            (
                s.ship_first()
                .app("A2")
                .ship("A2", "M1")
                .request("k", pair("A1", "M1"))
                .ship("A1", "M1", "request", request="k")
            )
            .model("M2", "2")
            .await_partner("A2", "M2")
            .wait(2)
        ),
        "idle: AlreadyReleased",
    ),
    "a tag moved back to an app that was live": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").wait(60).app("A1").wait(2),
        "plan A1+M1: app by shipmate",
    ),
    "a tag moved back although the clock of who planned was ahead": (
        lambda s: (
            s.app("A1").model("M1").wait(300).ship("A1", "M1").wait(-300).app("A2").ship("A2", "M1").app("A1").wait(2)
        ),
        "plan A1+M1: app by shipmate",
    ),
    "a failed pair is not tried again although the clock of who planned was behind": (
        lambda s: (
            s.ship_first()
            .app("A2")
            .wait(-300)
            .plan("A2", "M1")
            .build()
            .gate()
            .intend()
            .fail()
            .wait(300)
            .undo(1, 2)
            .resume()
        ),
        "idle: AlreadyReleased",
    ),
    "a superseded pair starts anew": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").supersede(),
        "plan A2+M1: app by shipmate",
    ),
    "a failed pair whose halves are free is not tried again": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate().intend().fail(),
        "idle: AlreadyReleased",
    ),
    "a pair whose model was gone, and is there again as old as before": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").lose(digest("M1")).restore("M1").wait(2),
        "plan A2+M1: app by shipmate",
    ),
    "a pair that was live before its model was gone for a while": (
        lambda s: (
            s.ship_first()
            .app("A2")
            .ship("A2", "M1")
            .request("k", pair("A1", "M1"))
            .ship("A1", "M1", "request", request="k")
            .request("l", pair("A2", "M1"))
            .plan("A2", "M1", "request", request="l")
            .lose(digest("M1"))
            .restore("M1")
            .wait(2)
        ),
        "idle: AlreadyReleased",
    ),
    # quarantine
    "a quarantined app is passed over": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().reject(digest("A2")),
        "idle: UpToDate",
    ),
    "a quarantined model is passed over, a new app goes on": (
        lambda s: s.ship_first().model("M2").plan("A1", "M2").build().reject(digest("M2")).app("A2").wait(2),
        "plan A2+M1: app by shipmate",
    ),
    "a quarantined pair, and nothing is live": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().reject(pair("A1", "M1").key),
        "idle: Quarantined",
    ),
    # which half of a rejected pair is at fault
    "both halves are new: the model is asked with the live app": (
        lambda s: s.reject_both_new(),
        "plan A1+M2: blame by shipmate, blames r-2",
    ),
    "the model is at fault: the app goes on with the live model": (
        lambda s: s.reject_both_new().blame("A1", "M2").reject(digest("M2")),
        "plan A2+M1: app by shipmate",
    ),
    "the model is not at fault: the app is asked with the live model": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate(),
        "plan A2+M1: blame by shipmate, blames r-2",
    ),
    "the app is at fault: the model ships": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate().blame("A2", "M1").reject(digest("A2")),
        "Intend r-3",
    ),
    "the app is at fault: the model ships when its retry is due": (
        lambda s: (
            s.reject_both_new()
            .blame("A1", "M2")
            .gate()
            .blame("A2", "M1")
            .reject(digest("A2"))
            .write(Errored, release=3, stage="rollout", message="the cluster is away", retry_at=NOON.replace(hour=13))
            .wait(3570)
        ),
        "wait 10 s: retry",
    ),
    "the app is at fault under a hold: the model waits": (
        lambda s: s.reject_both_new().hold().blame("A1", "M2").gate().blame("A2", "M1").reject(digest("A2")),
        "Park r-3",
    ),
    "only together are they at fault: the older half stays back": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate().blame("A2", "M1").gate(),
        "supersede r-4: it passed its gate, and another pair ships",
    ),
    "only together are they at fault: the newer half ships": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate().blame("A2", "M1").gate().supersede(),
        "Intend r-3",
    ),
    "only together are they at fault, and one of them is live": (
        lambda s: (
            s.reject_both_new()
            .blame("A1", "M2")
            .gate()
            .blame("A2", "M1")
            .gate()
            .supersede()
            .intend(3)
            .roll_out(3)
            .go_live(number=3)
        ),
        "idle: UpToDate",
    ),
    "one passed its gate, and a person brought its pair live meanwhile": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate().ship("A1", "M2", "request"),
        "supersede r-3: it passed its gate, and another pair ships",
    ),
    "both are at fault": (
        lambda s: (
            s.reject_both_new().blame("A1", "M2").reject(digest("M2")).plan("A2", "M1").build().reject(digest("A2"))
        ),
        "idle: UpToDate",
    ),
    "a newer half ends the doubt": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate().app("A3").wait(2),
        "supersede r-3: it passed its gate, and another pair ships",
    ),
    "a cross pair in trouble gives way to a newer half": (
        lambda s: s.reject_both_new().blame("A1", "M2").err().app("A3"),
        "supersede r-3: a newer pair was published while this one was in trouble: the registry is away",
    ),
    "a cross pair in trouble is tried again while nothing is newer": (
        lambda s: s.reject_both_new().blame("A1", "M2").err(5),
        "wait 4 s: retry",
    ),
    "a cross pair that was overtaken is not asked again": (
        lambda s: s.reject_both_new().blame("A1", "M2").supersede().blame("A2", "M1").supersede(),
        "plan A1+M2: model by shipmate",
    ),
    "a request goes before what passed its gate": (
        lambda s: s.reject_both_new().blame("A1", "M2").gate().request("k1", pair("A1", "M2")),
        "supersede r-3: ana asked for another release",
    ),
    "a cross pair that does not fit is not asked": (
        lambda s: (
            s.app("A1")
            .model("M1")
            .ship("A1", "M1", "model")
            .app("A2", "2")
            .model("M2", "2")
            .plan("A2", "M2")
            .build()
            .reject(pair("A2", "M2").key)
        ),
        "idle: Quarantined",
    ),
    "after a rollout failed with both halves new, the newer one is tried with the live partner": (
        lambda s: (
            s.ship_first()
            .app("A2")
            .model("M2")
            .plan("A2", "M2")
            .build()
            .gate()
            .intend()
            .roll_out()
            .fail(pair("A2", "M2").key)
            .undo(1, 2)
            .resume()
        ),
        "plan A1+M2: model by shipmate",
    ),
    "the only app is quarantined": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().reject(digest("A1")),
        "idle: Quarantined",
    ),
    # misfits
    "a misfit is recorded": (
        lambda s: s.ship_first().model("M2", "2").wait(2),
        "record that A1 and M2 do not fit",
    ),
    "a misfit waits": (
        lambda s: s.ship_first().model("M2", "2").wait(2).await_partner("A1", "M2"),
        "idle: WaitingForPartner",
    ),
    "a misfit before anything was live": (
        lambda s: s.app("A1").model("M2", "2").await_partner("A1", "M2"),
        "idle: WaitingForPartner",
    ),
    "its partner comes": (
        lambda s: s.ship_first().model("M2", "2").await_partner("A1", "M2").wait(60).app("A2", "2").wait(2),
        "plan A2+M2: model by shipmate",
    ),
    "the newest half that fits goes on while the other waits": (
        lambda s: s.ship_first().model("M2", "2").await_partner("A1", "M2").app("A2").await_partner("A2", "M2").wait(2),
        "plan A2+M1: app by shipmate",
    ),
    "an app is the misfit, a new model goes on": (
        lambda s: s.ship_first().app("A2", "2").await_partner("A2", "M1").model("M2").await_partner("A2", "M2").wait(2),
        "plan A1+M2: model by shipmate",
    ),
    "both newest halves have partners: the newer pair goes on": (
        lambda s: (
            s.app("A1").model("M1").wait(10).app("A2", "2").model("M2", "2").wait(10).app("A3").wait(2)
        ).await_partner("A3", "M2"),
        "plan A2+M2: model by shipmate",
    ),
    "a partner older than the live one does not serve": (
        lambda s: s.app("A1", "2").app("A2").model("M1").ship("A2", "M1").model("M2", "2").await_partner("A2", "M2"),
        "idle: WaitingForPartner",
    ),
    "a quarantined partner does not serve": (
        lambda s: (
            s.ship_first().app("A2", "2").model("M2", "2").plan("A2", "M2").build().reject(digest("A2"))
        ).await_partner("A1", "M2"),
        "idle: WaitingForPartner",
    ),
    "a pair that was rolled back keeps no other pair of a misfit from shipping": (
        lambda s: (
            s.ship_first()
            .app("A2", "2")
            .await_partner("A2", "M1")
            .model("M2", "2")
            .ship("A2", "M2")
            .roll_back(1, 2, pair("A2", "M2").key)
            .resume()
            .model("M3")
            .await_partner("A2", "M3")
            .wait(2)
        ),
        "plan A1+M3: model by shipmate",
    ),
    "a misfit is recorded once, the release in between notwithstanding": (
        lambda s: (
            s.ship_first()
            .model("M2", "2")
            .await_partner("A1", "M2")
            .app("A2")
            .await_partner("A2", "M2")
            .ship("A2", "M1")
        ),
        "idle: WaitingForPartner",
    ),
    # the stages
    "planned": (lambda s: s.app("A1").model("M1").plan("A1", "M1"), "Build r-1"),
    "built": (lambda s: s.app("A1").model("M1").plan("A1", "M1").build(), "Gate r-1"),
    "gated": (lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate(), "Intend r-1"),
    "intended": (lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate().intend(), "RollOut r-1"),
    "rolled out": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate().intend().roll_out(),
        "Verify r-1",
    ),
    "the active one finishes before newer ones start": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().app("A3"),
        "Gate r-2",
    ),
    "what is live is published again while newer code is on its way": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().app("A1"),
        "supersede r-2: app A1 was published again and is live: this pair is older by now",
    ),
    "what is live is published again while a newer model is on its way": (
        lambda s: s.ship_first().model("M2").plan("A1", "M2", "model").build().gate().wait(60).model("M1"),
        "supersede r-2: model M1 was published again and is live: this pair is older by now",
    ),
    "what is live is published again when its successor has its fence": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().app("A1"),
        "RollOut r-2",
    ),
    "what is live is published again while a person releases another": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1", "request").build().app("A1"),
        "Gate r-2",
    ),
    "what is live and quarantined is published again": (
        lambda s: (
            (s.ship_first().model("M2").plan("A1", "M2").build().reject(digest("A1")).app("A2").plan("A2", "M1"))
            .build()
            .app("A1")
        ),
        "Gate r-3",
    ),
    "a stage is tried again later": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").err(5),
        "wait 4 s: retry",
    ),
    "a stage is due again": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").err(5).wait(4),
        "claim the build of r-1",
    ),
    "a gate is due again": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().err(5).wait(4),
        "claim the gate of r-1",
    ),
    "a rollout is due again": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate().intend().err(5).wait(4),
        "claim the rollout of r-1",
    ),
    "a verification is due again": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate().intend().roll_out().err(5).wait(4),
        "claim the verify of r-1",
    ),
    "a rollback's fence is due again": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).build().err(5).wait(4),
        "claim the rollout of r-3",
    ),
    "and is tried by who said so": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").err(5).wait(4).progress(),
        "Build r-1",
    ),
    "and by nobody else": (
        lambda s: s.taken_over_by("worker-2").app("A1").model("M1").plan("A1", "M1").err(5).wait(4).progress(),
        "wait 59 s: another worker has it",
    ),
    "a worker handed over": (
        lambda s: s.taken_over_by("worker-2").app("A1").model("M1").plan("A1", "M1").hand_over(),
        "claim the build of r-1",
    ),
    "a worker handed over, and another claimed it": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").hand_over().taken_over_by("worker-2").progress(),
        "wait 59 s: another worker has it",
    ),
    "another worker has it": (
        lambda s: s.taken_over_by("worker-2").app("A1").model("M1").plan("A1", "M1"),
        "wait 59 s: another worker has it",
    ),
    "another worker stalled": (
        lambda s: s.taken_over_by("worker-2").app("A1").model("M1").plan("A1", "M1").wait(59),
        "Build r-1",
    ),
    "another worker's retry is anybody's": (
        lambda s: s.taken_over_by("worker-2").app("A1").model("M1").plan("A1", "M1").err(5).wait(4),
        "claim the build of r-1",
    ),
    "a release in trouble is passed by a newer pair": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").err(5).app("A3"),
        "supersede r-2: a newer pair was published while this one was in trouble: the registry is away",
    ),
    "what was published is read while a release is in trouble": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").err(5).receive(pushed("e9", "A3")),
        "resolve e9",
    ),
    "what was published is read while a cross pair is in trouble": (
        lambda s: s.reject_both_new().blame("A1", "M2").err(5).receive(pushed("e9", "A3")),
        "resolve e9",
    ),
    "what cannot be read does not keep a release in trouble from its retry": (
        lambda s: (
            s.ship_first().app("A2").plan("A2", "M1").err(5).receive(pushed("e9", "A3")).err_reading("e9", 60).wait(9)
        ),
        "claim the build of r-2",
    ),
    "what was published is read while a release is made ready": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").receive(pushed("e9", "A3")),
        "resolve e9",
    ),
    "what was published is read by another worker meanwhile": (
        lambda s: s.taken_over_by("worker-2").ship_first().app("A2").plan("A2", "M1").receive(pushed("e9", "A3")),
        "resolve e9",
    ),
    "what was published waits while a release meets users": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().receive(pushed("e9", "A3")),
        "RollOut r-2",
    ),
    "what was published waits while a rollback is on its way": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).receive(pushed("e9", "A3")),
        "Build r-3",
    ),
    "what was published passes nothing that users may meet already": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().err(5).receive(pushed("e9", "A3")),
        "wait 3 s: retry",
    ),
    "what was published is read while what a person asked for is in trouble": (
        lambda s: s.ship_first().plan("A1", "M1", "request").err(5).receive(pushed("e9", "A3")),
        "resolve e9",
    ),
    "and does not pass it": (
        lambda s: s.ship_first().plan("A1", "M1", "request").err(5).app("A3"),
        "wait 3 s: retry",
    ),
    "the live model is lost: code does not take an older one": (
        lambda s: s.ship_first().model("M2").ship("A1", "M2").app("A2").plan("A2", "M2").lose(digest("M2")).wait(2),
        "idle: LiveHalfGone",
    ),
    "the live model is lost: a newer one goes on with the new code": (
        lambda s: (
            (s.ship_first().model("M2").ship("A1", "M2").app("A2").plan("A2", "M2").lose(digest("M2")).wait(60))
            .model("M3")
            .wait(2)
        ),
        "plan A2+M3: model by shipmate",
    ),
    "the live model is lost and published again: the release is made again": (
        lambda s: (
            (s.ship_first().model("M2").ship("A1", "M2").app("A2").plan("A2", "M2").lose(digest("M2")).wait(60))
            .model("M2")
            .wait(2)
        ),
        "plan A2+M2: app by shipmate",
    ),
    "the live code is lost: a model does not take older code": (
        lambda s: (
            s.ship_first().wait(60).app("A2").ship("A2", "M1").model("M2").plan("A2", "M2").lose(digest("A2"))
        ).wait(2),
        "idle: LiveHalfGone",
    ),
    "the live model is published again and lost: code does not take one from in between": (
        lambda s: (
            s.ship_first()
            .wait(60)
            .model("M2")
            .wait(60)
            .model("M1")
            .app("A2")
            .plan("A2", "M1")
            .lose(digest("M1"))
            .wait(2)
        ),
        "idle: LiveHalfGone",
    ),
    "the live code is pushed again and lost: a model does not take code from in between": (
        lambda s: (
            s.ship_first().wait(60).app("A2").wait(60).app("A1").model("M2").plan("A1", "M2").lose(digest("A1")).wait(2)
        ),
        "idle: LiveHalfGone",
    ),
    "the only code is lost": (
        lambda s: s.ship_first().model("M2").plan("A1", "M2").lose(digest("A1")).wait(2),
        "idle: LiveHalfGone",
    ),
    "what is live is published again, then a person goes back": (
        lambda s: s.ship_first().model("M2").ship("A1", "M2").wait(60).model("M2").ship("A1", "M1", "request").wait(2),
        "idle: AlreadyReleased",
    ),
    "and it is published once more": (
        lambda s: (
            (s.ship_first().model("M2").ship("A1", "M2").wait(60).model("M2").ship("A1", "M1", "request").wait(60))
            .model("M2")
            .wait(2)
        ),
        "plan A1+M2: model by shipmate",
    ),
    "code is published again while its successor meets users": (
        lambda s: (
            (s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().wait(60).app("A1"))
            .roll_out()
            .go_live()
            .wait(2)
        ),
        "plan A1+M1: app by shipmate",
    ),
    "the live model is lost, a rollback brought it back: code does not take an older one": (
        lambda s: (
            (s.ship_first().model("M2").ship("A1", "M2").app("A2").plan("A2", "M2").lose(digest("M2")).wait(60))
            .model("M3")
            .plan("A1", "M3", "model")
            .build()
            .gate()
            .intend()
            .fail(digest("M3"))
            .undo(2, 4)
            .resume()
        ),
        "idle: LiveHalfGone",
    ),
    "what is held is older than what a person went back to": (
        lambda s: (
            (s.ship_first().app("A2").ship("A2", "M1").model("M2", "2").app("A3", "2").ship("A3", "M2"))
            .app("A4")
            .model("M3")
            .ship("A4", "M3")
            .roll_back(2, 4, pair("A4", "M3").key)
            .plan("A2", "M3", "model")
            .build()
            .gate()
            .park()
            .roll_back(3, 5)
            .resume()
        ),
        "supersede r-6: app A3 is live and was published later: this pair is older by now",
    ),
    "the live code is lost and released by hand all the same: a model does not take older code": (
        lambda s: (
            (s.ship_first().wait(60).app("A2").ship("A2", "M1").model("M2").plan("A2", "M2").lose(digest("A2")))
            .ship("A2", "M1", "request")
            .model("M3")
            .wait(2)
        ),
        "idle: LiveHalfGone",
    ),
    "the live model is published again and lost: a model in between does not take its place": (
        lambda s: (
            (s.ship_first().wait(60).model("M2").plan("A1", "M2", "model").wait(60).model("M1").supersede())
            .wait(60)
            .app("A2")
            .plan("A2", "M1")
            .lose(digest("M1"))
            .wait(2)
        ),
        "idle: LiveHalfGone",
    ),
    "what is live is published again, a misfit comes, then a person goes back": (
        lambda s: (
            (s.ship_first().model("M2").ship("A1", "M2").wait(60).model("M2").wait(60).model("M3", "2"))
            .await_partner("A1", "M3")
            .ship("A1", "M1", "request")
            .wait(2)
        ),
        "idle: AlreadyReleased",
    ),
    "what failed cannot be undone": (
        lambda s: (
            (s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().fail(digest("A2")))
            .plan_rollback(1, 2, "automatic_rollback")
            .fail(stage="build")
            .wait(2)
        ),
        "idle: NothingToGoBackTo",
    ),
    "a rollback whose image is gone leaves what is live": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).fail(stage="build").wait(2),
        "idle: UpToDate",
    ),
    # requests
    "a release is asked for, of the newest pair": (
        lambda s: s.app("A1").model("M1").request("k1"),
        "plan A1+M1: request by ana, asked by k1",  # no quiet window: a person waits
    ),
    "a release is asked for, of an older pair": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").request("k1", pair("A1", "M1")),
        "plan A1+M1: request by ana, asked by k1",
    ),
    "a request supersedes what is on its way": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().request("k1", pair("A1", "M1")),
        "supersede r-2: ana asked for another release",
    ),
    "a request lets a rollout finish": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().request("k1", pair("A1", "M1")),
        "RollOut r-2",
    ),
    "a request supersedes what is held": (
        lambda s: s.ship_first().app("A2").hold().plan("A2", "M1").build().gate().park().resume().request("k1"),
        "supersede r-2: ana asked for another release",
    ),
    "and is planned then": (
        lambda s: (
            s.ship_first().app("A2").hold().plan("A2", "M1").build().gate().park().resume().request("k1").supersede()
        ),
        "plan A2+M1: request by ana, asked by k1",
    ),
    "a request waits for a rollback": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).request("k1"),
        "Build r-3",
    ),
    # rollbacks
    "a rollback is asked for": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").ask_rollback("k1", 1),
        "plan A1+M1: rollback by bo, asked by k1, back to r-1, undoes r-2",
    ),
    "a rollback goes before everything": (
        lambda s: (
            s.ship_first().app("A2").ship("A2", "M1").request("k0").receive(pushed("e9", "A3")).ask_rollback("k1", 1)
        ),
        "plan A1+M1: rollback by bo, asked by k1, back to r-1, undoes r-2",
    ),
    "a rollback preempts what is built": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").app("A3").plan("A3", "M1").ask_rollback("k1", 1),
        "supersede r-3: bo rolled back: daisies come back wrong",
    ),
    "a rollback preempts what is rolling out": (
        lambda s: (
            s.ship_first().app("A2").ship("A2", "M1").app("A3").plan("A3", "M1").build().gate().intend()
        ).ask_rollback("k1", 1),
        "supersede r-3: bo rolled back: daisies come back wrong",
    ),
    "a rollback of what is rolling out bars it": (
        lambda s: (
            s.ship_first().app("A2").ship("A2", "M1").app("A3").plan("A3", "M1").build().gate().intend()
        ).ask_rollback("k1", 2, undoes=3),
        "supersede r-3: bo rolled back: daisies come back wrong, and bar A3",
    ),
    "a rollback of what is rolling out bars nothing of what it brings back": (
        lambda s: (
            s.ship_first().model("M2").ship("A1", "M2").app("A2").plan("A2", "M1", "request").build().gate().intend()
        ).ask_rollback("k1", 1, undoes=3),
        "supersede r-3: bo rolled back: daisies come back wrong, and bar A2",
    ),
    "a rollback preempts another worker's stage": (
        lambda s: s.taken_over_by("worker-2").ship_first().app("A2").plan("A2", "M1").ask_rollback("k1", 1),
        "supersede r-2: bo rolled back: daisies come back wrong",
    ),
    "a rollback to the live release, out of a rollout": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().ask_rollback("k1", 1).supersede(),
        "plan A1+M1: rollback by bo, asked by k1, back to r-1",
    ),
    "a rollback does not preempt a rollback": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).ask_rollback("k1", 2),
        "Build r-3",
    ),
    "a rollback needs no gate": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).build(),
        "Intend r-3",
    ),
    "a rollback ships under a hold": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").hold().plan_rollback(1, 2).build(),
        "Intend r-3",
    ),
    "a rollout failed: the last good one comes back": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().roll_out().fail(digest("A2")),
        "plan A1+M1: automatic_rollback by shipmate, back to r-1, undoes r-2",
    ),
    "a rollout failed under a hold: the same": (
        lambda s: (
            s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().roll_out().hold().fail(digest("A2"))
        ),
        "plan A1+M1: automatic_rollback by shipmate, back to r-1, undoes r-2",
    ),
    "the first rollout failed: there is nothing to go back to": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().gate().intend().fail(pair("A1", "M1").key),
        "idle: Quarantined",
    ),
    "a rollback failed: it is not rolled back": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).build().intend().fail(),
        "idle: UpToDate",
    ),
    "a rollback is live: what it undid ships no more": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").roll_back(1, 2, digest("A2")),
        "idle: UpToDate",
    ),
    "after a rollback, the next publish goes up to the hold": (
        lambda s: (
            (s.ship_first().app("A2").ship("A2", "M1").roll_back(1, 2, digest("A2")).app("A3").plan("A3", "M1"))
            .build()
            .gate()
        ),
        "Park r-4",
    ),
    # holds
    "what is parked gives way to an older model that came late and is newer than its own": (
        lambda s: (
            s.ship_first()
            .model("M3", "2", uploaded_at=NOON.replace(hour=15))
            .app("A2")
            .await_partner("A2", "M3")
            .hold()
            .plan("A2", "M1")
            .build()
            .gate()
            .park()
            .model("M2", uploaded_at=NOON.replace(hour=14))
        ),
        "supersede r-2: another pair is the newest that may ship by now",
    ),
    "what a person asked for stays parked": (
        lambda s: s.ship_first().app("A2").ship("A2", "M1").hold().plan("A1", "M1", "request").build().gate().park(),
        "idle: Held",
    ),
    "a hold on models lets code ship": (
        lambda s: s.ship_first().hold(scope="model").model("M2").app("A2").wait(2),
        "plan A2+M1: app by shipmate",
    ),
    "a hold on models lets a model get ready": (
        lambda s: s.ship_first().hold(scope="model").model("M2").wait(2),
        "plan A1+M2: model by shipmate",
    ),
    "a hold on models parks a model": (
        lambda s: s.ship_first().hold(scope="model").model("M2").plan("A1", "M2").build().gate(),
        "Park r-2",
    ),
    "a hold on models keeps what is parked": (
        lambda s: s.ship_first().hold(scope="model").model("M2").plan("A1", "M2").build().gate().park(),
        "idle: Held",
    ),
    "code ships past a parked model": (
        lambda s: s.ship_first().hold(scope="model").model("M2").plan("A1", "M2").build().gate().park().app("A2"),
        "supersede r-2: a newer pair was published",
    ),
    "after code shipped past it, the model gets ready with the new code": (
        lambda s: s.ship_first().hold(scope="model").model("M2").app("A2").ship("A2", "M1"),
        "plan A2+M2: model by shipmate",
    ),
    "a hold on apps lets a model ship": (
        lambda s: s.ship_first().hold(scope="app").model("M2").app("A2").wait(2),
        "plan A1+M2: model by shipmate",
    ),
    "a hold on apps, and the newest model had its turn: code gets ready": (
        lambda s: s.ship_first().hold(scope="app").model("M2").ship("A1", "M2").app("A2").ship("A1", "M1", "request"),
        "plan A2+M2: model by shipmate",
    ),
    "a hold on apps, and the newest model is on its way in trouble: it goes on": (
        lambda s: s.ship_first().hold(scope="app").app("A2").model("M2").plan("A1", "M2", "model").err(5),
        "wait 4 s: retry",
    ),
    "a hold on apps parks code": (
        lambda s: s.ship_first().hold(scope="app").app("A2").plan("A2", "M1").build().gate(),
        "Park r-2",
    ),
    "a hold on apps keeps a first release too": (
        lambda s: s.hold(scope="app").app("A1").model("M1").plan("A1", "M1").build().gate(),
        "Park r-1",
    ),
    "a hold lets a release get ready": (
        lambda s: s.ship_first().hold().app("A2").wait(2),
        "plan A2+M1: app by shipmate",
    ),
    "a hold parks what is ready": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().hold().gate(),
        "Park r-2",
    ),
    "what is parked stays": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().hold().gate().park(),
        "idle: Held",
    ),
    "what is parked ships when the hold is lifted": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().hold().gate().park().resume(),
        "Intend r-2",
    ),
    "a fence outran the patch, and the hold is lifted": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().gate().intend().hold().park().resume(),
        "Intend r-2",
    ),
    "what is parked is superseded by newer": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().hold().gate().park().app("A3"),
        "supersede r-2: a newer pair was published",
    ),
    "and the newer one gets ready": (
        lambda s: s.ship_first().app("A2").plan("A2", "M1").build().hold().gate().park().app("A3").supersede().wait(2),
        "plan A3+M1: app by shipmate",
    ),
    "what is parked makes way for a newer model, although a quarantined one is newer still": (
        lambda s: (
            (s.ship_first().wait(60).model("M4", uploaded_at=s.now + timedelta(60)).plan("A1", "M4").build())
            .reject(digest("M4"))
            .hold()
            .model("M2")
            .plan("A1", "M2")
            .build()
            .gate()
            .park()
            .model("M3")
        ),
        "supersede r-3: a newer pair was published",
    ),
    "what a hold lets through ships past what was parked before": (
        lambda s: (
            (s.ship_first().app("A2", "2").await_partner("A2", "M1").model("M2").model("M3", "2").plan("A2", "M3"))
            .build()
            .gate()
            .hold(scope="app")
            .park()
            .await_partner("A1", "M3")
        ),
        "supersede r-2: another pair is the newest that may ship by now",
    ),
    "what is parked stays when a misfit comes": (
        lambda s: (
            s.ship_first().app("A2").plan("A2", "M1").build().hold().gate().park().model("M2", "2")
        ).await_partner("A2", "M2"),
        "idle: Held",
    ),
    "an older pair asked for by hand stays parked though it is not the newest": (
        lambda s: (
            (
                s.ship_first()
                .app("A2")
                .ship("A2", "M1")
                .request("k", pair("A1", "M1"))
                .plan("A1", "M1", "request", request="k")
            )
            .build()
            .hold()
            .gate()
            .park()
        ),
        "idle: Held",
    ),
    "what is parked and quarantined since ends": (
        lambda s: (
            s.ship_first().app("A2").ship("A2", "M1").model("M2").plan("A2", "M2").build().hold().gate().park()
        ).roll_back(1, 2, digest("A2")),
        "supersede r-3: its pair, or a half of it, is quarantined by now",
    ),
    "and its free half goes on": (
        lambda s: (
            (s.ship_first().app("A2").ship("A2", "M1").model("M2").plan("A2", "M2").build().hold().gate().park())
            .roll_back(1, 2, digest("A2"))
            .supersede(3)
        ),
        "plan A1+M2: model by shipmate",
    ),
}


@pytest.mark.parametrize(("told", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_what_comes_next(told: Callable[[Story], Story], expected: str) -> None:
    assert after(told(Story())) == expected


def test_idle_and_waiting_steps_say_why() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").build().hold().gate().park()
    step = decide(story.state, TARGET, story.now, "worker-1", 60)
    assert step == plan.Idle("Held", "r-2 is ready; a hold by bo keeps it: a demo is on")
    story = Story().ship_first().model("M2", "2")
    step = decide(story.state, TARGET, story.now, "worker-1", 60)
    assert isinstance(step, pairs.WaitForPartner)
    assert step.message == (
        "model M2 needs app contract 2, app A1 speaks 1: the release waits until a half is published that fits"
    )
    story = Story().ship_first().app("A2").model("M2").wait(2)
    step = decide(story.state, TARGET, story.now, "worker-1", 60)
    assert isinstance(step, plan.Plan)
    assert step.reason == "model M2 was published and app A2 was published"
    story = Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend().fail()
    step = decide(story.state, TARGET, story.now, "worker-1", 60)
    assert isinstance(step, plan.Plan)
    assert step.reason == "r-2 failed: nobody answered"


def test_who_waits_for_what_cannot_be_read_says_what_else_there_is() -> None:
    story = Story().ship_first().receive(pushed("e1", "A2")).receive(published("e2", "M2"))
    story.err_reading("e1", 60).err_reading("e2", 5)
    step = decide(story.state, TARGET, story.now, "worker-1", 60)
    assert isinstance(step, plan.Wait)
    assert step.reason == "models/net/M2/manifest.json cannot be read yet: the registry is away"
    assert step.idle == plan.Idle("UpToDate", "r-1 is the newest pair that may ship, and is live")
    written_before = tuple(msgspec.structs.replace(item, message=None) for item in story.state.publications)
    story.state = msgspec.structs.replace(story.state, publications=written_before)
    assert after(story) == "wait 4 s: models/net/M2/manifest.json cannot be read yet"


def test_what_follows_is_seen_behind_what_waits_for_a_partner() -> None:
    story = Story().ship_first()
    assert plan.as_recorded(story.state, story.now) is story.state
    story.app("A2").app("A3", "2").wait(2)
    assert after(story) == "record that A3 and M1 do not fit"
    story.state = plan.as_recorded(story.state, story.now)
    assert after(story) == "plan A2+M1: app by shipmate"


@pytest.mark.parametrize(
    ("told", "left"),
    [
        pytest.param(lambda s: s.app("A1").model("M1"), None, id="nothing is on its way"),
        pytest.param(lambda s: s.ship_first().app("A2").plan("A2", "M1").build(), "gate", id="what it moved last"),
        pytest.param(lambda s: s.ship_first().app("A2").plan("A2", "M1").err(), None, id="what is in trouble"),
        pytest.param(
            lambda s: s.ship_first().taken_over_by("worker-2").app("A2").plan("A2", "M1"), None, id="what another moved"
        ),
    ],
)
def test_what_a_worker_hands_over_when_its_turn_ends(told: Callable[[Story], Story], left: str | None) -> None:
    found = plan.left_by(told(Story()).state, "worker-1")
    assert (found.stage if found is not None else None) == left


@pytest.mark.parametrize(
    ("bad", "good", "blamed"),
    [
        pytest.param(pair("A2", "M1"), pair("A1", "M1"), (digest("A2"),), id="only the app changed"),
        pytest.param(pair("A1", "M2"), pair("A1", "M1"), (digest("M2"),), id="only the model changed"),
        pytest.param(pair("A2", "M2"), pair("A1", "M1"), (pair("A2", "M2").key,), id="both changed: the pair alone"),
        pytest.param(pair("A1", "M1"), None, (pair("A1", "M1").key,), id="nothing to compare with"),
        pytest.param(pair("A1", "M1"), pair("A1", "M1"), (), id="nothing changed"),
    ],
)
def test_who_is_guilty(bad: Pair, good: Pair | None, blamed: tuple[str, ...]) -> None:
    assert guilty(bad, good) == blamed


@pytest.mark.parametrize(
    ("story", "bad", "barred"),
    [
        pytest.param(lambda s: s, pair("A2", "M1"), (digest("A2"),), id="the app is new"),
        pytest.param(lambda s: s.ship("A2", "M1").ship("A2", "M2"), pair("A1", "M2"), None, id="the app was live"),
        pytest.param(lambda s: s.ship("A1", "M2").ship("A2", "M2"), pair("A2", "M1"), None, id="the model was live"),
        pytest.param(
            lambda s: s.ship("A2", "M1").plan_rollback(1, 2).build().intend().roll_out().go_live(digest("A2")),
            pair("A2", "M1"),
            (digest("A2"),),
            id="the app was live and was undone",
        ),
        pytest.param(lambda s: s, pair("A1", "M1"), (), id="nothing changed"),
    ],
)
def test_what_a_verdict_bars(story: Callable[[Story], Story], bad: Pair, barred: tuple[str, ...] | None) -> None:
    state = story(Story().ship_first().app("A2").model("M2")).state
    assert blamed(state, bad) == ((bad.key,) if barred is None else barred)


def test_the_first_pair_is_barred_as_a_pair() -> None:
    assert blamed(Story().app("A1").model("M1").state, pair("A1", "M1")) == (pair("A1", "M1").key,)


def test_the_last_good_release_is_the_newest_verified_that_is_not_quarantined() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").app("A3").ship("A3", "M1")
    assert last_good(story.state) == story.state.release(3)
    story.plan_rollback(2, 3).build().intend().roll_out().go_live(digest("A3"))
    good = last_good(story.state)
    assert good is not None
    assert (good.number, good.pair) == (4, pair("A2", "M1"))
    assert last_good(Story().app("A1").model("M1").plan("A1", "M1").state) is None


def test_a_release_that_is_quarantined_since_is_not_gone_back_to() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").model("M2").plan("A2", "M2").build().reject(digest("A2"))
    assert last_good(story.state) == story.state.release(1)


def test_two_hundred_releases_later_the_last_good_one_is_still_found() -> None:
    story = Story().ship_first()
    for number in range(RELEASES_KEPT + 5):
        story.app(f"X{number}").plan(f"X{number}", "M1").build().reject(digest(f"X{number}"))
    assert len(story.state.releases) == RELEASES_KEPT + 1
    assert story.state.release(1).phase is Phase.LIVE
    assert last_good(story.state) == story.state.release(1)
    with pytest.raises(IllegalStep, match="knows no release r-2"):
        story.state.release(2)


def test_verified_releases_that_are_forgotten_are_not_asked_about() -> None:
    story = Story().ship_first()
    for number in range(12):
        story.app(f"X{number}").ship(f"X{number}", "M1")
    for number in range(RELEASES_KEPT):
        story.app(f"Y{number}").plan(f"Y{number}", "M1").build().reject(digest(f"Y{number}"))
    assert [story.state.release(number).was_live for number in story.state.verified] == [True] * 10


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(lambda s: s, None, id="what is live is the newest"),
        pytest.param(lambda s: s.app("A3"), pair("A3", "M2"), id="something newer had no turn"),
        pytest.param(lambda s: s.app("A3").plan("A3", "M2"), pair("A3", "M2"), id="it is on its way, and ends for now"),
        pytest.param(lambda s: s.app("A3").hold(), None, id="it is held"),
        pytest.param(lambda s: s.app("A3").plan("A3", "M2").build().reject(digest("A3")), None, id="it is quarantined"),
        pytest.param(lambda s: s.app("A3").plan("A3", "M2").build().reject(), None, id="it had its turn"),
        pytest.param(lambda s: s.app("A3", "2"), None, id="it waits for a partner"),
    ],
)
def test_what_comes_after_a_release_by_hand(told: Callable[[Story], Story], expected: Pair | None) -> None:
    story = told(Story().ship_first().app("A2").ship("A2", "M1").model("M2").ship("A2", "M2"))
    assert follows(story.state, pair("A1", "M1")) == expected


def test_what_was_live_and_was_published_again_meanwhile_does_not_come_after_a_release_by_hand() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").wait(60).app("A3", "2").wait(60).app("A2")
    assert follows(story.state, pair("A1", "M1")) is None
    story.ship("A1", "M1").wait(60)
    assert after(story) == "idle: AlreadyReleased"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(lambda s: s, "r-2", id="it is on its way"),
        pytest.param(lambda s: s.build().gate().intend().roll_out(), "r-2", id="it is rolling out"),
        pytest.param(lambda s: s.build().gate().intend().roll_out().go_live(), None, id="it is live"),
        pytest.param(lambda s: s.err(), None, id="it is in trouble"),
        pytest.param(lambda s: s.err().progress(), None, id="it was in trouble"),
        pytest.param(lambda s: s.hold(), None, id="it is held"),
        pytest.param(lambda s: s.hold(scope="app"), None, id="its half is held"),
        pytest.param(lambda s: s.hold(scope="model"), "r-2", id="another half is held"),
        pytest.param(lambda s: s.request("key", pair("A1", "M1")), None, id="somebody wants another"),
        pytest.param(lambda s: s.ask_rollback("key", 1), None, id="somebody rolls back"),
    ],
)
def test_what_brings_a_pair(told: Callable[[Story], Story], expected: str | None) -> None:
    story = told(Story().ship_first().app("A2").plan("A2", "M1"))
    found = precedence.brings(story.state, pair("A2", "M1"))
    assert (found.name if found is not None else None) == expected
    assert precedence.brings(story.state, pair("A1", "M1")) is None


def test_a_cross_pair_brings_nothing_to_users_for_certain() -> None:
    story = Story().ship_first().app("A2").model("M2").plan("A2", "M2").build().reject(pair("A2", "M2").key)
    story.plan("A1", "M2", trigger="blame", blames=2)
    assert precedence.brings(story.state, pair("A1", "M2")) is None


def test_nothing_comes_after_the_first_release_by_hand() -> None:
    assert follows(Story().app("A1").model("M1").state, pair("A1", "M1")) is None


def test_what_is_quarantined_is_known_as_of_its_last_publication() -> None:
    story = Story().ship_first().model("M2").plan("A1", "M2").build().reject(digest("M2")).wait(60)
    again = model_half("M2", at=story.now)
    story.receive(published("e9", "M2")).write(
        Skipped, event_id="e9", reason="Quarantined", message="as before", half=again
    )
    assert story.state.models[-1] == again


def test_a_live_half_is_known_however_many_come_after_it() -> None:
    story = Story().ship_first()
    for number in range(HALVES_KEPT):
        story.app(f"X{number}").plan(f"X{number}", "M1").build().reject(digest(f"X{number}"))
    assert after(story.model("M2").wait(2)) == "plan A1+M2: model by shipmate"
    story = Story().ship_first().hold(scope="app")
    for number in range(HALVES_KEPT):
        story.app(f"X{number}")
    assert after(story.model("M2").wait(2)) == "plan A1+M2: model by shipmate"
