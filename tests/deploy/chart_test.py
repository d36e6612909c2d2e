#!/usr/bin/env python3
"""The Helm chart: lints, renders for many settings into objects that Kubernetes' own schemas accept, refuses bad values with
a message that names them, asks for the memory that the formula says.

    chart_test.py [-k PATTERN]      helm is needed; kubeconform and NESTREC_KUBE_SCHEMAS (kube_schemas.py) for the schemas
"""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHART = os.path.join(ROOT, "deploy/helm/nestrec")
SKIP = 77

try:
    import yaml
except ImportError:
    print("skipped: Python's yaml is missing; apt-get install python3-yaml")
    sys.exit(SKIP)


def tool(name):
    return shutil.which(name) or shutil.which(name, path=os.path.expanduser("~/go/bin"))


HELM = tool("helm")
KUBECONFORM = tool("kubeconform")
SCHEMAS = os.environ.get("NESTREC_KUBE_SCHEMAS", "")

VALUE_SETS = {
    "the defaults": {},
    "TLS, client certificates and tokens": {
        "security": {"tls": {"secretName": "tls", "clientCaSecretName": "clients"}, "tokens": {"secretName": "tokens"},
                     "rateLimit": 50}},
    "sessions in Redis": {"sessions": {"store": "redis://redis.shop.svc:6380/0", "passwordSecret": "redis", "ttl": "720h"}},
    "autoscaling by CPU and queue": {
        "hpa": {"enabled": True, "queueTime": "2ms"},
        "tiers": [{"name": "bronze", "maxDim": 16}, {"name": "gold", "maxDim": 256, "hpa": {"maxReplicas": 40, "cpuPercent": 0}}]},
    "a route by header": {
        "grpcRoute": {"enabled": True, "parentRefs": [{"name": "gateway", "namespace": "infra"}],
                      "hostnames": ["recommend.example.com"], "defaultTier": "bronze"}},
    "Prometheus Operator": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "prometheusRule": {"enabled": True}},
    "models by HTTPS": {
        "model": {"source": "https", "https": {
            "authSecret": "artifacts", "caSecret": "artifacts-ca", "labels": 'canary: "*"\ncanary_share: 0.05\n',
            "versions": [{"name": "2026-10-01", "url": "https://a.example.com:8443/m.safetensors", "sha256": "0" * 64},
                         {"name": "2026-10-02", "url": "https://a.example.com/m2.safetensors", "sha256": "1" * 64}]}}},
    "a model in an image": {"model": {"source": "image", "image": {"repository": "registry.example.com/shop-model", "tag": "7"}}},
    "everything about the pods": {
        "image": {"repository": "registry.example.com/nestrec", "digest": "sha256:" + "a" * 64}, "imagePullSecrets": ["registry"],
        "nodeSelector": {"kubernetes.io/arch": "amd64"}, "podLabels": {"team": "shop"}, "podAnnotations": {"example.com/on-call": "shop"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}], "priorityClassName": "high", "admin": {"enabled": True},
        "topologySpread": {"whenUnsatisfiable": "DoNotSchedule"}, "service": {"type": "LoadBalancer", "port": 443},
        "server": {"extraArgs": ["--max-k=50"], "extraEnv": [{"name": "TZ", "value": "UTC"}], "filterFields": ["brand"]},
        "networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"app": "shop"}}}],
                          "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        "tiers": [{"name": "gold", "minDim": 64, "maxDim": 1024, "index": "IVF256,Flat", "indexParameters": "nprobe=16",
                   "latencyBudget": "20ms", "maxK": 100, "threads": 4,
                   "resources": {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}}]},
    "as little as possible": {
        "networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "topologySpread": {"enabled": False},
        "serviceAccount": {"create": False}, "drain": {"preStopSeconds": 0}},
}

