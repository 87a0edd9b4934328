"""WebDataset: shards that the test makes, batched and mixed."""

import pytest
import torch


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_webdataset(example, tmp_path):
    batches = example["main"](tmp_path)
    assert sum(len(targets) for _, targets in batches) == 400
    for images, targets in batches:
        assert images.dtype == torch.float32 and targets.shape == (len(images), 10)
        torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))
