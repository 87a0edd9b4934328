"""torchdata: the same batches after a restart."""

import pytest
import torch


@pytest.mark.parametrize("make, workers", [("stateful", (0, 0)), ("stateful", (2, 2)), ("from_nodes", (1, 3))])
def test_a_restart_in_mid_epoch_gives_the_same_batches(example, make, workers):
    whole, parts = example["main"](example[make], workers=workers)
    assert len(whole) == len(parts) == 15
    assert all(map(torch.equal, whole, parts))
    assert ((whole[0] > 0) & (whole[0] < 1)).any()


@pytest.mark.parametrize("workers", [(2, 1), (0, 2), (2, 0)])
def test_a_stateful_loader_wants_its_number_of_workers(example, workers):
    """So the page on it sends to nodes; it should say so no longer when this fails."""
    with pytest.raises(AssertionError):
        example["main"](example["stateful"], workers=workers)
