#!/usr/bin/env python3
"""Writes JSON schemas that kubeconform -strict reads, from sources that the Go module cache brings: Kubernetes' own OpenAPI
file and the CRDs of the Gateway API and the Prometheus Operator. So the chart is checked without a network.

    kube_schemas.py OUT swagger.json crd.yaml...

An object's schema becomes OUT/<kind>-<group>-<version>.json, kubeconform's default naming for -schema-location
'OUT/{{.ResourceKind}}{{.KindSuffix}}.json'. Keys that an object does not have are refused (additionalProperties).
"""
import json
import os
import sys

import yaml


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
    folder, swagger, *crds = sys.argv[1:]
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
