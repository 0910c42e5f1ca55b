"""The law of Jacobian products, compiled and by lean rules, for a teacher of any family.

The graph is run as it was traced, which compiles nothing: what differs between batches must be
an input of it.
"""

from unittest.mock import patch

import torch
from torch._subclasses import fake_tensor

from clarep.geometry import forward_rules
from clarep.geometry.compiled import CompiledJacobian, CompiledProducts
from clarep.geometry.jacobian import Jacobian
from clarep.teachers.teacher import Teacher

WIDTH = 4


def assert_compiled_as_eager(teacher: Teacher, *, traceable: bool = True, batch: int = 2) -> None:
    """One trace's products are the eager ones for two batches, levels and sets of labels.

    traceable: whether the features take no numbers out of tensors; if not, products are eager.
    """
    tap = teacher.default_tap

    def at_tap(x, sigma, cond):
        return teacher.features(x, sigma, cond, tap)

    products = CompiledProducts(at_tap, batch, lambda graph: graph)
    generator = torch.Generator().manual_seed(0)
    for t, first in ((0.6, 0), (0.4, 1)):
        level = teacher.sigma_from_t(t)
        x = level * torch.randn(batch, *teacher.latent_shape, generator=generator)
        x = x.to(teacher.device, teacher.dtype)
        labels = (torch.arange(batch, device=x.device) + first) % teacher.num_classes
        given = x.new_full((batch,), level), teacher.condition(labels)
        ours = CompiledJacobian(products, x, given)
        eager = Jacobian(lambda y, given=given: at_tap(y, *given), x)
        V = torch.randn(batch, ours.n, WIDTH, generator=generator).to(x)
        U = torch.randn(batch, ours.m, WIDTH, generator=generator).to(x)
        with patch.object(fake_tensor, "traceback", create=True):
            # Of every tensor that is traced, torch would note the stack: half of a trace's time.
            products_of = [(ours.matmat(V), eager.matmat(V)), (ours.rmatmat(U), eager.rmatmat(U))]
        with patch.dict(forward_rules._RULES, clear=True):  # by torch's own forward derivatives
            assert torch.equal(products_of[0][1], eager.matmat(V))
        for found, wanted in products_of:
            assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())
            assert float(wanted.norm()) > 0
        assert bool(products.failure) != traceable, products.failure
        differences = Jacobian(eager._function, x, "finite_difference").matmat(V)
        gap = float((ours.matmat(V) - differences).norm() / differences.norm())
        assert gap < 2e-2, gap
