#!/bin/sh
# Runs in the guest that `cargo xtask guest` boots: a cluster on cgroup v2 beside systemd, pods of each class, and what the
# kernel, the API and the statistics say of them. Prints one line per check; the last line is the verdict.
here=$(dirname "$0")
export PATH="$here:$PATH" KUBECONFIG=/var/lib/knarr/admin.kubeconfig HOME=/root
cgroup=/sys/fs/cgroup
failed=0

say() { printf 'guest: %7.1f s  %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }
pass() { say "ok    $1"; }
fail() { say "WRONG $1: $2"; failed=$((failed + 1)); }
# is NAME WANT COMMAND...: what the command prints, in one line.
is() {
    name=$1 want=$2
    shift 2
    got=$("$@" 2>&1 | tr '\n' ' ' | sed 's/ $//')
    if [ "$got" = "$want" ]; then pass "$name: $got"; else fail "$name" "want \"$want\", got \"$got\""; fi
}
# between NAME LEAST MOST VALUE
between() {
    if [ "${4:-0}" -ge "$2" ] && [ "$4" -le "$3" ]; then pass "$1: $4"; else fail "$1" "\"$4\" is not in $2..$3"; fi
}
# soon NAME COMMAND...: true within a minute.
soon() {
    name=$1
    shift
    for _ in $(seq 60); do
        if "$@" >/dev/null 2>&1; then
            pass "$name"
            return
        fi
        sleep 1
    done
    fail "$name" "not within a minute"
}
end() {
    if [ $failed -gt 0 ]; then
        tail -n 40 /var/lib/knarr/logs/knarr.log
        tail -n 20 /var/lib/knarr/logs/containerd.log
        say "verdict: $failed checks failed"
    else
        say "verdict: all checks passed"
    fi
    exit 0
}
# The files of one cgroup, one value each.
values() {
    dir=$1
    shift
    (cd "$dir" && cat "$@")
}
# field JSON PATTERN KEY: a number of the container whose usage begins before PATTERN.
field() { sed -n "s|.*\({\"cpu\":{[^}]*},\"memory\":{[^}]*},\"name\":\"$2\"\).*|\1|p" "$1" | grep -o "\"$3\":[0-9]*" | head -n 1 | cut -d: -f2; }

ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
say "$(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r), $(containerd --version | cut -d' ' -f3), $(runc --version | head -n 1), $(systemctl --version | head -n 1)"
is "cgroup file system" cgroup2fs stat -f -c %T $cgroup

# A limit of memory is one on a machine with swap, too.
(dd if=/dev/zero of=/swap bs=1M count=128 status=none && chmod 600 /swap && mkswap -q /swap && swapon /swap) || fail "swap" "none"

knarr up --detach || { fail "knarr up" "exit code $?"; end; }
ctr --address "$(echo /run/knarr/*/containerd.sock)" --namespace k8s.io images import --base-name localhost/busybox "$here/busybox.tar" || fail "image" "not imported"
is "node" True kubectl get nodes -o 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}'
root=$(echo $cgroup/knarr-*)
base=$root/kubepods
is "runtime's cgroups" "knarr's alone" sh -c "ls -d $cgroup/*/kubepods $cgroup/kubepods 2>/dev/null | grep -v '^$base\$' || echo \"knarr's alone\""

kubectl apply -f "$here/pods.yaml" || fail "pods" "not applied"
if ! kubectl wait --for=condition=Ready pod/guaranteed pod/burstable pod/besteffort --timeout=180s; then
    fail "pods" "not ready"
    kubectl get pods -o wide
    kubectl get events
    end
fi
# One question for everything: kubectl takes its seconds where the processor is emulated.
kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.qosClass} {.metadata.uid} {.status.containerStatuses[0].containerID}{"\n"}{end}' >/tmp/pods
is "phases and classes" "besteffort Running BestEffort burstable Running Burstable guaranteed Running Guaranteed" cut -d' ' -f1-3 /tmp/pods
uid() { awk -v name="$1" '$1 == name {print $4}' /tmp/pods; }
id() { awk -v name="$1" '$1 == name {sub(".*/", ""); print}' /tmp/pods; }
pod_g=$base/pod$(uid guaranteed) pod_b=$base/burstable/pod$(uid burstable) pod_e=$base/besteffort/pod$(uid besteffort)
con_g=$pod_g/$(id guaranteed) con_b=$pod_b/$(id burstable) con_e=$pod_e/$(id besteffort)
files="cpu.max cpu.weight memory.max pids.max"
memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) * 1024))
is "all pods" "max 100000 39 $memory max" values "$base" $files
is "burstable class" "max 100000 10 max max" values "$base/burstable" $files
is "besteffort class" "max 100000 1 max max" values "$base/besteffort" $files
is "guaranteed pod" "20000 100000 8 67108864 max" values "$pod_g" $files
is "burstable pod" "50000 100000 10 134217728 max" values "$pod_b" $files
is "besteffort pod" "max 100000 1 max max" values "$pod_e" $files
is "guaranteed container" "20000 100000 8 67108864 max 1 0" values "$con_g" $files memory.oom.group memory.swap.max
is "burstable container" "50000 100000 10 134217728 max 1 0" values "$con_b" $files memory.oom.group memory.swap.max
is "besteffort container" "max 100000 1 max max 1 0" values "$con_e" $files memory.oom.group memory.swap.max
is "a container sees its own limits" "20000 100000" kubectl exec guaranteed -- cat /sys/fs/cgroup/cpu.max