# What is wrong, and what the message has to name.
REFUSED = [
    ("an unknown key", {"teirs": []}, "teirs"),
    ("an unknown key of a tier", {"tiers": [{"name": "a", "maxDim": 64, "dim": 64}]}, "dim"),
    ("no tiers", {"tiers": []}, "tiers"),
    ("a tier without a width", {"tiers": [{"name": "a"}]}, "maxDim"),
    ("a dim that the model does not hold", {"tiers": [{"name": "a", "maxDim": 100}]}, 'tier "a": maxDim 100 is not a size'),
    ("a narrowest dim that the model does not hold", {"tiers": [{"name": "a", "minDim": 9, "maxDim": 64}]}, "minDim 9 is not"),
    ("a range upside down", {"tiers": [{"name": "a", "minDim": 128, "maxDim": 64}]}, "minDim 128 is above maxDim 64"),
    ("a dim as text", {"tiers": [{"name": "a", "maxDim": "wide"}]}, "maxDim"),
    ("two tiers of one name", {"tiers": [{"name": "a", "maxDim": 64}, {"name": "a", "maxDim": 128}]}, 'the name "a" is there twice'),
    ("a name that Kubernetes would refuse", {"tiers": [{"name": "Gold!", "maxDim": 64}]}, "name"),
    ("sizes out of order", {"model": {"sizes": [64, 16]}, "tiers": [{"name": "a", "maxDim": 64}]}, "sizes go up"),
    ("an index that would break the config", {"tiers": [{"name": "a", "maxDim": 64, "index": 'Flat" max_k: 1'}]}, "index"),
    ("minus one replica", {"tiers": [{"name": "a", "maxDim": 64, "replicas": -1}]}, "replicas"),
    ("an unknown source of models", {"model": {"source": "ftp"}}, "source"),
    ("HTTPS without versions", {"model": {"source": "https"}}, "model.https.versions is empty"),
    ("a model without TLS", {"model": {"source": "https", "https": {"versions": [
        {"name": "a", "url": "http://a/m", "sha256": "0" * 64}]}}}, "url"),
    ("a checksum that is none", {"model": {"source": "https", "https": {"versions": [
        {"name": "a", "url": "https://a/m", "sha256": "latest"}]}}}, "sha256"),
    ("a version twice", {"model": {"source": "https", "https": {"versions": [
        {"name": "a", "url": "https://a/m", "sha256": "0" * 64}] * 2}}}, 'the name "a" is there twice'),
    ("a model image without a name", {"model": {"source": "image"}}, "model.image.repository is empty"),
    ("sessions in a folder, which replicas cannot share", {"sessions": {"store": "/var/lib/sessions"}}, "store"),
    ("client certificates without TLS", {"security": {"tls": {"clientCaSecretName": "ca"}}}, "needs security.tls.secretName"),
    ("autoscaling by nothing", {"hpa": {"enabled": True, "cpuPercent": 0}}, "neither cpuPercent nor queueTime"),
    ("more replicas at least than at most", {"hpa": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}, "is above hpa.maxReplicas"),
    ("a route to nowhere", {"grpcRoute": {"enabled": True}}, "grpcRoute.parentRefs is empty"),
    ("a default tier that there is not", {"grpcRoute": {"defaultTier": "iron"}}, '"iron" is not one of the tiers'),
    ("a flag that is none", {"server": {"extraArgs": ["rm -rf"]}}, "extraArgs"),
    ("a port too high", {"service": {"port": 70000}}, "port"),
    ("a duration without a unit", {"server": {"batchDelay": "5"}}, "batchDelay"),
]


