"""The folder of a training, used by one training at a time."""

import pytest

from headwater.config import Config
from headwater.errors import DivergenceError, HeadwaterError, ModelError
from headwater.training import workplace
from headwater.work import discard


def config_of(tmp_path, name="headwater", **train):
    return Config.model_validate(
        {"paths": {"warehouse": str(tmp_path)}, "mlflow": {"model_name": name}, "train": train}
    )


def held(tmp_path, name="headwater", **inputs):
    return workplace.locked_folder(config_of(tmp_path, name), {"events_version": 3, **inputs})


def test_a_second_identical_training_is_refused_with_the_folder_of_the_first(tmp_path):
    with held(tmp_path) as folder:
        with pytest.raises(HeadwaterError, match=f"another training of model headwater is using {folder}; wait until"):
            held(tmp_path).__enter__()
        with held(tmp_path, events_version=4) as later, held(tmp_path, "goods") as other:
            assert len({folder, later, other}) == 3
    with pytest.raises(InterruptedError), held(tmp_path):
        raise InterruptedError
    with held(tmp_path) as again:  # the failed one has released it
        assert again == folder


def test_only_the_newest_training_with_the_same_settings_is_continued(tmp_path):
    mine, seven = config_of(tmp_path), config_of(tmp_path, seed=7)
    for config, name in ((seven, "a"), (mine, "b")):
        (workplace.work_folder(config) / "training" / name).mkdir(parents=True)
        workplace.begin(config, workplace.work_folder(config) / "training" / name, {"events": ord(name)})
    assert workplace.unfinished(mine) == {"events": ord("b")}
    assert workplace.unfinished(seven) == {"events": ord("a")}
    assert workplace.unfinished(config_of(tmp_path, "goods")) is None
    assert workplace.unfinished(config_of(tmp_path, learning_rate=0.1)) is None
    assert workplace.unfinished(config_of(tmp_path, timeout_seconds=5)) == {"events": ord("b")}
    workplace.begin(mine, workplace.work_folder(mine) / "training" / "c", {"events": ord("c")})
    assert workplace.unfinished(mine) == {"events": ord("c")}
    discard(workplace.work_folder(mine) / "training" / "c")  # as at the end of a training
    assert workplace.unfinished(mine) is None, "b is older than a training that has ended"


def test_a_training_that_diverged_is_not_continued_on_its_events_and_keeps_its_checkpoints(tmp_path):
    config, folder = config_of(tmp_path), workplace.work_folder(config_of(tmp_path)) / "training" / "a"
    (folder / "checkpoints").mkdir(parents=True)
    for error, continued in ((ModelError("a rank died"), {"events": 3}), (DivergenceError("not finite"), None)):
        workplace.begin(config, folder, {"events": 3})
        with pytest.raises(ModelError), workplace.not_continued_if_diverged(folder):
            raise error
        assert workplace.unfinished(config) == continued
    assert (folder / "checkpoints").exists()


def test_a_training_that_fails_leaves_nothing_if_it_is_never_resumed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ModelError), workplace.discarded_on_error(folder):
        raise ModelError("the loss is not finite")
    assert not folder.exists()


def test_a_resumed_training_keeps_its_id_until_its_folder_is_removed(tmp_path):
    config = config_of(tmp_path)
    folder = workplace.work_folder(config) / "training" / "a"
    folder.parent.mkdir(parents=True)
    first, resumed = (workplace.begin(config, folder, {"events": 3}) for _ in range(2))
    assert resumed == first
    (folder / "snapshot").mkdir()
    (folder / "weights").touch()
    discard(folder)
    assert workplace.begin(config, folder, {"events": 3}) != first
