"""Seeds of unrelated streams of noise."""

import numpy as np


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that (seed, epoch) or (seed, item) streams are unrelated."""
    state = np.random.SeedSequence([part & 0xFFFFFFFFFFFFFFFF for part in parts]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