def render(values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return subprocess.run([HELM, "template", "shop", CHART, "--namespace", "shop", "--kube-version", "1.33.0", "-f", file.name],
                              capture_output=True, text=True)


def objects(values):
    result = render(values)
    assert result.returncode == 0, result.stderr
    return [each for each in yaml.safe_load_all(result.stdout) if each]


def deployments(values):
    return {each["metadata"]["labels"]["nestrec/tier"]: each for each in objects(values) if each["kind"] == "Deployment"}


def server_of(deployment):
    return next(each for each in deployment["spec"]["template"]["spec"]["containers"] if each["name"] == "nestrec")


class Chart(unittest.TestCase):
    def test_lints_without_warnings(self):
        result = subprocess.run([HELM, "lint", "--strict", CHART], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_its_app_version_is_the_programs(self):
        with open(os.path.join(ROOT, "CMakeLists.txt")) as file:
            version = re.search(r"project\(nestrec VERSION (\S+)", file.read()).group(1)
        with open(os.path.join(CHART, "Chart.yaml")) as file:
            self.assertEqual(yaml.safe_load(file)["appVersion"], version)

    def test_every_value_set_renders_and_kubernetes_schemas_accept_it(self):
        for name, values in VALUE_SETS.items():
            with self.subTest(name):
                result = render(values)
                self.assertEqual(result.returncode, 0, result.stderr)
                if KUBECONFORM and SCHEMAS:
                    check = subprocess.run(
                        [KUBECONFORM, "-strict", "-summary", "-schema-location",
                         os.path.join(SCHEMAS, "{{.ResourceKind}}{{.KindSuffix}}.json"), "-"],
                        input=result.stdout, capture_output=True, text=True)
                    self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
        if not (KUBECONFORM and SCHEMAS):
            print("note: not compared with Kubernetes' schemas: kubeconform or NESTREC_KUBE_SCHEMAS is not there")

    def test_refuses_bad_values_and_names_them(self):
        for name, values, message in REFUSED:
            with self.subTest(name):
                result = render(values)
                self.assertNotEqual(result.returncode, 0, "was accepted")
                self.assertIn(message, result.stderr)

    def test_a_tier_loads_its_levels_alone(self):
        bronze, gold = (server_of(each) for each in deployments({}).values())
        self.assertIn("--max-dim=64", bronze["args"])
        self.assertIn("--max-dim=256", gold["args"])

    def test_memory_is_what_the_formula_says(self):
        spec = importlib.util.spec_from_file_location("serving_memory", os.path.join(ROOT, "tools/serving_memory.py"))
        formula = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(formula)
        sizes = [8, 16, 32, 64, 128, 256, 512, 1024]
        for items, blocks, states, index, least, dim in [
                (1000, 1, 0, "Flat", 8, 8), (4000, 1, 0, "nested", 16, 256), (12_101, 1, 0, "auto", 64, 256),
                (1_000_000, 2, 512, "HNSW32", 16, 64), (5000, 1, 0, "auto", 32, 32),
                (100_000_000, 1, 256, "Flat", 64, 64), (3_000_000, 4, 0, "nested", 1024, 1024)]:
            with self.subTest(items=items, index=index, dim=dim):
                values = {"model": {"items": items, "blocks": blocks, "fieldBytes": 333},
                          "sessions": {"store": "redis://r:6379/0" if states else "none", "stateMiB": states},
                          "tiers": [{"name": "a", "minDim": least, "maxDim": dim, "index": index}]}
                resources = server_of(deployments(values)["a"])["resources"]
                model = formula.model_bytes(items, dim, sizes, blocks, 333, index, least)
                expected = f"{formula.request_mib(model, states_mib=states, nested=index == 'nested' or formula.is_nested(items, dim))}Mi"
                self.assertEqual(resources["requests"]["memory"], expected)
                self.assertEqual(resources["limits"]["memory"], expected)

    def test_a_new_model_by_https_leaves_the_pods_alone(self):
        before = VALUE_SETS["models by HTTPS"]
        after = {"model": {"source": "https", "https": dict(before["model"]["https"])}}
        after["model"]["https"]["versions"] = before["model"]["https"]["versions"] + [
            {"name": "2026-10-03", "url": "https://a.example.com/m3.safetensors", "sha256": "2" * 64}]
        self.assertNotEqual(render(before).stdout, render(after).stdout)
        self.assertEqual(deployments(before), deployments(after))

    def test_the_alerts_watch_the_job_that_prometheus_gives(self):
        with open(os.path.join(ROOT, "deploy/prometheus/nestrec.rules.yml")) as file:
            jobs = set(re.findall(r'job="([^"]*)"', file.read()))
        self.assertEqual(len(jobs), 1, "the rules name jobs that one scrape cannot have")
        for values in ({}, {"nameOverride": "shop-recommender"}):
            monitor = next(each for each in objects(dict(values, serviceMonitor={"enabled": True})) if each["kind"] == "ServiceMonitor")
            for endpoint in monitor["spec"]["endpoints"]:
                # What the operator sets `job` to, the name of the Service, gives way to a relabeling without a source.
                given = {each["replacement"] for each in endpoint.get("relabelings", [])
                         if each["targetLabel"] == "job" and not each.get("sourceLabels")}
                self.assertEqual(given, jobs)
        with open(os.path.join(ROOT, "docker/prometheus/prometheus.yml")) as file:
            self.assertEqual({each["job_name"] for each in yaml.safe_load(file)["scrape_configs"]}, jobs)

    def test_the_monitor_finds_one_service_of_each_tier(self):
        everything = objects({"serviceMonitor": {"enabled": True}})
        spec = next(each for each in everything if each["kind"] == "ServiceMonitor")["spec"]
        found = [each for each in everything if each["kind"] == "Service" and
                 spec["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()]
        self.assertEqual(sorted(each["metadata"]["labels"]["nestrec/tier"] for each in found), ["bronze", "gold"])
        for service in found:
            self.assertIn(spec["endpoints"][0]["port"], [port["name"] for port in service["spec"]["ports"]])

    def test_replicas_are_as_many_as_asked_for(self):
        for replicas, expected in ((0, 0), (1, 1), (7, 7)):
            tier = {"name": "a", "maxDim": 64, "replicas": replicas}
            self.assertEqual(deployments({"tiers": [tier]})["a"]["spec"]["replicas"], expected)
        self.assertEqual(deployments({"tiers": [{"name": "a", "maxDim": 64}]})["a"]["spec"]["replicas"], 1)

    def test_another_tier_config_replaces_that_tiers_pods_alone(self):
        one = {"tiers": [{"name": "a", "maxDim": 64}, {"name": "b", "maxDim": 128}]}
        two = {"tiers": [{"name": "a", "maxDim": 64}, {"name": "b", "maxDim": 128, "maxK": 10}]}
        self.assertEqual(deployments(one)["a"], deployments(two)["a"])
        self.assertNotEqual(deployments(one)["b"], deployments(two)["b"])

    def test_pods_are_restricted(self):
        for name, values in VALUE_SETS.items():
            for deployment in deployments(values).values():
                pod = deployment["spec"]["template"]["spec"]
                with self.subTest(name):
                    self.assertIs(pod["automountServiceAccountToken"], False)
                    self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
                    self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
                    for container in pod["containers"] + pod.get("initContainers", []):
                        security = container["securityContext"]
                        self.assertIs(security["readOnlyRootFilesystem"], True)
                        self.assertIs(security["allowPrivilegeEscalation"], False)
                        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                        self.assertIn("memory", container["resources"]["limits"])

    def test_a_pod_has_time_to_drain(self):
        pod = deployments({"drain": {"preStopSeconds": 7, "graceSeconds": 33}})["gold"]["spec"]["template"]["spec"]
        self.assertIn("--grace=33s", server_of({"spec": {"template": {"spec": pod}}})["args"])
        self.assertGreater(pod["terminationGracePeriodSeconds"], 7 + 33)

    def test_every_mounted_volume_exists_and_every_volume_is_mounted(self):
        for name, values in VALUE_SETS.items():
            for deployment in deployments(values).values():
                pod = deployment["spec"]["template"]["spec"]
                containers = pod["containers"] + pod.get("initContainers", [])
                mounted = {mount["name"] for each in containers for mount in each["volumeMounts"]}
                with self.subTest(name):
                    self.assertEqual(mounted, {each["name"] for each in pod["volumes"]})

    def test_services_and_budgets_select_their_tiers_pods(self):
        everything = objects({})
        for deployment in deployments({}).values():
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            tier = labels["nestrec/tier"]
            for kind, count in (("Service", 2), ("PodDisruptionBudget", 1)):
                selecting = [each for each in everything if each["kind"] == kind and each["metadata"]["labels"]["nestrec/tier"] == tier]
                self.assertEqual(len(selecting), count)
                for each in selecting:
                    selector = each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
                    self.assertTrue(selector.items() <= labels.items())


    def test_the_manifests_for_kustomize_are_the_charts_own(self):
        rendered = subprocess.run([HELM, "template", "nestrec", CHART, "--kube-version", "1.33.0"],
                                  capture_output=True, text=True, check=True).stdout
        with open(os.path.join(ROOT, "deploy/kustomize/base/nestrec.yaml")) as file:
            self.assertEqual(file.read(), rendered, "renew it with the command in deploy/kustomize/base/kustomization.yaml")


class Fetch(unittest.TestCase):
    """files/fetch.sh, with a curl that copies files: what the list says ends up in the folder, whole, or not at all."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for name in ("bin", "models", "web"):
            os.mkdir(self.path(name))
        with open(self.path("bin/curl"), "w") as file:
            file.write('#!/bin/sh\nfor each; do last=$each; [ "$before" = --output ] && out=$each; before=$each; done\n'
                       f'cp "{self.path("web")}/${{last##*/}}" "$out"\n')
        os.chmod(self.path("bin/curl"), 0o755)
        self.write("labels", "")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)

    def publish(self, name, text):
        self.write(f"web/{name}", text)
        digest = subprocess.run(["sha256sum", self.path(f"web/{name}")], capture_output=True, text=True, check=True).stdout.split()[0]
        return f"{name} https://a/{name} {digest}\n"

    def run_once(self, listed, **settings):
        self.write("versions", listed)
        environment = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"], LABELS=self.path("labels"),
                           MODELS=self.path("models"), POLL_SECONDS="1", **{"LIST": self.path("versions"), **settings})
        return subprocess.run(["sh", os.path.join(CHART, "files/fetch.sh"), "once"], env=environment, capture_output=True, text=True)

    def models(self):
        return sorted(each for each in os.listdir(self.path("models")) if not each.startswith("."))

    def test_brings_what_is_listed_and_removes_what_is_not(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.assertEqual(self.run_once(one).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors"])
        self.assertEqual(self.run_once(one + two).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors", "two.safetensors"])
        self.assertEqual(self.run_once(two).returncode, 0)
        self.assertEqual(self.models(), ["two.safetensors"])

    def test_refuses_another_content_than_listed(self):
        line = self.publish("one", "1")
        self.write("web/one", "tampered with")
        result = self.run_once(line)
        self.assertEqual(result.returncode, 1)
        self.assertIn("one is refused: its SHA-256 is", result.stderr)
        self.assertEqual(self.models(), [])

    def test_keeps_what_serves_while_the_new_one_cannot_be_fetched(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.run_once(one)
        os.remove(self.path("web/two"))
        self.assertEqual(self.run_once(two).returncode, 1)
        self.assertEqual(self.models(), ["one.safetensors"])

    def test_without_a_list_it_fails_and_removes_nothing(self):
        one = self.publish("one", "1")
        self.write("labels", 'stable: "one"\n')
        self.run_once(one)
        for what, listed, settings, message in (
                ("missing", one, {"LIST": self.path("none")}, "cannot be read"),
                ("not set", one, {"LIST": ""}, "the list '' cannot be read"),
                ("a folder", one, {"LIST": self.path("models")}, "cannot be read"),
                ("empty", "", {}, "is empty"),
                ("blank", "\n  \n", {}, "is empty"),
                ("cut short", one[:-10], {}, "is not 'name url sha256'"),
                ("without a checksum", "two https://a/two\n", {}, "is not 'name url sha256'"),
                ("with too much", one.strip() + " and more\n", {}, "is not 'name url sha256'")):
            with self.subTest(what):
                result = self.run_once(listed, **settings)
                self.assertEqual(result.returncode, 1)
                self.assertIn(message, result.stderr)
                self.assertIn("nothing is fetched or removed", result.stderr)
                self.assertEqual(self.models(), ["labels.textproto", "one.safetensors"])

    def test_reads_a_last_line_without_an_end(self):
        one, two = self.publish("one", "1"), self.publish("two", "2")
        self.assertEqual(self.run_once(one + two.rstrip("\n")).returncode, 0)
        self.assertEqual(self.models(), ["one.safetensors", "two.safetensors"])

    def test_another_checksum_under_an_old_name_is_fetched_anew(self):
        one = self.publish("one", "1")
        self.run_once(one)
        self.assertNotIn("fetching", self.run_once(one).stderr)
        self.assertEqual(self.run_once(self.publish("one", "another")).returncode, 0)
        with open(self.path("models/one.safetensors")) as file:
            self.assertEqual(file.read(), "another")
        # The same of a file that lies there from elsewhere, without a note of its checksum.
        os.remove(self.path("models/.one.sha256"))
        self.assertEqual(self.run_once(one).returncode, 1, "the web has another content than the list says")
        with open(self.path("models/one.safetensors")) as file:
            self.assertEqual(file.read(), "another")

    def test_puts_labels_there_and_takes_them_away(self):
        one = self.publish("one", "1")
        self.write("labels", 'stable: "one"\n')
        self.run_once(one)
        self.assertEqual(self.models(), ["labels.textproto", "one.safetensors"])
        self.write("labels", "")
        self.run_once(one)
        self.assertEqual(self.models(), ["one.safetensors"])


if __name__ == "__main__":
    if not HELM:
        print("skipped: helm is not there; go install helm.sh/helm/v3/cmd/helm@v3.18.4")
        sys.exit(SKIP)
    unittest.main()
