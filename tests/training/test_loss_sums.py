"""The mean loss of a validation is that of its images, however they are dealt out."""

from __future__ import annotations

import pytest
import torch

from detector.training.loss_sums import LossSums


def test_ranks_with_different_numbers_of_images_give_the_mean_of_all_images() -> None:
    first, second, none = LossSums(), LossSums(), LossSums()
    first.add({"loss": torch.tensor(1.0)}, images=8)
    first.add({"loss": torch.tensor(4.0)}, images=1)
    second.add({"loss": torch.tensor(2.0)}, images=8)
    assert first.means() == {"loss": pytest.approx(12 / 9)}
    assert LossSums.of_all([first, second, none]).means() == {"loss": pytest.approx(28 / 17)}
    first.clear()
    assert first.means() == {}
