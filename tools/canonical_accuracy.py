"""Say how often a classifier finds the class in canonical samples, and in their originals.

    python tools/canonical_accuracy.py DATA CLASSIFIER_RUN CANON...

DATA is what `clarep identify` was given, CLASSIFIER_RUN a student trained on such images
(`clarep distill --method vanilla --data DATA`), each CANON a run's canon/. With `--kind none`
a set holds guidance alone, with `--kind random` the control. Intervals: 95 %, over images.
"""

import sys

import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import to_unit_range
from clarep.data.load import DataConfig, load_data
from clarep.distill.students import load_student
from clarep.engine.bootstrap import bootstrap_interval
from clarep.report.quality import classify_all, student_classifier


@torch.no_grad()
def main() -> None:
    """Print a line for each set, after one for the originals of the first."""
    data_path, classifier_path, *folders = sys.argv[1:]
    classifier = student_classifier(load_student(classifier_path))

    def show(name: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        _, logits = classify_all(classifier, images)
        right = (logits.argmax(dim=1) == labels).float()
        low, high = bootstrap_interval(right)
        print(f"{right.mean():.2f} [{low:.2f}, {high:.2f}]  {len(right)} images  {name}")

    for place, folder in enumerate(folders):
        tensors = CanonicalSet.load(folder).tensors
        if place == 0:
            originals = load_data(DataConfig(data=data_path)).images(tensors["index"].numpy())
            show("originals", to_unit_range(originals), tensors["label"])
        show(folder, tensors["sample"].float().clamp(-1, 1), tensors["label"])


if __name__ == "__main__":
    main()