# systemd writes the root's controllers anew when it reloads or starts a unit: ours have to survive that.
printf '[Service]\nType=oneshot\nExecStart=/bin/true\nCPUWeight=50\n' >/run/systemd/system/weighed.service
systemctl daemon-reload
systemctl start weighed.service || fail "a unit with a weight" "not started"
systemctl daemon-reload
is "after systemd reloads: guaranteed pod" "20000 100000 8 67108864 max" values "$pod_g" $files

for part in certificate key; do
    sed -n "s/.*client-$part-data: *//p" $KUBECONFIG | tr -d '"' | base64 -d >/tmp/admin-$part.pem
done
kubelet() { curl -fsS --cacert /var/lib/knarr/pki/ca.crt --cert /tmp/admin-certificate.pem --key /tmp/admin-key.pem "https://10.0.2.15:10250$1"; }
kubelet /stats/summary >/tmp/first.json || fail "stats/summary" "no answer"
sleep 12
before=$(awk '/usage_usec/ {print $2}' "$con_g/cpu.stat")
kubelet /stats/summary >/tmp/summary.json
after=$(awk '/usage_usec/ {print $2}' "$con_g/cpu.stat")
between "summary: CPU of a busy container with 200m, in nanocores" 150000000 230000000 "$(field /tmp/summary.json burn usageNanoCores)"
between "summary: its CPU time within what the kernel says" "${before}000" "${after}000" "$(field /tmp/summary.json burn usageCoreNanoSeconds)"
between "summary: working set of one that holds 40 MiB" 41943040 52428800 "$(field /tmp/summary.json hold workingSetBytes)"
between "summary: its usage" 41943040 67108864 "$(field /tmp/summary.json hold usageBytes)"
between "summary: its anonymous memory" 1 4194304 "$(field /tmp/summary.json hold rssBytes)"
between "summary: working set of an idle one" 4096 4194304 "$(field /tmp/summary.json idle workingSetBytes)"
kubelet /metrics/resource >/tmp/resource.txt || fail "metrics/resource" "no answer"
between "metrics/resource: working set" 41943040 52428800 "$(awk '/^container_memory_working_set_bytes.*"hold"/ {print int($2)}' /tmp/resource.txt)"
between "metrics/resource: CPU seconds" "$((after / 1000000))" "$((after / 1000000 + 30))" "$(awk '/^container_cpu_usage_seconds_total.*"burn"/ {print int($2)}' /tmp/resource.txt)"

kubectl apply -f "$here/hogs.yaml" || fail "hogs" "not applied"
kubectl wait --for=jsonpath='{.status.phase}'=Failed pod -l app=hog --timeout=180s || kubectl get pods -l app=hog -o yaml
kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}{"\n"}{end}' >/tmp/hogs
for name in first later child; do
    is "a hog" "hog-$name Failed OOMKilled 137" grep "^hog-$name " /tmp/hogs
done
is "the other pods after that" "besteffort Running burstable Running guaranteed Running" sh -c "grep -v ^hog /tmp/hogs | sed 's/ *$//'"

kubectl delete pods --all --timeout=120s || fail "delete" "not within two minutes"
soon "the pods' cgroups are gone" sh -c "! ls -d $base/pod* $base/burstable/pod* $base/besteffort/pod* 2>/dev/null | grep -q ."
is "burstable class, empty" "max 100000 1 max max" values "$base/burstable" $files

kubectl run left --image=localhost/busybox:1 --command -- sleep 100000
kubectl wait --for=condition=Ready pod/left --timeout=120s || fail "last pod" "not ready"
knarr down || fail "knarr down" "exit code $?"
is "left in the cgroup file system" "nothing" sh -c "ls -d $cgroup/knarr-* 2>/dev/null || echo nothing"
is "left running" "nothing" sh -c "pgrep -l 'containerd|knarr|pause|sleep' || echo nothing"
is "mounts left" "nothing" sh -c "grep -E '/run/knarr|/var/lib/knarr' /proc/mounts || echo nothing"
end
