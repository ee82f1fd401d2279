#!/usr/bin/env bash
# A SLURM cluster of several nodes on this host, for tests, in one folder and on loopback ports only.
#
#   slurm.sh programs                 print what is missing of SLURM; fails if anything is
#   slurm.sh start DIR NODES OWNER    start; ends by itself when the process OWNER is gone
#   slurm.sh stop DIR                 end all jobs and daemons, and remove DIR
#   slurm.sh lose DIR NODE            end a node's daemon and its jobs, without a word to the controller
#   slurm.sh back DIR NODE            start the node's daemon again
#
# DIR/slurm.conf is the configuration: set SLURM_CONF to it. DIR must be short, since sockets lie in it.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
here=$(realpath -- "$0")

fail() {
    echo "slurm.sh: $*" >&2
    exit 1
}

programs() {
    local program missing=
    for program in munged slurmctld slurmd sbatch scontrol squeue setsid; do
        command -v "$program" >/dev/null || missing+=" $program"
    done
    [[ -z $missing ]] || fail "not installed:$missing
help: on Debian, apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
}

# Starts a daemon of its own session, whose id is kept in DIR/NAME.pid. Nothing of the caller stays open in it.
daemon() {
    local name=$1 fd
    shift
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            case $fd in 0 | 1 | 2) ;; *) eval "exec $fd>&-" || true ;; esac
        done 2>/dev/null
        exec setsid "$@"
    ) </dev/null >>"$dir/$name.out" 2>&1 &
    echo "$!" >"$dir/$name.pid"
}

# Whether the process in DIR/NAME.pid runs.
runs() {
    local stat
    stat=$(cat "/proc/$(cat "$dir/$1.pid" 2>/dev/null)/stat" 2>/dev/null) || return 1
    # A zombie waits for whoever started it.
    [[ ${stat##*) } != Z* ]]
}

end() {
    local tick
    if runs "$1"; then
        kill -TERM "$(<"$dir/$1.pid")" 2>/dev/null || true
        for tick in {1..60}; do
            runs "$1" || break
            ((tick < 60)) || kill -KILL "$(<"$dir/$1.pid")" 2>/dev/null || true
            sleep 0.05
        done
    fi
    rm -f "$dir/$1.pid"
}

# Ends the jobs of this cluster, or of one of its nodes: they keep the environment that their node gave them.
end_jobs() {
    local file pid
    for pid in $(
        { grep -lzsxF "SLURM_CONF=$dir/slurm.conf" /proc/[0-9]*/environ || true; } |
            { xargs -r grep -lzs '^SLURM_JOB_ID=' || true; } |
            { xargs -r grep -lzsx "SLURMD_NODENAME=${1:-.*}" || true; } | tr -dc '0-9\n'
    ); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    # The steps' managers hold their node's log open.
    for file in $(find /proc/[0-9]*/fd -maxdepth 1 -lname "$dir/slurmd-${1:-*}.log" 2>/dev/null); do
        pid=${file#/proc/}
        pid=${pid%%/*}
        grep -qx "$pid" "$dir"/*.pid 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    done
}

# Prints the first of some ports in a row that nobody listens on.
free_ports() {
    local base port used
    used=$(awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null || true)
    while :; do
        base=$((21000 + RANDOM % 9000))
        for ((port = base; port <= base + $1; port++)); do
            ! grep -qix "$(printf %04X "$port")" <<<"$used" || continue 2
        done
        echo "$base"
        return
    done
}

configure() {
    local nodes=$1 base node
    base=$(free_ports "$nodes")
    # A requeued job waits for cred_expire; nodes that give no answer are down after about 15 s.
    cat >"$dir/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge.sock,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.own
SlurmdPidFile=$dir/slurmd-%n.own
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
SlurmctldTimeout=5
SlurmdTimeout=5
KillWait=2
MessageTimeout=5
TCPTimeout=2
MinJobAge=3600
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$dir/cgroup.conf"
    for ((node = 1; node <= nodes; node++)); do
        echo "NodeName=node$node NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((base + node)) CPUs=1 RealMemory=64000 State=UNKNOWN" >>"$dir/slurm.conf"
    done
}

nodes_ready() {
    local states
    states=$(SLURM_CONF=$dir/slurm.conf timeout 10 sinfo -h -N -o %T 2>/dev/null) || return 1
    [[ -n $states ]] && ! grep -qvxE 'idle|mixed|allocated|completing' <<<"$states"
}

node_daemon() {
    mkdir -p "$dir/spool-$1"
    daemon "slurmd-$1" slurmd -D -N "$1" -f "$dir/slurm.conf"
}

start() {
    local nodes=$1 owner=$2 node tick
    programs
    ((${#dir} <= 70)) || fail "$dir: expected at most 70 characters"
    mkdir -p "$dir/state"
    configure "$nodes"
    (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    daemon munged munged --foreground --force --socket="$dir/munge.sock" --key-file="$dir/munge.key" \
        --pid-file="$dir/munged.own" --seed-file="$dir/munged.seed" --log-file="$dir/munged.log"
    for tick in {1..50}; do
        [[ ! -S $dir/munge.sock ]] || break
        sleep 0.1
    done
    daemon slurmctld slurmctld -D -i -f "$dir/slurm.conf"
    for ((node = 1; node <= nodes; node++)); do
        node_daemon "node$node"
    done
    daemon watch "$here" watch "$dir" "$owner"
    for tick in {1..200}; do
        ! nodes_ready || return 0
        sleep 0.1
    done
    tail -n 5 "$dir"/*.log "$dir"/*.out >&2
    fail "the cluster did not start"
}

stop() {
    local file name
    [[ -d $dir ]] || return 0
    for file in "$dir"/slurmd-*.pid; do
        name=$(basename "$file" .pid)
        [[ ! -e $file ]] || end "$name" &
    done
    wait
    end slurmctld
    end_jobs
    end munged
    [[ ${1:-} == watch ]] || end watch
    rm -rf "$dir"
}

case ${1:-} in
    programs) programs && exit ;;
    start | stop | watch | lose | back) [[ $# -ge 2 ]] || fail "expected a folder" ;;
    *) fail "expected programs, start, stop, lose or back" ;;
esac
dir=$(realpath -m -- "$2")
case $1 in
    start) start "$3" "$4" ;;
    stop) stop ;;
    watch)
        while kill -0 "$3" 2>/dev/null; do sleep 1; done
        stop watch
        ;;
    lose)
        kill -KILL "$(<"$dir/slurmd-$3.pid")"
        rm -f "$dir/slurmd-$3.pid"
        end_jobs "$3"
        ;;
    back) node_daemon "$3" ;;
esac
