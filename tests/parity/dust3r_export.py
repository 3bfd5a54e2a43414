"""DUSt3R demo's sky rule and grid mesh against the reference's numbers."""

import torch

from tests.parity.harness import Case, runs
from unposed.io.mesh import grid_faces
from unposed.io.sky import sky_mask


@runs("dust3r", "sky_and_mesh*")
def sky_and_mesh(case: Case) -> None:
    image = (case.tensor("image") * 255).to(torch.uint8)
    case.check("sky", sky_mask(image).float())
    faces, colour = grid_faces(case.tensor("valid").bool())
    case.check("faces", faces)
    case.check("face_colors", case.tensor("colors").reshape(-1, 3)[colour])
