"""kill -9 at random moments while events keep arriving: the tables end up as those of a stream that was never killed.

Each run draws other moments. To look for rarer faults, or to repeat a run (a failed one prints its seed):

    HEADWATER_KILLS=50 HEADWATER_SEED=7 python -m pytest tests/jobs/test_random_kills.py
"""

import os
import random
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

from sites import JOB_TIMEOUT_SECONDS, copy_of
from streams import clicks, of_tables, streaming, topic_of

KILLS = int(os.environ.get("HEADWATER_KILLS", "1"))
SEED = int(os.environ.get("HEADWATER_SEED", time.time_ns() % 1_000_000))
USERS = [*(f"u{number}" for number in range(0, 60, 3)), *(f"newcomer{number}" for number in range(5))]
LATEST_KILL_SECONDS = 12.0
"""The latest kill after a batch has begun, in seconds: several rounds."""


@contextmanager
def background_load(kafka, topic, rng):
    """A thread that sends forty clicks a second, and a broken message now and then, until the block ends; yields how many clicks
    each user has sent so far."""
    sent, stop = dict.fromkeys(USERS, 0), threading.Event()

    def send():
        while not stop.wait(0.1):
            for user in rng.sample(USERS, 4):
                kafka.send(topic, clicks(user, 1, first=sent[user]), rng.randrange(2))
                sent[user] += 1
            if rng.random() < 0.05:
                kafka.send(topic, ["{broken"])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def kill_within_a_batch(site, rng):
    """Start the stream, wait until it works on a batch, and kill it, Python and Java, a random time later."""
    log = site.root / "stream.log"
    with log.open("w") as stderr, streaming(site, stderr) as process:
        until = time.monotonic() + JOB_TIMEOUT_SECONDS
        while "batch begins" not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < until, "the stream did not begin"
            time.sleep(0.2)
        delay = rng.uniform(0, LATEST_KILL_SECONDS)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text(errors="replace")[-2000:]


def test_a_stream_killed_at_random_under_load_loses_and_doubles_nothing(trained, tmp_path, spark, kafka):
    print(f"HEADWATER_SEED={SEED}")  # pytest shows it if the test fails
    rng = random.Random(SEED)
    topic = kafka.make(f"load{SEED}")
    killed, clean = (copy_of(trained, tmp_path / name, topic_of(kafka, topic)) for name in ("killed", "clean"))
    with background_load(kafka, topic, random.Random(SEED)) as sent:
        for _ in range(KILLS):
            kill_within_a_batch(killed, rng)
    for user in USERS:  # a list depends on what was popular when it was made: the last round makes all of them
        kafka.send(topic, clicks(user, 1, first=sent[user]), 0)
    for site in (killed, clean):  # each in a process of its own, where Kafka's connector is loaded
        site.run("nearline", "--once", fresh=True)
    found = of_tables(killed, spark)
    clicked = sum(sent.values()) + len(USERS)
    assert len(found["events"]) == len({event for event, *_ in found["events"]}) == 720 + clicked
    assert found == of_tables(clean, spark)
    history = killed.rows(spark, "topn_history", "user_id", "rank", "generated_at", "item_id")
    assert len(history) == len({row[:3] for row in history})
    newest = {(user, rank): item for user, rank, _, item in sorted(history, key=lambda row: row[2])}
    assert newest == {
        (user, rank): item for user, rank, item in killed.rows(spark, "topn", "user_id", "rank", "item_id")
    }
