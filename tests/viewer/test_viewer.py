"""The viewer as a user meets it: in a browser (headless Chromium), and what it shows without one."""

import io
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.factories import box_scene
from unposed.scene import Scene
from unposed.viewer import view_scene
from unposed.viewer.content import depth_picture

pytestmark = pytest.mark.xdist_group("browser")  # one browser and one server at a time

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
RED, BLUE, GREEN = (200, 80, 60), (60, 120, 200), (90, 170, 90)


def room(**changes) -> Scene:
    return replace(box_scene(size=(96, 128), original_size=(528, 384)), **changes)


@pytest.fixture(scope="module")
def browser():
    """A headless browser."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page of its own."""
    page = browser.new_page(viewport={"width": 900, "height": 400}, accept_downloads=True)
    page.set_default_timeout(120_000)
    yield page
    page.close()


@pytest.fixture
def serve():
    """Serve a scene until the test ends; gives the address."""
    servers = []

    def start(scene: Scene) -> str:
        servers.append(view_scene(scene, port=8200))
        return f"http://127.0.0.1:{servers[-1].get_port()}"

    yield start
    for server in servers:
        server.stop()


def picture(page) -> np.ndarray:
    """The 3D view without the panel, as RGB."""
    png = page.screenshot(clip={"x": 0, "y": 0, "width": 570, "height": 400})
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def share(image: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(image - np.array(colour)).sum(-1) < 40).mean())


def filled(image: np.ndarray) -> float:
    """Share of the picture that is not background."""
    return float((image < 240).any(-1).mean())


def colour_shares(image: np.ndarray) -> list[float]:
    """How the three surfaces share what is seen of them."""
    shares = [share(image, colour) for colour in (RED, BLUE, GREEN)]
    return [part / sum(shares) for part in shares]


def wait_until(page, condition, seconds: float = 90.0) -> np.ndarray:
    """The first picture that meets the condition."""
    for _ in range(int(seconds * 2)):
        image = picture(page)
        if condition(image):
            return image
        page.wait_for_timeout(500)
    raise AssertionError(f"never seen in {seconds} seconds")


def all_walls(image: np.ndarray) -> bool:
    return min(share(image, colour) for colour in (RED, BLUE, GREEN)) > 0.01


def test_a_saved_scene_is_shown_upright_with_its_points_and_cameras(tmp_path, page, serve):
    room(metric=True, model="exact").save(tmp_path)
    page.goto(serve(Scene.load(tmp_path)))
    image = wait_until(page, all_walls)
    rows = [np.nonzero(np.abs(image - np.array(c)).sum(-1) < 40)[0].mean() for c in (RED, GREEN)]
    assert rows[0] < rows[1]  # the floor is below the walls
    columns = [np.nonzero(np.abs(image - np.array(c)).sum(-1) < 40)[1].mean() for c in (BLUE, RED)]
    assert columns[0] < columns[1]  # not mirrored
    assert share(image, (40, 90, 200)) > 0.0005  # frusta
    text = page.inner_text("body")
    assert "4 photos" in text
    assert "metres" in text
    assert "49,152 points" in text


def test_hiding_points_and_looking_through_a_camera(page, serve):
    scene = room()
    page.goto(serve(scene))
    before = wait_until(page, all_walls)
    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("End")  # 95 %
    page.get_by_text("2,457 points").wait_for()
    few = wait_until(page, lambda image: filled(image) < 0.6 * filled(before))
    assert filled(few) > 0
    slider.press("Home")
    wait_until(page, all_walls)
    page.get_by_role("combobox", name="View").click()
    page.get_by_role("option", name="photo_2.png").click()
    seen = wait_until(page, lambda image: filled(image) > 1.3 * filled(before))  # the room fills the picture
    photo = scene.views[2].view.image.numpy().astype(int)
    assert colour_shares(seen) == pytest.approx(colour_shares(photo), abs=0.1)
    page.get_by_text("Overview").click()
    wait_until(page, lambda image: filled(image) < 1.2 * filled(before))


def test_components_are_offered(page, serve):
    page.goto(serve(room(others=(box_scene(views=2),))))
    page.get_by_text("4 photos").first.wait_for()
    page.get_by_role("combobox", name="Component").click()
    page.get_by_role("option", name="2: 2 photos").click()
    page.get_by_text("1,536 points").wait_for()


def test_downloads(tmp_path, page, serve):
    page.goto(serve(room()))
    contents = {}
    for button in ("Points and cameras (GLB)", "Points (PLY)", "COLMAP model (zip)"):
        with page.expect_download() as download:
            page.get_by_text(button).click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
        contents[download.value.suggested_filename] = (tmp_path / download.value.suggested_filename).read_bytes()
    assert contents["scene.glb"].startswith(b"glTF")
    assert contents["scene.ply"].startswith(b"ply")
    with zipfile.ZipFile(io.BytesIO(contents["colmap.zip"])) as archive:
        assert "sparse/0/images.bin" in archive.namelist()


def test_depth_pictures_are_red_where_near_and_black_where_unknown():
    item = box_scene().views[0]
    item.depth[:4] = 0
    image = depth_picture(item)
    assert (image[:4] == 0).all()
    near, far = int(item.depth[4:].argmin()), int(item.depth[4:].argmax())
    near_colour, far_colour = image[4:].reshape(-1, 3)[near], image[4:].reshape(-1, 3)[far]
    assert near_colour[0] > 2 * near_colour[2]
    assert far_colour[2] > near_colour[2]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scenes_of_any_unit_are_shown_at_one_size(scale):
    from unposed.viewer.content import display

    server = view_scene(box_scene(), port=8200)
    try:
        shown = display(server, box_scene().transformed(scale)).shown
        positions = shown.points(0.0).positions
        assert 3 < float((positions.amax(0) - positions.amin(0)).max()) < 8
        assert torch.allclose(shown["photo_0.png"].camera.world_from_camera[:3, 1].norm(), torch.tensor(1.0))
    finally:
        server.stop()
