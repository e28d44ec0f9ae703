"""Records golden ledgers: each scenario below, told by the real pipeline over the ports in memory.

`python -m tests.golden.record` writes the ledgers that are missing and their states. What was recorded once is kept
as it is, since real ledgers of its time look like it; to have a scenario recorded anew, give it another name.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.ledger import Phase
from shipmate.errors import NotAllowed, Retryable
from tests.core.test_golden import as_text, state_file, state_of
from tests.situations import clean_up, refusing
from tests.world import World

HERE = Path(__file__).parent


def main_job() -> World:
    """A model and an app make a release; a new model and new code follow, each by itself."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, model="1.1")
    _publish(world, app="2.3.1")
    return world


def rollback_hold_resume() -> World:
    """A person rolls back, which holds the target; what is published waits for the resume."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, app="2.3.1")
    world.commands().rollback("vision", "back", "bo", RollbackBody(reason="daisies come back wrong"))
    world.run()
    _publish(world, app="2.3.2")
    world.commands().resume("vision", "go-on", "bo", ResumeBody(reason="2.3.2 mends it"))
    world.run()
    world.commands().hold("vision", "stop", "ana", HoldBody(reason="a demo is on"))
    _publish(world, model="1.1")
    world.commands().release("vision", "now", "ana", ReleaseBody(reason="the demo wants it"))
    world.run()
    return world


def rejection_quarantine() -> World:
    """A worse model is quarantined, good code ships without it, and an override asks its gate again."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, model="1.1", says="honeycomb")
    _publish(world, app="2.3.1")
    model = world.state.release(2).pair.model
    body = ReleaseBody(reason="the photo is a honeycomb", model=model, override=True)
    world.commands().release("vision", "all-the-same", "ana", body)
    world.run()
    world.broken_doors.add("2.3.2")
    _publish(world, app="2.3.2")
    return world


def waiting_for_partner() -> World:
    """A model of a new contract waits for its app, and ships with it; so does an app, the other way round."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, model="2.0", contract="2")
    _publish(world, app="3.0.0", contract="2")
    _publish(world, app="4.0.0", contract="3")
    _publish(world, model="3.0", contract="3")
    return world


def errors_and_retries() -> World:
    """What is outside is in trouble at every stage; a half is gone; code without a contract is skipped."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    world.cluster.fail("create_gate_pod", Retryable("the API server is away"))
    world.cluster.fail("create_gate_pod", NotAllowed("the controller may not create pods in vision"))
    world.cluster.fail("patch_deployment", Retryable("connection reset"), after=True)
    _publish(world, model="1.1")
    event = world.publish_model("1.2")
    world.models.delete("models", "net/1.2/model.onnx")
    world.ship(event)
    world.ship(world.push_app("2.3.1", contract=None))
    world.push_app("2.3.2")
    world.pipeline().sweep()
    world.run()
    return world


def blame() -> World:
    """Code and a bad model come together: a cross pair each tells which half is at fault, and the code ships."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, app="2.3.1", model="1.1", says="honeycomb")
    return world


def scoped_hold() -> World:
    """A hold on models lets code through; the resume ships what was held."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    world.commands().hold("vision", "stop", "ana", HoldBody(reason="an audit of the models", scope="model"))
    _publish(world, model="1.1")
    _publish(world, app="2.3.1")
    world.commands().resume("vision", "go-on", "ana", ResumeBody(reason="the audit is over"))
    world.run()
    return world


def refusal() -> World:
    """Somebody asks for what their role does not allow; somebody else, with an idempotency key, does it."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    world.commands().refuse("vision", "stop", "cy", "hold", "may I?")
    world.commands().hold("vision", "stop", "ana", HoldBody(reason="for cy"))
    return world


def long_build() -> World:
    """The model's bytes come slowly: its worker gives signs of life, and another leaves the release to it."""
    world = World()
    open_blob = world.models.open

    def slowly(container: str, path: str, *, offset: int = 0, etag: str | None = None) -> Iterator[bytes]:
        for byte in b"".join(open_blob(container, path, offset=offset, etag=etag)):
            if path.endswith("model.onnx"):
                world.clock.sleep(10)
                world.pipeline("worker-2").advance("vision")
            yield bytes([byte])

    world.models.open = slowly  # type: ignore[method-assign] # for this scenario
    _publish(world, app="2.3.0", model="1.0")
    return world


def handed_over() -> World:
    """Builds take longer than a turn: the next one goes on, and the last is handed over to nobody yet."""
    world = World()
    open_blob = world.models.open

    def slowly(container: str, path: str, *, offset: int = 0, etag: str | None = None) -> Iterator[bytes]:
        if path.endswith("model.onnx"):
            world.clock.sleep(250)
        yield from open_blob(container, path, offset=offset, etag=etag)

    world.models.open = slowly  # type: ignore[method-assign] # for this scenario
    _publish(world, app="2.3.0", model="1.0")
    world.tell(world.publish_model("1.1"))
    world.pipeline("worker-9").advance(world.queue.take())
    return world


