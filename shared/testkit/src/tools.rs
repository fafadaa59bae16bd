//! Programs that some tests need beside Troupe: a browser, a terminal, checkers.
//!
//! A test whose tool is missing fails and says which package has it, so that nothing passes that was not looked at. Who
//! cannot install a tool names it in [`WITHOUT`]; its tests then say that they were left out.

use std::env;
use std::path::{Path, PathBuf};

/// The environment variable with the tools whose tests are left out, apart by commas. Not `TROUPE_*`, which is configuration.
pub const WITHOUT: &str = "TESTS_WITHOUT";

/// A program, and how it comes to a Debian machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// What it is called in [`WITHOUT`].
    pub name: &'static str,
    /// What must be found in `PATH`; nothing where it is no program.
    pub programs: &'static [&'static str],
    /// How to get it.
    pub get: &'static str,
}

/// A terminal under remote control.
pub const TMUX: Tool = Tool { name: "tmux", programs: &["tmux"], get: "apt-get install tmux" };
/// A browser under remote control.
pub const CHROMIUM: Tool =
    Tool { name: "chromium", programs: &["chromedriver", "chromium"], get: "apt-get install chromium chromium-driver" };
/// Prometheus's checker.
pub const PROMTOOL: Tool = Tool { name: "promtool", programs: &["promtool"], get: "apt-get install prometheus" };

/// What counts instructions.
pub const VALGRIND: Tool = Tool { name: "valgrind", programs: &["valgrind"], get: "apt-get install valgrind" };
/// The checker of accessibility that runs in the browser.
pub const AXE: Tool = Tool { name: "axe", programs: &[], get: "scripts/axe.sh, which needs npm" };

/// Whether a test that needs `tool` can run; false where it is missing and [`WITHOUT`] allows that, which is said.
///
/// # Panics
///
/// When it is missing and nobody allowed that.
#[must_use]
pub fn there(tool: &Tool) -> bool {
    let missing = tool.programs.iter().find(|program| find(program).is_none());
    if let Some(missing) = missing {
        leave_out(tool, missing);
    }
    missing.is_none()
}

/// Says that what needs a tool is left out for want of `missing`.
///
/// # Panics
///
/// When [`WITHOUT`] does not name it.
#[expect(clippy::print_stdout, reason = "a test that does nothing says why")]
pub fn leave_out(tool: &Tool, missing: &str) {
    let without = env::var(WITHOUT).unwrap_or_default();
    let Tool { name, get, .. } = tool;
    assert!(
        allows(&without, name),
        "{missing} is not there, which this test needs: {get}, or scripts/test.sh, which gets all that tests need; \
         {WITHOUT}={name} leaves the tests out that need it"
    );
    println!("left out: {missing} is not there, and {WITHOUT} allows that");
}

fn allows(without: &str, name: &str) -> bool {
    without.split(',').any(|allowed| allowed.trim() == name)
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|place| Path::is_file(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Tool =
        Tool { name: "nothing", programs: &["sh", "no-such-program"], get: "apt-get install nothing" };

    #[test]
    #[should_panic(expected = "no-such-program is not there, which this test needs: apt-get install nothing")]
    fn a_tool_that_is_missing_is_a_failure_with_the_way_to_get_it() {
        let _ = there(&NOTHING);
    }

    #[test]
    fn what_is_there_is_found_and_only_what_is_named_is_left_out() {
        assert!(there(&Tool { programs: &["sh"], ..NOTHING }));
        assert!(allows("tmux, chromium", "chromium") && allows("tmux", "tmux"));
        assert!(!allows("", "tmux") && !allows("tmux2", "tmux") && !allows("*", "tmux"));
    }
}
