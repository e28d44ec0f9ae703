"""A release that passes its gate and is wrong all the same: it goes back by itself, and users lose nothing."""

from shipmate.core.ledger import Failed
from tests.e2e.world import Target

IMPOSTOR = ("sh", "-c", "SHIPMATE_RELEASE=impostor exec python3 -m app")
"""Starts the app under another release's name: it answers every question rightly, and is not who should answer."""


def test_a_release_that_fails_where_users_ask_goes_back_by_itself(steady: Target) -> None:
    good, before = steady.state().serving, steady.tag_digest()
    assert good is not None
    number = steady.next_release()
    bad = steady.push_changed({"org.opencontainers.image.version": "8.1.0"}, entrypoint=IMPOSTOR)
    try:
        failed = steady.until(number, "failed", "rolled_back")
        stages = {stage["stage"]: stage for stage in failed["stages"]}
        assert {name: stages[name]["outcome"] for name in ("gate", "rollout", "verify")} == {
            "gate": "gated",
            "rollout": "rolled_out",
            "verify": "failed",
        }
        assert stages["verify"]["message"].endswith(f"impostor answers where r-{number} should")
        rollback = steady.until(number + 1, "live")
        assert rollback["release"]["reason"].startswith(f"r-{number} failed: not verified at {steady.url} within ")
        assert rollback["cost"]["uploaded"] == 0
        state = steady.state()
        back = state.release(number + 1)
        assert (back.pair, back.image, back.undoes) == (good.pair, good.image, number)
        assert steady.answered_by() == back.name
        (entry,) = steady.entries(Failed, release=number)
        assert entry.quarantine == (bad,)
        status = steady.api.get()
        assert status["hold"].startswith(f"shipmate: r-{number} failed: not verified")
        assert bad in status["quarantined"]
    finally:
        steady.tag(before)
        if steady.state().hold is not None:
            steady.api.post("/resume", {"reason": "the impostor is quarantined", "author": "ana"})
    assert steady.api.get()["hold"] is None
    assert steady.next_release() == number + 2, "what is quarantined ships by no resume"
