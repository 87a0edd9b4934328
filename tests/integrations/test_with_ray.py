"""Ray Train with two CPU workers, which read from Ray Data."""

import ray


def test_two_workers(example, tmp_path):
    ray.init(num_cpus=4, include_dashboard=False, logging_level="error", object_store_memory=200 * 2**20)
    try:
        figures = example["main"](epochs=1, run_config=ray.train.RunConfig(storage_path=str(tmp_path)))
    finally:
        ray.shutdown()
    assert figures["soft"] > 0.3
    assert figures["plans"] == 4  # 256 images of 512 for each worker
