#!/usr/bin/env bash
# A real one-node SLURM cluster on loopback, for testing sbatch scripts (run as root; no systemd needed).
#   one_node.sh DIR        install if missing, start, wait until the node is idle
#   one_node.sh DIR stop   cancel all jobs, stop all three daemons
# Everything (conf, key, sockets, state, logs) is under DIR; nothing in /etc is written by this script.
# Then: export SLURM_CONF=DIR/slurm.conf   (the start prints it; DIR/env.sh holds it)
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 DIR [start|stop]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 2; }
mkdir -p "$1"; dir=$(realpath "$1"); action=${2:-start}
export SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin:/sbin
# Never let an enclosing job's variables leak into daemons (and so into the jobs they start).
for v in $(compgen -e); do case $v in SLURM_CONF) ;; SLURM_*|SBATCH_*|SRUN_*) unset "$v" ;; esac; done

# A pid file may be stale, its number reused or a zombie (PID 1 reaps late): believe only the program's file.
alive() { local p; p=$(cat "$dir/run/$1.pid" 2>/dev/null) && [ "$(readlink "/proc/$p/exe")" = "$(realpath "$(command -v "$1")")" ]; }
# Poll once a second until a deadline (a hung sinfo counts too): until_ok SECONDS command...
until_ok() { local end=$((SECONDS + $1)); shift; while ! "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 1; done; }
fail() { echo "FAILED: $*; last log lines of $dir/log:" >&2; tail -qn 4 "$dir"/log/*.log >&2 || true; exit 1; }
gone() { ! alive "$1"; }
no_jobs() { [ -z "$(timeout 5 squeue -h 2>/dev/null)" ]; }

if [ "$action" = stop ]; then
  # Jobs first: step daemons outlive slurmd on purpose, so their processes would be left running.
  if alive slurmctld && alive slurmd; then
    timeout 10 scancel -u root || true
    until_ok 45 no_jobs || echo "jobs still there after 45 s, stopping anyway" >&2   # 45 > KillWait
  fi
  for d in slurmd slurmctld munged; do   # munged last: the others authenticate through it
    if alive $d; then kill "$(cat "$dir/run/$d.pid")"; fi
    until_ok 20 gone $d || fail "$d did not stop"
  done
  echo "stopped"; exit 0
fi
[ "$action" = start ] || { echo "unknown action: $action" >&2; exit 2; }

have_all() { local c; for c in munged mungekey slurmctld slurmd sbatch; do command -v $c >/dev/null || return 1; done; }
if ! have_all; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

chmod 755 "$dir"   # munged refuses a socket folder that others cannot enter, or that others can write
mkdir -p -m 755 "$dir"/{run,log,state,spool}; mkdir -p -m 700 "$dir/key"
# Our own key and socket, owned by root: the package's key belongs to user munge, and munged (as root) refuses it.
[ -s "$dir/key/munge.key" ] || mungekey --create --keyfile "$dir/key/munge.key"

# NodeName must be the machine's own short name (slurmd looks itself up by it); the address is loopback.
# config_overrides: believe the 2 CPUs even if the machine differs, instead of draining the node.
# AuthInfo cred_expire: a requeued job waits that long + 1 s before it may start again (default 120).
host=$(hostname -s)
cat > "$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket,cred_expire=10
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=30
MinJobAge=300
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=$(awk '/MemTotal/{print int($2/1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
echo "export SLURM_CONF=$SLURM_CONF" > "$dir/env.sh"

alive munged || munged --key-file="$dir/key/munge.key" --socket="$dir/run/munge.socket" --seed-file="$dir/key/munge.seed" \
  --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" || fail "munged did not start"
alive slurmctld || slurmctld -f "$SLURM_CONF" || fail "slurmctld did not start"
alive slurmd || slurmd -f "$SLURM_CONF" || fail "slurmd did not start"
up() { alive slurmctld && alive slurmd && [[ $(timeout 5 sinfo -h -o %T 2>/dev/null) =~ ^(idle|mixed|allocated)$ ]]; }
until_ok 60 up || fail "node not up after 60 s ($(timeout 5 sinfo -h -o '%T %E' 2>&1 | head -n 1))"   # busy = second start
timeout 5 sinfo; cat "$dir/env.sh"
