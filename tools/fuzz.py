"""Feed whatever clarep reads with inputs that a coverage-guided fuzzer makes (atheris).

    nice -n 19 python tools/fuzz.py OUT [--target NAME] [-runs=1000000] [libFuzzer's options]

Needs `pip install atheris`. Targets, and what counts as a fault, are those of tests/hostile.py:
another exception than UserError, a file that is written, a program that is started, a socket that
is opened. Each input is a byte for the target, one for the whole input that it begins from, and
edits of that: a place (2 bytes), a kind, a length and bytes. OUT holds the corpus and what was
found, as crash-*; a crash is fed again by its path as the last argument.
"""

import argparse
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
with atheris.instrument_imports(include=["clarep"]):
    import hostile

_MEMORY_MIB = 4_000  # of the process, torch and all targets in it


def _edits(content: bytes) -> list[hostile.Edit]:
    found, at = list[hostile.Edit](), 0
    while at + 4 <= len(content):
        place, length = int.from_bytes(content[at : at + 2], "little"), content[at + 3] % 16
        found.append((place, content[at + 2], content[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def main() -> None:
    """Make the targets, then feed them without end or as often as -runs says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--target")
    given, options = parser.parse_known_args()
    corpus = given.out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with hostile.temporary() as folder:
        targets = hostile.targets(Path(folder))
        chosen = [targets[given.target]] if given.target else list(targets.values())

        def feed(content: bytes) -> None:
            if len(content) < 2:
                return
            target = chosen[content[0] % len(chosen)]
            seed = target.seeds[content[1] % len(target.seeds)]
            hostile.feed(target, hostile.edited(seed, _edits(content[2:])))

        usual = [f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={given.out}/", "-max_len=200"]
        atheris.Setup([sys.argv[0], *usual, *options, str(corpus)], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
