import torch

from unposed.io.flow_colours import disparity_colours, flow_colours


def test_directions_have_the_colours_of_the_wheel_and_rest_is_white():
    flow = torch.tensor([[[3.0, 0.0], [-3.0, 0.0], [0.0, 0.0], [0.0, 3.0], [torch.nan, 0.0]]])
    right, left, rest, down, unknown = flow_colours(flow, 3.0)[0].int()
    assert right.tolist() == [255, 0, 0]
    assert left[2] > left[1] > left[0]  # between cyan and blue
    assert rest.tolist() == [255, 255, 255]
    assert down[0] > down[2]
    assert down[1] > down[2]  # yellow
    assert unknown.tolist() == [0, 0, 0]


def test_slower_is_paler_and_the_scale_is_found():
    flow = torch.zeros(10, 10, 2)
    flow[:, :5, 0], flow[:, 5:, 0] = 10.0, 5.0
    colours = flow_colours(flow)
    assert colours[0, 0].tolist() == [255, 0, 0]
    assert colours[0, 9].tolist() == [255, 128, 128]
    assert flow_colours(torch.full((2, 2, 2), torch.nan)).sum() == 0


def test_near_is_red_far_is_blue_unknown_is_black():
    disparity = torch.ones(20, 20)
    disparity[:10], disparity[0, 0] = 30.0, 0.0
    colours = disparity_colours(disparity).int()
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[5, 5, 0] > colours[5, 5, 2]
    assert colours[15, 5, 2] > colours[15, 5, 0]
