#!/usr/bin/env python3
"""Prometheus' own tool on the rules as they are shipped, as the chart renders them, on the adapter's rule of docs/kubernetes.md, and on the
board's expressions.

    monitoring_test.py
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RULES = os.path.join(ROOT, "deploy/prometheus/nestrec.rules.yml")
SKIP = 77

try:
    import yaml
except ImportError:
    print("skipped: Python's yaml is missing; apt-get install python3-yaml")
    sys.exit(SKIP)

HELM = shutil.which("helm") or shutil.which("helm", path=os.path.expanduser("~/go/bin"))


def text(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


def expressions(board):
    """(panel's title, expression) of all panels, those in rows too."""
    for panel in board["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
        yield from expressions({"panels": panel.get("panels", [])})


class Monitoring(unittest.TestCase):
    def promtool(self, *arguments, **files):
        """Runs it in a folder with these files, which are written as JSON, and so as YAML."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                with open(os.path.join(folder, name), "w") as file:
                    json.dump(content, file)
            return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)

    def test_the_rules_are_rules(self):
        result = self.promtool("check", "rules", RULES)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        alerts = len(re.findall("- alert:", text("deploy/prometheus/nestrec.rules.yml")))
        self.assertIn(f"SUCCESS: {alerts} rules found", result.stdout)

    def check_board(self, board):
        """promtool's verdict on the board's expressions, as rules that record them, with a value for each variable."""
        values = {variable["name"]: "value" for variable in board["templating"]["list"]}
        values.update(__rate_interval="5m", __interval="1m", __range="1h")

        def filled(text):
            return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: values.get(found[1] or found[2], found[0]), text)
        rules = [{"record": f"panel:expression{number}", "expr": filled(expression)} for number, (_, expression) in enumerate(expressions(board))]
        result = self.promtool("check", "rules", "board.yml", **{"board.yml": {"groups": [{"name": "board", "rules": rules}]}})
        return len(rules), result.returncode, result.stdout + result.stderr

    def test_the_boards_expressions_are_promql(self):
        count, code, said = self.check_board(json.loads(text("deploy/grafana/nestrec.json")))
        self.assertEqual(code, 0, said)
        self.assertGreater(count, 30)
        self.assertIn(f"SUCCESS: {count} rules found", said)

    def test_an_expression_of_the_board_that_is_broken_is_found(self):
        for broken in ("sum(rate(nestrec_served_total[5m])", 'nestrec_ready{job="$job",}}', "rate(nestrec_served_total)", "nestrec_ready{job=$job}",
                       "rate(nestrec_served_total[$unknown])"):
            board = json.loads(text("deploy/grafana/nestrec.json"))
            panel = next(each for each in reversed(board["panels"]) if each.get("targets"))
            panel["targets"][-1]["expr"] = broken
            with self.subTest(broken):
                _, code, said = self.check_board(board)
                self.assertNotEqual(code, 0, said)
                self.assertIn("could not parse expression", said)

    def rendered(self, **settings):
        if not HELM:
            print("skipped: the rules as the chart renders them: helm is not there; go install helm.sh/helm/v3/cmd/helm@v3.18.4")
            self.skipTest("helm is not there")
        flags = [f"--set=prometheusRule.{key}={value}" for key, value in settings.items()]
        result = subprocess.run([HELM, "template", "shop", os.path.join(ROOT, "deploy/helm/nestrec"), "--kube-version", "1.33.0",
                                 "--set=prometheusRule.enabled=true", *flags], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        return next(each["spec"] for each in yaml.safe_load_all(result.stdout) if each and each["kind"] == "PrometheusRule")

    def test_the_chart_renders_the_same_rules(self):
        spec = self.rendered()
        self.assertEqual(spec, yaml.safe_load(text("deploy/prometheus/nestrec.rules.yml")))
        result = self.promtool("check", "rules", "rules.yml", **{"rules.yml": spec})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_the_chart_links_to_where_the_page_is_read(self):
        base = "https://git.example.com/shop/nestrec/blob/main/docs/operations.md"
        rules = self.rendered(runbookBase=base)["groups"][0]["rules"]
        self.assertGreater(len(rules), 10)
        for rule in rules:
            self.assertEqual(rule["annotations"]["runbook_url"], f"{base}#{rule['alert'].lower()}")

    def test_the_adapters_metric_is_the_mean_wait_and_0_for_pods_without_calls(self):
        block = next(each for each in re.findall(r"```yaml\n(.*?)```", text("docs/kubernetes.md"), re.S) if "metricsQuery" in each)
        query = yaml.safe_load(block)["rules"][0]["metricsQuery"]
        query = query.replace("<<.LabelMatchers>>", 'namespace="shop",pod=~"busy|idle|new"').replace("<<.GroupBy>>", "pod")

        def series(name, pod, values, **labels):
            labels = dict(labels, namespace="shop", pod=pod)
            return {"series": name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}", "values": values}
        # busy: two tiers, 2 and 6 ms, as many calls of each; idle had calls; new never had one, and so no histogram.
        inputs = [series("nestrec_ready", pod, "1x20") for pod in ("busy", "idle", "new", "other")]
        for pod, per_minute in (("busy", 60), ("idle", 0), ("other", 60)):
            for tier, seconds in (("gold", 0.002), ("bronze", 0.006)):
                inputs += [series("nestrec_queue_seconds_count", pod, f"7+{per_minute}x20", tier=tier),
                           series("nestrec_queue_seconds_sum", pod, f"1+{per_minute * seconds:g}x20", tier=tier)]
        tests = {"evaluation_interval": "15s", "tests": [{
            "interval": "15s", "input_series": inputs,
            "promql_expr_test": [{"expr": f"round({query}, 0.0001)", "eval_time": "5m", "exp_samples": [
                {"labels": '{pod="busy"}', "value": 0.004}, {"labels": '{pod="idle"}', "value": 0}, {"labels": '{pod="new"}', "value": 0}]}]}]}
        result = self.promtool("test", "rules", "tests.yml", **{"tests.yml": tests})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    if not shutil.which("promtool"):
        print("skipped: promtool is not there (apt-get install prometheus)")
        sys.exit(SKIP)
    unittest.main()
