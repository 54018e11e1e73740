//! The programs bring their own `_start` and no libc.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Few pages for each of many processes: `.got` and `.bss` in one segment (nothing here would make the first
    // read-only after start anyway).
    for argument in ["-nostartfiles", "-nostdlib", "-Wl,-z,norelro", "-Wl,--build-id=none"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
