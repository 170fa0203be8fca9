"""A run on disk: the training checkpoint, the model directory and the log; nothing is pickled.

``state.safetensors`` holds weights, their average, optimiser moments, fitted statistics and climatology, and in its header
the step, the time spent and the configuration. Everything random is a function of the step, so there is no generator to save.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from genda import parallel
from genda.checkpoint import check_tensors, pack, read_tensors, write_atomically
from genda.train.config import MAY_CHANGE, TrainConfig
from genda.train.run import Run, averaged

log = logging.getLogger(__name__)
STATE, LOG = "state.safetensors", "log.jsonl"


def save(run: Run) -> None:
    """Write the training checkpoint and the model directory, each file whole or not at all."""
    config, task = run.config, run.task
    tensors = dict(task.objective.state_dict())
    tensors |= {f"average.{i}": value for i, value in enumerate(run.average.average)}
    for i, parameter in enumerate(run.parameters):
        tensors |= {f"optimiser.{i}.{name}": value for name, value in run.optimiser.state[parameter].items()}
    tensors |= {"normalisation.mean": task.normalisation.mean, "normalisation.std": task.normalisation.std}
    metadata = {"step": run.step, "seconds": run.seconds, "config": json.loads(config.model_dump_json())}
    write_atomically(config.out / STATE, pack(tensors, metadata))
    checks = [entry["validation"] for entry in read_log(config.out / LOG) if "validation" in entry]
    card = {
        "data": config.data.path.name,
        "training_samples": len(task.times),
        "first_time": str(task.times.min()),
        "last_time": str(task.times.max()),
        "seed": config.seed,
        "images": run.images,
        "minutes": round(run.seconds / 60, 1),
        "validation": {k: v for k, v in checks[-1].items() if k != "channels"} if checks else None,
        "config": _without_places(config),
    }
    with averaged(run):
        task.save_model(config.out / "model", card)


def _without_places(config: TrainConfig) -> dict[str, Any]:
    """The configuration as a model's card tells it: not where on this machine files lie."""
    document: dict[str, Any] = json.loads(config.model_dump_json(exclude={"out", "device", "threads"}))
    document["data"]["path"] = config.data.path.name
    for model in (document, document["data"]):
        for key in ("autoencoder", "normalisation", "initial"):
            if isinstance(model.get(key), str):
                model[key] = Path(model[key]).name
    return document


def read_checkpoint(config: TrainConfig) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of the checkpoint, once its configuration is known to be this one's."""
    path = config.out / STATE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a training checkpoint to resume from")
    tensors, metadata = read_tensors(path)
    try:
        document = {key: json.loads(metadata[key]) for key in ("step", "seconds", "config")}
        saved = type(config).model_validate_json(metadata["config"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a genda training checkpoint, found other metadata ({error})") from error
    for key in type(config).model_fields:
        found, wanted = getattr(saved, key), getattr(config, key)
        if found != wanted and key not in MAY_CHANGE:
            raise ValueError(
                f"{path}: {key}: found {found!r:.200}, expected {wanted!r:.200}; a resumed run keeps its {key}"
            )
        if found != wanted:
            log.warning("resuming with %s changed from %s to %s", key, found, wanted)
    return tensors, document


def restore(run: Run, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Put a freshly prepared run where the checkpoint was, and cut the log there.

    Raises:
        ValueError: where the tensors are not this architecture's.
    """
    path, task = run.config.out / STATE, run.task
    run.step, run.seconds = int(metadata["step"]), float(metadata["seconds"])
    expected = {name: tuple(value.shape) for name, value in task.objective.state_dict().items()}
    expected |= {f"average.{i}": tuple(value.shape) for i, value in enumerate(run.average.average)}
    expected |= {f"normalisation.{name}": tuple(getattr(task.normalisation, name).shape) for name in ("mean", "std")}
    check_tensors(path, {k: v for k, v in tensors.items() if not k.startswith("optimiser.")}, expected)
    own = task.objective.state_dict().keys()
    task.objective.load_state_dict({name: tensors[name] for name in own}, strict=True)
    for i, average in enumerate(run.average.average):
        average.copy_(tensors[f"average.{i}"])
    for i, parameter in enumerate(run.parameters):
        prefix = f"optimiser.{i}."
        moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if moments:
            run.optimiser.state[parameter] = {k: v if k == "step" else v.to(parameter) for k, v in moments.items()}
    if parallel.rank() == 0:  # lines written after the checkpoint are about to be written again
        kept = [json.dumps(entry) + "\n" for entry in read_log(run.config.out / LOG) if entry["step"] <= run.step]
        write_atomically(run.config.out / LOG, "".join(kept).encode())


def write_log(run: Run, values: dict[str, Any]) -> None:
    """Append a line to the log and tell the logger; the first process only."""
    if parallel.rank():
        return
    entry = {"step": run.step, "images": run.images, "seconds": round(run.seconds, 1), **values}
    with (run.config.out / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")
    shown = {k: v for k, v in values.get("validation", values).items() if isinstance(v, float)}
    what = "validation" if "validation" in values else "training"
    log.info("%d images, %s: %s", run.images, what, " ".join(f"{k} {v:.4g}" for k, v in shown.items()))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
