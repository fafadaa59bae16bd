//! Lists the PHP runtime's files, so that a file added to `runtime/` cannot be forgotten in the binary.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let runtime = Path::new(&root).join("runtime");
    let mut names = Vec::new();
    for entry in fs::read_dir(&runtime)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "php") {
            names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    let mut list = String::from("&[\n");
    for name in names {
        let path = format!("/runtime/{name}");
        // Not by its path of now: a checkout may be moved together with what was built in it.
        writeln!(list, "    ({name:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),")
            .map_err(io::Error::other)?;
    }
    list.push(']');
    fs::write(Path::new(&out).join("runtime_files.rs"), list)?;
    // A file that comes or goes changes the directory.
    println!("cargo::rerun-if-changed=runtime");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
