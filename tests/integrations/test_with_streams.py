"""Streams of samples and loaders of whole batches."""

import torch


def test_hugging_face(example):
    batches = example["from_hugging_face"]()
    assert sum(len(batch["image"]) for batch in batches) == 256
    assert all(batch["label"].shape == (len(batch["image"]), 10) for batch in batches)


def test_batches_that_the_data_set_makes(example):
    batches = example["from_whole_batches"]()
    assert len(batches) == 8
    for (images, targets), (again, same) in zip(batches[:4], batches[4:], strict=True):
        assert torch.equal(images, again) and torch.equal(targets, same)
