"""`tailor fleet`: one subnet, and on request one ONNX file, for each of many devices and budgets."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.output import JsonFlag, note, print_json, print_table, validate_writable
from service.commands.searching import describe_answer, open_predictor

if TYPE_CHECKING:
    from service.fleets import Asked
    from supernet.predictors.predictor import Predictor

_KEYS = {"supernet", "space", "predictor", "confidence", "precision", "evaluations", "seed", "constraints", "devices"}
_LEAST = {"evaluations": 100, "seed": 0}
_DEVICE_KEYS = {"table", "latency_ms", "latency_percent"}


def fleet(
    plan: Annotated[Path, typer.Argument(help="TOML file of the devices and their budgets.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for one deployment per answer; none are made if absent.")
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Find the best subnet for every device and budget of a fleet.

    The file names a supernet, and per device a table and its budgets:

        supernet = "cifar_mbv3"
        confidence = 0.95
        devices = [{table = "tables/rpi5.json", latency_ms = [5, 10]}]

    Tables lie relative to the file. `latency_percent` takes shares of the device's range instead; `constraints`,
    `precision`, `evaluations` and `seed` are those of `tailor search`.
    """
    from service.fleets import find_all

    if out is not None:
        validate_writable(out)
    content = _read(plan)
    predictor_path = None if "predictor" not in content else plan.parent / str(content["predictor"])
    supernet = content.get("supernet")
    if supernet is not None and (plan.parent / supernet).is_dir():
        supernet = str(plan.parent / supernet)
    if out is not None and content.get("precision", "fp32") != "fp32":
        raise typer.BadParameter("--out makes deployments in fp32; the file asks for sizes at another 'precision'.")
    if out is not None and supernet is None:
        raise typer.BadParameter("--out makes deployments, which need a 'supernet'; the file names a predictor only.")
    name, predictor = open_predictor(supernet, content.get("space"), predictor_path)
    asked = _questions(plan, content, predictor)
    answers: list[dict[str, Any]] = []
    failed = 0
    for one, found in zip(asked, find_all(predictor, asked), strict=True):
        (target,) = one.targets
        if isinstance(found, Exception):
            failed += 1
            answers.append({"device": target.device_id, "constraints": dict(target.budget), "error": str(found)})
            note(f"{target.device_id}: {found}")
            continue
        answers.append(describe_answer(name, one.targets, found[1]))
    if out is not None:
        _deploy(str(supernet), answers, out)
    if as_json:
        print_json(answers)
    else:
        _print(answers)
    if failed:
        note(f"{failed} of {len(asked)} questions have no answer.")
        raise typer.Exit(1)


def _read(plan: Path) -> dict[str, Any]:
    from service.errors import InvalidRequestError

    try:
        content = tomllib.loads(plan.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"'{plan}' is no TOML: {error}.") from error
    devices = content.get("devices")
    for key, least in _LEAST.items():
        value = content.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequestError(f"'{plan}': '{key}' is a whole number from {least}, got {value!r}.")
    for key in ("supernet", "space", "predictor", "precision"):
        if not isinstance(content.get(key, ""), str):
            raise InvalidRequestError(f"'{plan}': '{key}' is a text, got {content[key]!r}.")
    confidence = content.get("confidence", 0.5)
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        raise InvalidRequestError(f"'{plan}': 'confidence' is a number between 0 and 1, got {confidence!r}.")
    if not isinstance(content.get("constraints", {}), dict):
        raise InvalidRequestError(f"'{plan}': 'constraints' is a table such as {{macs = 10e6}}.")
    if unknown := sorted(set(content) - _KEYS):
        raise InvalidRequestError(f"'{plan}' has the unknown keys {unknown}; allowed are {sorted(_KEYS)}.")
    if not isinstance(devices, list) or not devices:
        raise InvalidRequestError(f"'{plan}' names no device: add [[devices]] with 'table' and 'latency_ms'.")
    for number, device in enumerate(devices, start=1):
        keys = set(device) if isinstance(device, dict) else set()
        if "table" not in keys or len(keys & {"latency_ms", "latency_percent"}) != 1 or keys - _DEVICE_KEYS:
            raise InvalidRequestError(
                f"'{plan}', device {number}: give 'table' and either 'latency_ms' or 'latency_percent', "
                f"got {sorted(keys)}."
            )
    return content


