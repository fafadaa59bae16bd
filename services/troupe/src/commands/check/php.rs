//! Is PHP there, and is it one that serves well?

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;

use super::Finding;
use crate::config::Config;
use crate::failure::{Code, CommandError};

/// How long PHP may take to say what it is; a cold disk takes one second.
const PATIENCE: Duration = Duration::from_secs(15);

/// The version everything is tested with.
const TESTED: &str = "8.2.";

/// What PHP is asked; one line of JSON.
const QUESTION: &str = "echo json_encode(['version' => PHP_VERSION, 'binary' => PHP_BINARY, 'extensions' => array_map('strtolower', \
     array_merge(get_loaded_extensions(), get_loaded_extensions(true)))]);";

#[derive(Debug, Deserialize)]
struct Php {
    version: String,
    binary: String,
    extensions: Vec<String>,
}

pub(super) fn check(config: &Config) -> Result<Vec<Finding>, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("cannot start a runtime: {error}")))?;
    let binaries: BTreeSet<&str> = config.php.values().map(|pool| pool.binary.as_str()).collect();
    Ok(binaries.into_iter().flat_map(|binary| judge(runtime.block_on(ask(binary)))).collect())
}

async fn ask(binary: &str) -> Result<Php, String> {
    let answer = tokio::process::Command::new(binary)
        .args(["-d", "display_errors=stderr", "-r", QUESTION])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, answer).await;
    let output = output.map_err(|_| format!("`{binary}` did not answer within {} s", PATIENCE.as_secs()))?;
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("`{binary}` is not found"),
        _ => format!("`{binary}` does not start: {error}"),
    })?;
    // Start-up notices may stand before it.
    let said = String::from_utf8_lossy(&output.stdout);
    let json = said.find('{').and_then(|start| said.get(start..)).unwrap_or("");
    serde_json::from_str(json).map_err(|_| format!("`{binary}` is no PHP command line: {}", output.status))
}

fn judge(answer: Result<Php, String>) -> Vec<Finding> {
    let php = match answer {
        Ok(php) => php,
        Err(said) => {
            let help = "install it (`apt-get install php-cli`), or name another with php.<pool>.binary";
            return vec![Finding::fail("php", Code::Unavailable, said, help)];
        }
    };
    let said = format!("{} at {}", php.version, php.binary);
    let mut findings = Vec::new();
    if php.version.starts_with(TESTED) {
        findings.push(Finding::ok("php", said));
    } else {
        findings.push(Finding::warn("php", said, format!("tested with {TESTED}x; others run, and may differ")));
    }
    for (needed, without) in [
        (&["pcntl", "posix"][..], "processes are exec'ed one by one instead of forked: slower to start, more memory"),
        (&["zend opcache"][..], "every process compiles the code for itself: slower to start, more memory"),
    ] {
        for name in needed.iter().filter(|name| !php.extensions.iter().any(|has| has == *name)) {
            findings.push(Finding::warn("php extension", format!("{name} is missing"), without));
        }
    }
    if findings.len() == 1 {
        findings.push(Finding::ok("php extension", "pcntl, posix, opcache"));
    }
    findings
}
