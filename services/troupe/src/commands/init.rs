//! `troupe init DIR`: a configuration and a first function.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::config::document;
use crate::failure::CommandError;
use crate::output;

/// The first function.
const HELLO: &str = include_str!("../../templates/functions/hello.php");

pub(super) fn run(directory: &Path) -> Result<(), CommandError> {
    let files = [("troupe.toml", document::toml()), ("functions/hello.php", HELLO.to_owned())];
    // All or nothing: what is there is looked for before anything is written.
    for (name, _) in &files {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(CommandError::failed(format!("{} exists and is not overwritten", path.display())));
        }
    }
    let functions = directory.join("functions");
    fs::create_dir_all(&functions)
        .map_err(|error| CommandError::failed(format!("cannot make {}: {error}", functions.display())))?;
    for (name, text) in &files {
        let path = directory.join(name);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| CommandError::failed(format!("cannot write {}: {error}", path.display())))?;
        output::data(&format!("{}\n", path.display()))?;
    }
    let config = directory.join("troupe.toml");
    output::say(&format!(
        "\nstart it with:  troupe run --config {}\nthen ask it:    curl 'http://127.0.0.1:8080/api/hello?name=you'\n",
        config.display()
    ));
    Ok(())
}
