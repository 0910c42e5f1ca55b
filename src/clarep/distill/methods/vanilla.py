"""Plain training: the classification loss alone."""

from torch import Tensor

from clarep.distill.methods.base import Batch, Method


class Vanilla(Method):
    """Cross-entropy on the training images; what every other method is compared with."""

    name = "vanilla"

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        _, logits = self.both(batch.images)
        return {"ce": self.cross_entropy(logits, batch.labels)}


METHODS = (Vanilla,)
