"""Measure a bundled teacher's canonicity curve and store the setting that follows in its card.

python tools/store_setting.py TEACHER [--judge 20|56] [options of clarep select], such as

python tools/store_setting.py backdrops --kind top --out runs/select-backdrops
python tools/store_setting.py backdrops-biased --correlation 0.9 --kind top --out runs/biased
python tools/store_setting.py cifar10 --judge 56 --data CIFAR10.npz --device cuda --out runs/cifar10

Killed, the same command goes on, and that of a finished run stores its choice.
--judge is a third-party ResNet of CIFAR-10 (tests/third_party.py).
To be run again whenever the teacher's weights change; tests/golden.json then follows.
"""

import shlex
import sys
from pathlib import Path

import tyro

from clarep.cli.select import Select
from clarep.engine.artefacts import read_json, write_json
from clarep.engine.tensors import sha256_state
from clarep.teachers.stored_setting import CARD_KEY, assets
from clarep.teachers.zoo import BUNDLED


def main(teacher: str, *options: str) -> None:
    """Run the selection, and write its choice into the card."""
    assert teacher in BUNDLED, teacher
    command = shlex.join(["python", "tools/store_setting.py", teacher, *options])
    given, judge = list(options), None
    if "--judge" in given:
        at = given.index("--judge")
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from third_party import cifar_judge  # type: ignore[import-not-found] # noqa: PLC0415

        net = cifar_judge(int(given[at + 1]))
        judge = (sha256_state(net), net)
        del given[at : at + 2]
    select = tyro.cli(Select, args=["--teacher", teacher, *given])
    select.run(judge)
    best = read_json(select.out / "best.json")
    card = assets() / f"{teacher}.json"
    known = read_json(card)
    assert best["config"]["teacher_sha256"] == known["weights"]["sha256"]
    if best["t"] is None:
        known.pop(CARD_KEY, None)
    else:
        names = ("t", "tap", "k", "stands", "reason")
        found = {name: best[name] for name in names}
        branch = best["config"]["clarid"]["branch"]
        known[CARD_KEY] = found | {"branch": branch, "by": command}
    write_json(card, known)
    print(f"{CARD_KEY} in {card}: {known.get(CARD_KEY)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
