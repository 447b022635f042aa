"""The folder of a training, used by one training at a time."""

import pytest

from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.training import workplace


def held(tmp_path, name="headwater", **inputs):
    config = Config.model_validate({"paths": {"warehouse": str(tmp_path)}, "mlflow": {"model_name": name}})
    return workplace.locked_folder(config, {"events_version": 3, **inputs})


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
