"""What is removed from the work folder, and what never is."""

import os
import shutil
from pathlib import Path

from headwater.config import Config
from headwater.training import workplace
from headwater.work import discard, prune, prune_trainings, work_folder


def make_config(tmp_path):
    return Config(paths={"warehouse": str(tmp_path / "warehouse")})


def make_old_folder(folder):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/epoch-00001.safetensors").write_text("weights")
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (1_000, 1_000))
    return folder


def test_a_training_that_is_running_is_never_removed(tmp_path):
    config = make_config(tmp_path)
    with workplace.locked_folder(config, {"events_version": 3}) as folder:
        make_old_folder(folder)
        given_up = make_old_folder(folder.with_name("0123456789abcdef"))
        assert prune(config, 2_000) == 1
        assert (folder.exists(), given_up.exists()) == (True, False)
    assert prune(config, 2_000) == 1
    assert not folder.exists()


def test_a_folder_whose_removal_is_killed_halfway_is_gone_all_the_same(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    folder = work_folder(config) / "training/0123456789abcdef"
    folder.mkdir(parents=True)
    workplace.begin(config, folder, {"events": 3})
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        discard(folder)
    assert workplace.unfinished(config) is None
    assert not folder.exists()
    assert prune_trainings(config) == 1
    assert not list(folder.parent.glob("*/*"))


def test_a_folder_whose_files_vanish_while_it_is_looked_at_is_in_use(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    folder = make_old_folder(work_folder(config) / "models/headwater/3-0123abcd")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rglob", lambda self, _: [self / "checkpoints", self / "checkpoints/removed"])
        assert prune(config, 2_000) == 0
    assert folder.exists()
    assert prune(config, 2_000) == 1
