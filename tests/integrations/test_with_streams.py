"""Streams of samples and loaders of whole batches."""

import pytest
import torch


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_webdataset(example, tmp_path):
    batches = example["of_webdataset"](tmp_path)
    assert sum(len(targets) for _, targets in batches) == 400
    for images, targets in batches:
        assert images.dtype == torch.float32 and targets.shape == (len(images), 10)
        torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))


def test_hugging_face(example):
    batches = example["of_hugging_face"]()
    assert sum(len(batch["image"]) for batch in batches) == 256
    assert all(batch["label"].shape == (len(batch["image"]), 10) for batch in batches)


def test_batches_that_the_data_set_makes(example):
    batches = example["of_batches"]()
    assert len(batches) == 8
    for (images, targets), (again, same) in zip(batches[:4], batches[4:], strict=True):
        assert torch.equal(images, again) and torch.equal(targets, same)
