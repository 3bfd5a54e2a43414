"""Work split over processors."""

import pytest
import torch

from unposed.hardware import in_parallel


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_keep_their_order_and_threads_come_back(two_threads) -> None:
    def square(part: torch.Tensor) -> tuple[torch.Tensor, int]:
        return part**2, torch.get_num_threads()

    done = in_parallel(square, torch.arange(10).split(3))
    assert torch.equal(torch.cat([part for part, _ in done]), torch.arange(10) ** 2)
    assert {threads for _, threads in done} == {1}  # operations are not split again
    assert torch.get_num_threads() == 2


def test_threads_come_back_after_an_error(two_threads) -> None:
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda part: 1 / part, [1, 0, 2])
    assert torch.get_num_threads() == 2
