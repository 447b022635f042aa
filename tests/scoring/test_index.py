"""Candidates from an index compared with exact search."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from headwater.scoring import index
from headwater.scoring.candidates import ExactIndex
from headwater.scoring.index import FaissIndex
from headwater.scoring.indexed import pays_off, recall

ROOT = Path(__file__).resolve().parents[2]
NOTHING = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)


def exact_and_approximate(folder, rows, size=800, users=30):
    """An exact and an approximate index of the same random rows, and some users."""
    draws = torch.Generator().manual_seed(1)
    every = torch.randn(size, 9, generator=draws)
    index.write(every[rows], folder / "index")
    wanted = torch.randn(users, 9, generator=draws)
    return ExactIndex(size, rows, every[rows]), FaissIndex(folder / "index", size, rows, every.__getitem__), wanted


def same_best(exact, near, *asked):
    (scores, items), (found_scores, found) = exact.best(*asked), near.best(*asked)
    assert torch.equal(found, items)
    assert torch.allclose(found_scores, scores, atol=1e-5)
    return found


def test_an_index_that_probes_all_lists_finds_the_same_items_as_exact_search(tmp_path):
    exact, near, users = exact_and_approximate(tmp_path, torch.arange(1, 800))
    assert same_best(exact, near, users, 10, NOTHING).gt(0).all()


def test_seen_items_are_replaced_by_the_next_best_even_if_there_are_hundreds(tmp_path):
    exact, near, users = exact_and_approximate(tmp_path, torch.arange(1, 800))
    best = exact.best(users, 300, NOTHING)[1]
    seen = torch.cat([torch.zeros(300, dtype=torch.int64), torch.tensor([1, 1])])
    blocked = seen, torch.cat([best[0], torch.tensor([best[1, 0], 5_000])])  # 5,000 is not in the matrix: it is newer
    found = same_best(exact, near, users, 10, blocked)
    assert not set(found[0].tolist()) & set(best[0].tolist())
    assert found[1, 0] == best[1, 1]


def test_unavailable_and_blocked_items_are_found_neither_by_vector_nor_by_bonus(tmp_path):
    exact, near, users = exact_and_approximate(tmp_path, torch.arange(2, 800, 2))
    bonus = torch.tensor([0, 0, 1, 2]), torch.tensor([3, 4, 6, 900]), torch.tensor([99.0, 98.0, 97.0, 96.0])
    found = same_best(exact, near, users, 10, (torch.tensor([1]), torch.tensor([6])), bonus)
    assert (found % 2 == 0).all()
    assert found[0, 0] == 4
    assert 6 not in found[1].tolist()


def test_an_item_with_a_bonus_is_found_even_in_a_list_that_is_not_probed(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "PROBED", 1)
    exact, near, users = exact_and_approximate(tmp_path, torch.arange(1, 800))
    last = exact.best(users, 799, NOTHING)[1][:, -1]
    bonus = torch.arange(len(users)), last, torch.full((len(users),), 1_000.0)
    assert torch.equal(near.best(users, 10, NOTHING, bonus)[1][:, 0], last)


def test_a_list_is_padded_with_zeros_when_no_items_are_left(tmp_path):
    exact, near, users = exact_and_approximate(tmp_path, torch.tensor([3, 5, 8]))
    found = same_best(exact, near, users, 5, (torch.tensor([0, 0, 0, 1]), torch.tensor([3, 5, 8, 5])))
    assert found[0].tolist() == [0] * 5
    assert sorted(found[1].tolist()) == [0, 0, 0, 3, 8]


def test_recall_is_the_share_of_exact_places_that_are_found():
    exact = pd.DataFrame({"user_id": ["a", "a", "b", "b"], "item_idx": [1, 2, 1, 3]})
    found = pd.DataFrame({"user_id": ["a", "a", "b", "b"], "item_idx": [2, 3, 1, 3]})
    assert recall(exact, found) == 3 / 4
    assert recall(exact[:0], found) == 1.0


def test_an_index_pays_off_for_many_users_but_not_for_few():
    assert pays_off(10_000_000, 10_000_000)
    assert not pays_off(1_000, 10_000_000)


@pytest.mark.parametrize("mode", ["full", "nearline"])
def test_without_faiss_the_error_names_the_command_that_installs_it(tmp_path, mode):
    (tmp_path / "faiss.py").write_text("raise ModuleNotFoundError(\"No module named 'faiss'\", name='faiss')\n")
    command = [sys.executable, str(ROOT / "jobs/score_topn.py"), "--mode", mode, "--set", "topn.index=faiss"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "score_topn: topn.index: faiss is not installed (make env installs it; elsewhere pip install faiss-cpu); "
        "or set topn.index to exact"
    )
