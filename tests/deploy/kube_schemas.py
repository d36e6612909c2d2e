#!/usr/bin/env python3
"""Writes JSON schemas that kubeconform -strict reads, from sources that the Go module cache brings: Kubernetes' own OpenAPI
file and the CRDs of the Gateway API and the Prometheus Operator. So the chart is checked without a network.

    kube_schemas.py OUT swagger.json crd.yaml...
    kube_schemas.py OUT              from what `go mod download` has brought into the module cache:

        go mod download k8s.io/kubernetes@v1.33.4 sigs.k8s.io/gateway-api@v1.3.0 \\
          github.com/prometheus-operator/prometheus-operator@v0.83.0

An object's schema becomes OUT/<kind>-<group>-<version>.json, kubeconform's default naming for -schema-location
'OUT/{{.ResourceKind}}{{.KindSuffix}}.json'. Keys that an object does not have are refused (additionalProperties).
"""
import glob
import json
import os
import re
import subprocess
import sys

import yaml

# In the Go module cache: the module, and its files.
SOURCES = (
    ("k8s.io/kubernetes", ["api/openapi-spec/swagger.json"]),
    ("sigs.k8s.io/gateway-api", ["config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml"]),
    ("github.com/prometheus-operator/prometheus-operator", [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml" for kind in ("servicemonitors", "prometheusrules")]),
)


def from_module_cache():
    """The newest of each source there; what is missing as a message instead."""
    cache = os.environ.get("GOMODCACHE", "")
    if not cache:
        try:
            cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True).stdout.strip()
        except FileNotFoundError:
            cache = ""
        cache = cache or os.path.expanduser("~/go/pkg/mod")
    paths = []
    for module, files in SOURCES:
        releases = sorted(glob.glob(os.path.join(cache, module + "@v*")), key=lambda each: [int(n) for n in re.findall(r"\d+", each.rsplit("@")[-1])])
        whole = [each for each in releases if all(os.path.exists(os.path.join(each, file)) for file in files)]
        if not whole:
            return [], f"{module} is not in {cache}; the head of tests/deploy/kube_schemas.py has the go command"
        paths += [os.path.join(whole[-1], file) for file in files]
    return paths, ""


def strict(node):
    """References resolved by the caller; here: every object with properties refuses other keys."""
    if isinstance(node, list):
        return [strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    out = {key: strict(value) for key, value in node.items() if key != "description"}
    if out.get("x-kubernetes-int-or-string") or out.get("format") == "int-or-string":
        out.pop("type", None)
        out.pop("format", None)
        out["type"] = ["string", "integer"]
    if isinstance(out.get("properties"), dict) and "additionalProperties" not in out:
        if not out.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    return out


def resolve(node, definitions, path=()):
    if isinstance(node, list):
        return [resolve(each, definitions, path) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].split("/")[-1]
        if name in path:  # JSONSchemaProps of CRDs contains itself
            return {"type": "object"}
        if name.endswith("api.resource.Quantity"):
            return {"type": ["string", "number"]}
        return resolve(definitions[name], definitions, path + (name,))
    return {key: resolve(value, definitions, path) for key, value in node.items()}


def write(folder, kind, group, version, schema):
    suffix = f"-{group.split('.')[0]}-{version}" if group else f"-{version}"
    properties = schema.setdefault("properties", {})
    properties["apiVersion"] = {"type": "string"}
    properties["kind"] = {"type": "string"}
    properties.setdefault("metadata", {"type": "object"})
    with open(os.path.join(folder, f"{kind.lower()}{suffix}.json"), "w") as file:
        json.dump(schema, file)


def main():
    folder, *sources = sys.argv[1:]
    if not sources:
        sources, missing = from_module_cache()
        if missing:
            print(missing, file=sys.stderr)
            sys.exit(77)
    swagger, *crds = sources
    os.makedirs(folder, exist_ok=True)
    wanted = {"Deployment", "Service", "ServiceAccount", "ConfigMap", "HorizontalPodAutoscaler", "PodDisruptionBudget",
              "NetworkPolicy", "Namespace", "Pod", "PersistentVolume", "PersistentVolumeClaim", "Secret"}
    with open(swagger) as file:
        definitions = json.load(file)["definitions"]
    for definition in definitions.values():
        for gvk in definition.get("x-kubernetes-group-version-kind", []):
            if gvk["kind"] in wanted:
                write(folder, gvk["kind"], gvk["group"], gvk["version"], strict(resolve(definition, definitions)))
    for path in crds:
        with open(path) as file:
            for crd in yaml.safe_load_all(file):
                spec = crd["spec"]
                for version in spec["versions"]:
                    write(folder, spec["names"]["kind"], spec["group"], version["name"],
                          strict(version["schema"]["openAPIV3Schema"]))


main()