def told_late() -> World:
    """A push is told when its tag has moved on; a tag moves to and fro over quarantined code; a person wants it."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    late, newer = world.push_app("2.3.1"), world.push_app("2.4.0")
    world.failing_apps.add("2.4.0")
    world.ship(newer, late)
    world.failing_apps.clear()
    for version in ("2.3.0", "2.4.0"):
        world.clock.sleep(60)
        _publish(world, app=version)
    body = ReleaseBody(reason="it is meant", release="r-2", override=True)
    world.commands().release("vision", "all-the-same", "ana", body)
    world.run()
    _publish(world, model="1.1")
    return world


def held_twice() -> World:
    """Everything is held over a hold on models; each is lifted in its turn."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    world.commands().hold("vision", "audit", "ana", HoldBody(reason="an audit of the models", scope="model"))
    world.commands().hold("vision", "stop", "bo", HoldBody(reason="an incident"))
    _publish(world, app="2.3.1", model="1.1")
    world.commands().resume("vision", "go-on", "bo", ResumeBody(reason="the incident is over"))
    world.run()
    world.commands().resume("vision", "audited", "ana", ResumeBody(reason="the audit is over"))
    world.run()
    return world


def live_model_lost() -> World:
    """The live model is deleted where it was published: new code waits until it is there again."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, model="1.1")
    world.models.delete("models", "net/1.1/manifest.json")
    _publish(world, app="2.4.0")
    world.clock.sleep(60)
    _publish(world, model="1.1")
    return world


def given_way() -> World:
    """An override gives way before its turn, and a rollback that is refused gives way to a release by hand."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, model="1.1")
    _publish(world, app="2.4.0")
    world.commands().rollback("vision", "back", "bo", RollbackBody(reason="2.4.0 leaks photos"))
    world.run()
    world.commands().resume("vision", "go-on", "bo", ResumeBody(reason="seen"))
    world.commands().release(
        "vision", "all-the-same", "ana", ReleaseBody(reason="urgent", release="r-3", override=True)
    )
    world.commands().release("vision", "no", "bo", ReleaseBody(reason="keep it out", release="r-1"))
    world.run()
    _publish(world, model="1.2")
    back_to = str(world.state.release(5).image)
    refusing(world, lambda patch: back_to in patch)
    world.commands().rollback("vision", "back-again", "bo", RollbackBody(reason="1.2 is worse", to="r-5"))
    world.run(within=timedelta(seconds=30))
    world.commands().release("vision", "instead", "bo", ReleaseBody(reason="1.1 will do", release="r-2"))
    world.run()
    return world


def rolled_back_on_the_way() -> World:
    """Code is rolled back while it rolls out; the rollback is refused, gives way to another, and that goes live."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    _publish(world, app="2.4.0")
    world.tell(world.push_app("2.5.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    good = str(world.state.release(2).image)
    refusing(world, lambda patch: good in patch)
    world.commands().rollback("vision", "back", "bo", RollbackBody(reason="2.5.0 leaks photos"))
    world.run(within=timedelta(seconds=30))
    world.commands().rollback("vision", "further", "ana", RollbackBody(reason="2.4.0 does not come", to="r-1"))
    world.run()
    _publish(world, app="2.5.1")
    world.commands().resume("vision", "go-on", "bo", ResumeBody(reason="2.5.1 mends it"))
    world.run()
    return world


def lost_and_found() -> World:
    """A copy of the live model is deleted, which is found where it was; a rollback loses its image before its patch."""
    world = World()
    _publish(world, app="2.3.0", model="1.0")
    world.clock.sleep(60)
    world.ship(world.publish_model("1.0", folder="1.0-copy"))
    world.models.delete("models", "net/1.0-copy/manifest.json")
    _publish(world, app="2.4.0")
    world.pipeline().sweep()
    world.run()
    _publish(world, model="1.1")
    world.commands().rollback("vision", "back", "bo", RollbackBody(reason="1.1 is worse", to="r-3"))
    world.run_until_phase(Phase.INTENDED)
    clean_up(world, 2)
    world.models.delete("models", "net/1.0/manifest.json")
    world.run()
    return world


def _publish(  # what is told of the model goes into its manifest
    world: World, *, app: str | None = None, model: str | None = None, says: str = "daisy", contract: str = "1"
) -> None:
    if app is not None:
        world.tell(world.push_app(app, contract))
    if model is not None:
        world.tell(world.publish_model(model, says, contract=contract))
    world.run()


SCENARIOS: dict[str, Callable[[], World]] = {
    "main-job": main_job,
    "rollback-hold-resume": rollback_hold_resume,
    "rejection-quarantine": rejection_quarantine,
    "waiting-for-partner": waiting_for_partner,
    "errors-and-retries": errors_and_retries,
    "blame": blame,
    "scoped-hold": scoped_hold,
    "refusal": refusal,
    "long-build": long_build,
    "handed-over": handed_over,
    "told-late": told_late,
    "held-twice": held_twice,
    "live-model-lost": live_model_lost,
    "given-way": given_way,
    "rolled-back-on-the-way": rolled_back_on_the_way,
    "lost-and-found": lost_and_found,
}


if __name__ == "__main__":
    for name, scenario in SCENARIOS.items():
        ledger = HERE / f"{name}.jsonl"
        if not ledger.exists():
            ledger.write_text(scenario().story())
            state_file(ledger).write_text(as_text(state_of(ledger)))
