"""Which jobs wait for machines, what they ask for, and where jobs are."""

from typing import Any

import pytest

from gridtide.queues.slurm.jobs import FINISHED, Ask, Jobs, ask_of, from_json, to_json
from gridtide.queues.slurm.values import Surprising

NOW = 1_000_000.0


def job(**changes: Any) -> dict[str, Any]:
    """As 24.11 writes it, as far as it is looked at."""
    return {
        "job_id": 7,
        "array_job_id": {"set": True, "infinite": False, "number": 0},
        "array_task_string": "",
        "job_state": ["PENDING"],
        "state_reason": "Resources",
        "nodes": "",
        "partition": "all",
        "features": "",
        "hold": False,
        "priority": {"set": True, "infinite": False, "number": 1},
        "eligible_time": {"set": True, "infinite": False, "number": NOW - 60},
        "submit_time": {"set": True, "infinite": False, "number": NOW - 90},
        "time_limit": {"set": False, "infinite": True, "number": 0},
        "node_count": {"set": True, "infinite": False, "number": 1},
        "tasks": {"set": True, "infinite": False, "number": 1},
        "cpus": {"set": True, "infinite": False, "number": 2},
        "tres_req_str": "cpu=2,mem=200M,node=1,billing=2",
        "restart_cnt": 0,
        "shared": [],
        "required_nodes": "",
        **changes,
    }


def counted(*records: dict[str, Any]) -> Jobs:
    jobs = Jobs()
    for record in records:
        jobs.take(record, NOW)
    jobs.finish()
    return jobs


def waiting(*records: dict[str, Any]) -> int:
    return sum(count for count, _ in counted(*records).waiting.values())


@pytest.mark.parametrize(
    "reason",
    ["None", "", "Resources", "Priority", "ReqNodeNotAvail", "PartitionNodeLimit", "PartitionConfig", "NodeDown",
     "SchedDefer", "SomethingOfALaterVersion"],
)  # fmt: skip
def test_reasons_that_more_machines_help_against(reason: str) -> None:
    assert waiting(job(state_reason=reason)) == 1


@pytest.mark.parametrize(
    "reason",
    ["Dependency", "DependencyNeverSatisfied", "JobHeldUser", "JobHeldAdmin", "BeginTime", "Licenses", "Reservation",
     "PartitionDown", "PartitionInactive", "PartitionTimeLimit", "JobArrayTaskLimit", "BadConstraints", "Cleaning",
     "QOSMaxCpuPerUserLimit", "AssocGrpCpuLimit", "AssociationJobLimit", "MaxCpuPerAccount", "MaxMemPerLimit",
     "InvalidAccount", "InvalidQOS", "BurstBufferStageIn", "JobHoldMaxRequeue"],
)  # fmt: skip
def test_reasons_that_they_do_not_help_against(reason: str) -> None:
    assert waiting(job(state_reason=reason)) == 0


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"hold": True}, 0),
        ({"priority": 0}, 0),
        ({"eligible_time": NOW + 100}, 0),
        ({"eligible_time": NOW + 100, "state_reason": "BeginTime", "restart_cnt": 1}, 1),
        ({"eligible_time": NOW + 1000, "state_reason": "BeginTime", "restart_cnt": 1}, 0),
        ({"eligible_time": NOW + 100, "state_reason": "JobHeldUser", "restart_cnt": 1}, 0),
        ({"job_state": ["PENDING", "REQUEUE_HOLD"]}, 0),
        ({"job_state": ["PENDING", "SPECIAL_EXIT"]}, 0),
        ({"job_state": "PENDING"}, 1),
        ({"job_state": ["RUNNING"], "nodes": "n1"}, 0),
        ({"eligible_time": 0}, 1),
    ],
)
def test_what_waits(changes: dict[str, Any], count: int) -> None:
    assert waiting(job(**changes)) == count


def test_the_oldest_counts() -> None:
    jobs = counted(job(), job(eligible_time=NOW - 500), job(eligible_time=0, submit_time=NOW - 700))
    assert list(jobs.waiting.values()) == [(3, NOW - 700)]


@pytest.mark.parametrize(
    ("tasks", "running", "count"),
    [
        ("1-1000", 0, 1000),
        ("1-1000%50", 0, 50),
        ("1-1000%50", 20, 30),
        ("1-1000%50", 60, 0),
        ("1-10%50", 20, 10),
        ("1-9:2", 3, 5),
    ],
)
def test_tasks_of_arrays(tasks: str, running: int, count: int) -> None:
    array = [job(array_job_id=7, array_task_string=tasks, job_state=["PENDING"])]
    active = [job(job_id=100 + n, array_job_id=7, job_state=["RUNNING"], nodes="n1") for n in range(running)]
    assert waiting(*array, *active) == count
    assert waiting(*active, *array) == count, "in whatever order they are told"


