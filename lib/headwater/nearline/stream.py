"""Round after round of ingest, sequences and lists in one warm session: the work of three jobs without their start-up time.

The trigger is a plain timer loop, not Spark's streaming engine with `foreachBatch`. The ledger and the notes in the tables
already record the content of a batch, the position of each table and whether a killed round must be completed; a streaming
query would keep a checkpoint that repeats this in another place, and the two could diverge. The price: no round begins before
the last one has ended.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

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
from headwater.errors import BrokerError, HeadwaterError, Terminated
from headwater.job import Job
from headwater.nearline import lists, sequences
from headwater.nearline.cache import ScoringCache
from headwater.nearline.events import COUNTS, TABLES, Intake

LONGEST_PAUSE = 20
"""The longest pause, in seconds, between two attempts to reach lost brokers."""
PACKED_AFTER = 50
"""A table is packed after this many batches: each batch adds one or two small files, thousands per day."""
PACKED_TABLES = (*TABLES, "sequences", "sections", "topn", "topn_history")
"""The tables that rounds write to. They are packed in turn, so that no round packs more than one."""
SEARCH_FIELDS = ("index", "recall")
"""The fields of a closing line that say how lists were searched; only with ``topn.index: faiss``."""


def run(j: Job, once: bool) -> dict[str, int | float | str]:
    """Run rounds until SIGTERM, which ends the stream after the current round, or with ``once`` until everything is ingested.

    With ``once``, messages that arrive after the last look are left for the next run, so a busy topic does not keep the job
    running for ever; it then raises the error of a file that does not fit its source, if one was left alone. Raises
    Terminated if Java got the signal too.
    """
    with until_sigterm() as stop:
        try:
            return rounds(j, once, stop)
        except (Py4JError, OSError):
            if not stop.is_set():
                raise
        raise Terminated(
            "SIGTERM also ended Java, in the middle of a round; committed work is kept, and the next start continues"
        )


def rounds(j: Job, once: bool, stop: threading.Event) -> dict[str, int | float | str]:
    """The rounds of ``run``; no round begins once ``stop`` is set. Returns the counts of all rounds, and how the last one that
    made lists searched (``SEARCH_FIELDS``)."""
    searched: dict[str, float | str] = {}
    total = Counter(dict.fromkeys((*COUNTS, "users_changed", "users_scored", "rounds"), 0))
    with closing(ScoringCache(j, j.config.nearline.popular_seconds)) as cache:
        intake = Intake(j.sibling("ingest_events"))
        while not stop.is_set():
            try:
                counts, waiting, search = retrying(j, stop, begun=total["rounds"] > 0)(take_round, j, intake, cache)
            except BrokerError:
                if stop.is_set():
                    break  # SIGTERM arrived while the stream waited
                raise
            total.update(counts)
            searched |= search
            table = table_to_pack(total["batches"] - counts["batches"], total["batches"])
            if table and j.warehouse.exists(table):
                cache.wait()
                j.warehouse.pack(table)
            if once and not waiting:
                intake.raise_refused()
                break
            if not counts["batches"]:
                stop.wait(j.config.nearline.interval_seconds)
    return {**total, **searched}


def take_round(j: Job, intake: Intake, cache: ScoringCache) -> tuple[Counter[str], int, dict[str, float | str]]:
    """One look, and the sequences and lists that follow from it; returns counts, how many messages wait for the next round, and
    how it searched (``SEARCH_FIELDS``), with ``topn.index: faiss``.

    Sequences and lists are checked even if ingest finds nothing: a killed round, or another process, may have left work,
    and checking the notes costs little.
    """
    begun = clock.now()
    counts, waiting = intake.take_new(j.sibling("ingest_events"))
    cache.wait()
    scoring = j.sibling("score_topn")
    with j.warehouse.locked("sequences", *lists.TABLES), sequences.update(j.sibling("build_sequences")) as update:
        try:
            scored = lists.refresh(scoring, "nearline", cache, update)
        except HeadwaterError:
            update.commit()  # there may be no champion yet, but a first training needs sequences
            raise
        built = update.commit()
    cache.publish_history(scoring)
    counts.update(users_changed=built["users_changed"], users_scored=int(scored["users_scored"]), rounds=1)
    searched = {name: scored[name] for name in SEARCH_FIELDS if name in scored}
    if counts["batches"] or counts["users_scored"]:
        seconds = round((clock.now() - begun).total_seconds(), 2)
        j.log.info("round done", seconds=seconds, messages_waiting=waiting, model_version=scored["model_version"],
                   rows_events=counts["rows_events"], users_scored=counts["users_scored"], **searched)  # fmt: skip
    return counts, waiting, searched


def retrying(j: Job, stop: threading.Event, begun: bool) -> Retrying:
    """Repeats a round that failed because brokers were lost, at growing intervals, for ``nearline.broker_seconds``.

    A failed round is resumed like a killed one, from the ledger and the notes. The first round of a stream is tried only once:
    brokers that were never there are a mistake in the config, which is reported at once. SIGTERM ends the waiting.
    """

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None, "a retry follows an error"
        assert state.next_action is not None, "a retry has a pause"
        j.log.warning("waiting for brokers", why=str(state.outcome.exception()), seconds=state.next_action.sleep)

    return Retrying(
        retry=retry_if_exception_type(BrokerError),
        stop=stop_after_delay(j.config.nearline.broker_seconds if begun else 0) | stop_when_event_set(stop),
        wait=wait_exponential(max=LONGEST_PAUSE),
        sleep=sleep_using_event(stop),
        before_sleep=tell,
        reraise=True,
    )


def table_to_pack(before: int, batches: int) -> str | None:
    """The table to pack after ``batches`` batches in all, of which ``before`` preceded this round; None if it is no table's turn.

    Delta's own packing at commits (4.0.1) does not wait for fifty files: it rewrites a table's small files at every commit.
    """
    apart = PACKED_AFTER // len(PACKED_TABLES)
    turn = batches // apart
    return PACKED_TABLES[turn % len(PACKED_TABLES)] if turn > before // apart else None


@contextmanager
def until_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process in the middle of a batch."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
