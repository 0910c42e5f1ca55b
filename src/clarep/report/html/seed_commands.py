"""The commands that repeat a run with another seed, to be copied."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from clarep.distill.distill_config import STUDENT_DATA, DistillConfig
from clarep.report.html.run_folders import ReportRun
from clarep.robustness.suite.suite_config import SuiteConfig

_STUDENT = "resnet8"  # what clarep distill trains unless told otherwise


def commands_of_another_seed(run: ReportRun, canon: Path | None) -> str:
    """Return clarep distill and clarep evaluate, a line each; empty if the run has no record.

    Options that have their defaults are left out.

    Args:
        run: what is to be repeated.
        canon: folder of the very canonical set that it learned from; None where it is not known.
    """
    config = run.config
    if not config.get("method"):
        return ""
    seed = (run.seed or 0) + 1
    out = str(run.folder.parent / f"{run.method}-seed{seed}".replace("/", "-"))
    distill = ["clarep", "distill", "--method", str(config["method"])]
    if config.get("student", _STUDENT) != _STUDENT:
        distill += ["--student", str(config["student"])]
    if config.get("layer"):
        distill += ["--layer", str(config["layer"])]
    if config.get("canon"):
        distill += ["--canon", "CANON" if canon is None else str(canon)]
    if config.get("classifier_sha256"):
        distill += ["--classifier", "CLASSIFIER"]
    distill += _options(config.get("data_options"), STUDENT_DATA)
    train, options = (config.get(name) or {} for name in ("train", "options"))
    rivals = {**train.get("rivals", {}), **options}
    distill += _options({**train, **options, "rivals": rivals}, DistillConfig(), "train.")
    distill += ["--train.seed", str(seed), "--out", out]
    evaluate = ["clarep", "evaluate", out]
    if run.evaluation is not None:
        suite = run.evaluation.config.get("suite")
        evaluate += _options(suite, SuiteConfig())
        attack = suite.get("attack") if isinstance(suite, dict) else None
        evaluate += _options(attack, SuiteConfig().attack)
    return f"{shlex.join(distill)}\n{shlex.join(evaluate)}"


def _options(given: object, default: Any, prefix: str = "") -> list[str]:
    """Return what differs from a config's defaults as options of the command line."""
    return list(_words(given, default, prefix)) if isinstance(given, Mapping) else []


def _words(given: Mapping[str, Any], default: Any, prefix: str) -> Iterator[str]:
    for field in fields(default):
        name, usual = field.name, getattr(default, field.name)
        value = given.get(name, usual)
        value = tuple(value) if isinstance(value, list) else value
        if is_dataclass(usual):
            if prefix:  # a suite's attacks have no prefix and are asked for by themselves
                yield from _options(value, usual, f"{prefix}{name}.")
            continue
        if name == "seed" or value == usual:
            continue
        option = name.replace("_", "-")
        if isinstance(usual, bool):
            yield f"--{prefix}{'' if value else 'no-'}{option}"
            continue
        yield f"--{prefix}{option}"
        yield from map(str, value if isinstance(value, tuple) else (value,))
