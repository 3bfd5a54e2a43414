"""Pure tensor maths without state: rotations, transforms, pinhole cameras, focal recovery, nearest neighbours.

Conventions of the whole project: camera axes are x right, y down, z forward (OpenCV); pixel (0, 0) is the centre of
the top-left pixel; transforms are named ``target_from_source``; quaternions are wxyz; batch dimensions come first.
"""
