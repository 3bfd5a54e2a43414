import hashlib
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tests.models import tiny
from unposed.errors import UserError
from unposed.models import registry
from unposed.models.dust3r import Dust3r
from unposed.models.mini import Mini


class _Hub(BaseHTTPRequestHandler):
    """Enough of the hub to download the files of one folder, whatever the repository is called."""

    def __init__(self, folder: Path, log: list[str], *arguments) -> None:
        self.folder, self.log = folder, log
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        self.log.append(f"{self.command} {self.path}")
        file = self.folder / self.path.rsplit("/", 1)[-1]
        if "/absent/" in self.path or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound" if "/absent/" in self.path else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def hub(tmp_path):
    """(environment that points to a local hub with a tiny DUSt3R, requests it got)."""
    folder, log = tiny.write_hub_dust3r(tmp_path / "served"), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, folder, log))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    yield environment, log
    server.shutdown()


_LOAD = """
import sys
from unposed.errors import UserError
from unposed.models.registry import list_models, load_model
for name in sys.argv[1:]:
    try:
        model = load_model(name, device="cpu")
        print(type(model).__name__, model.name, sum(p.numel() for p in model.parameters()))
    except UserError as error:
        print("UserError", error)
print([row.name for row in list_models() if row.cached])
"""


def _run(environment: dict[str, str], *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _LOAD, *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)


def test_released_weights_are_downloaded_once_after_their_licence_is_shown(hub):
    environment, log = hub
    first = _run(environment, "dust3r-512-linear", "someone/else", "someone/absent")
    size = sum(p.numel() for p in tiny.dust3r().parameters())
    lines = first.stdout.splitlines()
    assert lines[0] == f"Dust3r dust3r-512-linear {size}"
    assert lines[1] == f"Dust3r else {size}"
    assert lines[2].startswith("UserError There is no model 'someone/absent' on the hub")
    assert "'dust3r-512-linear'" in lines[3]
    assert first.stderr.index("CC BY-NC-SA 4.0") < len(first.stderr)
    assert any("naver/DUSt3R_ViTLarge_BaseDecoder_512_linear" in request for request in log)

    requests = len(log)
    offline = environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    again = _run(offline, "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear", "dust3r-512-dpt")
    assert again.stdout.splitlines()[0] == f"Dust3r dust3r-512-linear {size}"
    assert "connect to the internet" in again.stdout.splitlines()[1]
    assert "Licence" not in again.stderr
    assert "Traceback" not in again.stderr
    assert len(log) == requests


def test_files_are_recognised_by_what_they_say_of_themselves(tmp_path):
    assert isinstance(registry.load_model(tiny.write_dust3r(tmp_path)), Dust3r)
    assert isinstance(registry.load_model(tiny.write_hub_dust3r(tmp_path / "hub")), Dust3r)
    model = registry.load_model(tiny.write_mini(tmp_path / "fine.safetensors"), device="cpu", dtype="float32")
    assert isinstance(model, Mini)
    assert model.name == "fine"
    assert model.encoder.blocks[0].attn.qkv.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in model.parameters())


def test_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match="use classic"):
        registry.load_model("mini")
    assert not next(row for row in registry.list_models() if row.name == "mini").cached
    (tmp_path / "weights").mkdir()
    tiny.write_mini(tmp_path / "weights" / "mini.safetensors")
    assert isinstance(registry.load_model("mini"), Mini)
    assert next(row for row in registry.list_models() if row.name == "mini").cached


def test_classic_needs_no_weights():
    assert registry.load_model("classic").name == "classic"


def test_names_that_are_none():
    with pytest.raises(UserError, match="did you mean dust3r-512-dpt"):
        registry.load_model("dust3r-512-dtp")
    with pytest.raises(UserError, match=r"or file 'weights/absent\.pth'"):
        registry.load_model("weights/absent.pth")


def test_other_files(tmp_path):
    torch.save({"something": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="no checkpoint of a model"):
        registry.load_model(tmp_path / "other.pth")
    torch.save({"prediction_head.weight": torch.ones(2)}, tmp_path / "croco.pth")
    with pytest.raises(UserError, match="load_croco"):
        registry.load_model(tmp_path / "croco.pth")


def test_rows_are_complete():
    names = [row.name for row in (*registry.MODELS, *registry.CROCO_FILES)]
    assert len(names) == len(set(names))
    for row in registry.list_models():
        assert row.licence
        owners = ("naver", "Ruicheng", "siyan824")
        assert row.megabytes == 0 or row.source.startswith(tuple(f"huggingface.co/{owner}/" for owner in owners))
