"""A real Kafka broker for tests: one node in KRaft mode, its jars resolved with the Ivy that Spark ships.

The jars are fetched once, into ``~/.ivy2``. If they cannot be fetched, tests that need a broker are skipped with that reason.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pyspark
from filelock import FileLock
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

VERSION = "3.9.1"
HOME = Path.home() / ".ivy2"
JARS = HOME / f"headwater-broker-{VERSION}"
SPARK_JARS = Path(pyspark.__file__).parent / "jars"
TIMEOUT_SECONDS = 60
SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=true
"""


class NoJars(Exception):
    """The broker's jars are not on this machine and cannot be fetched."""


class Broker:
    """A running broker, and a client to it; ``close`` ends both."""

    def __init__(self, folder: Path) -> None:
        self.port, controller = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        file = folder / "server.properties"
        file.write_text(SETTINGS.format(port=self.port, controller=controller, folder=folder))
        java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{need_jars()}/*"]
        storage = [*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(file)]
        subprocess.run(storage, check=True, capture_output=True)
        with (folder / "broker.log").open("w") as log:
            self.process = subprocess.Popen([*java, "kafka.Kafka", str(file)], stdout=log, stderr=log)
        wait_for(self.port)
        port = launch_gateway(
            jarpath=str(next(SPARK_JARS.glob("py4j-*.jar"))), classpath=f"{JARS}/*", die_on_exit=True, javaopts=["-Xmx128m"]
        )  # fmt: skip
        self.client = JavaGateway(gateway_parameters=GatewayParameters(port=port, auto_convert=True))
        self.jvm = self.client.jvm
        kafka = self.jvm.org.apache.kafka
        settings = {"bootstrap.servers": self.address, "max.request.size": "20000000"}
        self.admin = kafka.clients.admin.Admin.create(settings)
        bytes_out = kafka.common.serialization.ByteArraySerializer
        self.producer = kafka.clients.producer.KafkaProducer(settings, bytes_out(), bytes_out())

    def make(self, topic: str, partitions: int = 2) -> str:
        """Create a topic; returns its name."""
        new = self.jvm.org.apache.kafka.clients.admin.NewTopic(topic, partitions, 1)
        self.admin.createTopics([new]).all().get()
        return topic

    def topics(self) -> set[str]:
        return set(self.admin.listTopics().names().get())

    def send(self, topic: str, values: list[str | bytes | None], partition: int = 0) -> None:
        """Append messages to one partition, in order."""
        record = self.jvm.org.apache.kafka.clients.producer.ProducerRecord
        for value in values:
            data = value.encode() if isinstance(value, str) else value
            self.producer.send(record(topic, partition, None, data))
        self.producer.flush()

    def close(self) -> None:
        self.client.shutdown()
        self.process.terminate()
        self.process.wait(TIMEOUT_SECONDS)


def need_jars() -> Path:
    """The folder of the broker's jars, fetched if it is missing. Raises NoJars if that fails."""
    HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{JARS}.lock"):
        if not JARS.is_dir():
            with tempfile.TemporaryDirectory(dir=HOME) as folder:
                _fetch(Path(folder))
                shutil.move(Path(folder) / "jars", JARS)
    return JARS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    until = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _fetch(folder: Path) -> None:
    ivy = next(SPARK_JARS.glob("ivy-*.jar"))
    command = [
        "java", "-jar", str(ivy), "-cache", str(folder / "cache"), "-confs", "default",
        "-dependency", "org.apache.kafka", "kafka_2.13", VERSION, "-retrieve", f"{folder}/jars/[artifact]-[revision].[ext]",
    ]  # fmt: skip
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoJars(f"Kafka {VERSION} cannot be fetched: {error}") from None
    if ended.returncode or not (folder / f"jars/kafka_2.13-{VERSION}.jar").exists():
        raise NoJars(f"Kafka {VERSION} cannot be resolved; is a Maven repository in reach?")
