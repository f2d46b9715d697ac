//! AVX-512 intrinsics are stable since Rust 1.89; an older compiler builds the other kernel sets.

use std::process::Command;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(isobit_avx512)");
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let minor = version
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .and_then(|text| text.split('.').nth(1)?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= 89) {
        println!("cargo:rustc-cfg=isobit_avx512");
    }
}
