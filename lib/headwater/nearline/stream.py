"""Round after round of ingest, sequences and lists in one warm session: what three jobs do, without their getting up.

The trigger is a plain timer loop, and not Spark's streaming engine with `foreachBatch`. What a batch has, how far each
table has come and whether a killed round has to be ended is known from the ledger and the notes in the tables already;
a streaming query would bring a checkpoint that says the same once more, somewhere else, and two truths drift apart. The
price: no round begins before the last one has ended.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from py4j.protocol import Py4JError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)

from headwater import clock
from headwater.errors import BrokerError, Terminated
from headwater.job import Job
from headwater.nearline.cache import ScoringCache
from headwater.nearline.events import COUNTS, TABLES, Intake
from headwater.nearline.lists import score
from headwater.nearline.sequences import build

LONGEST_PAUSE = 20
"""Seconds between two looks for brokers that went away."""
PACKED_AFTER = 50
"""Batches after which a table is packed: each leaves it a small file or two, thousands a day."""
WRITTEN = (*TABLES, "sequences", "sections", "topn", "topn_history")
"""What rounds write to; the tables take turns, so that no batch packs more than one."""


def run(j: Job, once: bool) -> dict[str, int]:
    """Rounds until SIGTERM, which ends the stream after the round in hand, or with ``once`` until all is taken.

    With ``once`` what comes after the last look is left for the next time, so a busy topic does not keep it for ever. Raises
    Terminated where Java got the signal too.
    """
    with until_told() as stop:
        try:
            return rounds(j, once, stop)
        except (Py4JError, OSError):
            if not stop.is_set():
                raise
        raise Terminated(
            "SIGTERM ended Java too, in the middle of a round; what was committed stays, the next start goes on"
        )


def rounds(j: Job, once: bool, stop: threading.Event) -> dict[str, int]:
    """The rounds of ``run``; with ``stop`` set there is no further one."""
    total = Counter(dict.fromkeys((*COUNTS, "users_changed", "users_scored", "rounds"), 0))
    with closing(ScoringCache(j, j.config.nearline.popular_seconds)) as cache:
        intake = Intake(j.beside("ingest_events"))
        while not stop.is_set():
            try:
                counts, waiting = patient(j, stop, begun=total["rounds"] > 0)(take_round, j, intake, cache)
            except BrokerError:
                if stop.is_set():
                    break  # told to end while it waited
                raise
            total.update(counts)
            table = turn_to_pack(total["batches"] - counts["batches"], total["batches"])
            if table and j.warehouse.exists(table):
                cache.settle()
                j.warehouse.pack(table)
            if once and not waiting:
                break
            if not counts["batches"]:
                stop.wait(j.config.nearline.interval_seconds)
    return dict(total)


def take_round(j: Job, intake: Intake, cache: ScoringCache) -> tuple[Counter[str], int]:
    """One look and what follows from it; returns counts, and how many messages wait for the next round.

    Sequences and lists are looked after also where ingest found nothing: a killed round, or another process, may have
    left something to do, and a look at their notes costs little.
    """
    begun = clock.now()
    counts, waiting = intake.take_new(j.beside("ingest_events"))
    built = build(j.beside("build_sequences"))
    scored = score(j.beside("score_topn"), "nearline", cache)
    counts.update(users_changed=built["users_changed"], users_scored=int(scored["users_scored"]), rounds=1)
    if counts["batches"] or counts["users_scored"]:
        seconds = round((clock.now() - begun).total_seconds(), 2)
        j.log.info("round done", seconds=seconds, messages_waiting=waiting, model_version=scored["model_version"],
                   rows_events=counts["rows_events"], users_scored=counts["users_scored"])  # fmt: skip
    return counts, waiting


def patient(j: Job, stop: threading.Event, begun: bool) -> Retrying:
    """Calls again what brokers that went away have ended, at growing distances, for ``nearline.broker_seconds``.

    A round that broke off is taken up as a killed one is, from the ledger and the notes. The first round of a stream is
    called once: brokers that were never there are a mistake in the config, and said at once. SIGTERM ends the waiting.
    """

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None, "there is an error to wait for"
        assert state.next_action is not None, "and a pause to say"
        j.log.warning("waiting for brokers", why=str(state.outcome.exception()), seconds=state.next_action.sleep)

    return Retrying(
        retry=retry_if_exception_type(BrokerError),
        stop=stop_after_delay(j.config.nearline.broker_seconds if begun else 0) | stop_when_event_set(stop),
        wait=wait_exponential(max=LONGEST_PAUSE),
        sleep=sleep_using_event(stop),
        before_sleep=tell,
        reraise=True,
    )


def turn_to_pack(before: int, batches: int) -> str | None:
    """The table whose small files are packed after so many batches, of which there were fewer ``before`` the round, if any.

    Delta's own packing at commits (4.0.1) does not wait for fifty files: it rewrites a table's small files at every commit.
    """
    apart = PACKED_AFTER // len(WRITTEN)
    turn = batches // apart
    return WRITTEN[turn % len(WRITTEN)] if turn > before // apart else None


@contextmanager
def until_told() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process in the middle of a batch."""
    stop = threading.Event()
    py4j = logging.getLogger("py4j")

    def tell(*_: Any) -> None:
        stop.set()
        py4j.setLevel(logging.CRITICAL)  # it logs a trace of each call to a Java that is gone

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
