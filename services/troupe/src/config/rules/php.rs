//! Pools of PHP processes.

use troupe_node::config::Problem;
use troupe_php_pool::config::PhpPoolConfig;

use super::{bare_or_quoted, check_name, not_zero};

pub(super) fn check(name: &str, pool: &PhpPoolConfig, problems: &mut Vec<Problem>) {
    let section = format!("php.{}", bare_or_quoted(name));
    let key = |key: &str| format!("{section}.{key}");
    check_name(&section, name, "a pool", problems);
    if pool.root.as_os_str().is_empty() {
        problems.push(Problem::new(key("root"), format!("`{section}.root` is empty")));
    }
    if pool.binary.is_empty() {
        problems.push(Problem::new(key("binary"), format!("`{section}.binary` is empty")));
    }
    let processes = pool.processes;
    if processes.min > processes.max {
        let message = format!("min {} is more than max {}", processes.min, processes.max);
        problems.push(Problem::new(key("processes.min"), format!("`{section}.processes`: {message}")));
    }
    if pool.memory_soft > pool.memory_hard {
        let message = format!("memory_soft {} is more than memory_hard {}", pool.memory_soft, pool.memory_hard);
        problems.push(Problem::new(key("memory_soft"), format!("`{section}`: {message}")));
    }
    for (name, value) in
        [("timeout", pool.timeout), ("boot_timeout", pool.boot_timeout), ("idle_timeout", pool.idle_timeout)]
    {
        not_zero(&key(name), value, problems);
    }
    for (setting, instead) in pool.ini.keys().filter_map(|setting| Some((setting, instead_of(setting)?))) {
        let message =
            format!("`{section}.ini` has {setting}, which would have no effect or keep the pool from serving");
        let instead = instead.replace("php.NAME", &section);
        problems.push(Problem::new(key(&format!("ini.{}", bare_or_quoted(setting))), message).help(instead));
    }
}

/// What to do instead of a setting that is the runtime's own.
fn instead_of(setting: &str) -> Option<&'static str> {
    Some(match setting {
        "memory_limit" => "set `php.NAME.memory_limit`",
        "max_execution_time" => "set `php.NAME.timeout`",
        "session.auto_start" => "call session_start() in the function: the code is loaded once for all clients",
        "output_buffering" | "output_handler" | "implicit_flush" | "zlib.output_compression" => {
            "leave it out: php-pool collects what functions print, and sends it when they end or call flush()"
        }
        "register_argc_argv" | "auto_globals_jit" => "leave it out: the runtime fills the superglobals itself",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use troupe_php_pool::config::IniValue;

    use super::*;

    #[test]
    fn settings_that_are_the_runtimes_own_are_refused_with_what_to_do_instead() {
        let refused = |setting: &str| {
            let mut pool = PhpPoolConfig::default();
            pool.ini.insert(setting.to_owned(), IniValue::Flag(true));
            let mut problems = Vec::new();
            check("default", &pool, &mut problems);
            problems.pop().map(|problem| format!("{problem:?}"))
        };
        let said = refused("memory_limit").unwrap();
        assert!(said.contains("php.default.ini.memory_limit") && said.contains("`php.default.memory_limit`"), "{said}");
        let said = refused("session.auto_start").unwrap();
        assert!(
            said.contains("php.default.ini.\\\"session.auto_start\\\"") && said.contains("session_start()"),
            "{said}"
        );
        assert_eq!(refused("session.save_path"), None);
    }
}
