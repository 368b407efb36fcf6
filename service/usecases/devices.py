"""Devices: hardware with a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.db import repositories
from service.db.models import Device
from service.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from latency_tables.device import DeviceProfile

# What makes it another device. Versions, clocks and temperatures may differ from one table to the next.
IDENTITY = ("chip", "runtime", "precision", "threads", "batch_size")


def get_device(session: Session, device_id: str) -> Device:
    """The device with this id.

    Raises:
        NotFoundError: `unknown_device`.
    """
    device = repositories.find_device(session, device_id)
    if device is None:
        raise NotFoundError(
            f"No device {device_id[:80]!r}. GET /v1/devices lists those there are; registering a latency table "
            "creates one.",
            code="unknown_device",
        )
    return device


def register_device(session: Session, profile: DeviceProfile) -> tuple[Device, bool]:
    """Create a device, or bring the profile of an existing one up to date.

    Returns:
        The device, and whether it is new.

    Raises:
        ConflictError: `device_mismatch`: the id belongs to other hardware or to another configuration.
    """
    device = repositories.find_device(session, profile.device_id)
    given = profile.to_dict()
    if device is None:
        device = Device(device_id=profile.device_id, profile=given)
        repositories.insert(session, device)
        return device, True
    different = [name for name in IDENTITY if device.profile.get(name) != given.get(name)]
    if different:
        given_text = ", ".join(f"{name} {given.get(name)!r}" for name in different)
        known_text = ", ".join(f"{name} {device.profile.get(name)!r}" for name in different)
        raise ConflictError(
            f"Device '{profile.device_id}' is registered with {known_text}, given was {given_text}. "
            "Use another device id, or delete the device first.",
            code="device_mismatch",
        )
    device.profile = given
    return device, False


def delete_device(session: Session, device_id: str) -> None:
    """Delete a device with its tables and searches. Deployments stay: they remember the id.

    Raises:
        NotFoundError: `unknown_device`.
    """
    get_device(session, device_id)
    repositories.delete_device(session, device_id)
