"""Slurm on this host, for a test: one node, one partition, no accounting. Needs root, slurm-wlm and munge of Debian."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = Path("/etc/slurm/slurm.conf")  # clients find no other without an option each
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
GPU = CONFIGURATION.with_name("gres.conf")  # a file in place of a device: what is tested is who gets it
SETTINGS = """\
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MpiDefault=none
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MinJobAge=600
GresTypes=gpu
NodeName={host} CPUs={cores} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why Slurm cannot be run here; None where it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") is None]
    if os.geteuid() != 0:
        return "only root can start Slurm"
    if lacking:
        return f"not installed: {', '.join(lacking)} (packages slurm-wlm and munge)"
    return f"{CONFIGURATION} exists" if CONFIGURATION.exists() else None


@contextlib.contextmanager
def running(folder):
    """The daemons, their state in `folder`; ended at the end."""
    host, cores = socket.gethostname().partition(".")[0], os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
    folder.mkdir()
    for name in ("controller", "node"):
        (folder / name).mkdir()
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(SETTINGS.format(host=host, folder=folder, cores=cores, memory=memory))
    GPU.write_text(f"NodeName={host} Name=gpu File=/dev/null\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    Path("/run/munge").mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": f"/usr/sbin:{os.environ['PATH']}"}
    commands = (
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--log-file={folder}/munged.log"],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    )
    processes = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "wb") as out:
                processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(2)
        deadline = time.monotonic() + 120
        while "idle" not in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, "".join(path.read_text() for path in folder.glob("*.out"))
            time.sleep(1)
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        CONFIGURATION.unlink()
        GPU.unlink()
