//! The configuration as a whole: its documents, its variables, its slips.

mod documents;
mod paths;
mod reports;
mod slips;

use serde_json::Value;
use troupe_node::config::{of_type, schema_of};

use super::Config;

/// Every key but those of `[[route]]` and `[upstream.NAME]`, of which there is none by default, down to the last level, with its default.
fn leaves() -> Vec<(Vec<String>, Value)> {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut found = Vec::new();
    collect(&schema_of::<Config>(), &defaults, &mut Vec::new(), &mut found);
    found
}

fn collect(schema: &Value, value: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
    let table = of_type(schema, "object").filter(|table| {
        table.get("properties").is_some() || value.as_object().is_some_and(|entries| !entries.is_empty())
    });
    let Some(table) = table else {
        found.push((path.clone(), value.clone()));
        return;
    };
    for (key, value) in value.as_object().unwrap() {
        if key != "route" && key != "upstream" {
            path.push(key.clone());
            collect(table["properties"].get(key).unwrap_or(&table["additionalProperties"]), value, path, found);
            path.pop();
        }
    }
}

#[test]
fn no_php_is_wanted_where_every_route_leads_elsewhere() {
    let pools = |text: &[&str]| {
        let set = text.iter().map(|text| (*text).to_owned()).collect();
        let sources = troupe_node::config::Sources { set, directory: "/nowhere".into(), ..Default::default() };
        super::load(&sources).unwrap().config.php.into_keys().collect::<Vec<_>>()
    };
    let app = "upstream.app.servers=[\"127.0.0.1:8000\"]";
    let route = "route=[{ path = \"/{rest*}\", upstream = \"app\" }]";
    assert_eq!(pools(&[app]), ["default"]);
    assert_eq!(pools(&[app, route]), [""; 0]);
    assert_eq!(pools(&[app, route, "php.default.root=here"]), ["default"]);
    let both = "route=[{ path = \"/{rest*}\", upstream = \"app\" }, { path = \"/f\", function = \"f\" }]";
    assert_eq!(pools(&[app, both]), ["default"]);
}

/// Keys of the documents that were unknown to whoever reads a file.
#[test]
fn lifetimes_are_set_by_status() {
    let loaded = |table: &str| {
        let route = format!(
            "route=[{{ path = \"/{{function*}}\", functions = \"default\", cache = {{ status_ttl = {table} }} }}]"
        );
        let sources =
            troupe_node::config::Sources { set: vec![route], directory: "/nowhere".into(), ..Default::default() };
        super::load(&sources).map(|loaded| serde_json::to_value(&loaded.config.routes[0].cache).unwrap())
    };
    let table = loaded("{ \"404\" = \"10s\", \"5xx\" = \"1s\" }").unwrap();
    assert_eq!(table["status_ttl"], serde_json::json!({ "404": "10s", "5xx": "1s" }));
    let report = loaded("{ \"6xx\" = \"1s\" }").unwrap_err().render(false);
    assert!(report.contains("\"6xx\" names no status"), "{report}");
}