def _questions(plan: Path, content: dict[str, Any], predictor: Predictor) -> list[Asked]:
    from latency_tables.estimator import LatencyEstimator
    from latency_tables.table import load_table
    from service.errors import InvalidRequestError
    from service.fleets import Asked
    from service.questions import BYTES_PER_NUMBER, Question, Target

    question = Question(
        constraints=dict(content.get("constraints", {})),
        confidence=content.get("confidence"),
        precision=content.get("precision", "fp32"),
        evaluations=content.get("evaluations", 10_000),
        seed=content.get("seed", 0),
    )
    if question.precision not in BYTES_PER_NUMBER:
        raise InvalidRequestError(f"'precision' is one of {', '.join(BYTES_PER_NUMBER)}, got {question.precision!r}.")
    asked = []
    for device in content["devices"]:
        table = load_table(plan.parent / str(device["table"]), space=predictor.space.name)
        estimator = LatencyEstimator(table, predictor.space)
        name = "latency_ms" if "latency_ms" in device else "latency_percent"
        budgets = device[name] if isinstance(device[name], list) else [device[name]]
        if not budgets:
            raise InvalidRequestError(f"'{device['table']}': '{name}' holds no number; give one budget or more.")
        for budget in budgets:
            if isinstance(budget, bool) or not isinstance(budget, int | float):
                raise InvalidRequestError(f"'{device['table']}': '{name}' holds numbers, got {budget!r}.")
            if name == "latency_percent" and not 0 <= budget <= 100:
                raise InvalidRequestError(f"'{device['table']}': '{name}' lies between 0 and 100, got {budget!r}.")
            target = Target(table.device.device_id, estimator, {name: float(budget)})
            asked.append(Asked([target], question, is_alone="evaluations" in content))
    return asked


def _deploy(supernet: str, answers: list[dict[str, Any]], out: Path) -> None:
    """One deployment per distinct arch and device: `OUT/DEVICE/ARCH_ID`; one that is there and still holds stays."""
    from supernet.bundle import open_bundle
    from supernet.deployment import build_deployment
    from supernet.spaces.arch import Arch

    weights = open_bundle(supernet).manifest.parts["weights"]["sha256"]
    for answer in answers:
        if "error" in answer:
            continue
        folder = out / answer["device"] / answer["arch_id"]
        answer["deployment"] = str(folder)
        table = {"device": answer["device"], "table_version": answer["versions"]["table_sha256"]}
        if not _is_made_from(folder / "manifest.json", weights, table):
            build_deployment(supernet, Arch.from_dict(answer["arch"]), folder, latency=answer["latency_ms"] | table)
            note(f"Wrote {folder}.")


def _is_made_from(manifest: Path, weights_sha256: str, table: dict[str, str]) -> bool:
    """Whether a deployment is there, of these weights and with the latency of this table."""
    try:
        found = json.loads(manifest.read_text())
        latency = found["latency_ms"]
        return found["supernet"]["weights_sha256"] == weights_sha256 and table == {key: latency[key] for key in table}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _print(answers: list[dict[str, Any]]) -> None:
    rows = []
    for answer in answers:
        budget = ", ".join(f"{name} {value:g}" for name, value in answer["constraints"].items())
        if "error" in answer:
            rows.append((answer["device"], budget, "impossible", "", "", ""))
            continue
        latency, accuracy = answer["latency_ms"], answer["accuracy"]
        margin = "" if accuracy["low"] is None else f" ({accuracy['low']:.1%} to {accuracy['high']:.1%})"
        rows.append(
            (
                answer["device"],
                budget,
                f"{latency['estimated']:.3f} ms ({latency['low']:.3f} to {latency['high']:.3f})",
                f"{accuracy['predicted']:.1%}{margin}",
                f"{answer['macs'] / 1e6:.2f} M",
                answer["arch_id"],
            )
        )
    print_table(["device", "budget", "latency", "accuracy", "MACs", "arch_id"], rows)
