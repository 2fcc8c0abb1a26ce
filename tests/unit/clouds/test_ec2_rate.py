"""The bucket never lets more through than EC2's own would."""

from hypothesis import given
from hypothesis import strategies as st

from gridtide.clouds.ec2_rate import Bucket, Rate, Rates


def test_a_burst_then_the_rate() -> None:
    bucket = Bucket(Rate(3, 2), 100.0)
    waits = []
    for _ in range(6):
        waits.append(bucket.wait(100.0))
        bucket.take(100.0)
    assert waits == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]
    assert bucket.wait(101.5) == 0.5
    assert bucket.wait(1000.0) == 0.0


def test_a_refusal_empties_it() -> None:
    bucket = Bucket(Rate(100, 20), 0.0)
    bucket.empty(0.0)
    assert bucket.wait(0.0) == 0.05


def test_what_is_reserved_stays_so_when_a_call_is_refused() -> None:
    bucket = Bucket(Rate(1, 1), 0.0)
    for _ in range(4):
        bucket.take(0.0)
    bucket.empty(0.0)
    assert bucket.wait(0.0) == 4.0


def test_the_defaults_are_those_that_ec2_documents() -> None:
    assert (Rates().launch, Rates().terminate, Rates().read) == (Rate(5, 2), Rate(100, 5), Rate(100, 20))


@given(
    st.floats(1, 50),
    st.floats(0.1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=60),
)
def test_no_window_holds_more_calls_than_burst_and_rate_allow(
    burst: float, per_second: float, steps: list[tuple[float, bool]]
) -> None:
    bucket = Bucket(Rate(burst, per_second), 0.0)
    now, calls = 0.0, []
    for pause, refused in steps:
        now += pause
        calls.append(now + bucket.wait(now))
        bucket.take(now)
        if refused:
            bucket.empty(now)
    for first, start in enumerate(calls):
        for last in range(first, len(calls)):
            assert last - first + 1 <= burst + per_second * (calls[last] - start) + 1e-6