def test_jobs_of_several_nodes_count_for_each() -> None:
    (ask,) = counted(job(node_count=3, tres_req_str="cpu=8,mem=1000M,node=3,gres/gpu=4")).waiting
    assert (ask.nodes, ask.cores, ask.memory, ask.gpus) == (3, 3, 334, 2), "rounded up, for each node"
    assert waiting(job(node_count=3, array_task_string="1-5", array_job_id=7)) == 15


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"cores": 2, "memory": 200, "gpus": 0}),
        ({"tres_req_str": "cpu=1,mem=1.50G,node=1"}, {"cores": 1, "memory": 1536}),
        ({"tres_req_str": "cpu=1,mem=500K,node=1"}, {"memory": 1}),
        ({"tres_req_str": "cpu=1,mem=3T,node=1"}, {"memory": 3 * 1024 * 1024}),
        ({"tres_req_str": "cpu=1,node=1"}, {"memory": 0}),
        ({"tres_req_str": ""}, {"cores": 2, "memory": 0}),
        ({"minimum_cpus_per_node": 8}, {"cores": 8}),
        ({"tres_per_node": "gres/gpu:2"}, {"gpus": 2, "obstacle": ""}),
        ({"tres_per_node": "gres:gpu:2"}, {"gpus": 2}),
        ({"tres_per_node": "gres/gpu"}, {"gpus": 1}),
        ({"tres_per_job": "gres/gpu=3", "node_count": 2}, {"gpus": 2}),
        ({"tres_per_task": "cpu=2,gres/gpu=1", "tasks": 4}, {"gpus": 4}),
        ({"tres_per_node": "gres/gpu:a100:1"}, {"obstacle": "asks for a kind of GPU (a100)"}),
        ({"tres_per_node": "gres/fpga:1"}, {"obstacle": "asks for gres/fpga:1"}),
        ({"tres_per_socket": "gres/gpu:1"}, {"obstacle": "asks for gres/gpu:1 per socket"}),
        ({"required_nodes": "n[1-2]"}, {"obstacle": "asks for nodes by name (n[1-2])"}),
        ({"resv_name": "friday"}, {"obstacle": "asks for reservation friday"}),
        ({"minimum_tmp_disk_per_node": 100}, {"obstacle": "asks for temporary disk"}),
        ({"shared": ["none"]}, {"exclusive": True}),
        ({"shared": "none"}, {"exclusive": True}),
        ({"shared": None}, {"exclusive": False}),
        ({"time_limit": 90}, {"minutes": 90}),
        ({"time_limit": None}, {"minutes": None}),
        ({"time_limit": 4294967295}, {"minutes": None}),
    ],
)
def test_what_is_asked_for(changes: dict[str, Any], expected: dict[str, object]) -> None:
    ask = ask_of(job(**changes))
    assert {key: getattr(ask, key) for key in expected} == expected


@pytest.mark.parametrize(
    "states",
    [["RUNNING"], ["SUSPENDED"], ["RUNNING", "CONFIGURING"], ["CANCELLED", "COMPLETING"], ["PENDING", "COMPLETING"],
     ["RUNNING", "STOPPED"], ["SOMETHING_NEW"], "RUNNING", "COMPLETING", "running"],
)  # fmt: skip
def test_jobs_that_hold_nodes(states: object) -> None:
    assert counted(job(job_state=states, nodes="n[1-2],m")).placed == {"n1": 1, "n2": 1, "m": 1}


@pytest.mark.parametrize("states", [[state] for state in sorted(FINISHED)] + [["PENDING"]])
def test_jobs_that_hold_none(states: list[str]) -> None:
    assert counted(job(job_state=states, nodes="n1")).placed == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"job_state": None},
        {"job_state": []},
        {"job_state": [3]},
        {"partition": ""},
        {"tres_req_str": "cpu=many"},
        {"tres_req_str": "cpu"},
        {"tres_req_str": "mem=1X"},
        {"array_task_string": "a-b"},
        {"node_count": "2"},
        {"node_count": {"number": 2}},
        {"node_count": -1},
        {"cpus": True, "tres_req_str": ""},
        {"job_state": ["RUNNING"], "nodes": "n[1"},
    ],
)
def test_what_no_slurm_writes(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        counted(job(**changes))


def test_a_missing_state_is_an_error() -> None:
    record = job()
    del record["job_state"]
    with pytest.raises(Surprising, match="job_state is missing"):
        counted(record)


def test_there_and_back() -> None:
    jobs = counted(job(), job(features="a"), job(job_state="RUNNING", nodes="n1"))
    again = from_json(to_json(jobs))
    assert (again.waiting, again.placed) == (jobs.waiting, jobs.placed)
    assert Ask(2, 200, 0, 1, "all", "a", False, None, "") in again.waiting
