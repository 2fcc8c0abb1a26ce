"""What is missing in a cluster's configuration."""

import pytest

from gridtide.clouds.protocol import Level
from gridtide.errors import QueueError
from gridtide.queues.slurm.checking import look_over, read_config, read_partitions
from gridtide.queues.slurm.commands import Commands

CONFIG = """Configuration data as of 2026-11-21T08:07:39
AuthType                = auth/munge
MaxNodeCount            = 500
ReturnToService         = 2
SelectType              = select/cons_tres
SlurmctldParameters     = enable_configless,idle_on_node_suspend
SuspendTime             = INFINITE
TreeWidth               = 65533

Cgroup Support Configuration:
AuthType                = other
"""
PARTITION = "PartitionName=all AllowGroups=ALL NodeSets=ALL Nodes=w[1-3] State=UP TotalNodes=3"


class Answers(Commands):
    """Commands that answer from memory."""

    __slots__ = ("config", "partition", "release")

    def __init__(self, config: str = CONFIG, partition: str = PARTITION, release: tuple[int, int] = (24, 11)) -> None:
        Commands.__init__(self, "queue cluster")
        for key, value in (("config", config), ("partition", partition), ("release", release)):
            object.__setattr__(self, key, value)

    config: str
    partition: str
    release: tuple[int, int]

    async def version(self) -> tuple[int, int]:
        return self.release

    async def run(self, *command: str) -> str:
        return self.config if "config" in command else self.partition


async def test_nothing_is_missing() -> None:
    (finding,) = await look_over(Answers(), True)
    assert (finding.level, finding.text) == (Level.OK, "Slurm 24.11 is configured for dynamic nodes")


@pytest.mark.parametrize(
    ("before", "after", "level", "remedy"),
    [
        ("select/cons_tres", "select/linear", Level.ERROR, "SelectType=select/cons_tres"),
        ("MaxNodeCount            = 500\n", "", Level.ERROR, "MaxNodeCount=1000"),
        ("enable_configless,", "", Level.ERROR, "SlurmctldParameters=enable_configless"),
        ("auth/munge", "auth/slurm", Level.ERROR, "AuthType=auth/munge"),
        ("ReturnToService         = 2", "ReturnToService         = 0", Level.WARNING, "ReturnToService=2"),
        ("INFINITE", "300 sec", Level.WARNING, "SuspendExcParts="),
    ],
)
async def test_lines_to_add(before: str, after: str, level: Level, remedy: str) -> None:
    assert before in CONFIG
    (finding,) = await look_over(Answers(CONFIG.replace(before, after, 1)), False)
    assert finding.level is level
    assert remedy in finding.remedy


async def test_messages_handed_on_before_23_11() -> None:
    narrow = CONFIG.replace("65533", "50")
    (finding,) = await look_over(Answers(narrow, release=(22, 5)), False)
    assert (finding.level, finding.remedy) == (Level.WARNING, "slurm.conf: TreeWidth=65533")
    (finding,) = await look_over(Answers(narrow), False)
    assert finding.level is Level.OK


async def test_versions() -> None:
    (finding,) = await look_over(Answers(release=(21, 8)), False)
    assert (finding.level, finding.text) == (Level.ERROR, "Slurm 21.08 has no dynamic nodes")
    (finding,) = await look_over(Answers(release=(22, 5)), True)
    assert "own_ports needs Slurm 23.11" in finding.text


async def test_partitions() -> None:
    (finding,) = await look_over(Answers(partition="No partitions in the system"), False)
    assert finding.text == "there is no partition"
    (finding,) = await look_over(Answers(partition=PARTITION.replace("NodeSets=ALL", "NodeSets=(null)")), False)
    assert finding.text == "no partition takes dynamic nodes in"
    assert "NodeSet=workers Feature=gridtide" in finding.remedy
    (finding,) = await look_over(Answers(partition="PartitionName=all Nodes=w[1-3]", release=(22, 5)), False)
    assert finding.level is Level.OK, "22.05 does not tell"


async def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Answers, *command: str) -> str:
        raise QueueError("scontrol: Unable to contact slurm controller", where="queue cluster")

    monkeypatch.setattr(Answers, "run", broken)
    (finding,) = await look_over(Answers(), False)
    assert (finding.level, finding.text) == (Level.ERROR, "scontrol: Unable to contact slurm controller")


def test_the_first_value_of_a_key_counts() -> None:
    assert read_config(CONFIG)["authtype"] == "auth/munge"
    assert read_partitions(PARTITION)[0]["nodes"] == "w[1-3]"


async def test_power_saving_needs_it_switched_on_in_slurm_and_no_room_for_dynamic_nodes() -> None:
    (finding,) = await look_over(Answers(), False, power_saving=True)
    assert finding.level is Level.ERROR
    assert "ResumeProgram=" in finding.remedy
    on = CONFIG.replace("INFINITE", "300 sec").replace("MaxNodeCount            = 500\n", "")
    on = on.replace("select/cons_tres", "select/linear") + "ResumeProgram = /usr/local/sbin/resume\n"
    (finding,) = await look_over(
        Answers(on.replace("\nCgroup", "ResumeProgram = /r\n\nCgroup")), False, power_saving=True
    )
    assert (finding.level, finding.text) == (Level.OK, "Slurm 24.11 is configured for power saving")
