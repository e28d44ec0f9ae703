"""What every ledger promises, in memory and in Blob Storage: one writer wins, nothing is written twice or by halves."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ExponentialRetry

from shipmate.core.events import Ignored
from shipmate.core.ledger import AnyEntry, IgnoredEvent, IllegalStep
from shipmate.core.state import State
from shipmate.edge.ledger_store import LedgerStore
from shipmate.errors import Ambiguous, Conflict, Retryable
from shipmate.ports import Ledgers, Reading
from tests.fakes.histories import NOON, Story, digest, pushed
from tests.fakes.ledgers import FakeLedgers, Fault
from tests.fakes.proxy import Fault as NetworkFault
from tests.fakes.proxy import proxy


@dataclass
class Bench:
    """A kind of ledgers: how another process opens them, and how their storage is made to fail."""

    open: Callable[[], Ledgers]
    lose_next_reply: Callable[[], None]
    lose_next_request: Callable[[], None]
    away: Callable[[bool], None]  # storage goes away, and comes back


def in_memory(_: pytest.FixtureRequest, __: ExitStack) -> Bench:
    ledgers = FakeLedgers()
    return Bench(
        open=lambda: ledgers,
        lose_next_reply=lambda: ledgers.fail_next(Fault.LOST_REPLY),
        lose_next_request=lambda: ledgers.fail_next(Fault.LOST_REQUEST),
        away=lambda away: setattr(ledgers, "away", away),
    )


def in_blobs(segment_entries: int) -> Callable[[pytest.FixtureRequest, ExitStack], Bench]:
    def bench(request: pytest.FixtureRequest, stack: ExitStack) -> Bench:
        cloud = request.getfixturevalue("azurite")
        front = stack.enter_context(proxy(cloud.blob_port))
        container = f"ledger-{uuid4().hex}"

        def store() -> LedgerStore:
            # a connection an instance, as processes have, and no patience: storage in a test is away on purpose
            retry = ExponentialRetry(initial_backoff=0, increment_base=0, retry_total=2, random_jitter_range=0)
            service = BlobServiceClient.from_connection_string(
                cloud.connection_string.replace(f":{cloud.blob_port}/", f":{front.port}/"), retry_policy=retry
            )
            return LedgerStore(stack.enter_context(service), container, segment_entries=segment_entries)

        def away(is_away: bool) -> None:
            front.server_port = 1 if is_away else cloud.blob_port

        return Bench(
            open=store,
            lose_next_reply=lambda: front.on_next("comp=appendblock", NetworkFault.LOSE_REPLY),
            lose_next_request=lambda: front.on_next("comp=appendblock", NetworkFault.LOSE_REQUEST),
            away=away,
        )

    return bench


@pytest.fixture(
    params=[
        pytest.param(in_memory, id="in memory"),
        pytest.param(in_blobs(200), id="in blobs", marks=pytest.mark.azurite),
        pytest.param(in_blobs(2), id="in blobs, two entries a segment", marks=pytest.mark.azurite),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield request.param(request, stack)


def entry(name: str) -> AnyEntry:
    """Return an entry that may follow on anything."""
    return IgnoredEvent(
        id=f"id-{name}", at=NOON, by="worker-1", event=Ignored(name, "Stale", "for a reason", "subject")
    )


def ids(ledgers: Ledgers, target: str = "vision") -> list[str]:
    return [written.id for written in ledgers.history(target)]


def write(ledgers: Ledgers, name: str, target: str = "vision") -> Reading:
    return ledgers.append(target, ledgers.read(target), [entry(name)])


def test_a_ledger_that_nobody_wrote_to_is_empty(bench: Bench) -> None:
    ledgers = bench.open()
    assert ledgers.read("vision").state == State()
    assert ids(ledgers) == []


def test_a_whole_history_is_read_as_it_was_written(bench: Bench) -> None:
    ledgers, story = bench.open(), Story().ship_first().app("A2").ship("A2", "M1").roll_back(1, 2, digest("A2"))
    reading = ledgers.read("vision")
    for number, each in enumerate(story.entries, start=1):
        reading = ledgers.append("vision", reading, [each])
        assert reading.state.length == number
        assert bench.open().read("vision") == ledgers.read("vision") == reading
    assert reading.state == story.state
    assert list(ledgers.history("vision")) == story.entries
    assert list(bench.open().history("vision")) == story.entries
    assert list(ledgers.history("vision", NOON)) == story.entries  # written later, by the storage's clock


def test_several_entries_are_written_at_once(bench: Bench) -> None:
    ledgers, story = bench.open(), Story().ship_first()
    reading = ledgers.append("vision", ledgers.read("vision"), story.entries)
    assert reading.state == story.state
    assert bench.open().read("vision") == reading
    assert list(ledgers.history("vision")) == story.entries


def test_of_two_who_read_the_same_one_wins(bench: Bench) -> None:
    ana, bo = bench.open(), bench.open()
    write(ana, "first")
    seen_by_ana, seen_by_bo = ana.read("vision"), bo.read("vision")
    ana.append("vision", seen_by_ana, [entry("ana")])
    with pytest.raises(Conflict, match="somebody else wrote to the ledger of vision first"):
        bo.append("vision", seen_by_bo, [entry("bo")])
    bo.append("vision", bo.read("vision"), [entry("bo, again")])
    assert ids(ana) == ids(bo) == ["id-first", "id-ana", "id-bo, again"]


def test_of_two_who_begin_a_ledger_one_wins(bench: Bench) -> None:
    ana, bo = bench.open(), bench.open()
    seen_by_ana, seen_by_bo = ana.read("vision"), bo.read("vision")
    bo.append("vision", seen_by_bo, [entry("bo")])
    with pytest.raises(Conflict):
        ana.append("vision", seen_by_ana, [entry("ana")])
    assert ids(ana) == ["id-bo"]


def test_who_wakes_with_an_old_reading_writes_nothing(bench: Bench) -> None:
    zombie, others = bench.open(), bench.open()
    old = write(zombie, "0")
    for number in range(1, 6):
        write(others, str(number))
    for _ in range(2):
        with pytest.raises(Conflict):
            zombie.append("vision", old, [entry("zombie")])
    assert ids(zombie) == [f"id-{number}" for number in range(6)]
    assert zombie.read("vision") == others.read("vision") == bench.open().read("vision")


def test_many_writers_at_once_lose_and_repeat_nothing(bench: Bench) -> None:
    writers, rounds = 4, 4
    started = threading.Barrier(writers)
    troubles: list[Exception] = []

    def run(ledgers: Ledgers, name: str) -> None:
        started.wait()
        done = 0
        while done < rounds:
            try:
                ledgers.append("vision", ledgers.read("vision"), [entry(f"{name}{done}")])
            except Conflict:
                continue
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                troubles.append(error)
                return
            done += 1

    threads = [threading.Thread(target=run, args=(bench.open(), name)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    found = ids(bench.open())
    assert sorted(found) == sorted(f"id-{name}{number}" for name in "abcd" for number in range(rounds))
    for name in "abcd":
        assert [each for each in found if each.startswith(f"id-{name}")] == [f"id-{name}{n}" for n in range(rounds)]
    assert bench.open().read("vision").state.length == writers * rounds


def test_an_illegal_step_writes_nothing(bench: Bench) -> None:
    ledgers = bench.open()
    reading = ledgers.append("vision", ledgers.read("vision"), Story().receive(pushed("e1", "A1")).entries)
    with pytest.raises(IllegalStep, match="event e1 was taken in before"):
        ledgers.append("vision", reading, [entry("fine"), *Story().receive(pushed("e1", "A1")).entries])
    assert ledgers.read("vision") == bench.open().read("vision") == reading


def test_what_could_not_be_read_again_is_not_written(bench: Bench) -> None:
    ledgers = bench.open()
    with pytest.raises(IllegalStep, match="cannot be written"):
        ledgers.append("vision", ledgers.read("vision"), [entry("fine"), entry("\ud800")])
    assert ids(ledgers) == []


def test_targets_do_not_meet(bench: Bench) -> None:
    ledgers = bench.open()
    for target in ("vision", "vision-2", "vis", "_unclaimed"):
        write(ledgers, target, target)
    fresh = bench.open()
    for target in ("vision", "vision-2", "vis", "_unclaimed"):
        assert ids(fresh, target) == [f"id-{target}"]
        assert fresh.read(target).state.seen.keys() == {target}


def test_a_repeat_of_ones_own_append_is_found(bench: Bench) -> None:
    ledgers = bench.open()
    before = write(ledgers, "first")
    once = ledgers.append("vision", before, [entry("a"), entry("b")])
    again = ledgers.append("vision", before, [entry("a"), entry("b")])
    assert again == once
    assert ids(ledgers) == ["id-first", "id-a", "id-b"]


@pytest.mark.parametrize("before", range(3), ids="{} entries before".format)
def test_an_append_whose_reply_is_lost_is_written_once(bench: Bench, before: int) -> None:
    ledgers = bench.open()
    for number in range(before):
        write(ledgers, str(number))
    bench.lose_next_reply()
    reading = until_known(ledgers, [entry("lost"), entry("too")])
    assert reading.state.length == before + 2
    assert ids(ledgers) == [*(f"id-{number}" for number in range(before)), "id-lost", "id-too"]
    assert bench.open().read("vision") == ledgers.read("vision") == reading


@pytest.mark.parametrize("before", range(3), ids="{} entries before".format)
def test_an_append_that_is_lost_on_its_way_is_written_once(bench: Bench, before: int) -> None:
    ledgers = bench.open()
    for number in range(before):
        write(ledgers, str(number))
    bench.lose_next_request()
    reading = until_known(ledgers, [entry("lost")])
    assert ids(ledgers) == [*(f"id-{number}" for number in range(before)), "id-lost"]
    assert bench.open().read("vision") == reading


def until_known(ledgers: Ledgers, entries: list[AnyEntry]) -> Reading:
    """Append, and repeat the very same append while its outcome is unknown."""
    reading = ledgers.read("vision")
    for _ in range(3):
        try:
            return ledgers.append("vision", reading, entries)
        except Ambiguous:
            continue
    raise AssertionError("three appends in a row have an unknown outcome")


def test_storage_that_is_away_is_tried_again_later(bench: Bench) -> None:
    ledgers = bench.open()
    reading = write(ledgers, "first")
    bench.away(True)
    for attempt in (
        lambda: ledgers.read("vision"),
        lambda: ids(ledgers),
        lambda: bench.open().read("vision"),
    ):
        with pytest.raises(Retryable, match="storage did not serve the ledger of vision: "):
            attempt()
    with pytest.raises((Retryable, Ambiguous), match="the ledger of vision"):
        ledgers.append("vision", reading, [entry("second")])
    bench.away(False)
    assert ledgers.read("vision") == reading
    ledgers.append("vision", reading, [entry("second")])
    assert ids(bench.open()) == ["id-first", "id-second"]
