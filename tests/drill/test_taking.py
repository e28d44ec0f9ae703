"""What the drill counts of the relay's deliveries."""

from typing import Any

from drill.taking import judge

MODEL = "/blobServices/default/containers/models/blobs/t-000-model"


def delivery(number: int, subject: str, *at: float, state: str = "delivered", cut_off: int = 0) -> dict[str, Any]:
    """Return a delivery that failed so often and then was acknowledged at the given instant, if at all."""
    attempts = [{"at": 0.5, "seconds": 0.0, "outcome": "SocketError"}] * cut_off
    attempts += [{"at": each, "seconds": 0.5, "outcome": "Delivered"} for each in at]
    return {
        "eventNumber": number,
        "eventId": f"event-{number}",
        "subject": subject,
        "state": state,
        "publishedAt": 10.0,
        "attempts": attempts,
    }


def test_deliveries_of_publishes_are_counted_and_all_acknowledged_events_kept() -> None:
    taken = judge(
        [
            delivery(1, f"{MODEL}/1.0001/manifest.json", 12.0),
            delivery(2, f"{MODEL}/1.0001/model.onnx", 11.0),
            delivery(3, f"{MODEL}/1.0002/manifest.json", 11.0),
            delivery(3, f"{MODEL}/1.0002/manifest.json", 19.5),
            delivery(4, "t-000-app:main", 13.0, cut_off=2),
            delivery(5, "t-000:r-1", 13.0),
            delivery(6, "t-000-app:main", state="dead_lettered", cut_off=1),
        ],
        ["t-000"],
    )
    assert taken.acknowledged == {f"event-{number}" for number in (1, 2, 3, 4, 5)}
    assert (taken.deliveries, taken.twice, taken.failed_attempts, taken.dead_lettered) == (4, 1, 3, 1)
    assert (taken.seconds, taken.a_second) == (10.0, 0.4)
    assert taken.busiest == 0.4


def test_what_comes_after_a_newer_publish_of_its_half_is_out_of_order() -> None:
    taken = judge(
        [
            delivery(1, f"{MODEL}/1.0001/manifest.json", 14.0),
            delivery(2, "t-000-app:main", 13.0),
            delivery(3, f"{MODEL}/1.0002/manifest.json", 12.0),
            delivery(3, f"{MODEL}/1.0002/manifest.json", 15.0),
        ],
        ["t-000"],
    )
    assert taken.out_of_order == 1


def test_nothing_was_taken_in_where_nothing_was_published() -> None:
    taken = judge([], ["t-000"])
    assert (taken.deliveries, taken.a_second, taken.busiest) == (0, 0.0, 0.0)
