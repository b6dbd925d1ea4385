"""A SLURM cluster of this machine alone, with everything it needs in one folder."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "squeue", "scontrol", "munged", "munge")
SECONDS, PYTHON = 60, str(Path(sys.executable).parent)

CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ReturnToService=1
JobRequeue=1
MpiDefault=none
KillWait=30
SchedulerParameters=sched_interval=2,batch_sched_delay=0,requeue_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why there can be no cluster here; nothing where there can."""
    if os.geteuid():
        return "SLURM's programs are started as root"
    paths = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    absent = [name for name in PROGRAMS if shutil.which(name, path=paths) is None]
    return f"not installed: {', '.join(absent)} (packages slurm-wlm, munge)" if absent else ""


@contextmanager
def started(folder: Path):
    """The settings of the environment in which SLURM's commands are those of a new cluster."""
    if reason := missing():
        pytest.skip(reason)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    file, host = folder / "slurm.conf", socket.gethostname().partition(".")[0]
    file.write_text(CONFIGURATION.format(folder=folder, host=host, ports=_free(2)))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    environment = os.environ | {
        "SLURM_CONF": str(file),
        "PATH": os.pathsep.join([PYTHON, os.environ["PATH"], "/usr/sbin"]),
    }
    files = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")}
    munge = ["--foreground", "--force", f"--socket={folder}/munge.socket"]
    with ExitStack() as stack:
        for command in (
            ["munged", *munge, *files.values()],
            ["slurmctld", "-D", "-c"],
            ["slurmd", "-D"],
        ):
            stack.enter_context(_service(command, environment, folder))
        _wait(environment, folder)
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        with suppress(TimeoutError):
            _until(lambda: not command_of(environment, "squeue", "--noheader"), folder)


def command_of(environment, *words):
    """What one of SLURM's commands says."""
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@contextmanager
def _service(command, environment, folder):
    with (
        (folder / f"{command[0]}.output").open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(environment, folder):
    def idle():
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
        )
        return found.stdout.strip() == "idle"

    _until(idle, folder)


def _until(condition, folder):
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
            raise TimeoutError(logs)
        time.sleep(0.2)


def _free(n):
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]
