//! Relative relocations packed: a static program at an address of its own has 70,000 of them, and each process reads
//! them all when it starts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
