"""CaDistill with class means for features: does a canonical feature say more than its class?"""

from dataclasses import replace

from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.cadistill import CaDistill


class ClassMean(CaDistill):
    """CaDistill (arXiv 2506.09955) whose teacher says the class's mean feature of every sample."""

    @classmethod
    def prepare(cls, ingredients: Ingredients) -> Ingredients:
        canonical = ingredients.canonical
        assert canonical is not None  # checked by the run
        return replace(ingredients, canonical=canonical.with_class_means())
