//! Instructions that an example of a crate takes, counted by callgrind: they repeat where times do not.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{self, VALGRIND};

/// An example that was built beside the running test, which callgrind can run.
#[derive(Debug)]
pub struct Example(PathBuf);

impl Example {
    /// The example of this name. `None` where valgrind is missing, and that is allowed (see [`tools`]).
    ///
    /// # Panics
    ///
    /// When it was not built: examples are built with all of a package's tests, but not with one alone.
    pub fn find(name: &str) -> Option<Self> {
        if !tools::there(&VALGRIND) {
            return None;
        }
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
        let example = profile.join("examples").join(name);
        assert!(example.exists(), "{} is not there: cargo build --example {name}", example.display());
        Some(Self(example))
    }

    /// Instructions of one round of what the example does when it is run with the arguments that `arguments` makes of a number
    /// of rounds: the difference between `few` and `many`, so that starting cancels out.
    pub fn per_round(&self, (few, many): (u64, u64), arguments: impl Fn(u64) -> Vec<String>) -> u64 {
        (self.count(&arguments(many)) - self.count(&arguments(few))) / (many - few)
    }

    fn count(&self, arguments: &[String]) -> u64 {
        let callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
        let output = Command::new("valgrind").args(callgrind).arg(&self.0).args(arguments).output();
        let output = output.expect("valgrind runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
        collected.expect("callgrind says what it collected").trim().parse().expect("a number")
    }
}
