//! Links the program to its fixed address, without what an operating system's programs have.

fn main() {
    println!("cargo:rerun-if-changed=image.ld");
    if std::env::var_os("CARGO_FEATURE_IMAGE").is_none() {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("-Wl,-T,{folder}/image.ld");
    for argument in ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none", &script] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
