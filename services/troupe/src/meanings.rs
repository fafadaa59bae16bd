//! What all metrics mean: the crates' own words, for scrapes and for `docs/metrics.md`.

/// Describes what every crate counts, whatever runs in this process.
pub(crate) fn describe() {
    troupe_node::metrics::describe();
    troupe_mesh::describe();
    troupe_gateway::describe();
    troupe_balancer::describe();
    troupe_php_pool::describe();
    troupe_cache::service::describe();
    troupe_metrics::describe();
}

#[cfg(test)]
mod queries;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use troupe_node::metrics::{Description, Kind, SECONDS, SIZES, described};

    use super::*;

    /// The subjects of the page, by how names begin.
    const SUBJECTS: [(&str, &str); 9] = [
        ("troupe_gateway_", "The gateway: requests, connections, errors"),
        ("troupe_balancer_", "The balancer: calls, the queue, workers"),
        ("troupe_php_", "php-pool: calls, processes, uploads"),
        ("troupe_cache_", "The cache service"),
        ("troupe_mesh_", "Links between the services"),
        ("troupe_discovery_", "Discovery"),
        ("troupe_actor_", "Actors"),
        ("troupe_node_", "The process"),
        ("troupe_metrics_", "The metrics service"),
    ];

    /// The page's beginning; the tables follow from the code.
    const BEGINNING: &str = include_str!("meanings/beginning.md");

    fn page() -> String {
        let mut all = described(describe);
        let mut page = BEGINNING.to_owned();
        let bounds = |bounds: &[f64]| bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
        page.push_str(&format!("\nBuckets in seconds: {}. In bytes: {}.\n", bounds(&SECONDS), bounds(&SIZES)));
        for (beginning, title) in SUBJECTS {
            let (own, rest): (BTreeMap<String, Description>, _) =
                all.into_iter().partition(|(name, _)| name.starts_with(beginning));
            all = rest;
            table(&mut page, title, &own);
        }
        table(&mut page, "The build", &all);
        page
    }

    fn table(page: &mut String, title: &str, families: &BTreeMap<String, Description>) {
        page.push_str(&format!("\n## {title}\n\n| name | kind | meaning |\n|---|---|---|\n"));
        for (name, description) in families {
            page.push_str(&format!("| `{name}` | {} | {} |\n", description.kind.as_str(), description.meaning));
        }
    }

    #[test]
    fn the_documents_name_every_metric() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == page(), "docs/metrics.md is not what the code says; UPDATE=1 cargo test -p troupe writes it");
    }

    #[test]
    fn names_tell_their_kind_and_unit() {
        for (name, Description { kind, meaning, .. }) in described(describe) {
            assert!(name.starts_with("troupe_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            if kind == Kind::Histogram {
                assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}");
            }
            assert!(meaning.ends_with('.') && !meaning.contains(['|', '\n']), "{name}: {meaning}");
        }
    }
}
