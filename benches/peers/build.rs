//! Compiles the contenders in C and C++ whose headers are installed; the others are left out.

fn main() {
    native("libevent", "libevent.c", &["event_core"]);
    native("libuv", "libuv.c", &["uv"]);
    native("asio", "asio.cpp", &[]);
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
