#!/usr/bin/env python3
"""The Helm chart: lints, renders for many settings into objects that Kubernetes' own schemas accept, refuses bad values (chart_values.py) with
a message that names them, asks for the memory that the formula says.

    chart_test.py [-k PATTERN]      helm is needed

Kubernetes' schemas are made from the Go module cache by kube_schemas.py, whose head says how to fill it, or are in the folder
NESTREC_KUBE_SCHEMAS. Without them, or without kubeconform, that comparison is skipped with a line that says so.
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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chart_values import REFUSED, RELEASES_REFUSED, VALUE_SETS  # noqa: E402


def tool(name):
    return shutil.which(name) or shutil.which(name, path=os.path.expanduser("~/go/bin"))


HELM = tool("helm")
KUBECONFORM = tool("kubeconform")
SCHEMAS = os.environ.get("NESTREC_KUBE_SCHEMAS", "")


def render(values, release="shop"):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return subprocess.run([HELM, "template", release, CHART, "--namespace", "shop", "--kube-version", "1.33.0", "-f", file.name],
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

    def test_every_value_set_renders(self):
        for name, values in VALUE_SETS.items():
            with self.subTest(name):
                result = render(values)
                self.assertEqual(result.returncode, 0, result.stderr)

    def skip_schemas(self, why):
        print(f"skipped: the comparison with Kubernetes' schemas: {why}")
        self.skipTest(why)

    def test_kubernetes_schemas_accept_every_value_set(self):
        if not KUBECONFORM:
            self.skip_schemas("kubeconform is not there; go install github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0")
        schemas = SCHEMAS
        if not schemas:
            schemas = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, schemas)
            made = subprocess.run([sys.executable, os.path.join(ROOT, "tests/deploy/kube_schemas.py"), schemas], capture_output=True, text=True)
            if made.returncode == SKIP:
                self.skip_schemas(made.stderr.strip())
            self.assertEqual(made.returncode, 0, made.stderr)

        def check(text):
            return subprocess.run([KUBECONFORM, "-strict", "-summary", "-schema-location",
                                   os.path.join(schemas, "{{.ResourceKind}}{{.KindSuffix}}.json"), "-"],
                                  input=text, capture_output=True, text=True)
        for name, values in VALUE_SETS.items():
            with self.subTest(name):
                result = check(render(values).stdout)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        # It can fail: a key that no Deployment has.
        self.assertNotEqual(check(render({}).stdout.replace("revisionHistoryLimit:", "revisionHistoryLimits:")).returncode, 0)

    def test_refuses_bad_values_and_names_them(self):
        for name, values, message in REFUSED:
            with self.subTest(name):
                result = render(values)
                self.assertNotEqual(result.returncode, 0, "was accepted")
                self.assertIn(message, result.stderr)

    def test_refuses_names_that_services_cannot_have(self):
        for name in RELEASES_REFUSED:
            with self.subTest(name):
                result = render({}, name)
                self.assertNotEqual(result.returncode, 0, "was accepted")
                self.assertIn(f'release name "{name}": its Services would be called {name}-nestrec-', result.stderr)
                self.assertEqual(render({"fullnameOverride": "shop"}, name).returncode, 0)

    def test_a_value_that_is_taken_away_is_missed_by_its_name(self):
        with open(os.path.join(CHART, "values.yaml")) as file:
            defaults = yaml.safe_load(file)

        def paths(values, above=()):
            for key, value in values.items():
                yield above + (key,)
                if isinstance(value, dict):
                    yield from paths(value, above + (key,))
        for path in paths(defaults):
            values = None
            for key in reversed(path):
                values = {key: values}
            with self.subTest(".".join(path)):
                result = render(values)
                if result.returncode:
                    self.assertIn(f"{path[-1]} is required", result.stderr)

    def test_takes_the_limits_themselves(self):
        for values in (
                {"server": {"batchDelay": "1s", "overloadTarget": "100us"}, "sessions": {"timeout": "60s", "ttl": "87600h"}},
                {"server": {"batchDelay": "999.5ms", "overloadTarget": "59m60s"}, "sessions": {"timeout": "1ms"}},
                {"sessions": {"store": "redis://shop@redis.shop.svc:65535/15", "events": 50}},
                {"sessions": {"store": "redis://[::1]:6380", "events": 20}, "model": {"maxLen": 20}},
                {"tiers": [{"name": "gold-pods", "maxDim": 64}, {"name": "models", "maxDim": 64}]},
                {"model": {"storage": "98Mi"}},
                {"model": {"source": "image", "image": {"repository": "a/b", "tag": "v1_2.3-x"}, "storage": "934Mi"}},
                {"model": {"pvc": {"subPath": "shop/..v2/.x"}}, "podLabels": {"example.com/team": "", "a": "B_c.d-9"}},
                {"grpcRoute": {"hostnames": ["*.example.com", "localhost"]}},
                {"server": {"extraArgs": ["--own-cores", "--max-k=50", "--quality-share=0.1", "--request-log=/tmp/a b"]}},
                {"tiers": [{"name": "a", "maxDim": 64, "resources": {"requests": {"memory": "1Gi", "cpu": 2}, "limits": {"memory": "1024Mi", "cpu": "2000m"}}}]},
                {"tiers": [{"name": "a", "maxDim": 64, "index": "nested", "indexParameters": "recall=0.99"},
                           {"name": "b", "maxDim": 64, "index": "IVF256_HNSW32,PQ16,RFlat", "indexParameters": "nprobe=8,quantizer_efSearch=64,ht=30,k_factor_rf=2"},
                           {"name": "c", "maxDim": 64, "index": "OPQ16_64,IVF256,PQ16x4fs", "indexParameters": "nprobe=8"}]},
                {"tiers": [{"name": "a", "maxDim": 64, "index": index, "resources": {"limits": {"memory": "1.5Gi", "cpu": 2}}}
                           for index in ("OPQ16_64,IVF1024_HNSW32,PQ16x4fs,RFlat",)]}):
            with self.subTest(values):
                result = render(values)
                self.assertEqual(result.returncode, 0, result.stderr)
        # What docs, tests and benches of this project name.
        for index in ("Flat", "nested", "HNSW32", "IVF256,Flat", "IVF256,SQ8", "SQ8", "SQfp16", "PQ64x12", "IVF4096(IVF64,HNSW32),PQ32", "NSG32", "LSH"):
            with self.subTest(index):
                result = render({"tiers": [{"name": "a", "maxDim": 64, "index": index}]})
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_no_extra_flag_repeats_one_that_is_set(self):
        flags = {argument.split("=")[0] for values in VALUE_SETS.values() for deployment in deployments(values).values()
                 for argument in server_of(deployment)["args"][1:]} - {"--max-k"}
        self.assertIn("--token-file", flags)
        for flag in sorted(flags):
            with self.subTest(flag):
                self.assertIn("is a flag that the chart sets; use ", render({"server": {"extraArgs": [f"{flag}=1"]}}).stderr)

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
                (100_000_000, 1, 256, "Flat", 64, 64), (3_000_000, 4, 0, "nested", 1024, 1024),
                (100_000_000, 1, 0, "IVF65536,PQ32x4fs", 64, 64), (2_000_000, 1, 0, "SQ8", 16, 256), (100_000, 1, 0, "IVF4096,SQ4", 8, 32),
                (3000, 1, 0, "SQfp16", 8, 8), (1_000_000, 1, 0, "IVF1024,SQfp16", 64, 256), (1_000_000, 1, 0, "PQ16", 64, 64),
                (1_000_000, 1, 0, "PQ16x12", 64, 64), (1_000_000, 1, 0, "PQ32x4fs", 64, 128), (1_000_000, 1, 0, "OPQ16,PQ16", 64, 64),
                (1_000_000, 1, 0, "IVF1024,Flat", 64, 64)]:
            with self.subTest(items=items, index=index, dim=dim):
                values = {"model": {"items": items, "blocks": blocks, "fieldBytes": 333, "storage": "1Ti"},
                          "sessions": {"store": "redis://r:6379/0" if states else "none", "stateMiB": states},
                          "tiers": [{"name": "a", "minDim": least, "maxDim": dim, "index": index}]}
                resources = server_of(deployments(values)["a"])["resources"]
                model = formula.model_bytes(items, dim, sizes, blocks, 333, index, least)
                expected = f"{formula.request_mib(model, states_mib=states, building=formula.building_mib(items, dim, sizes, index, least))}Mi"
                self.assertEqual(resources["requests"]["memory"], expected)
                self.assertEqual(resources["limits"]["memory"], expected)

    def test_the_cost_model_plans_with_the_formula(self):
        with open(os.path.join(ROOT, "docs/scaling.md")) as page:
            section = page.read().split("## A cost model", 1)[1].split("\n## ", 1)[0]
        first, rows = [], 0
        for row in re.findall(r"^\|.*MiB.*\|$", section, re.M):
            what, model, building, request = row.strip("|").split("|")
            flags = re.findall(r"`([^`]*)`", what)[0].split()
            if "--index" in flags:
                first = flags
            else:  # as the row before that has all flags, but for this one
                at = first.index(flags[0])
                flags = first[:at] + flags + first[at + 2:]
            printed = subprocess.run([sys.executable, os.path.join(ROOT, "tools/serving_memory.py"), "--items", "100000000", *flags],
                                     capture_output=True, text=True).stdout
            with self.subTest(flags=flags):
                self.assertEqual(re.findall(r"(\d+) MiB", printed), [each.split()[0].replace(",", "") for each in (model, building, request)])
                self.assertEqual(round(int(re.findall(r"(\d+) MiB", printed)[2]) / 1024), int(request.split()[2]))
            rows += 1
        self.assertEqual(rows, 6)

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

    def test_probes_ask_the_health_listener(self):
        container = server_of(deployments({"probes": {"startupSeconds": 601, "periodSeconds": 7}})["gold"])
        self.assertIn("--health-listen=0.0.0.0:50053", container["args"])
        self.assertIn({"name": "health", "containerPort": 50053}, container["ports"])
        # 86 x 7 s is the first that is no less than 601 s. Unready at once, dead later: a reload may hold the process up.
        for probe, failures in (("startupProbe", 86), ("readinessProbe", 2), ("livenessProbe", 6)):
            with self.subTest(probe):
                self.assertEqual(container[probe], {"grpc": {"port": 50053}, "periodSeconds": 7, "timeoutSeconds": 3, "failureThreshold": failures})

    def test_a_tiers_pods_are_spread_over_zones_and_nodes(self):
        for values, unsatisfiable in (({}, "ScheduleAnyway"), ({"topologySpread": {"whenUnsatisfiable": "DoNotSchedule"}}, "DoNotSchedule")):
            for tier, deployment in deployments(values).items():
                spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
                self.assertEqual([each["topologyKey"] for each in spread], ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])
                for each in spread:
                    self.assertEqual((each["maxSkew"], each["whenUnsatisfiable"]), (1, unsatisfiable))
                    self.assertEqual(each["labelSelector"]["matchLabels"], deployment["spec"]["selector"]["matchLabels"])
        self.assertNotIn("topologySpreadConstraints", deployments({"topologySpread": {"enabled": False}})["gold"]["spec"]["template"]["spec"])

    def policy(self, values):
        return next(each["spec"] for each in objects(values) if each["kind"] == "NetworkPolicy")

    def test_the_network_policy_opens_each_port_to_whom_it_is_for(self):
        shop = {"podSelector": {"matchLabels": {"app": "shop"}}}
        for values, clients, monitoring in (
                ({}, [{"podSelector": {}}], [{"namespaceSelector": {}}]),
                ({"networkPolicy": {"clients": [shop], "monitoring": [shop]}}, [shop], [shop])):
            policy = self.policy(values)
            self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
            self.assertEqual(policy["ingress"], [
                {"ports": [{"protocol": "TCP", "port": "grpc"}], "from": clients},
                {"ports": [{"protocol": "TCP", "port": "http"}], "from": monitoring},
                {"ports": [{"protocol": "TCP", "port": "health"}]}])
            labels = deployments(values)["gold"]["spec"]["template"]["metadata"]["labels"]
            self.assertTrue(policy["podSelector"]["matchLabels"].items() <= labels.items())
            self.assertNotIn("egress", policy, "pods that need nothing from outside get nothing")

    def test_the_network_policy_lets_out_what_is_needed(self):
        name_service = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
        extra = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
        for values, ports in (
                ({"sessions": {"store": "redis://redis.shop.svc/0"}}, [6379]),
                ({"sessions": {"store": "redis://redis.shop.svc:6380/0"}}, [6380]),
                (VALUE_SETS["models by HTTPS"], [8443, 443])):
            policy = self.policy(dict(values, networkPolicy={"extraEgress": [extra]}))
            self.assertEqual(policy["egress"], [{"ports": name_service}, {"ports": [{"protocol": "TCP", "port": port} for port in ports]}, extra])

    def test_an_autoscaler_has_its_tiers_metrics_and_limits(self):
        scalers = {each["metadata"]["labels"]["nestrec/tier"]: each["spec"] for each in objects(VALUE_SETS["autoscaling by CPU and queue"])
                   if each["kind"] == "HorizontalPodAutoscaler"}
        cpu = {"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "nestrec", "target": {"type": "Utilization", "averageUtilization": 60}}}
        queue = {"type": "Pods", "pods": {"metric": {"name": "nestrec_queue_seconds_mean"},
                                          "target": {"type": "AverageValue", "averageValue": "2m"}}}
        self.assertEqual(scalers["bronze"]["metrics"], [cpu, queue])
        self.assertEqual(scalers["gold"]["metrics"], [queue])
        self.assertEqual((scalers["bronze"]["minReplicas"], scalers["bronze"]["maxReplicas"]), (2, 10))
        self.assertEqual((scalers["gold"]["minReplicas"], scalers["gold"]["maxReplicas"]), (2, 40))
        for tier, deployment in deployments(VALUE_SETS["autoscaling by CPU and queue"]).items():
            self.assertEqual(scalers[tier]["scaleTargetRef"]["name"], deployment["metadata"]["name"])
            self.assertNotIn("replicas", deployment["spec"], "it is the autoscaler's")

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

    def test_models_are_copied_out_of_an_image_and_not_over_it(self):
        for path in ("/models", "/srv/shop/v1"):
            values = {"model": {"source": "image", "image": {"repository": "registry.example.com/shop-model", "path": path}}}
            pod = deployments(values)["gold"]["spec"]["template"]["spec"]
            copier, = pod["initContainers"]
            mount, = copier["volumeMounts"]
            self.assertEqual(mount["name"], "models")
            self.assertFalse((path + "/").startswith(mount["mountPath"] + "/"), "the volume hides the image's folder")
            self.assertEqual(copier["command"], ["sh", "-c", f"cp {path}/*.safetensors {mount['mountPath']}/"])
            self.assertIn({"name": "models", "mountPath": "/models", "readOnly": True}, pod["containers"][0]["volumeMounts"])

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

    @unittest.skipIf(not shutil.which("kubectl"), "kubectl is not there; apt-get install kubernetes-client")
    def test_the_example_for_kustomize_changes_what_it_says_and_nothing_else(self):
        def built(folder):
            text = subprocess.run(["kubectl", "kustomize", os.path.join(ROOT, "deploy/kustomize", folder)], capture_output=True, text=True, check=True).stdout
            return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text) if each}
        base, example = built("base"), built("example")
        self.assertEqual(base.keys(), example.keys())
        for (kind, name), each in base.items():
            each["metadata"]["namespace"] = "shop"
            if kind == "Deployment":
                if name == "nestrec-gold":
                    each["spec"]["replicas"] = 4
                pod = each["spec"]["template"]["spec"]
                models, = (volume for volume in pod["volumes"] if volume["name"] == "models")
                models["persistentVolumeClaim"]["claimName"] = "shop-models"
                server = server_of(each)
                server["image"] = server["image"].replace("nestrec/serve", "registry.example.com/nestrec/serve")
            for subject in each.get("subjects", []):
                subject["namespace"] = "shop"
            with self.subTest(kind=kind, name=name):
                self.assertEqual(example[kind, name], each)


if __name__ == "__main__":
    if not HELM:
        print("skipped: helm is not there; go install helm.sh/helm/v3/cmd/helm@v3.18.4")
        sys.exit(SKIP)
    unittest.main()
