//! Tells the harness which compiler built it, from which commit: results print both.

use std::path::Path;
use std::process::Command;

#[path = "src/built_from.rs"]
mod built_from;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    if let Ok(output) = Command::new(rustc).arg("--version").output() {
        let version = String::from_utf8_lossy(&output.stdout);
        println!("cargo::rustc-env=RINGPOST_BENCH_RUSTC={}", version.trim());
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let origin = built_from::Origin::of(Path::new(&folder), "git");
    for path in &origin.watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    if let Some(commit) = origin.commit {
        println!("cargo::rustc-env=RINGPOST_BENCH_COMMIT={commit}");
    }
}
