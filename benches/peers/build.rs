//! Compiles the contenders in C and C++ whose headers are installed, and the one in Go if that is;
//! the others are left out.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    native("libevent", "libevent.c", &["event_core"]);
    native("libuv", "libuv.c", &["uv"]);
    native("asio", "asio.cpp", &[]);
    go();
}

fn native(name: &str, file: &str, libraries: &[&str]) {
    let path = format!("native/{file}");
    println!("cargo::rerun-if-changed={path}");
    println!("cargo::rustc-check-cfg=cfg(has_{name})");
    let mut build = cc::Build::new();
    build.file(&path).opt_level(3).warnings(true).cargo_warnings(false).cpp(file.ends_with("cpp"));
    build.flag_if_supported(if file.ends_with("cpp") { "-std=c++17" } else { "-std=gnu11" });
    match build.try_compile(&format!("peer_{name}")) {
        Ok(()) => {
            println!("cargo::rustc-cfg=has_{name}");
            for library in libraries {
                println!("cargo::rustc-link-lib={library}");
            }
        }
        Err(error) => {
            println!("cargo::warning={name} is left out: {path} does not compile: {error}")
        }
    }
}

/// A program of its own, whose path is passed on to the crate.
fn go() {
    let file = "native/go.go";
    println!("cargo::rerun-if-changed={file}");
    println!("cargo::rustc-check-cfg=cfg(has_go)");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let program = PathBuf::from(out).join("peer_go");
    match Command::new("go").args(["build", "-o"]).arg(&program).arg(file).output() {
        Ok(output) if output.status.success() => {
            println!("cargo::rustc-cfg=has_go");
            println!("cargo::rustc-env=PEER_GO={}", program.display());
        }
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            let why = why.lines().last().unwrap_or_default();
            println!("cargo::warning=go is left out: {file} does not compile: {why}");
        }
        Err(error) => println!("cargo::warning=go is left out: {error}"),
    }
}
