"""The benchmarks whose layouts can be read, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unposed.evaluation.datasets import (
    cambridge,
    co3d,
    dl3dv,
    dtu,
    eth3d,
    kapture,
    kitti,
    mapfree,
    megadepth,
    navi,
    nrgbd,
    nyu,
    realestate,
    scannet,
    sevenscenes,
    sintel,
    tanks,
    tum,
)

Kind = Literal["sequences", "pairs", "relocalisation", "novel views"]
"""What a reader gives: ``FrameSequence``, ``PosedPair``, ``Relocalisation`` or ``NovelViews``."""


@dataclass(frozen=True)
class Reader:
    """How one layout is read."""

    name: str
    kind: Kind
    layout: str
    """What the folder holds, in one line."""
    read: Callable[..., Sequence[Any]]
    """``read(root, scenes=None, **options)``: the nouns of ``kind``, of the named scenes or of all; pixels are read
    later. Raises ``UserError`` with a sentence that names what is missing."""


_TABLE = (
    Reader(
        "7scenes",
        "relocalisation",
        "<scene>/{TrainSplit,TestSplit}.txt, <scene>/seq-01/frame-000000.{color.png,pose.txt,depth.proj.png}",
        sevenscenes.read,
    ),
    Reader("7scenes-sequences", "sequences", "as 7scenes: the test sequences", sevenscenes.read_sequences),
    Reader(
        "cambridge",
        "relocalisation",
        "<Scene>/{reconstruction.nvm,dataset_train.txt,dataset_test.txt}, <Scene>/seq1/frame00001.png",
        cambridge.read,
    ),
    Reader(
        "scannet1500",
        "pairs",
        "test.npz, scannet_test_1500/scene0707_00/{color/15.jpg,pose/15.txt,intrinsic/intrinsic_depth.txt}",
        scannet.read,
    ),
    Reader(
        "megadepth1500",
        "pairs",
        "megadepth_test_pairs.txt, megadepth_meta_test.npz, and the photos at the paths in them",
        megadepth.read,
    ),
    Reader(
        "scannet-video", "sequences", "scene0707_00/{color/0.jpg,depth/0.png,pose/0.txt,intrinsic}", scannet.read_video
    ),
    Reader(
        "sintel",
        "sequences",
        "training/{final,depth,camdata_left}/<sequence>/frame_0001.{png,dpt,cam}",
        sintel.read,
    ),
    Reader(
        "eth3d",
        "sequences",
        "<scene>/{images/dslr_images_undistorted,dslr_calibration_undistorted,ground_truth_depth,dslr_calibration_jpg}",
        eth3d.read,
    ),
    Reader("dtu", "sequences", "scan1/{images/00000000.jpg,cams/00000000_cam.txt,depths,binary_masks} (mm)", dtu.read),
    Reader(
        "tanks",
        "sequences",
        "<Scene>/000001.jpg, <Scene>{_COLMAP_SfM.log,_trans.txt,.ply,.json} there or beside it",
        tanks.read,
    ),
    Reader("nrgbd", "sequences", "<scene>/{images/img0.png,depth/depth0.png,poses.txt}", nrgbd.read),
    Reader(
        "mapfree", "relocalisation", "[val/]s00460/{intrinsics.txt,poses.txt,seq0,seq1/frame_00000.jpg}", mapfree.read
    ),
    Reader("tum", "sequences", "<sequence>/{rgb.txt,depth.txt,groundtruth.txt,rgb,depth}", tum.read),
    Reader(
        "monst3r-gathered",
        "sequences",
        "of TUM <sequence>/{rgb_90,groundtruth_90.txt}, of Bonn <sequence>/{rgb_110,depth_110,groundtruth.txt}",
        tum.read_gathered,
    ),
    Reader("scannet-gathered", "sequences", "scene0707_00/{color_90,depth_90,pose_90.txt}", scannet.read_gathered),
    Reader(
        "cambridge-dust3r",
        "relocalisation",
        "mapping/<Scene>/colmap/reconstruction/*.txt, kapture/<Scene>/query, <Scene>/pairsfile/query/*.txt",
        kapture.read_cambridge,
    ),
    Reader(
        "aachen",
        "relocalisation",
        "mapping/colmap/reconstruction/*.txt, kapture/query, images/{db,query,sequences}, pairsfile/query/*.txt",
        kapture.read_aachen,
    ),
    Reader(
        "inloc",
        "relocalisation",
        "{mapping,query}/sensors, <cut-out>.mat, mapping/DUC1_alignment/all_transformations.txt, pairsfile/query/*.txt",
        kapture.read_inloc,
    ),
    Reader("dl3dv", "sequences", "[<batch>/]<hash>/{transforms.json,images_8/frame_00001.png}", dl3dv.read),
    Reader("navi", "sequences", "<object>/<scene>/{annotations.json,images,masks} (mm)", navi.read),
    Reader(
        "co3d",
        "sequences",
        "<category>/{{frame,sequence}_annotations.jgz,set_lists}, <category>/<sequence>/{images,depths,masks}",
        co3d.read,
    ),
    Reader(
        "co3d-dust3r",
        "sequences",
        "selected_seqs_test.json, <category>/<sequence>/{images/frame000001.{jpg,npz},depths,masks}",
        co3d.read_prepared,
    ),
    Reader(
        "re10k", "sequences", "<split>/<clip>.txt, frames/<split>/<clip>/<timestamp>.jpg (ACID alike)", realestate.read
    ),
    Reader(
        "re10k-chunks",
        "sequences",
        "<split>/{index.json,000000.torch} (ACID alike)",
        realestate.read_chunks,
    ),
    Reader("re10k-pairs", "pairs", "as re10k-chunks, and evaluation_index.json", realestate.read_pairs),
    Reader("re10k-views", "novel views", "as re10k-chunks, and evaluation_index.json", realestate.read_novel_views),
    Reader(
        "kitti",
        "sequences",
        "val/<drive>_sync/proj_depth/groundtruth/image_02/*.png, <date>/<drive>_sync/image_02/data/*.png",
        kitti.read,
    ),
    Reader(
        "kitti-gathered",
        "sequences",
        "[depth_selection/val_selection_cropped/]{groundtruth_depth_gathered,image_gathered}/<drive>_02/*.png",
        kitti.read_gathered,
    ),
    Reader(
        "kitti-selection",
        "sequences",
        "[depth_selection/val_selection_cropped/]{image,groundtruth_depth,intrinsics}",
        kitti.read_selection,
    ),
    Reader(
        "nyu",
        "sequences",
        "nyu_images/*.png with nyu_depths/*.npy, or nyu_depth_v2_labeled.mat with splits.mat, or *.h5",
        nyu.read,
    ),
    Reader("bonn", "sequences", "[rgbd_bonn_dataset/]rgbd_bonn_<name>/{rgb,depth,groundtruth.txt}", tum.read_bonn),
)

READERS: dict[str, Reader] = {reader.name: reader for reader in _TABLE}
"""Every reader by its name."""
