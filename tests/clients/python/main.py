"""The official Python client, unmodified, against a cluster: what programs do with it, and what they see.

    python main.py KUBECONFIG NAMESPACE

The namespace has a pod `server` that has written `started` and serves its /etc on port 8080. The program says `ready`,
waits for a line on its standard input (meanwhile the API server is restarted), and ends with code 0 when all held.
"""

import json
import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

kubeconfig, ns = sys.argv[1:]
config.load_kube_config(config_file=kubeconfig)
core = client.CoreV1Api()


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


def refused(code, reason, call, *args, **kwargs):
    """The Status of a call that has to fail so."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        status = json.loads(error.body)
        same(f"the refusal by {call.__name__}", (error.status, status["reason"]), (code, reason))
        return status
    sys.exit(f"{call.__name__} was not refused with {code} {reason}")


def config_map(name, **data):
    return {"metadata": {"name": name, "labels": {"of": "python"}}, "data": data}


def pages():
    for number in range(25):
        core.create_namespaced_config_map(ns, config_map(f"page-{number:02}"))
    sizes, more = [], None
    while more != "":
        page = core.list_namespaced_config_map(ns, limit=10, _continue=more)
        sizes.append((len(page.items), page.metadata.remaining_item_count))
        more = page.metadata._continue or ""
    same("the pages, with the cluster's own", sizes, [(10, 16), (10, 6), (6, None)])
    core.delete_collection_namespaced_config_map(ns, label_selector="of=python")
    same("after delete collection", core.list_namespaced_config_map(ns, label_selector="of=python").items, [])


def patches():
    core.create_namespaced_config_map(ns, config_map("patched", a="1"))
    for kind, body, want in [
        ("json-patch", [{"op": "add", "path": "/data/b", "value": "2"}], {"a": "1", "b": "2"}),
        ("merge-patch", {"data": {"a": None, "c": "3"}}, {"b": "2", "c": "3"}),
        ("strategic-merge-patch", {"data": {"d": "4"}}, {"b": "2", "c": "3", "d": "4"}),
    ]:
        got = core.patch_namespaced_config_map("patched", ns, body, _content_type=f"application/{kind}+json")
        same(kind, got.data, want)
    refused(422, "Invalid", core.patch_namespaced_config_map, "patched", ns,
            [{"op": "test", "path": "/data/b", "value": "x"}], _content_type="application/json-patch+json")
    stale = core.read_namespaced_config_map("patched", ns)
    stale.data["e"] = "5"
    core.replace_namespaced_config_map("patched", ns, stale)
    refused(409, "Conflict", core.replace_namespaced_config_map, "patched", ns, stale)
    refused(409, "AlreadyExists", core.create_namespaced_config_map, ns, config_map("patched"))
    refused(404, "NotFound", core.read_namespaced_config_map, "none", ns)


def apply():
    def applied(manager, value, **options):
        body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("applied", owned=value)}
        return core.patch_namespaced_config_map("applied", ns, body, field_manager=manager,
                                                _content_type="application/apply-patch+yaml", **options)

    applied("one", "1")
    status = refused(409, "Conflict", applied, "two", "2")
    same("the conflict", status["message"], 'Apply failed with 1 conflict: conflict with "one": .data.owned')
    same("forced", applied("two", "2", force=True).data, {"owned": "2"})
    # Through the dynamic client, which finds the resource by discovery.
    maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    same("through discovery", maps.get(name="applied", namespace=ns).data.to_dict(), {"owned": "2"})
    managers = {entry.manager for entry in core.read_namespaced_config_map("applied", ns).metadata.managed_fields}
    same("the managers", managers, {"one", "two"})


def streams():
    same("the log", core.read_namespaced_pod_log("server", ns), "started\n")
    command = ["sh", "-c", "read line; echo out $line; echo err >&2; exit 3"]
    talk = stream(core.connect_get_namespaced_pod_exec, "server", ns, command=command, stdin=True, stdout=True,
                  stderr=True, tty=False, _preload_content=False)
    talk.write_stdin("put\n")
    talk.run_forever(timeout=30)
    same("exec", (talk.read_stdout(), talk.read_stderr(), talk.returncode), ("out put\n", "err\n", 3))
    forward = portforward(core.connect_get_namespaced_pod_portforward, "server", ns, ports="8080")
    socket = forward.socket(8080)
    socket.setblocking(True)
    socket.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := socket.recv(4096):
        answer += chunk
    same("port-forward", (answer[:15], answer[-7:]), (b"HTTP/1.1 200 OK", b"server\n"))
    same("its error", forward.error(8080), None)


def election():
    led, over = [], threading.Event()

    def run(identity):
        def lead():
            led.append(identity)
            over.set()
        settings = electionconfig.Config(LeaseLock("python", ns, identity), 5, 4, 2, lead, lambda: None)
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

    run("one")
    over.wait(30)
    run("two")
    lease = client.CoordinationV1Api().read_namespaced_lease("python", ns)
    same("the leader", (lease.spec.holder_identity, led), ("one", ["one"]))


class Follower(threading.Thread):
    """A watch that goes on where it was when the server goes away."""

    def __init__(self):
        super().__init__(daemon=True)
        self.version = core.list_namespaced_config_map(ns).metadata.resource_version
        self.told, self.more = [], threading.Condition()
        self.start()

    def run(self):
        while True:
            try:
                for event in watch.Watch().stream(core.list_namespaced_config_map, ns, resource_version=self.version):
                    metadata = event["object"].metadata
                    self.version = metadata.resource_version
                    with self.more:
                        self.told.append(f"{event['type']} {metadata.name}")
                        self.more.notify()
            except ApiException as error:
                sys.exit(f"the watch failed: {error}")
            except Exception as error:  # the connection, in one of urllib3's many ways
                print(f"the watch goes on: {type(error).__name__}", file=sys.stderr)
                threading.Event().wait(0.2)

    def expect(self, *want):
        with self.more:
            self.more.wait_for(lambda: len(self.told) >= len(want), timeout=60)
            same("what the watch told", self.told, list(want))


for step in [pages, patches, apply, streams, election]:
    step()
follower = Follower()
core.create_namespaced_config_map(ns, config_map("before"))
follower.expect("ADDED before")
print("ready", flush=True)
sys.stdin.readline()
core.create_namespaced_config_map(ns, config_map("after"))
core.delete_namespaced_config_map("before", ns)
follower.expect("ADDED before", "ADDED after", "DELETED before")
print("the Python client: all held")
