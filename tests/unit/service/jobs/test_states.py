"""The state machine, and what jobs carry."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from service.errors import InvalidTransitionError
from service.jobs.states import ALLOWED_TRANSITIONS, FINISHED, LANES, PAYLOADS, ExportPayload, JobKind, JobState
from service.jobs.states import validate_transition as validate


def test_finished_states_are_the_ones_without_a_way_out():
    assert {state for state, ways in ALLOWED_TRANSITIONS.items() if not ways} == FINISHED
    assert set(ALLOWED_TRANSITIONS) == set(JobState)


@pytest.mark.parametrize(("found", "wanted"), list(itertools.product(JobState, JobState)))
def test_transitions_are_allowed_or_explained(found, wanted):
    if wanted in ALLOWED_TRANSITIONS[found]:
        validate(found, wanted)
    else:
        with pytest.raises(InvalidTransitionError, match=f"is {found} and cannot become {wanted}"):
            validate(found, wanted)


def test_every_kind_has_a_payload_and_a_lane():
    assert set(PAYLOADS) == set(LANES) == set(JobKind)


def test_a_payload_survives_json_and_refuses_surprises():
    payload = ExportPayload(deployment_id="d1", supernet_id="s", bundle_uri="shipped:s", arch={"resolution": 32})
    assert ExportPayload.model_validate_json(payload.model_dump_json()) == payload
    for bad in ({"deployment_id": "../up"}, {"deployment_id": ""}, {"colour": "red"}):
        with pytest.raises(ValidationError):
            ExportPayload.model_validate({**payload.model_dump(), **bad})
