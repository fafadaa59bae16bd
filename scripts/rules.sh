#!/usr/bin/env bash
# Checks what comes along for Prometheus and Grafana with Prometheus's own promtool: the rules' syntax, each alert's two
# cases, and the syntax of every query of the Grafana dashboards. Exit codes: 0 good, 1 something to fix, 69 promtool is
# missing and cannot be installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

need_promtool

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

promtool check rules docker/prometheus/recording.yml docker/prometheus/alerts.yml
promtool test rules docker/prometheus/tests/*.yml
# A query is a rule to promtool; Grafana's own variables stand for a time.
python3 - docker/grafana/dashboards/*.json >"$scratch/queries.yml" <<'PYTHON'
import json, sys

def queries(value):
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        value = list(value.values())
    for item in value if isinstance(value, list) else []:
        yield from queries(item)

print("groups:\n  - name: dashboards\n    rules:")
for board in sys.argv[1:]:
    for number, query in enumerate(queries(json.load(open(board)))):
        print(f"      - record: query:{number}\n        expr: {json.dumps(query.replace('$__rate_interval', '5m'))}")
PYTHON
promtool check rules "$scratch/queries.yml"
