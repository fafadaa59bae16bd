//! What the tests of this binary share: where things are, and each stack they run against.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use troupe_testkit::stack::Stack;

/// The binary under test; another one, where `TROUPE_BINARY` names it: one with optimisation, to measure with.
pub(crate) fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        std::env::var_os("TROUPE_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_troupe")), PathBuf::from)
    });
    &BINARY
}

/// The functions the tests call.
pub(crate) fn functions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/functions")
}

/// Runs `check` against one process and against three.
pub(crate) fn in_both(config: &str, check: impl Fn(&mut Stack)) {
    check(&mut Stack::one_process(binary(), &functions(), config));
    check(&mut Stack::apart(binary(), &functions(), config));
}

/// Runs `check` against every wiring: inline, mailbox and loopback in one process, and TCP between three.
pub(crate) fn in_all(check: impl Fn(&mut Stack)) {
    in_all_with("", check);
}

/// The same, with a configuration.
pub(crate) fn in_all_with(config: &str, check: impl Fn(&mut Stack)) {
    for wiring in ["inline", "mailbox", "loopback"] {
        let config = format!("mesh.wiring = \"{wiring}\"\n{config}");
        check(&mut Stack::one_process(binary(), &functions(), &config));
    }
    check(&mut Stack::apart(binary(), &functions(), config));
}
