"""How much memory one chunk of directions may take, and less where there was less."""

import gc

import torch

_CPU_WORDS = ("can't allocate memory", "not enough memory", "alloc_cpu")


def usual_memory_mb(device: torch.device) -> float:
    """Return the bound, in MiB, where none is named: of a GPU a quarter of what it has."""
    if device.type != "cuda":
        return 1024.0
    return torch.cuda.get_device_properties(device).total_memory / 2**20 / 4


class MemoryBound:
    """A bound in MiB that all Jacobians of a run share; halved, and said once, where one ran out.

    How many directions go at once enters the last digits of what is computed, so that a set's
    shards record the bound that they were made under.
    """

    def __init__(self, mb: float) -> None:
        self.mb = mb
        self._is_said = False

    def chunk(self, bytes_each: int) -> int:
        """Return how many directions of so many bytes go at once; at least one."""
        return max(1, int(self.mb * 2**20 / bytes_each))

    def halve(self, tried: int, bytes_each: int) -> None:
        """Take half as many directions at once from now on as were tried."""
        fewer = tried / 2
        self.mb = fewer * bytes_each / 2**20
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._is_said:
            self._is_said = True
            from clarep.engine.progress import announce  # rich, which nothing else here takes

            announce(
                f"memory ran out in Jacobian products: {self.chunk(bytes_each)} directions at once "
                f"from here on (as with `memory_mb` {self.mb:.3g}); the last digits may differ"
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or not."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)
