import pytest

# Not named test_*, so pytest would not explain its assertions by itself.
pytest.register_assert_rewrite("tests.unit.store.contract")
