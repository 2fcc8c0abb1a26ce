import pytest

# Not named test_*, so pytest would not explain their assertions by itself.
pytest.register_assert_rewrite("tests.unit.store.contract", "tests.unit.store.contract_joining")
