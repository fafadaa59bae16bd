use proptest::prelude::*;

use super::*;

fn route(path: &str) -> RouteConfig {
    RouteConfig { path: path.to_owned(), function: Some("f".to_owned()), ..RouteConfig::default() }
}

fn functions(path: &str) -> RouteConfig {
    RouteConfig { path: path.to_owned(), functions: Some("default".to_owned()), ..RouteConfig::default() }
}

fn methods(mut config: RouteConfig, methods: &[&str]) -> RouteConfig {
    config.methods = methods.iter().map(|method| (*method).to_owned()).collect();
    config
}

fn host(mut config: RouteConfig, host: &str) -> RouteConfig {
    config.host = Some(host.to_owned());
    config
}

fn winner(table: &RouteTable, authority: &str, method: &str, path: &str) -> Option<usize> {
    match table.find(authority, method, path) {
        Found::Route(matched) => Some(matched.index),
        _ => None,
    }
}

#[test]
fn the_most_specific_route_wins() {
    let configs = [
        route("/{rest*}"),
        route("/a/{x}"),
        route("/a/b"),
        route("/{x}/b"),
        route("/a/{rest*}"),
        host(route("/{rest*}"), "App.example"),
        methods(route("/a/b"), &["POST"]),
    ];
    let table = RouteTable::build(&configs, OwnPages { health: true, dashboard: true }).unwrap();
    for (authority, method, path, expected) in [
        ("x", "GET", "/", 0),
        ("x", "GET", "/a/b", 2),
        ("x", "POST", "/a/b", 6),
        ("x", "GET", "/a/c", 1),
        ("x", "GET", "/a/c/d", 4),
        ("x", "GET", "/a/", 4),
        ("x", "GET", "/c/b", 3),
        ("x", "GET", "/c/d", 0),
        ("app.example:8080", "GET", "/a/b", 5),
        ("APP.EXAMPLE", "POST", "/a/b", 5),
    ] {
        assert_eq!(winner(&table, authority, method, path), Some(expected), "{authority} {method} {path}");
    }
}

#[test]
fn functions_are_named_by_the_path_and_path_info_is_the_rest() {
    let configs = [functions("/api/{function*}"), functions("/one/{function}/{rest*}"), route("/app/{rest*}")];
    let table = RouteTable::build(&configs, OwnPages { health: true, dashboard: true }).unwrap();
    let found = |path| match table.find("", "GET", path) {
        Found::Route(matched) => Some((matched.function, path.get(matched.path_info..).unwrap())),
        _ => None,
    };
    assert_eq!(found("/api/a/b"), Some((Some("a/b"), "")));
    assert_eq!(found("/api/"), None);
    assert_eq!(found("/one/f/x/y"), Some((Some("f"), "/x/y")));
    assert_eq!(found("/one/f/"), Some((Some("f"), "/")));
    assert_eq!(found("/app/x"), Some((None, "/x")));
    assert_eq!(found("/app/"), Some((None, "/")));
}

#[test]
fn other_methods_are_listed() {
    let table = RouteTable::build(
        &[methods(route("/a"), &["GET", "POST"]), methods(route("/b"), &["PUT"])],
        OwnPages { health: true, dashboard: true },
    )
    .unwrap();
    let allow = |method, path| match table.find("", method, path) {
        Found::OtherMethods(allow) => allow,
        other => panic!("{other:?}"),
    };
    assert_eq!(allow("DELETE", "/a"), "GET, HEAD, OPTIONS, POST");
    assert_eq!(allow("GET", "/b"), "OPTIONS, PUT");
    assert_eq!(winner(&table, "", "HEAD", "/a"), Some(0));
    assert!(matches!(table.find("", "GET", "/c"), Found::Nothing));
}

#[test]
fn problems_name_their_route() {
    let problems = |configs: &[RouteConfig]| {
        check(configs, OwnPages { health: true, dashboard: true })
            .into_iter()
            .map(|problem| (problem.route, problem.key))
            .collect::<Vec<_>>()
    };
    assert_eq!(problems(&[route("/a"), route("/a")]), [(1, "path")]);
    assert_eq!(problems(&[route("/{x}"), route("/{y}")]), [(1, "path")]);
    assert_eq!(problems(&[methods(route("/a"), &["GET"]), route("/a")]), []);
    assert_eq!(problems(&[methods(route("/a"), &["GET"]), methods(route("/a"), &["GET", "PUT"])]), [(1, "path")]);
    assert_eq!(problems(&[functions("/a")]), [(0, "path")]);
    for own in ["/health", "/dashboard", "/dashboard/events"] {
        assert_eq!(problems(&[route(own)]), [(0, "path")], "{own}");
    }
    assert_eq!(problems(&[methods(route("/a"), &["get"])]), [(0, "methods")]);
    assert_eq!(problems(&[host(route("/a"), "a:80")]), [(0, "host")]);
    assert_eq!(problems(&[route("/"), route("/{x}"), route("/{x}/{rest*}"), route("/{rest*}")]), [(3, "path")]);
    assert_eq!(
        problems(&[RouteConfig { path: "/x".into(), ..RouteConfig::default() }, route("b")]),
        [(0, "path"), (1, "path")]
    );
}

#[test]
fn the_landing_page_gives_way_to_a_route() {
    assert!(
        !RouteTable::build(&[RouteConfig::serve_functions()], OwnPages { health: true, dashboard: true })
            .unwrap()
            .claims_root()
    );
    assert!(RouteTable::build(&[route("/{rest*}")], OwnPages { health: true, dashboard: true }).unwrap().claims_root());
    assert!(
        !RouteTable::build(&[host(route("/"), "a")], OwnPages { health: true, dashboard: true }).unwrap().claims_root()
    );
}

/// The definition, word for word: all patterns that match, the best rank of them.
fn naive(patterns: &[Pattern], path: &str) -> Option<usize> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let matches = |pattern: &Pattern| {
        for (index, segment) in pattern.segments.iter().enumerate() {
            match (segment, parts.get(index)) {
                (pattern::Segment::Rest(_), Some(_)) => return true,
                (pattern::Segment::Literal(text), Some(part)) if text == part => {}
                (pattern::Segment::Name(_), Some(part)) if !part.is_empty() => {}
                _ => return false,
            }
        }
        parts.len() == pattern.segments.len()
    };
    (0..patterns.len()).filter(|&index| matches(&patterns[index])).max_by_key(|&index| patterns[index].rank())
}

proptest! {
    #[test]
    fn the_trees_agree_with_the_definition(
        paths in proptest::collection::hash_set("(/(a|b|ab|\\{x\\})){0,3}(/|/a|/\\{y\\}|/\\{rest\\*\\})", 1..12),
        asked in proptest::collection::vec("(/(a|b|c|ab)){0,4}(/|/a|/c)", 1..20),
    ) {
        let configs: Vec<RouteConfig> = paths.iter().map(|path| route(path)).collect();
        if let Ok(table) = RouteTable::build(&configs, OwnPages { health: true, dashboard: true }) {
            let patterns: Vec<Pattern> = configs.iter().map(|config| Pattern::parse(&config.path).unwrap()).collect();
            for path in &asked {
                prop_assert_eq!(winner(&table, "", "GET", path), naive(&patterns, path), "{} in {:?}", path, &paths);
            }
        }
    }
}
