import pytest
import torch

from unposed.nets.positions import cosine_table, grid_positions, resize_table, rotary_table, rotate


def test_rotary_products_depend_on_the_offset_only():
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 2, 16), torch.randn(1, 1, 2, 16)

    def product(at_q: tuple[int, int], at_k: tuple[int, int]) -> torch.Tensor:
        turned = [rotate(x, rotary_table(torch.tensor([at]), 16, 100)) for x, at in ((q, at_q), (k, at_k))]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(product((2, 5), (4, 1)), product((9, 7), (11, 3)))
    assert not torch.allclose(product((2, 5), (4, 1)), product((2, 5), (4, 2)))


def test_rows_turn_the_first_half_of_a_head_and_columns_the_second():
    x = torch.ones(1, 1, 1, 8)
    row_moved = rotate(x, rotary_table(torch.tensor([[3, 0]]), 8, 100))[0, 0, 0]
    column_moved = rotate(x, rotary_table(torch.tensor([[0, 3]]), 8, 100))[0, 0, 0]
    assert torch.equal(row_moved[4:], torch.ones(4))
    assert torch.equal(column_moved[:4], torch.ones(4))
    torch.testing.assert_close(row_moved[:4], column_moved[4:])


def test_head_widths_that_cannot_be_quartered_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        rotary_table(grid_positions((2, 2)), 6, 100)


def test_cosine_table_tells_the_column_first():
    table = cosine_table((3, 5), 8).reshape(3, 5, 8)
    assert torch.equal(table[0, :, :4], table[2, :, :4])
    assert torch.equal(table[:, 1, 4:], table[:, 4, 4:])


def test_a_resized_table_keeps_a_constant():
    table = torch.arange(3.0).expand(16, 3)
    torch.testing.assert_close(resize_table(table, (7, 5)), torch.arange(3.0).expand(35, 3))
