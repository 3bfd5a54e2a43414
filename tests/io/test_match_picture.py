import torch

from unposed.io.match_picture import HEIGHT, LINES, draw_matches


def _grey(height: int, width: int) -> torch.Tensor:
    return torch.full((height, width, 3), 100, dtype=torch.uint8)


def test_a_line_joins_the_two_places() -> None:
    a, b = _grey(210, 300), _grey(840, 600)
    picture = draw_matches(a, b, torch.tensor([[150.0, 105.0]]), torch.tensor([[300.0, 420.0]]), torch.ones(1))
    assert picture.shape == (HEIGHT, 600 + 8 + 300, 3)
    coloured = (picture != 100).any(-1) & (picture != 255).any(-1)
    y, x = coloured.nonzero(as_tuple=True)
    assert abs(float(y.float().mean()) - 210) < 2
    assert abs(int(x.min()) - 300) <= 4
    assert abs(int(x.max()) - (608 + 150)) <= 4


def test_of_many_matches_those_are_drawn_that_cover_the_photo() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([torch.rand(5000, 2, generator=generator) * 20, torch.tensor([[390.0, 390.0]])])
    confidence = torch.cat([torch.ones(5000), torch.tensor([0.1])])
    picture = draw_matches(_grey(420, 420), _grey(420, 420), points, points, confidence)
    assert (picture[380:400, 380:400] != 100).any()
    assert LINES < 5000


def test_nothing_to_draw() -> None:
    picture = draw_matches(_grey(100, 200), _grey(100, 200), torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    assert (picture[:, :840] == 100).all()
