import torch

from clarep.engine.cost import peak_memory


def test_peak_memory_sees_what_is_freed_again():
    with peak_memory() as peak:
        for _ in range(20):
            torch.ones(8 * 2**20)  # 32 MiB
    found = peak()
    assert found is None or 20 < found < 500
