"""What a worker of Spark does around its lists."""

import sys
import zipimport
from zipfile import ZipFile

from headwater.scoring.lists import _forget_archives


def test_archives_on_the_path_are_forgotten_and_found_again(tmp_path, monkeypatch):
    with ZipFile(tmp_path / "goods.zip", "w") as archive:
        archive.writestr("goods_for_a_test.py", "PRICE = 3")
        archive.writestr("more_goods_for_a_test.py", "PRICE = 4")
    monkeypatch.syspath_prepend(str(tmp_path / "goods.zip"))
    import goods_for_a_test

    def searched():
        return [finder for finder in sys.path_importer_cache.values() if isinstance(finder, zipimport.zipimporter)]

    assert searched()
    _forget_archives()
    assert not searched()
    import more_goods_for_a_test

    assert (goods_for_a_test.PRICE, more_goods_for_a_test.PRICE) == (3, 4)
