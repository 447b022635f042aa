"""One user's list on demand: how the user is found."""

from datetime import UTC, datetime

import pytest
from inside import InProcessSite

from headwater import privacy, schemas
from headwater.errors import HeadwaterError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_with_a_privacy_key_a_user_is_found_by_id_and_by_pseudonym(spark, tmp_path):
    (tmp_path / "key").write_text("a secret")
    shop = InProcessSite(spark, tmp_path / "site", {"privacy": {"key_file": str(tmp_path / "key")}})
    ann = privacy.pseudonym("ann", b"a secret")
    row = (ann, [3], ["view"], [NOW], ["e1"], [None], [3], NOW, NOW)
    shop.tables.append(spark.createDataFrame([row], schemas.ddl("sequences")), "sequences", {"job": "tests"})
    for name in ("ann", ann):
        assert shop.call("recommend", "stored", name)["user_id"].to_list() == [ann]
    with pytest.raises(HeadwaterError, match="user 'bob' has no sequence"):
        shop.call("recommend", "stored", "bob")
