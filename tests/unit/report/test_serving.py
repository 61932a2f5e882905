"""The server: the page over all samples, under its own names, ids checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from vlmdata.report.ledger import Ledger, ledger_of
from vlmdata.report.serving import make_app
from vlmdata.runs import existing_run


@pytest.fixture(scope="module")
def ledger(story: Any) -> Iterator[Ledger]:
    with ledger_of(existing_run(story.dataset)) as found:
        yield found


@pytest.fixture(scope="module")
def client(story: Any, ledger: Ledger) -> TestClient:
    return TestClient(make_app(existing_run(story.dataset), ledger), base_url="http://127.0.0.1")


def id_of(ledger: Ledger, key: str) -> str:
    [row] = ledger.rows("SELECT id FROM samples WHERE key = ?", [key])
    return str(row["id"])


def test_the_page_may_ask_its_own_server_alone(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200 and "img-src 'self' data:; connect-src 'self'" in answer.text
    assert '"served":true' in answer.text and "data:image/webp" not in answer.text


def test_samples_are_found_with_what_the_page_shows_of_them(client: TestClient) -> None:
    found = client.get("/api/samples", params={"q": "hm"}).json()
    assert found["total"] == 1
    [sample] = found["samples"]
    assert (sample["key"], sample["outcome"], sample["thumb"]) == ("held.png", "held", True)


def test_thumbnails_come_for_those_that_decode(client: TestClient, ledger: Ledger) -> None:
    good = client.get(f"/thumb/{id_of(ledger, 'good.png')}")
    assert good.headers["content-type"] == "image/webp" and good.content[8:12] == b"WEBP"
    assert good.headers["x-content-type-options"] == "nosniff"
    for key in ("broken.png", "gone.png"):
        assert client.get(f"/thumb/{id_of(ledger, key)}").status_code == 404
    assert client.get("/thumb/0000").status_code == client.get("/thumb/%2e%2e%2fx").status_code == 404


def test_one_sample_by_its_id(client: TestClient, ledger: Ledger) -> None:
    assert client.get(f"/api/sample/{id_of(ledger, 'wrong.png')}").json()["code"] == "misaligned"
    assert client.get("/api/sample/' OR true").status_code == 404


def test_other_names_are_refused(story: Any, ledger: Ledger) -> None:
    app = make_app(existing_run(story.dataset), ledger)
    assert TestClient(app, base_url="http://attacker.example").get("/").status_code == 400
    assert TestClient(app, base_url="http://localhost:9").get("/").status_code == 200
