"""A stream that has begun waits for lost brokers, within bounds."""

import threading
from types import SimpleNamespace

import pytest
import structlog

from headwater.config import Config, Source
from headwater.errors import BrokerError, HeadwaterError
from headwater.ingest import kafka
from headwater.nearline import stream

GONE = BrokerError("brokers b:9092 do not answer")


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setattr(stream, "LONGEST_PAUSE", 0)
    return SimpleNamespace(config=Config(nearline={"broker_seconds": 30}), log=structlog.get_logger())


def scripted_round(*outcomes):
    """A round that raises or returns one of ``outcomes`` per call, and the list of those that are left."""
    left = list(outcomes)

    def take():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return take, left


def test_a_round_that_lost_its_brokers_is_retried_until_they_answer(job):
    take, left = scripted_round(GONE, GONE, "taken")
    assert stream.retrying(job, threading.Event(), begun=True)(take) == "taken"
    assert not left


def test_brokers_that_never_answered_are_an_error_at_once(job):
    take, left = scripted_round(GONE, "taken")
    with pytest.raises(BrokerError, match="do not answer"):
        stream.retrying(job, threading.Event(), begun=False)(take)
    assert left == ["taken"]


def test_retrying_ends_after_broker_seconds_with_an_error_that_names_the_brokers(job):
    job.config = Config(nearline={"broker_seconds": 0})
    take, left = scripted_round(GONE, "taken")
    with pytest.raises(BrokerError, match="b:9092"):
        stream.retrying(job, threading.Event(), begun=True)(take)
    assert left == ["taken"]


def test_a_stream_that_was_told_to_stop_does_not_retry(job):
    told = threading.Event()
    told.set()
    take, left = scripted_round(GONE, "taken")
    with pytest.raises(BrokerError):
        stream.retrying(job, told, begun=True)(take)
    assert left == ["taken"]


def test_other_errors_are_not_retried(job):
    take, left = scripted_round(HeadwaterError("3 of the new lists are not fit to publish"), "taken")
    with pytest.raises(HeadwaterError, match="not fit"):
        stream.retrying(job, threading.Event(), begun=True)(take)
    assert left == ["taken"]


def test_a_task_that_lost_its_broker_is_distinguished_from_one_that_failed():
    topic = Source(format="kafka", brokers="b:9092", topic="clicks")
    with pytest.raises(BrokerError, match="brokers b:9092 stopped answering"), kafka.explain_read_errors([topic]):
        raise RuntimeError("Lost task 0.0: org.apache.kafka.common.errors.TimeoutException: Timeout of 20000ms expired")
    with pytest.raises(RuntimeError, match="data loss"), kafka.explain_read_errors([topic]):
        raise RuntimeError("some data may be lost: data loss")
