"""`clarep train-judge`: train the classifier that measures the bundled teacher's samples."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from clarep.engine.artefacts import sha256_file, write_json
from clarep.engine.lock import hold
from clarep.engine.progress import progress
from clarep.teachers.judge import Judge, save_judge
from clarep.teachers.judge_training import JudgeConfig, accuracy_by_variant, train_judge


@dataclass(frozen=True)
class TrainJudge:
    """Train the judge on Fashion-MNIST without the images that the bundled teacher saw."""

    garments: Path
    """The whole Fashion-MNIST archive, .npz with x_train, y_train, x_test, y_test."""
    out: Path
    """Folder for judge.safetensors and judge.json."""
    train: JudgeConfig = field(default_factory=JudgeConfig)
    """How it is trained."""

    def run(self) -> None:
        """Train, test, save."""
        started, _lock = time.perf_counter(), hold(self.out)
        torch.manual_seed(self.train.seed)
        judge = Judge()
        step = 0
        with progress("training", "steps", self.train.steps) as advance:
            for record in train_judge(judge, self.garments, self.train):
                done = int(record["step"])
                advance(done - step, f"loss {record['loss']:.4f}")
                step = done
        weights = self.out / "judge.safetensors"
        save_judge(judge, weights)
        card = {
            "what": "small ResNet over garments on backdrops, independent of the bundled teacher",
            "data": "Fashion-MNIST's training set without the images of the embedded subset",
            "parameters": sum(p.numel() for p in judge.parameters()),
            "train": asdict(self.train),
            "seconds": round(time.perf_counter() - started, 1),
            "torch": torch.__version__,
            "test_accuracy": accuracy_by_variant(judge),
            "sha256": sha256_file(weights),
        }
        write_json(self.out / "judge.json", card)
        print(json.dumps(card["test_accuracy"]))
        print(f"judge in {weights}")
