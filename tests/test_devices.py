"""The device that was asked for is the one that is used; no CUDA is needed to see that."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.config.training import TrainingConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.training.devices import find_device, make_accelerator


@pytest.fixture
def two_gpus(monkeypatch):
    """Two CUDA devices as torch tells of them; returns those that were made the current one."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
def test_a_run_is_on_the_device_with_that_number(name, two_gpus, tmp_path):
    accelerator = make_accelerator(name, TrainingConfig(trackers=[]), tmp_path)
    assert accelerator.device == torch.device(name)
    assert two_gpus == [torch.device(name)]
    # the next run of this process has a device of its own
    assert make_accelerator("cpu", TrainingConfig(trackers=[]), tmp_path).device.type == "cpu"


def test_a_number_that_is_too_high_is_one_line(two_gpus):
    with pytest.raises(ZooError, match=r"--device cuda:2: this machine has 2 CUDA devices, cuda:0"):
        find_device("cuda:2")


def test_several_processes_share_no_device(two_gpus, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_device("cuda").type == "cuda"
    with pytest.raises(ZooError, match="with several processes, each uses its own device"):
        find_device("cuda:1")
