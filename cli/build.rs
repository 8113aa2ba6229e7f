//! The program is linked to a fixed address, so that it starts without relocating itself (docs/adr/0009), and begins where
//! the runtime wants it to (runtime/core/src/sys/entry.rs).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-static");
        println!("cargo:rustc-link-arg-bins=-no-pie");
        if target("ARCH") == "x86_64" {
            println!("cargo:rustc-link-arg-bins=-Wl,-e,trimtab_entry");
        }
    }
}
