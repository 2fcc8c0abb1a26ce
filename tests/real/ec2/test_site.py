"""The production controller with the EC2 driver, a fifth of all calls spoilt; the benchmark measures it in large."""

from benchmarks.faults_ec2 import PART, run

from tests.real.ec2.account import Account


async def test_nothing_is_lost_doubled_or_killed_when_a_fifth_of_all_calls_fails(account: Account) -> None:
    outcome = await run(account, 5, PART)
    assert outcome.reached < outcome.ended < 100.0
    assert (outcome.lost, outcome.doubled, outcome.killed, outcome.unfinished) == (0, 0, 0, 0)
    assert outcome.struck > 0
    assert not account.instances()
