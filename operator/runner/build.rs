//! Makes the delivered binaries small: a Swarm config holds less than 1,024,000 bytes.

fn main() {
    println!("cargo::rerun-if-changed=no-unwind.ld");
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("musl") {
        return;
    }
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let arguments =
        [&format!("-Wl,-T,{dir}/no-unwind.ld"), "-Wl,--no-eh-frame-hdr", "-Wl,-z,pack-relative-relocs"];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
