"""Jobs as their user sees them: state, cancellation, events."""

from __future__ import annotations

import json
import threading
import time

import pytest

from service.db import job_repository
from service.db.engine import session_scope


@pytest.fixture
def deployment(ask):
    return ask(deploy=True).json()["deployment"]


@pytest.fixture
def job_url(deployment):
    return f"/v1/jobs/{deployment['job']['id']}"


def events_of(text: str) -> list[dict]:
    """The data of every event; asserts the form of the stream."""
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        assert fields["event"] == "job"
        assert fields["id"]
        events.append(json.loads(fields["data"]))
    return events


def test_a_job_shows_state_attempts_and_progress(with_table, job_url, deployment):
    job = with_table.get(job_url).json()
    assert (job["kind"], job["state"], job["attempts"], job["progress"]) == ("export_subnet", "queued", 0, 0.0)
    assert (job["deployment"], job["error"], job["finished_at"]) == (deployment["id"], None, None)
    assert with_table.get("/v1/jobs").json() == {"items": [job], "next_cursor": None}


def test_a_queued_job_is_cancelled_once(with_table, job_url, problem):
    response = with_table.post(f"{job_url}/cancel")
    assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    assert response.json()["finished_at"].endswith("Z")
    problem(with_table.post(f"{job_url}/cancel"), 409, "invalid_transition")


def test_a_running_job_is_asked_to_stop(with_table, job_url, services, deployment):
    with session_scope(services.sessions) as session:
        job_repository.begin_attempt(session, deployment["job"]["id"], max_attempts=3)
    for _ in range(2):  # asking twice is fine
        job = with_table.post(f"{job_url}/cancel").json()
        assert (job["state"], job["cancel_requested"], job["attempts"]) == ("running", True, 1)


def test_an_unknown_job_cannot_be_cancelled(client, problem):
    problem(client.post("/v1/jobs/nope/cancel"), 404, "unknown_job")


def test_events_tell_every_change_until_the_end(with_table, job_url, services, deployment, finish, monkeypatch):
    monkeypatch.setattr("service.api.jobs.POLL_S", 0.02)
    job_id = deployment["job"]["id"]

    def work():
        time.sleep(0.6)  # many looks of the stream, also on a busy machine
        with session_scope(services.sessions) as session:
            job_repository.begin_attempt(session, job_id, max_attempts=3)
        for share in (0.25, 0.5):
            time.sleep(0.6)  # many looks of the stream, also on a busy machine
            with session_scope(services.sessions) as session:
                job_repository.report_progress(session, job_id, 1, share=share, stage="export\r\nid: 1")
        time.sleep(0.6)  # many looks of the stream, also on a busy machine
        with session_scope(services.sessions) as session:
            error = {"code": "export_parity", "message": "no"}
            job_repository.finish_attempt(session, job_id, 1, state=job_repository.JobState.FAILED, error=error)

    worker = threading.Thread(target=work)
    worker.start()
    response = with_table.get(f"{job_url}/events")
    worker.join()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    events = events_of(response.text)
    assert [(event["state"], event["progress"]) for event in events] == [
        ("queued", 0.0),
        ("running", 0.0),
        ("running", 0.25),
        ("running", 0.5),
        ("failed", 0.5),
    ]
    assert events[-1]["error"] == {"code": "export_parity", "message": "no"}
    assert events[-1] == with_table.get(job_url).json()


def test_events_of_a_finished_job_are_one_and_then_nothing(with_table, job_url):
    with_table.post(f"{job_url}/cancel")
    response = with_table.get(f"{job_url}/events")
    assert [event["state"] for event in events_of(response.text)] == ["cancelled"]
    last = next(line.removeprefix("id: ") for line in response.text.splitlines() if line.startswith("id: "))
    # A browser reconnects for ever unless it is told that there is nothing more.
    assert with_table.get(f"{job_url}/events", headers={"last-event-id": last}).status_code == 204
    assert with_table.get(f"{job_url}/events", headers={"last-event-id": "older"}).status_code == 200
