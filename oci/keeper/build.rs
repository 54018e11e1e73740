//! The programs bring their own `_start` and no libc.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Headers and code in one segment: fewer pages for each of many processes.
    for argument in ["-nostartfiles", "-nostdlib", "-Wl,-z,noseparate-code", "-Wl,--build-id=none"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
