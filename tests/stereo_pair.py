"""A small rectified pair of photos with exact disparity, rendered once a process."""

from functools import cache

from unposed.synth.stereo import StereoPair, render_stereo


@cache
def stereo_pair(seed: int = 1) -> StereoPair:
    """Of a tabletop, 320 x 240 pixels, cameras 0.2 metres apart."""
    return render_stereo(seed, "tabletop", 240, 320)
