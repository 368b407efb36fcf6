"""Calls to a running service that several benchmarks make; whatever fails ends the script with its reason."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


def checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        sys.exit(f"{response.request.method} {response.request.url} answered {response.status_code}: {response.text}")
    return response


def only_device(client: httpx.Client) -> str:
    """Id of the registered device with one thread."""
    names = [item["id"] for item in checked(client.get("/v1/devices")).json()["items"] if item["threads"] == 1]
    if len(names) != 1:
        sys.exit(f"Say which --device to use; with one thread there are {names}.")
    return str(names[0])


def download_deployment(client: httpx.Client, deployment: dict[str, Any], folder: Path) -> None:
    """Wait for a deployment, as its creation answered, and write its files."""
    job = deployment["job"]
    while job["state"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.2)
        job = checked(client.get(f"/v1/jobs/{job['id']}")).json()
    if job["state"] != "succeeded":
        sys.exit(f"Deployment {deployment['id']} {job['state']}: {job['error']}")
    for name in ("model.onnx", "manifest.json"):
        (folder / name).write_bytes(checked(client.get(f"/v1/deployments/{deployment['id']}/{name}")).content)
